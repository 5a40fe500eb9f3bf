//! Learning curves of one or several runs (several: in the manner of the paper's Figure 1).

use plotters::style::RGBColor;

use super::chart::{Line, Panel, Points, Stroke, draw_line};
use super::format::grouped;
use super::metrics::Record;
use super::picture::{Align, Area, Drawn, FAINT_INK, INK, PALETTE, Picture};
use super::picture::{at, bold, shortened, text, text_width};
use crate::error::Result;

/// Size of the finished picture, in pixels.
const WIDTH: i32 = 900;
const HEIGHT: i32 = 440;
/// Points of a training curve at most: more cannot be told apart.
const POINTS: usize = 2000;
/// Half the window of the smoothed training curve, as a part of all points.
const SMOOTHING: usize = 40;

/// A run to draw: its name in the legend and its metrics ([`super::metrics::read`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub name: String,
    pub records: Vec<Record>,
}

/// Two panels over the steps: loss in nats, and top-1 error in per cent. Of one run the training
/// values are shown raw (faint) and smoothed, with the validation values; of several runs each has
/// a colour, training dashed and validation solid. Drops of a single run's learning rate ε are
/// marked.
///
/// # Errors
/// [`crate::error::Error::Data`] when the picture cannot be drawn.
pub fn learning_curves(title: &str, runs: &[Run]) -> Result<Picture> {
    let mut picture = Picture::white(WIDTH as usize, HEIGHT as usize);
    let curves: Vec<Curves> = runs.iter().map(Curves::of).collect();
    picture.draw(|area| {
        let title = shortened(title, 20, (WIDTH - 80) as usize);
        bold(area, &title, (20, 22), 20, INK, Align::Left)?;
        let top = 50 + legend(area, runs)? * 22;
        let x_axis = step_axis(runs);
        let marks = learning_rates(runs);
        let panel = |left: i32, y_axis, lines: &[Line]| {
            let panel = Panel {
                left,
                top,
                width: WIDTH / 2,
                height: HEIGHT - top,
                x_axis: &x_axis,
                y_axis,
                marks: &marks,
            };
            panel.draw(area, lines)
        };
        panel(0, "loss (nats)", &losses(&curves))?;
        panel(WIDTH / 2, "top-1 error (%)", &errors(&curves))
    })?;
    Ok(picture)
}

/// The name of the step axis; of a single run it tells how long an epoch is.
fn step_axis(runs: &[Run]) -> String {
    let last = match runs {
        [run] => run.records.last(),
        _ => None,
    };
    match last {
        Some(record) if record.epoch() > 0.0 => {
            let steps = (record.step() as f64 / record.epoch()).round() as u64;
            let epochs = record.epoch();
            let steps = grouped(steps);
            format!("step ({epochs:.1} epochs of {steps} steps)")
        }
        _ => "step".into(),
    }
}

/// Where a single run's learning rate changed, and to what. A rate that changes all the time
/// is not marked.
fn learning_rates(runs: &[Run]) -> Vec<(f64, String)> {
    const MOST: usize = 6;
    let [run] = runs else { return Vec::new() };
    let mut rate = None;
    let mut marks = Vec::new();
    for record in &run.records {
        let Record::Step(record) = record else {
            continue;
        };
        let now = record.learning_rate;
        if rate.replace(now).is_some_and(|before| before != now) {
            marks.push((record.step as f64, format!("ε {now}")));
        }
    }
    if marks.len() > MOST {
        Vec::new()
    } else {
        marks
    }
}

/// The values of one run over its steps.
struct Curves {
    loss: Points,
    error: Points,
    validation_loss: Points,
    validation_error: Points,
}

