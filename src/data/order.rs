//! Which image is used when: a permutation of the set for every epoch, of the whole set or of
//! windows of it.
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

/// An order for disks that are slow to seek: the pieces of the stored images in an order of their
/// own, one after another, and in every `window` images of that row a permutation. A pure function
/// of seed and epoch as well.
pub fn windowed(seed: u64, epoch: u32, pieces: &[Vec<u32>], window: usize) -> Vec<u32> {
    let key = Key::new(seed, Purpose::Shuffle);
    let mut order: Vec<u32> = permutation(seed, epoch, pieces.len())
        .into_iter()
        .flat_map(|piece| &pieces[piece as usize])
        .copied()
        .collect();
    for (number, window) in order.chunks_mut(window.max(1)).enumerate() {
        let mut stream = key.stream(epoch, 1 + number as u64);
        for last in (1..window.len()).rev() {
            window.swap(last, stream.below(last as u32 + 1) as usize);
        }
    }
    order
}

/// How the images of an epoch are mixed.
enum Mixing {
    Whole,
    Windowed {
        pieces: Vec<Vec<u32>>,
        window: usize,
    },
}

/// The order of all epochs, holding the permutations in use.
pub struct Order {
    seed: u64,
    len: usize,
    mixing: Mixing,
    recent: Mutex<Vec<(u32, Arc<[u32]>)>>,
}

impl Order {
    /// The order of a set of `len` ≥ 1 images, mixed over the whole epoch.
    pub fn new(seed: u64, len: usize) -> Self {
        Order::mixed(seed, len, Mixing::Whole)
    }

    /// The order of a set that is stored in these pieces, mixed `window` ≥ 1 images at a time. A
    /// set without pieces is mixed over the whole epoch: its order on a disk is unknown.
    pub fn windowed(seed: u64, pieces: Vec<Vec<u32>>, window: usize, len: usize) -> Self {
        match pieces.is_empty() {
            true => Order::new(seed, len),
            false => Order::mixed(seed, len, Mixing::Windowed { pieces, window }),
        }
    }

    fn mixed(seed: u64, len: usize, mixing: Mixing) -> Self {
        Order {
            seed,
            len: len.max(1),
            mixing,
            recent: Mutex::new(Vec::new()),
        }
    }

    /// Images mixed at a time, where not the whole epoch is.
    pub fn window(&self) -> Option<usize> {
        match &self.mixing {
            Mixing::Whole => None,
            Mixing::Windowed { window, .. } => Some(*window),
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
        let order: Arc<[u32]> = match &self.mixing {
            Mixing::Whole => permutation(self.seed, epoch, self.len),
            Mixing::Windowed { pieces, window } => windowed(self.seed, epoch, pieces, *window),
        }
        .into();
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
    fn a_windowed_order_holds_every_image_once_and_reads_pieces_in_a_row() {
        let pieces: Vec<Vec<u32>> = (0..40)
            .map(|p| (0..25).map(|i| i * 40 + p).collect())
            .collect();
        let order = windowed(3, 0, &pieces, 100);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        // Every window holds four whole pieces, others in every epoch.
        let pieces_of = |order: &[u32], window: usize| {
            let mut of: Vec<u32> = order[window * 100..][..100]
                .iter()
                .map(|i| i % 40)
                .collect();
            of.sort_unstable();
            of.dedup();
            of
        };
        assert!((0..10).all(|w| pieces_of(&order, w).len() == 4));
        assert_eq!(order, windowed(3, 0, &pieces, 100));
        let next = windowed(3, 1, &pieces, 100);
        assert!((0..10).all(|w| pieces_of(&order, w) != pieces_of(&next, w)));
        let in_a_row = order.windows(2).filter(|w| w[0] % 40 == w[1] % 40).count();
        assert!(
            (150..350).contains(&in_a_row),
            "{in_a_row}, about 999 · 24/99"
        );
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
