//! Mean image and colour statistics of a training set.
//!
//! Sums are kept in integers, so they are exact and do not depend on the order of the images.

mod bytes;
mod eigen;
mod file;

use crate::data::{Source, image_bytes, pixels};
use crate::error::{Result, data};
use bytes::ByteSums;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Mean image, and principal axes of the colours, of the images of a training set.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Side of the images, in pixels.
    pub side: usize,
    /// Images that were counted.
    pub images: u64,
    /// Mean image `[side][side][red, green, blue]`, 0 to 255.
    pub mean: Vec<f32>,
    /// Eigenvalues of the covariance of the pixels' colours (0–255 scale) about the channel
    /// means, descending.
    pub eigenvalues: [f32; 3],
    /// `eigenvectors[k]` belongs to `eigenvalues[k]`: length 1, its largest component positive.
    pub eigenvectors: [[f32; 3]; 3],
}

impl Statistics {
    /// Statistics of no images at all: mean 0, no colour variation.
    pub fn zero(side: usize) -> Self {
        Statistics {
            side,
            images: 0,
            mean: vec![0.0; side * side * 3],
            eigenvalues: [0.0; 3],
            eigenvectors: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        }
    }

    /// Statistics of a set, computed on `threads` threads; bad images are left out.
    ///
    /// Errors: `Data` where too many images are bad.
    pub fn compute(source: &dyn Source, threads: usize) -> Result<Self> {
        let next = AtomicUsize::new(0);
        let sums = std::thread::scope(|scope| {
            let work = || Sums::new(source.side()).add_source(source, &next);
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
            let mut all = Sums::new(source.side());
            for worker in workers {
                let part = worker
                    .join()
                    .map_err(|_| data("internal error: a statistics thread panicked"))??;
                all.merge(&part);
            }
            Ok(all)
        })?;
        if sums.images == 0 {
            return Err(data(format!(
                "no usable image among the {} of the training set",
                source.len()
            )));
        }
        Ok(sums.statistics())
    }

    /// Those of the file `cache` if they belong to this set, else computed and written there.
    ///
    /// Errors: `Data` where too many images are bad, or the file cannot be written.
    pub fn cached(source: &dyn Source, cache: Option<&Path>, threads: usize) -> Result<Self> {
        let Some(path) = cache else {
            return Statistics::compute(source, threads);
        };
        let fingerprint = fingerprint(source);
        if let Ok((statistics, found)) = Statistics::read(path)
            && found.as_deref() == Some(fingerprint.as_str())
            && statistics.side == source.side()
        {
            return Ok(statistics);
        }
        tracing::info!(
            "computing the mean image and colour statistics of {} images, once",
            source.len()
        );
        let statistics = Statistics::compute(source, threads)?;
        statistics.write(path, Some(&fingerprint))?;
        Ok(statistics)
    }
}

/// A digest of side, names and labels: tells whether cached statistics belong to a set.
pub(crate) fn fingerprint(source: &dyn Source) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(format!("{} {:?}", source.side(), source.classes()).as_bytes());
    for image in 0..source.len() {
        hash.update(source.name(image).as_bytes());
        hash.update(&source.label(image).to_le_bytes());
    }
    format!("{:016x}", hash.digest())
}

/// Exact sums over images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    side: usize,
    /// Images added.
    pub images: u64,
    /// Sum of each byte of the image.
    mean: ByteSums,
    /// Sums over all pixels of rr, gg, bb, rg, rb, gb.
    products: [u64; 6],
}

impl Sums {
    /// Sums over no images yet.
    pub fn new(side: usize) -> Self {
        Sums {
            side,
            images: 0,
            mean: ByteSums::new(side * side * 3),
            products: [0; 6],
        }
    }

    /// Adds an image of side × side × 3 bytes.
    pub fn add(&mut self, image: &[u8]) {
        self.mean.add(image);
        let [rr, gg, bb] = bytes::products(image, 0);
        let [rg, gb, _] = bytes::products(image, 1);
        let [rb, ..] = bytes::products(image, 2);
        for (sum, x) in self.products.iter_mut().zip([rr, gg, bb, rg, rb, gb]) {
            *sum += x;
        }
        self.images += 1;
    }

    /// Adds the sums over other images of the same side.
    pub fn merge(&mut self, other: &Sums) {
        self.mean.merge(&other.mean);
        for (sum, x) in self.products.iter_mut().zip(other.products) {
            *sum += x;
        }
        self.images += other.images;
    }

    /// Bytes of [`to_bytes`](Sums::to_bytes).
    pub fn bytes(side: usize) -> usize {
        7 * 8 + side * side * 3 * 4
    }

    /// Little-endian: images, the six products, and in 32 bits each the sums of the image's
    /// bytes, which so many hold for 16 million images.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Sums::bytes(self.side));
        bytes.extend(self.images.to_le_bytes());
        bytes.extend(self.products.iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend(self.mean.iter().flat_map(|x| (x as u32).to_le_bytes()));
        bytes
    }

    /// The sums of [`to_bytes`](Sums::to_bytes); none where their number does not fit the side.
    pub fn from_bytes(side: usize, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Sums::bytes(side) {
            return None;
        }
        let (words, mean) = bytes.split_at(7 * 8);
        let mut words = words
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
        let images = words.next()?;
        let mut products = [0; 6];
        for (product, word) in products.iter_mut().zip(words) {
            *product = word;
        }
        let sum = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap_or_default());
        Some(Sums {
            side,
            images,
            mean: ByteSums::of(images, mean.chunks_exact(4).map(sum).collect()),
            products,
        })
    }

    fn add_source(mut self, source: &dyn Source, next: &AtomicUsize) -> Result<Self> {
        let mut scratch = vec![0; image_bytes(source)];
        loop {
            let image = next.fetch_add(1, Ordering::Relaxed);
            if image >= source.len() {
                return Ok(self);
            }
            if let Some(bytes) = pixels(source, image, &mut scratch)? {
                self.add(bytes);
            }
        }
    }

    /// The statistics of the images added, at least one.
    pub fn statistics(&self) -> Statistics {
        let images = self.images.max(1) as f64;
        let covariance = self.covariance();
        let (eigenvalues, eigenvectors) = eigen::symmetric(covariance);
        Statistics {
            side: self.side,
            images: self.images,
            mean: self
                .mean
                .iter()
                .map(|s| (s as f64 / images) as f32)
                .collect(),
            eigenvalues: eigenvalues.map(|x| x as f32),
            eigenvectors: eigenvectors.map(|v| v.map(|x| x as f32)),
        }
    }

    /// Covariance of the pixels' colours: (n Σxy − Σx Σy) / n², the numerator exact.
    fn covariance(&self) -> [[f64; 3]; 3] {
        let pixels = i128::from(self.images.max(1)) * (self.side * self.side) as i128;
        let mut colours = [0i128; 3];
        for (i, x) in self.mean.iter().enumerate() {
            colours[i % 3] += i128::from(x);
        }
        let mut covariance = [[0.0; 3]; 3];
        let pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)];
        for ((a, b), product) in pairs.into_iter().zip(self.products) {
            let numerator = pixels * i128::from(product) - colours[a] * colours[b];
            let value = numerator as f64 / (pixels as f64 * pixels as f64);
            covariance[a][b] = value;
            covariance[b][a] = value;
        }
        covariance
    }
}
