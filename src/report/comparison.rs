//! A bar chart that compares one result of several experiments, each with one or more seeds.

use plotters::prelude::*;

use super::picture::{Align, Area, Drawn, FAINT_INK, INK, PALETTE, Picture};
use super::picture::{at, bold, px, shortened, text, text_width};
use crate::error::Result;

const WIDTH: i32 = 900;
const MARGIN: i32 = 20;
const HEAD: i32 = 66;
const ROW: i32 = 40;

/// One experiment and its results, one for each seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    pub name: String,
    pub results: Vec<f64>,
}

/// The mean of values, and their standard deviation about it (n − 1; 0 for a single value).
pub fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// One bar per experiment, as long as the mean of its results, with a dot for each seed and mean
/// ± standard deviation as text. `quantity` names what is compared, with its unit; results are
/// not negative, and bars start at 0.
///
/// # Errors
/// [`crate::error::Error::Data`] when the picture cannot be drawn.
pub fn comparison(title: &str, quantity: &str, experiments: &[Experiment]) -> Result<Picture> {
    let height = HEAD + ROW * experiments.len().max(1) as i32 + MARGIN;
    let mut picture = Picture::white(WIDTH as usize, height as usize);
    let scale = Scale::of(experiments);
    picture.draw(|area| {
        let title = shortened(title, 20, (WIDTH - 4 * MARGIN) as usize);
        bold(area, &title, (MARGIN, 23), 20, INK, Align::Left)?;
        let several = experiments
            .iter()
            .any(|experiment| experiment.results.len() > 1);
        let note = if several {
            format!("{quantity}: mean of the seeds ± standard deviation, a dot for each seed")
        } else {
            quantity.to_string()
        };
        text(area, &note, (MARGIN, 47), 14, FAINT_INK, Align::Left)?;
        for (row, experiment) in experiments.iter().enumerate() {
            let middle = HEAD + ROW * row as i32 + ROW / 2;
            scale.draw(area, experiment, middle, PALETTE[row % PALETTE.len()])?;
        }
        Ok(())
    })?;
    Ok(picture)
}

/// Where bars begin, and the pixels of the longest result.
struct Scale {
    left: i32,
    length: i32,
    largest: f64,
}

impl Scale {
    /// Widest name, and room for the numbers at the right, in pixels.
    const NAME: usize = 300;
    const NUMBERS: i32 = 130;

    fn of(experiments: &[Experiment]) -> Self {
        let names = experiments
            .iter()
            .map(|experiment| text_width(&experiment.name, 14));
        let widest = names.max().unwrap_or(0).min(Scale::NAME) as i32;
        let results = experiments
            .iter()
            .flat_map(|experiment| &experiment.results);
        let finite = results.filter(|result| result.is_finite());
        let left = MARGIN + widest + 14;
        Scale {
            left,
            length: WIDTH - MARGIN - Scale::NUMBERS - left,
            largest: finite.fold(f64::MIN_POSITIVE, |largest, &result| largest.max(result)),
        }
    }

    fn x(&self, result: f64) -> i32 {
        let share = (result / self.largest).clamp(0.0, 1.0);
        self.left + (share * f64::from(self.length)).round() as i32
    }

    fn draw(&self, area: &Area, experiment: &Experiment, y: i32, colour: RGBColor) -> Drawn {
        let name = shortened(&experiment.name, 14, Scale::NAME);
        text(area, &name, (self.left - 10, y), 14, INK, Align::Right)?;
        let (mean, spread) = mean_and_spread(&experiment.results);
        let bar = [at(self.left, y - 12), at(self.x(mean), y + 12)];
        area.draw(&Rectangle::new(bar, colour.mix(0.45).filled()))?;
        let mut right = self.x(mean);
        if experiment.results.len() > 1 {
            for &result in experiment
                .results
                .iter()
                .filter(|result| result.is_finite())
            {
                area.draw(&Circle::new(at(self.x(result), y), px(4), colour.filled()))?;
                right = right.max(self.x(result) + 5);
            }
        }
        let numbers = match experiment.results.len() {
            0 => "no result".into(),
            1 => format!("{mean:.2}"),
            _ => format!("{mean:.2} ± {spread:.2}"),
        };
        text(area, &numbers, (right + 8, y), 14, INK, Align::Left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(name: &str, results: &[f64]) -> Experiment {
        Experiment {
            name: name.into(),
            results: results.to_vec(),
        }
    }

    #[test]
    fn bars_are_as_long_as_the_means() {
        let experiments = [experiment("relu", &[10.0]), experiment("tanh", &[5.0])];
        let picture = comparison("comparison", "error (%)", &experiments).unwrap();
        let scale = Scale::of(&experiments);
        let white = |row: i32, result: f64| {
            let y = HEAD + ROW * row + ROW / 2 - 11;
            picture.pixel(scale.x(result) as usize, y as usize) == [255; 3]
        };
        assert!(!white(0, 9.8) && !white(1, 4.8));
        assert!(white(1, 5.2) && white(1, 9.0));
    }

    #[test]
    fn the_spread_is_the_standard_deviation_of_a_sample() {
        assert_eq!(mean_and_spread(&[1.0, 3.0]), (2.0, 2f64.sqrt()));
        assert_eq!(mean_and_spread(&[4.0]), (4.0, 0.0));
    }

    #[test]
    fn nothing_and_diverged_runs_are_drawn_without_a_panic() {
        assert!(comparison("", "", &[]).is_ok());
        let odd = [
            experiment("diverged", &[f64::NAN, 1.0]),
            experiment("none", &[]),
        ];
        assert!(comparison("odd", "error (%)", &odd).is_ok());
    }
}
