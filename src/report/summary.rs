//! What is said at the end of a training run.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::format::{duration, grouped, percent, rate};
use super::metrics::{EvaluationRecord, Record, StepRecord};

/// The share of a run's last steps whose training loss and error are averaged.
const LAST_SHARE: usize = 20;

/// The facts of a run that has ended; shown as text by its `Display`.
#[derive(Clone, Debug, Default)]
pub struct Summary<'a> {
    /// What was trained on what, where: "quickstart on the built-in data, two columns on 2 CPU
    /// devices".
    pub what: String,
    /// Why it ended early, if it did: "stopped by SIGINT".
    pub ended: Option<String>,
    /// Time of this process from the first step to the last, evaluations included.
    pub time: Duration,
    /// Updates done, and the passes over the training set they come to: more than the records
    /// tell where a run was stopped between two of them.
    pub steps: u64,
    pub epochs: f64,
    /// Images in a step.
    pub batch: usize,
    /// Classes of the data; the chance levels follow from them.
    pub classes: usize,
    /// The run's records, oldest first.
    pub records: &'a [Record],
    /// The run's folder, and the files in it, each with what it holds.
    pub folder: PathBuf,
    pub files: Vec<(String, String)>,
    /// Commands to try next, each with what it does.
    pub next: Vec<(String, String)>,
}

impl Summary<'_> {
    fn logged(&self) -> impl Iterator<Item = &StepRecord> {
        self.records.iter().filter_map(|record| match record {
            Record::Step(record) => Some(record),
            Record::Evaluation(_) => None,
        })
    }

    fn evaluations(&self) -> impl Iterator<Item = &EvaluationRecord> {
        self.records.iter().filter_map(|record| match record {
            Record::Evaluation(record) => Some(record),
            Record::Step(_) => None,
        })
    }

    /// Error of guessing when `guesses` classes may be named.
    fn chance(&self, guesses: usize) -> String {
        let error = 1.0 - guesses.min(self.classes) as f64 / self.classes.max(1) as f64;
        format!("{} by chance", percent(error, 1))
    }

    fn length(&self) -> String {
        let (epochs, batch) = (self.epochs, self.batch);
        let steps = match self.steps {
            1 => "1 step".into(),
            steps => format!("{} steps", grouped(steps)),
        };
        format!("{steps} of {batch} images, {epochs:.2} epochs")
    }

    fn speed(&self) -> String {
        let rates: Vec<f64> = self
            .logged()
            .map(|record| record.images_per_second)
            .collect();
        let waits: Vec<f64> = self.logged().map(|record| record.data_wait).collect();
        let wait = waits.iter().sum::<f64>() / waits.len().max(1) as f64;
        format!(
            "{} images/s (median), {} of the time waiting for data",
            rate(median(rates)),
            percent(wait, 1)
        )
    }

    fn training(&self) -> Option<String> {
        let steps: Vec<&StepRecord> = self.logged().collect();
        let (before, last) = steps.split_at(steps.len() - steps.len().div_ceil(LAST_SHARE));
        last.first()?;
        let count = last.len() as f64;
        let loss = last.iter().map(|record| record.loss).sum::<f64>() / count;
        let error = last.iter().map(|record| record.top1_error).sum::<f64>() / count;
        // A record is of the steps since the one before.
        let start = before.last().map_or(0, |record| record.step);
        Some(format!(
            "loss {loss:.3}, top-1 error {} (mean since step {})",
            percent(error, 2),
            grouped(start)
        ))
    }

    fn validation(&self, record: &EvaluationRecord) -> Vec<(&'static str, String)> {
        let top1 = percent(record.val_top1_error, 2);
        let top5 = percent(record.val_top5_error, 2);
        let mut lines = vec![(
            "validation",
            format!("top-1 error {top1} ({})", self.chance(1)),
        )];
        // With five classes or fewer the top-5 error is 0 by definition.
        if self.classes > 5 {
            lines.push(("", format!("top-5 error {top5} ({})", self.chance(5))));
        }
        let uniform = (self.classes.max(1) as f64).ln();
        lines.push((
            "",
            format!("loss {:.3} ({uniform:.3} by chance)", record.val_loss),
        ));
        lines
    }

    /// The evaluation with the lowest top-1 error, where that is not the last one.
    fn best(&self) -> Option<String> {
        let last = self.evaluations().last()?;
        let lower = |a: &&EvaluationRecord, b: &&EvaluationRecord| {
            a.val_top1_error.total_cmp(&b.val_top1_error)
        };
        let best = self.evaluations().min_by(lower)?;
        (best.val_top1_error < last.val_top1_error).then(|| {
            let error = percent(best.val_top1_error, 2);
            format!("top-1 error {error} at step {}", grouped(best.step))
        })
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("length", self.length()), ("time", duration(self.time))];
        if self.logged().next().is_some() {
            facts.push(("speed", self.speed()));
        }
        facts.extend(self.training().map(|text| ("training", text)));
        if let Some(last) = self.evaluations().last() {
            facts.extend(self.validation(last));
        }
        facts.extend(self.best().map(|text| ("best", text)));
        facts
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ended {
            None => write!(f, "Trained {}", self.what)?,
            Some(reason) => write!(f, "Trained {}, {reason}", self.what)?,
        }
        for (name, text) in self.facts() {
            write!(f, "\n  {name:<11} {text}")?;
        }
        if !self.files.is_empty() {
            write!(f, "\n\nIn {}:", self.folder.display())?;
            pairs(f, &self.files)?;
        }
        if !self.next.is_empty() {
            write!(f, "\n\nNext:")?;
            pairs(f, &self.next)?;
        }
        Ok(())
    }
}