impl Curves {
    fn of(run: &Run) -> Self {
        let mut curves = Curves {
            loss: Vec::new(),
            error: Vec::new(),
            validation_loss: Vec::new(),
            validation_error: Vec::new(),
        };
        for record in &run.records {
            let step = record.step() as f64;
            let (loss, error, value, top1) = match record {
                Record::Step(r) => (&mut curves.loss, &mut curves.error, r.loss, r.top1_error),
                Record::Evaluation(r) => (
                    &mut curves.validation_loss,
                    &mut curves.validation_error,
                    r.val_loss,
                    r.val_top1_error,
                ),
            };
            // A diverged step has nothing to draw.
            loss.extend(value.is_finite().then_some((step, value)));
            error.extend(top1.is_finite().then_some((step, top1 * 100.0)));
        }
        curves
    }
}

fn losses(curves: &[Curves]) -> Vec<Line> {
    lines(curves, |run| (&run.loss, &run.validation_loss))
}

fn errors(curves: &[Curves]) -> Vec<Line> {
    lines(curves, |run| (&run.error, &run.validation_error))
}

fn lines(curves: &[Curves], of: impl Fn(&Curves) -> (&Points, &Points)) -> Vec<Line> {
    let single = curves.len() == 1;
    let mut lines = Vec::new();
    for (index, run) in curves.iter().enumerate() {
        let (training, validation) = of(run);
        let training = thinned(training);
        let colour = PALETTE[index % PALETTE.len()];
        let mut line = |points, colour, stroke| {
            lines.push(Line {
                points,
                colour,
                stroke,
            });
        };
        let smooth = smoothed(&training, training.len() / SMOOTHING);
        if single {
            line(training, colour, Stroke::Faint);
            line(smooth, colour, Stroke::Solid);
            line(validation.clone(), PALETTE[1], Stroke::Marked);
        } else {
            line(smooth, colour, Stroke::Dashed);
            line(validation.clone(), colour, Stroke::Marked);
        }
    }
    lines
}

/// Means of equal numbers of points in a row, so that at most [`POINTS`] are left.
fn thinned(points: &[(f64, f64)]) -> Points {
    let chunk = points.len().div_ceil(POINTS).max(1);
    points.chunks(chunk).map(mean).collect()
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let sum = points
        .iter()
        .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (sum.0 / count, sum.1 / count)
}

/// Local linear fit over the `half` neighbours on each side (fewer at the ends, where a plain
/// mean would bend the curve).
fn smoothed(points: &[(f64, f64)], half: usize) -> Points {
    let fit = |index: usize| {
        let window = &points[index.saturating_sub(half)..(index + half + 1).min(points.len())];
        let (x, y) = mean(window);
        let spread: f64 = window.iter().map(|point| (point.0 - x).powi(2)).sum();
        let slope: f64 = window
            .iter()
            .map(|point| (point.0 - x) * (point.1 - y))
            .sum();
        let here = points[index].0;
        let rise = if spread > 0.0 {
            slope / spread * (here - x)
        } else {
            0.0
        };
        (here, (y + rise).max(0.0))
    };
    (0..points.len()).map(fit).collect()
}

