//! Which image is used when: a permutation of the set for every epoch.
//!
//! The uses of a run are numbered 0, 1, 2, …; use `u` is position `u mod len` of epoch
//! `u div len`. Batches run across the border of two epochs, so no image is left out: each is
//! used once before any is used again.

use crate::random::{Key, Purpose};
use std::sync::{Arc, Mutex, PoisonError};

/// Training steps that count as one epoch: `len / batch`, rounded down, at least 1.
pub fn batches_per_epoch(len: usize, batch: usize) -> usize {
    (len / batch.max(1)).max(1)
}

/// A permutation of `0..len` that depends on seed and epoch alone (Fisher–Yates).
pub fn permutation(seed: u64, epoch: u32, len: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    let mut stream = Key::new(seed, Purpose::Shuffle).stream(epoch, 0);
    for last in (1..len).rev() {
        order.swap(last, stream.below(last as u32 + 1) as usize);
    }
    order
}

/// The order of all epochs, holding the permutations in use.
pub struct Order {
    seed: u64,
    len: usize,
    recent: Mutex<Vec<(u32, Arc<[u32]>)>>,
}

impl Order {
    /// The order of a set of `len` ≥ 1 images.
    pub fn new(seed: u64, len: usize) -> Self {
        Order {
            seed,
            len: len.max(1),
            recent: Mutex::new(Vec::new()),
        }
    }

    /// Epoch and position in it of a use.
    pub fn place(&self, use_number: u64) -> (u32, usize) {
        let len = self.len as u64;
        ((use_number / len) as u32, (use_number % len) as usize)
    }

    /// The permutation of an epoch. The last two asked for are kept: batches in the making belong
    /// to one epoch or to two neighbours.
    pub fn epoch(&self, epoch: u32) -> Arc<[u32]> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = recent.iter().find(|(e, _)| *e == epoch) {
            return order.clone();
        }
        let order: Arc<[u32]> = permutation(self.seed, epoch, self.len).into();
        recent.insert(0, (epoch, order.clone()));
        recent.truncate(2);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_holds_every_image_once_and_differs_by_epoch_and_seed() {
        let first = permutation(3, 0, 1000);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_eq!(first, permutation(3, 0, 1000));
        for other in [permutation(3, 1, 1000), permutation(4, 0, 1000)] {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 20, "{same} of 1000 images in the same place");
        }
    }

    #[test]
    fn permutations_of_few_elements_are_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        for epoch in 0..6000 {
            *counts.entry(permutation(11, epoch, 3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Expected 1000 each; five standard deviations are 145.
        assert!(
            counts.values().all(|&n| (855..1145).contains(&n)),
            "{counts:?}"
        );
    }
}
