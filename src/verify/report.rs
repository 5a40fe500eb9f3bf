//! What was verified and what came of it.

use serde::Serialize;

/// One thing that was verified.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Check {
    /// "operation", "exchange", "network", "training".
    pub section: &'static str,
    /// "conv2 conv_backward_data"
    pub name: String,
    pub device: String,
    /// Sizes, for the reader.
    pub shape: String,
    pub passed: bool,
    /// Relative L2 error against the reference, and what is allowed.
    pub error: Option<f64>,
    pub tolerance: Option<f64>,
    /// Of one run.
    pub milliseconds: Option<f64>,
    pub gflops: Option<f64>,
    pub gigabytes_per_second: Option<f64>,
    /// Of the device's peak of whichever of the two is given.
    pub share_of_peak: Option<f64>,
    /// What was expected and what was found, and other remarks.
    pub detail: Option<String>,
}

/// Everything that was verified.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub devices: Vec<String>,
    pub seconds: f64,
    pub checks: Vec<Check>,
}

impl Report {
    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }

    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }
}

impl Check {
    /// One line: verdict, name, sizes, error and tolerance, time and rate, remarks.
    pub fn line(&self) -> String {
        let verdict = if self.passed { "ok  " } else { "FAIL" };
        let mut line = format!("{verdict}  {:<38}  {:<31}", self.name, self.shape);
        if let (Some(error), Some(tolerance)) = (self.error, self.tolerance) {
            let sign = if self.passed { '≤' } else { '>' };
            line += &format!("  {error:.1e} {sign} {tolerance:.0e}");
        }
        if let Some(milliseconds) = self.milliseconds {
            line += &format!("  {milliseconds:9.3} ms");
        }
        if let Some(rate) = self.gflops {
            line += &format!("  {rate:8.1} GFLOP/s");
        }
        if let Some(rate) = self.gigabytes_per_second {
            line += &format!("  {rate:8.1} GB/s   ");
        }
        if let Some(share) = self.share_of_peak {
            line += &format!("  {:3.0} %", share * 100.0);
        }
        if let Some(detail) = &self.detail {
            line += &format!("  {detail}");
        }
        line.trim_end().to_string()
    }
}

/// Collects checks and shows each.
pub(super) struct Recorder<'a> {
    checks: Vec<Check>,
    each: &'a mut dyn FnMut(&Check),
}

impl<'a> Recorder<'a> {
    pub(super) fn new(each: &'a mut dyn FnMut(&Check)) -> Self {
        Recorder {
            checks: Vec::new(),
            each,
        }
    }

    pub(super) fn add(&mut self, check: Check) {
        (self.each)(&check);
        self.checks.push(check);
    }

    pub(super) fn into_checks(self) -> Vec<Check> {
        self.checks
    }
}

/// ‖found − expected‖ / ‖expected‖; infinite where a number is not finite.
pub(super) fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let pairs = found.iter().zip(expected);
    let square = |x: f64| x * x;
    let difference: f64 = pairs
        .map(|(f, e)| square(f64::from(*f) - f64::from(*e)))
        .sum();
    let norm: f64 = expected.iter().map(|e| square(f64::from(*e))).sum();
    let error = if norm == 0.0 {
        difference.sqrt()
    } else {
        (difference / norm).sqrt()
    };
    if error.is_nan() { f64::INFINITY } else { error }
}

/// The element that is furthest off: "dx[17] of 4096: expected 0.5, found NaN".
pub(super) fn worst(name: &str, found: &[f32], expected: &[f32]) -> String {
    let off = |(f, e): (&f32, &f32)| {
        let off = (f64::from(*f) - f64::from(*e)).abs();
        if off.is_nan() { f64::INFINITY } else { off }
    };
    let all = found.iter().zip(expected).map(off).enumerate();
    let at = all.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i);
    match (found.get(at), expected.get(at)) {
        (Some(f), Some(e)) => {
            format!(
                "{name}[{at}] of {}: expected {e:e}, found {f:e}",
                found.len()
            )
        }
        _ => format!(
            "{name}: expected {} elements, found {}",
            expected.len(),
            found.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_infinitely_wrong() {
        assert_eq!(relative_error(&[f32::NAN, 1.0], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(
            worst("dx", &[1.0, f32::NAN], &[5.0, 1.0]),
            "dx[1] of 2: expected 1e0, found NaN"
        );
    }

    #[test]
    fn a_failing_line_names_error_and_tolerance() {
        let check = Check {
            name: "conv2 conv_forward".into(),
            error: Some(0.5),
            tolerance: Some(1e-5),
            ..Check::default()
        };
        let line = check.line();
        assert!(line.starts_with("FAIL  conv2 conv_forward"), "{line}");
        assert!(line.ends_with("5.0e-1 > 1e-5"), "{line}");
    }
}
