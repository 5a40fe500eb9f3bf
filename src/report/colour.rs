//! How selective for colour the kernels of conv1 are, per column (paper, Figure 3).
//!
//! At each pixel p a kernel has three weights `w(p)`, one per channel (red, green, blue). Their
//! part along the grey axis `g = (1, 1, 1)/√3` responds to brightness, the rest to colour. The
//! colour index of a kernel is the share of its energy off the grey axis:
//!
//! ```text
//! index = 1 − Σ_p (w(p)·g)² / Σ_p |w(p)|²
//! ```
//!
//! 0: it sees brightness only (any grey Gabor); 1: it sees colour only (any opponent colour, such
//! as red against green). No mean is subtracted, as a kernel of one uniform colour is a colour
//! detector. The index does not change with the kernel's scale or sign, with any rearrangement of
//! its pixels (rotations, mirrors), nor with a rotation of hue about the grey axis. Independent
//! random weights have 2/3 on average: that is an untrained network's value.

use crate::error::{self, Result};

/// The kernels of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnColour {
    /// Colour index of each kernel, 0 to 1; 0 for a kernel of zeros.
    pub kernels: Vec<f64>,
    /// Mean of the indices: every kernel counts alike.
    pub mean: f64,
    /// The index of all kernels taken together: kernels count by their energy, so that those
    /// which learned nothing weigh little.
    pub energy_share: f64,
}

/// Colour indices of `weights`, `[maps, 3, k, k]`, whose maps are split into `columns` equal
/// ranges, column 0's first.
///
/// # Errors
/// [`crate::error::Error::Checkpoint`] when the weights are no such tensor.
pub fn colour_specialisation(
    weights: &[f32],
    maps: usize,
    columns: usize,
) -> Result<Vec<ColumnColour>> {
    kernel_size(weights, maps, columns)?;
    let kernel = weights.len() / maps;
    let column = weights.len() / columns;
    Ok(weights
        .chunks(column)
        .map(|weights| column_colour(weights, kernel))
        .collect())
}

fn column_colour(weights: &[f32], kernel: usize) -> ColumnColour {
    let energies: Vec<(f64, f64)> = weights.chunks(kernel).map(energies).collect();
    let kernels: Vec<f64> = energies.iter().map(|&pair| share(pair)).collect();
    let sum = |(grey, all): (f64, f64), pair: &(f64, f64)| (grey + pair.0, all + pair.1);
    ColumnColour {
        mean: kernels.iter().sum::<f64>() / kernels.len() as f64,
        energy_share: share(energies.iter().fold((0.0, 0.0), sum)),
        kernels,
    }
}

/// Energy along the grey axis, and all energy, of a kernel `[3, k, k]`.
fn energies(kernel: &[f32]) -> (f64, f64) {
    let pixels = kernel.len() / 3;
    let (red, others) = kernel.split_at(pixels);
    let (green, blue) = others.split_at(pixels);
    let (mut grey, mut all) = (0.0, 0.0);
    for ((&r, &g), &b) in red.iter().zip(green).zip(blue) {
        let (r, g, b) = (f64::from(r), f64::from(g), f64::from(b));
        grey += (r + g + b).powi(2) / 3.0;
        all += r * r + g * g + b * b;
    }
    (grey, all)
}

