//! The statistics of a prepared set, against a computation by the plainest means.

use crate::prepared::{RAW, prepared};
use crate::support::*;
use std::fs;

/// Mean, and eigenvalues and eigenvectors by the plainest means: float64 sums, then power
/// iteration with deflation.
fn plain_statistics(images: &[Vec<u8>]) -> (Vec<f64>, [f64; 3], [[f64; 3]; 3]) {
    let n = images.len() as f64;
    let mean = (0..images[0].len())
        .map(|i| images.iter().map(|image| f64::from(image[i])).sum::<f64>() / n)
        .collect();
    let pixels: Vec<[f64; 3]> = images
        .iter()
        .flat_map(|image| image.chunks_exact(3))
        .map(|p| [0, 1, 2].map(|c| f64::from(p[c])))
        .collect();
    let count = pixels.len() as f64;
    let channel = [0, 1, 2].map(|c| pixels.iter().map(|p| p[c]).sum::<f64>() / count);
    let mut rest = [[0.0; 3]; 3];
    for p in &pixels {
        for a in 0..3 {
            for b in 0..3 {
                rest[a][b] += (p[a] - channel[a]) * (p[b] - channel[b]) / count;
            }
        }
    }
    let (mut values, mut vectors) = ([0.0; 3], [[0.0; 3]; 3]);
    for k in 0..3 {
        let mut v = [0.6, 0.5, -0.4];
        for _ in 0..20_000 {
            let w = [0, 1, 2].map(|a| (0..3).map(|b| rest[a][b] * v[b]).sum::<f64>());
            let length = w.iter().map(|x| x * x).sum::<f64>().sqrt();
            v = w.map(|x| x / length);
            values[k] = length;
        }
        vectors[k] = v;
        for a in 0..3 {
            for b in 0..3 {
                rest[a][b] -= values[k] * v[a] * v[b];
            }
        }
    }
    (mean, values, vectors)
}

#[test]
fn mean_eigenvalues_and_eigenvectors_are_those_of_a_plain_computation() {
    let root = tempfile::tempdir().unwrap();
    let (source, target) = (root.path().join("source"), root.path().join("target"));
    let size = SIDE as u32;
    let mut images = Vec::new();
    for n in 0..12u32 {
        let noise = |x: u32, y: u32, c: u32| {
            let mixed = (x * 7 + y * 13 + n * 29 + c * 5).wrapping_mul(2_654_435_761);
            (mixed >> 24) as u8 / (1 + c as u8)
        };
        let image = image::RgbImage::from_fn(size, size, |x, y| {
            let shared = noise(x, y, 9) / 2;
            image::Rgb([0, 1, 2].map(|c| shared + noise(x, y, c) / 3))
        });
        images.push(image.as_raw().clone());
        let class = if n % 2 == 0 { "a" } else { "b" };
        put(
            source.join(format!("train/{class}/{n:02}.png")),
            &png(image),
        );
    }
    prepared(&source, &target, &RAW).unwrap();
    let bytes = fs::read(target.join("stats.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str, shape: &[usize]| -> Vec<f64> {
        let view = file.tensor(name).unwrap();
        assert_eq!(view.shape(), shape);
        let value = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
        view.data().chunks_exact(4).map(value).collect()
    };
    let (mean, values, vectors) = plain_statistics(&images);
    let close = |found: f64, expected: f64, what: &str| {
        let far = (found - expected).abs() / expected.abs().max(1.0);
        assert!(far < 1e-6, "{what}: {found}, expected {expected}");
    };
    let plane = SIDE * SIDE;
    let found = tensor("mean", &[3, SIDE, SIDE]);
    for (i, expected) in mean.iter().enumerate() {
        close(found[i % 3 * plane + i / 3], *expected, "mean");
    }
    let (found_values, found_vectors) = (tensor("eigval", &[3]), tensor("eigvec", &[3, 3]));
    for k in 0..3 {
        close(found_values[k], values[k], "eigenvalue");
        let column = [0, 1, 2].map(|c| found_vectors[c * 3 + k]);
        // A direction has two signs.
        let sign = (0..3)
            .map(|c| column[c] * vectors[k][c])
            .sum::<f64>()
            .signum();
        for c in 0..3 {
            close(column[c] * sign, vectors[k][c], "eigenvector");
        }
    }
}
