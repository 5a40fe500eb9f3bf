//! `alexnet-mp compare`: the paper's experiments, or one's own.

use super::device_choice::DeviceFlags;
use super::open::{check_classes, dataset};
use super::train::{Prepared, RunAt, TrainJob};
use crate::checkpoint::replace;
use crate::config::Config;
use crate::error::{Error, Result, data, usage};
use crate::report::comparison::{Experiment, comparison, mean_and_spread};
use crate::report::curves::{Run, learning_curves};
use crate::report::messages::result;
use crate::report::metrics::{self, Record};
use crate::report::tables::table;
use crate::train::{METRICS, Outcome, Signals};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Train several configurations with equal seeds and compare their validation errors
///
/// Each is trained once per seed. What is printed and drawn is the mean with the standard
/// deviation over the seeds: the last validation's errors and loss, and the updates after which
/// the training error was first at 25 % (paper, Figure 1). results.json holds the numbers of
/// every run. configs/experiments/ has the paper's own experiments at a size for minutes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp compare configs/experiments/baseline.toml configs/experiments/tanh.toml
  alexnet-mp compare configs/experiments/*.toml --seeds 3 --out runs/experiments
  alexnet-mp compare paper source-145 --data imagenet/ --seeds 1 --epochs 5")]
pub struct Compare {
    /// Presets or TOML files; the first is what the others are compared with
    #[arg(value_name = "CONFIG", required = true, num_args = 2..)]
    configs: Vec<String>,
    /// Seeds, from 0 on
    #[arg(long, value_name = "N", default_value_t = 2)]
    seeds: u64,
    /// Folder of images [default: the built-in set]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the runs and pictures go
    #[arg(long, value_name = "DIR", default_value = "runs/comparison")]
    out: PathBuf,
    /// Updates of each run
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Passes over the training images of each run
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Overrides a value in all of them: --set train.batch=64
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    devices: DeviceFlags,
}

/// A configuration's runs, one for each seed.
struct Trained {
    name: String,
    /// One for each seed; none where the loss exploded or was not finite.
    runs: Vec<Option<Finished>>,
}

/// How a run ended. Errors in per cent.
struct Finished {
    folder: PathBuf,
    top1: f64,
    top5: f64,
    loss: f64,
    /// Updates to 25 % training error; none where it was not reached.
    quarter: Option<u64>,
    speed: f64,
}

impl Trained {
    fn values(&self, of: impl Fn(&Finished) -> f64) -> Vec<f64> {
        self.finished().map(of).collect()
    }

    fn finished(&self) -> impl Iterator<Item = &Finished> {
        self.runs.iter().flatten()
    }

    fn diverged(&self) -> usize {
        self.runs.len() - self.finished().count()
    }
}

impl Compare {
    pub fn run(self, quiet: bool) -> Result<()> {
        if self.seeds == 0 {
            return Err(usage("--seeds 0: expected 1 or more"));
        }
        let names = names(&self.configs)?;
        for name in &names {
            self.refuse_used(name)?;
        }
        let signals = Signals::install()?;
        // All are read before the first is trained, which takes long.
        for config in &self.configs {
            self.config(config, 0)?;
        }
        let mut all = Vec::new();
        for (config, name) in self.configs.iter().zip(names) {
            all.push(self.train(config, name, &signals, quiet)?);
        }
        self.write(&all)?;
        result(&as_table(&all));
        for path in self.draw(&all)? {
            result(&path.display().to_string());
        }
        Ok(())
    }

    fn config(&self, name: &str, seed: u64) -> Result<Config> {
        let mut overrides = self.overrides.clone();
        overrides.push(format!("train.seed={seed}"));
        if let Some(steps) = self.steps {
            overrides.push(format!("train.steps={steps}"));
        }
        if let Some(epochs) = self.epochs {
            overrides.extend([format!("train.epochs={epochs}"), "train.steps=0".into()]);
        }
        Config::load(name, &overrides)
    }

    fn train(&self, config: &str, name: String, signals: &Signals, quiet: bool) -> Result<Trained> {
        let mut runs = Vec::new();
        for seed in 0..self.seeds {
            tracing::info!("{name}, seed {seed} ({} of {})", seed + 1, self.seeds);
            let folder = self.folder(&name, seed);
            let config = self.config(config, seed)?;
            let outcome = match self.one(config, folder.clone(), signals, quiet) {
                Err(Error::Numeric(why)) => {
                    tracing::warn!("{name}, seed {seed} diverged: {why}");
                    runs.push(None);
                    continue;
                }
                outcome => outcome?,
            };
            if let Some(signal) = outcome.stopped {
                return Err(Error::Interrupted(signal));
            }
            let found = outcome
                .validation
                .ok_or_else(|| data("there is no folder val to compare on"))?;
            let records = metrics::read(&folder.join(METRICS))?;
            runs.push(Some(Finished {
                folder,
                top1: found.top1_error * 100.0,
                top5: found.top5_error * 100.0,
                loss: found.loss,
                quarter: steps_to_error(&records, 0.25),
                speed: outcome.images_per_second,
            }));
        }
        Ok(Trained { name, runs })
    }

    fn one(
        &self,
        mut config: Config,
        folder: PathBuf,
        signals: &Signals,
        quiet: bool,
    ) -> Result<Outcome> {
        let set = dataset(self.data.as_deref(), &config)?;
        config.network.classes = set.train.classes().len();
        check_classes(&set, &config)?;
        let columns = config.network.columns;
        let name = self.data.clone();
        let prepared = Prepared {
            config,
            data: set,
            name,
            folder: RunAt::Named(folder),
            resume: None,
            check_exchange: 0,
            quiet,
        };
        let signals = signals.clone();
        self.devices.run(
            columns,
            TrainJob {
                prepared,
                signals,
                graphs: true,
            },
        )
    }

    fn folder(&self, name: &str, seed: u64) -> PathBuf {
        self.out.join(format!("{name}-seed{seed}"))
    }

    fn refuse_used(&self, name: &str) -> Result<()> {
        let used = (0..self.seeds).find(|&seed| self.folder(name, seed).exists());
        match used {
            None => Ok(()),
            Some(seed) => Err(usage(format!(
                "--out {}: {name}-seed{seed} is there already; choose another folder",
                self.out.display()
            ))),
        }
    }

    /// Writes every run's numbers to results.json.
    fn write(&self, all: &[Trained]) -> Result<()> {
        let run = |run: &Finished| {
            json!({ "run": run.folder, "top1_error": run.top1 / 100.0,
                "top5_error": run.top5 / 100.0, "log_loss": run.loss,
                "steps_to_25_percent_training_error": run.quarter,
                "images_per_second": run.speed })
        };
        let results = all.iter().map(|trained| {
            let runs: Vec<_> = trained.finished().map(run).collect();
            json!({ "configuration": trained.name, "runs": runs, "diverged": trained.diverged() })
        });
        let text = serde_json::Value::from_iter(results).to_string();
        let path = self.out.join("results.json");
        replace(&path, text.as_bytes())
            .map_err(|e| data(format!("cannot write {}: {e}", path.display())))
    }

    fn draw(&self, all: &[Trained]) -> Result<Vec<PathBuf>> {
        let experiments: Vec<Experiment> = all
            .iter()
            .map(|t| Experiment {
                name: t.name.clone(),
                results: t.values(|run| run.top1),
            })
            .collect();
        let title = match self.seeds {
            1 => "Validation error, one seed each".to_string(),
            n => format!("Validation error, {n} seeds each"),
        };
        let bars = self.out.join("comparison.png");
        comparison(&title, "top-1 error (%)", &experiments)?.save(&bars)?;
        let runs = all
            .iter()
            .map(|t| {
                Ok(Run {
                    name: t.name.clone(),
                    records: metrics::read(&self.folder(&t.name, 0).join(METRICS))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let curves = self.out.join("curves.png");
        learning_curves("Learning curves, seed 0", &runs)?.save(&curves)?;
        Ok(vec![bars, curves])
    }
}

/// What the configurations are called: a preset's name, a file's stem.
fn names(configs: &[String]) -> Result<Vec<String>> {
    let stem = |config: &String| {
        let stem = Path::new(config).file_stem();
        stem.map_or_else(|| config.clone(), |s| s.to_string_lossy().into_owned())
    };
    let names: Vec<String> = configs.iter().map(stem).collect();
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(usage(format!("{name} is named twice")));
        }
    }
    Ok(names)
}

/// Updates after which the logged training error was first at most this.
fn steps_to_error(records: &[Record], error: f64) -> Option<u64> {
    records.iter().find_map(|record| match record {
        Record::Step(step) if step.top1_error <= error => Some(step.step),
        _ => None,
    })
}

fn as_table(all: &[Trained]) -> String {
    let spread = |values: &[f64], decimals: usize| {
        let (mean, spread) = mean_and_spread(values);
        match values.len() {
            0 => String::new(),
            1 => format!("{mean:.decimals$}"),
            _ => format!("{mean:.decimals$} ± {spread:.decimals$}"),
        }
    };
    let top1 = |t: &Trained| t.values(|run| run.top1);
    let mean = |t: &Trained| mean_and_spread(&top1(t)).0;
    let first = all.first().filter(|t| t.finished().count() > 0).map(mean);
    let row = |t: &Trained| {
        let change = first.filter(|_| t.finished().count() > 0);
        let (diverged, seeds) = (t.diverged(), t.runs.len());
        vec![
            match diverged {
                0 => t.name.clone(),
                n => format!("{} ({n} of {seeds} diverged)", t.name),
            },
            spread(&top1(t), 2),
            change.map_or(String::new(), |first| format!("{:+.2}", mean(t) - first)),
            spread(&t.values(|run| run.top5), 2),
            spread(&t.values(|run| run.loss), 4),
            quarters(t, spread),
            spread(&t.values(|run| run.speed), 0),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = [
        "configuration",
        "top-1 error (%)",
        "change",
        "top-5 error (%)",
        "log loss",
        "steps to 25 %",
        "images/s",
    ];
    table(&header, &rows)
}

/// Steps to 25 % training error, with the number of runs that reached it where not all did.
fn quarters(trained: &Trained, spread: impl Fn(&[f64], usize) -> String) -> String {
    let reached = trained.finished().filter_map(|run| run.quarter);
    let reached: Vec<f64> = reached.map(|steps| steps as f64).collect();
    let (some, all) = (reached.len(), trained.finished().count());
    match some {
        0 if all == 0 => String::new(),
        0 => "not reached".into(),
        _ if some < all => format!("{} ({some} of {all})", spread(&reached, 0)),
        _ => spread(&reached, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::metrics::StepRecord;

    #[test]
    fn diverged_runs_are_told_and_left_out_of_the_means() {
        let run = |top1| {
            Some(Finished {
                folder: PathBuf::new(),
                top1,
                top5: 0.0,
                loss: 0.5,
                quarter: Some(20),
                speed: 100.0,
            })
        };
        let trained = |name: &str, runs| Trained {
            name: name.into(),
            runs,
        };
        let all = [
            trained("a", vec![run(10.0), run(12.0)]),
            trained("b", vec![None, run(8.0)]),
            trained("c", vec![None, None]),
        ];
        let text = as_table(&all);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("a  ") && lines[1].contains("11.00 ± 1.41"),
            "{text}"
        );
        assert!(lines[2].starts_with("b (1 of 2 diverged)"), "{text}");
        assert!(
            lines[2].contains("8.00") && lines[2].contains("-3.00"),
            "{text}"
        );
        assert_eq!(lines[3], "c (2 of 2 diverged)");
    }

    #[test]
    fn the_first_log_at_a_quarter_of_errors_counts() {
        let record = |step, top1_error| {
            Record::Step(StepRecord {
                step,
                top1_error,
                ..Default::default()
            })
        };
        let records = [record(10, 0.9), record(20, 0.25), record(30, 0.1)];
        assert_eq!(steps_to_error(&records, 0.25), Some(20));
        assert_eq!(steps_to_error(&records[..1], 0.25), None);
    }
}