fn share((grey, all): (f64, f64)) -> f64 {
    if all > 0.0 {
        (1.0 - grey / all).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// The side k of kernels `[maps, 3, k, k]` that split evenly into columns.
pub(super) fn kernel_size(weights: &[f32], maps: usize, columns: usize) -> Result<usize> {
    let pixels = weights.len() / (3 * maps).max(1);
    let side = pixels.isqrt();
    let fits = maps > 0 && side > 0 && side * side * 3 * maps == weights.len();
    if !fits || columns == 0 || !maps.is_multiple_of(columns) {
        let len = weights.len();
        return Err(error::checkpoint(format!(
            "conv1: {len} weights are not {maps} square RGB kernels in {columns} equal columns"
        )));
    }
    Ok(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 11;

    /// A Gabor patch at angle `turn` (radians), times a colour: `[3, 11, 11]`.
    fn gabor(turn: f32, colour: [f32; 3]) -> Vec<f32> {
        let mut kernel = Vec::new();
        for channel in colour {
            for index in 0..SIDE * SIDE {
                let x = (index % SIDE) as f32 - 5.0;
                let y = (index / SIDE) as f32 - 5.0;
                let along = x * turn.cos() + y * turn.sin();
                let patch = (-(x * x + y * y) / 12.0).exp() * (1.3 * along + 0.4).cos();
                kernel.push(channel * patch);
            }
        }
        kernel
    }

    fn index(kernel: &[f32]) -> f64 {
        colour_specialisation(kernel, 1, 1).unwrap()[0].kernels[0]
    }

    #[test]
    fn a_grey_gabor_has_index_zero_and_opponent_colours_have_one() {
        assert!(index(&gabor(0.3, [0.7; 3])) < 1e-6);
        assert!(index(&gabor(0.3, [1.0, -1.0, 0.0])) > 1.0 - 1e-6);
        assert!(index(&gabor(1.1, [0.5, 0.5, -1.0])) > 1.0 - 1e-6);
    }

    #[test]
    fn a_pure_red_kernel_has_two_thirds_of_its_energy_off_the_grey_axis() {
        assert!((index(&gabor(0.0, [1.0, 0.0, 0.0])) - 2.0 / 3.0).abs() < 1e-6);
        assert!((index(&[1.0, 0.0, 0.0]) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_index_ignores_scale_sign_and_the_order_of_pixels() {
        let kernel = gabor(0.7, [1.0, 0.2, -0.4]);
        let expected = index(&kernel);
        assert!((0.1..0.95).contains(&expected), "{expected}");
        let scaled: Vec<f32> = kernel.iter().map(|weight| -40.0 * weight).collect();
        assert!((index(&scaled) - expected).abs() < 1e-6);
        let turned: Vec<f32> = kernel
            .chunks(SIDE * SIDE)
            .flat_map(|map| (0..map.len()).map(|i| map[(SIDE - 1 - i % SIDE) * SIDE + i / SIDE]))
            .collect();
        assert_ne!(turned, kernel);
        assert!((index(&turned) - expected).abs() < 1e-6);
    }

    #[test]
    fn columns_are_told_apart_and_weak_kernels_weigh_little_in_the_energy_share() {
        let faint: Vec<f32> = gabor(0.0, [1e-3, -1e-3, 0.0]);
        let zeros = vec![0.0; faint.len()];
        let grey = gabor(0.2, [1.0; 3]);
        let colour = gabor(0.4, [1.0, -1.0, 0.0]);
        let weights = [grey, faint, colour, zeros].concat();
        let columns = colour_specialisation(&weights, 4, 2).unwrap();
        assert!((columns[0].mean - 0.5).abs() < 1e-6);
        assert!(columns[0].energy_share < 1e-5);
        assert_eq!(columns[1].kernels[1], 0.0);
        assert!(columns[1].energy_share > 1.0 - 1e-6);
    }

    #[test]
    fn independent_random_weights_have_two_thirds() {
        let mut state = 1u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let weights: Vec<f32> = (0..96 * 363).map(|_| uniform()).collect();
        let columns = colour_specialisation(&weights, 96, 2).unwrap();
        assert!(
            columns
                .iter()
                .all(|column| (column.mean - 2.0 / 3.0).abs() < 0.02)
        );
    }

    #[test]
    fn a_tensor_of_another_shape_is_refused() {
        for (len, maps, columns) in [
            (363, 1, 2),
            (362, 1, 1),
            (0, 0, 1),
            (363, 0, 1),
            (363, 1, 0),
        ] {
            let error = colour_specialisation(&vec![0.0; len], maps, columns).unwrap_err();
            assert_eq!(error.exit_code(), 4);
        }
    }
}
