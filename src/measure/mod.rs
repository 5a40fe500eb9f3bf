//! Operations with operands of their own, outside any network: what `verify` compares and `bench`
//! times. [`cases`] lists the operations of a plan, [`operands`] says what each reads and writes,
//! and a [`Trial`] runs one on a device.

pub mod cases;
pub mod operands;
mod trial;

pub use cases::{Case, Kind, Pass};
pub use trial::{Output, Trial};

/// The middle of some measured numbers; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