/// The legend under the title; returns its rows.
fn legend(area: &Area, runs: &[Run]) -> Drawn<i32> {
    let mut entries: Vec<(String, RGBColor, Stroke)> = Vec::new();
    if runs.len() == 1 {
        entries.push(("training".into(), PALETTE[0], Stroke::Faint));
        entries.push(("training, smoothed".into(), PALETTE[0], Stroke::Solid));
        entries.push(("validation".into(), PALETTE[1], Stroke::Marked));
    } else {
        for (index, run) in runs.iter().enumerate() {
            let name = shortened(&run.name, 14, 400);
            entries.push((name, PALETTE[index % PALETTE.len()], Stroke::Solid));
        }
        entries.push(("training".into(), FAINT_INK, Stroke::Dashed));
        entries.push(("validation".into(), FAINT_INK, Stroke::Marked));
    }
    let (mut x, mut row) = (20, 0);
    for (name, colour, stroke) in entries {
        let width = 34 + text_width(&name, 14) as i32 + 24;
        if x > 20 && x + width > WIDTH - 10 {
            (x, row) = (20, row + 1);
        }
        let y = 50 + row * 22;
        let (ends, middle) = ([at(x, y), at(x + 26, y)], [at(x + 13, y)]);
        if stroke == Stroke::Marked {
            draw_line(area, &ends, colour, Stroke::Solid)?;
            draw_line(area, &middle, colour, stroke)?;
        } else {
            draw_line(area, &ends, colour, stroke)?;
        }
        text(area, &name, (x + 34, y), 14, INK, Align::Left)?;
        x += width;
    }
    Ok(row + 1)
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{EvaluationRecord, StepRecord};
    use super::*;

    fn run(name: &str, pace: f64) -> Run {
        let mut records = Vec::new();
        for step in 1..=300u64 {
            let decay = (-(step as f64) * pace / 100.0).exp();
            records.push(Record::Step(StepRecord {
                step,
                epoch: step as f64 / 40.0,
                loss: 2.3 * decay,
                top1_error: 0.9 * decay,
                ..Default::default()
            }));
            if step % 50 == 0 {
                records.push(Record::Evaluation(EvaluationRecord {
                    step,
                    epoch: step as f64 / 40.0,
                    val_loss: 2.4 * decay,
                    val_top1_error: 0.95 * decay,
                    ..Default::default()
                }));
            }
        }
        Run {
            name: name.into(),
            records,
        }
    }

    /// Pixels near a colour within columns `x`.
    fn count(picture: &Picture, colour: RGBColor, x: std::ops::Range<usize>) -> usize {
        let near = |pixel: [u8; 3]| {
            let [r, g, b] = pixel;
            r.abs_diff(colour.0)
                .max(g.abs_diff(colour.1))
                .max(b.abs_diff(colour.2))
                < 25
        };
        (80..picture.height())
            .flat_map(|y| x.clone().map(move |x| (x, y)))
            .filter(|&(x, y)| near(picture.pixel(x, y)))
            .count()
    }

    #[test]
    fn both_panels_hold_a_training_and_a_validation_curve() {
        let picture = learning_curves("run", &[run("a", 1.0)]).unwrap();
        assert_eq!((picture.width(), picture.height()), (900, 440));
        for half in [0..450, 450..900] {
            assert!(count(&picture, PALETTE[0], half.clone()) > 200);
            assert!(count(&picture, PALETTE[1], half) > 200);
        }
    }

    #[test]
    fn several_runs_have_a_colour_each() {
        let runs = [run("relu", 2.0), run("tanh", 0.4), run("a third", 1.0)];
        let picture = learning_curves("comparison", &runs).unwrap();
        for colour in &PALETTE[..3] {
            assert!(count(&picture, *colour, 450..900) > 200);
        }
    }

    #[test]
    fn runs_with_nothing_to_draw_still_make_a_picture() {
        let mut diverged = run("diverged", 1.0);
        for record in &mut diverged.records {
            if let Record::Step(record) = record {
                record.loss = f64::NAN;
            }
        }
        let empty = Run {
            name: "empty".into(),
            records: Vec::new(),
        };
        assert!(learning_curves("", &[]).is_ok());
        assert!(learning_curves("empty", std::slice::from_ref(&empty)).is_ok());
        assert!(learning_curves("both", &[empty, diverged]).is_ok());
    }

    #[test]
    fn drops_of_the_learning_rate_are_marked() {
        let mut run = run("a", 1.0);
        for record in &mut run.records {
            if let Record::Step(record) = record {
                record.learning_rate = if record.step < 200 { 0.01 } else { 0.001 };
            }
        }
        let marks = learning_rates(std::slice::from_ref(&run));
        assert_eq!(marks, [(200.0, "ε 0.001".to_string())]);
        assert!(learning_rates(&[run.clone(), run]).is_empty());
    }

    #[test]
    fn smoothing_keeps_a_straight_line_and_the_ends() {
        let line: Points = (0..50)
            .map(|i| (f64::from(i), 3.0 * f64::from(i)))
            .collect();
        for (point, smooth) in line.iter().zip(smoothed(&line, 7)) {
            assert!((point.1 - smooth.1).abs() < 1e-9);
        }
        assert!(smoothed(&[], 3).is_empty());
    }
}
