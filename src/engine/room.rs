//! What batch a device has room for, for whoever asked for too large a one.

use crate::error::{Error, device};
use crate::network::describe::memory;
use crate::network::plan::Plan;
use std::ops::Range;

/// Share of the free memory that is left to work space, and bytes besides: the messages that prove
/// the copies between two devices, small operations' own.
const WORK_SPACE: f64 = 0.1;
const BESIDES: usize = 64 << 20;

/// An error of setting up devices with these columns and so many free bytes before: where it is
/// about memory, with the largest batch that would have fitted.
pub(super) fn explain(
    error: Error,
    plan: &Plan,
    devices: &[(Range<usize>, Option<usize>)],
) -> Error {
    let fits = devices
        .iter()
        .filter_map(|(columns, free)| Some(largest_batch(plan, columns.clone(), (*free)?)))
        .min();
    match (error, fits) {
        (Error::Device(text), Some(fits)) if text.contains("out of memory") => {
            let fits = match fits {
                0 => "by estimate not even one image fits".into(),
                n => format!("by estimate the largest batch that fits is {n}"),
            };
            device(format!("{text}; {fits}"))
        }
        (error, _) => error,
    }
}

/// The largest batch whose tensors fit into `free` bytes, by the plan.
fn largest_batch(plan: &Plan, columns: Range<usize>, free: usize) -> usize {
    let (mut fixed, mut per_batch) = (0, 0);
    for column in columns {
        let [weights, momentum, maps, gradients, exchange] = memory(plan, column);
        // Gradients of the weights; and messages have memory at both ends.
        fixed += weights + momentum + weights;
        per_batch += maps + gradients + 2 * exchange;
    }
    let per_image = per_batch as f64 / plan.batch as f64;
    let usable = (1.0 - WORK_SPACE) * free as f64 - (fixed + BESIDES) as f64;
    (usable / per_image).max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_papers_network_fits_two_cards_of_3_gb_as_in_2012_and_no_card_of_256_mib() {
        let plan = Config::load("paper", &[]).unwrap().plan().unwrap();
        assert!(largest_batch(&plan, 0..1, 3 << 30) >= 128);
        assert_eq!(largest_batch(&plan, 0..2, 256 << 20), 0);
        let [one, two] = [1usize << 30, 2 << 30].map(|free| largest_batch(&plan, 0..1, free));
        assert!(0 < one && one < two, "{one} {two}");
    }

    #[test]
    fn only_an_error_about_memory_is_explained() {
        let plan = Config::load("paper", &[]).unwrap().plan().unwrap();
        let explained =
            |text: &str, free| explain(device(text), &plan, &[(0..1, free)]).to_string();
        assert!(explained("out of memory", Some(3 << 30)).contains("largest batch"));
        assert_eq!(explained("out of memory", None), "out of memory");
        assert_eq!(
            explained("it fell off the bus", Some(1)),
            "it fell off the bus"
        );
    }
}