/// Lines of two columns. A long first column puts the second on a line of its own.
fn pairs(f: &mut fmt::Formatter<'_>, pairs: &[(String, String)]) -> fmt::Result {
    const WIDEST: usize = 40;
    let width = |text: &str| text.chars().count();
    let widths = pairs.iter().map(|pair| width(&pair.0));
    let column = widths.filter(|&width| width <= WIDEST).max().unwrap_or(0);
    for (left, right) in pairs {
        if width(left) <= WIDEST {
            write!(f, "\n  {left:<column$}  {right}")?;
        } else {
            write!(f, "\n  {left}\n  {:<column$}  {right}", "")?;
        }
    }
    Ok(())
}

/// The middle value; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count.is_multiple_of(2) => (values[half - 1] + values[half]) / 2.0,
        _ => values[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, images_per_second: f64) -> Record {
        Record::Step(StepRecord {
            step,
            epoch: step as f64 / 40.0,
            loss: 0.5,
            top1_error: 0.25,
            images_per_second,
            data_wait: 0.02,
            ..Default::default()
        })
    }

    fn evaluation(step: u64, error: f64) -> Record {
        Record::Evaluation(EvaluationRecord {
            step,
            epoch: step as f64 / 40.0,
            val_top1_error: error,
            val_top5_error: error / 10.0,
            val_loss: 0.25,
            ..Default::default()
        })
    }

    #[test]
    fn a_summary_tells_results_beside_chance_and_what_to_do_next() {
        let pair = |left: &str, right: &str| (left.to_string(), right.to_string());
        let summary = Summary {
            what: "quickstart on the built-in data, two columns on 2 CPU devices".into(),
            ended: None,
            time: Duration::from_secs(125),
            steps: 3,
            epochs: 3.0 / 40.0,
            batch: 128,
            classes: 10,
            records: &[
                step(1, 10.0),
                step(2, 300.0),
                step(3, 310.0),
                evaluation(3, 0.0812),
            ],
            folder: "runs/a".into(),
            files: vec![
                pair("metrics.jsonl", "every number shown above"),
                pair("curves.png", "learning curves"),
            ],
            next: vec![
                pair("alexnet-mp draw runs/a", "the pictures again"),
                pair(
                    "alexnet-mp evaluate --weights runs/a --data photos --views 10",
                    "ten views per image",
                ),
            ],
        };
        let expected = "\
Trained quickstart on the built-in data, two columns on 2 CPU devices
  length      3 steps of 128 images, 0.07 epochs
  time        2 min 05 s
  speed       300 images/s (median), 2.0 % of the time waiting for data
  training    loss 0.500, top-1 error 25.00 % (mean since step 2)
  validation  top-1 error 8.12 % (90.0 % by chance)
              top-5 error 0.81 % (50.0 % by chance)
              loss 0.250 (2.303 by chance)

In runs/a:
  metrics.jsonl  every number shown above
  curves.png     learning curves

Next:
  alexnet-mp draw runs/a  the pictures again
  alexnet-mp evaluate --weights runs/a --data photos --views 10
                          ten views per image";
        assert_eq!(summary.to_string(), expected);
    }

    #[test]
    fn an_earlier_better_evaluation_is_named() {
        let records = [evaluation(10, 0.1), evaluation(20, 0.2)];
        let summary = Summary {
            classes: 4,
            records: &records,
            ..Default::default()
        };
        let text = summary.to_string();
        assert!(
            text.ends_with("best        top-1 error 10.00 % at step 10"),
            "{text}"
        );
        assert!(!text.contains("top-5"), "{text}");
    }

    #[test]
    fn a_run_stopped_before_its_first_step_has_a_summary() {
        let summary = Summary {
            what: "nothing".into(),
            ended: Some("stopped by SIGINT".into()),
            ..Default::default()
        };
        assert!(
            summary
                .to_string()
                .starts_with("Trained nothing, stopped by SIGINT\n  length      0 steps")
        );
    }

    #[test]
    fn the_length_is_that_of_the_state_and_not_of_the_last_record() {
        let summary = Summary {
            ended: Some("stopped by SIGINT".into()),
            steps: 267,
            epochs: 6.7,
            batch: 128,
            records: &[step(260, 300.0)],
            ..Default::default()
        };
        let text = summary.to_string();
        assert!(
            text.contains("length      267 steps of 128 images, 6.70 epochs"),
            "{text}"
        );
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
