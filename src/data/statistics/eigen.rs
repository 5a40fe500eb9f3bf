//! Eigenvalues and eigenvectors of a symmetric 3 × 3 matrix, by Jacobi's rotations.

/// Eigenvalues, descending, and the eigenvector of each: length 1, largest component positive, so
/// that the result is unique.
pub fn symmetric(mut a: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    // Row k of `v` becomes the k-th eigenvector.
    let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // Converges quadratically: far fewer sweeps reach the last bit.
    for _ in 0..20 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            rotate(&mut a, &mut v, p, q);
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    (
        order.map(|k| a[k][k]),
        order.map(|k| {
            let largest = v[k].into_iter().max_by(|x, y| x.abs().total_cmp(&y.abs()));
            v[k].map(|x| x * largest.unwrap_or(1.0).signum())
        }),
    )
}

/// Rotates axes `p` and `q` so that `a[p][q]` becomes 0.
fn rotate(a: &mut [[f64; 3]; 3], v: &mut [[f64; 3]; 3], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for row in a.iter_mut() {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    for k in 0..3 {
        (a[p][k], a[q][k]) = (c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]);
        (v[p][k], v[q][k]) = (c * v[p][k] - s * v[q][k], s * v[p][k] + c * v[q][k]);
    }
    a[p][q] = 0.0;
    a[q][p] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_orthonormal_and_give_the_matrix_back() {
        for a in [
            [[4.0, 1.0, -2.0], [1.0, 3.0, 0.5], [-2.0, 0.5, 9.0]],
            [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]],
            [[0.0; 3]; 3],
            [
                [5000.0, 4900.0, 4800.0],
                [4900.0, 5100.0, 5000.0],
                [4800.0, 5000.0, 5600.0],
            ],
        ] {
            let (values, vectors) = symmetric(a);
            assert!(values[0] >= values[1] && values[1] >= values[2]);
            for i in 0..3 {
                for j in 0..3 {
                    let dot: f64 = (0..3).map(|c| vectors[i][c] * vectors[j][c]).sum();
                    assert!((dot - f64::from(i == j)).abs() < 1e-14);
                    let back: f64 = (0..3)
                        .map(|k| values[k] * vectors[k][i] * vectors[k][j])
                        .sum();
                    assert!((back - a[i][j]).abs() < 1e-12 * (1.0 + values[0].abs()));
                }
            }
        }
    }
}
