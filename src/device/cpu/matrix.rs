//! Weight matrices: panels of 16 columns, `[columns / 16][row][16]`, the last panel narrower
//! where 16 does not divide the columns. So a matrix has as many elements as in row order.

use super::gemm::PANEL;

/// Start and width of panel `panel` of a `rows` × `columns` matrix.
pub fn panel(rows: usize, columns: usize, panel: usize) -> (usize, usize) {
    let first = panel * PANEL;
    (rows * first, PANEL.min(columns - first))
}

/// From row order into panels.
pub fn pack(rows: usize, columns: usize, source: &[f32], target: &mut [f32]) {
    for p in 0..columns.div_ceil(PANEL) {
        let (start, width) = panel(rows, columns, p);
        let target = &mut target[start..start + rows * width];
        for (row, t) in target.chunks_exact_mut(width).enumerate() {
            let from = row * columns + p * PANEL;
            t.copy_from_slice(&source[from..from + width]);
        }
    }
}

/// From panels into row order.
pub fn unpack(rows: usize, columns: usize, source: &[f32], target: &mut [f32]) {
    for p in 0..columns.div_ceil(PANEL) {
        let (start, width) = panel(rows, columns, p);
        let source = &source[start..start + rows * width];
        for (row, s) in source.chunks_exact(width).enumerate() {
            let to = row * columns + p * PANEL;
            target[to..to + width].copy_from_slice(s);
        }
    }
}

/// Copies a narrow panel into one of 16 columns, the others zero.
pub fn widen(width: usize, source: &[f32], target: &mut [f32]) {
    for (s, t) in source
        .chunks_exact(width)
        .zip(target.chunks_exact_mut(PANEL))
    {
        t[..width].copy_from_slice(s);
        t[width..].fill(0.0);
    }
}

/// Copies `rows` rows of `width` elements between buffers with different row strides.
pub fn copy_rows(
    rows: usize,
    width: usize,
    (source, from): (&[f32], usize),
    (target, to): (&mut [f32], usize),
) {
    for (s, t) in source.chunks(from).zip(target.chunks_mut(to)).take(rows) {
        t[..width].copy_from_slice(&s[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_undoes_packing() {
        for (rows, columns) in [(1, 1), (3, 16), (5, 40), (2, 17)] {
            let matrix: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let (mut panels, mut back) = (vec![0.0; matrix.len()], vec![0.0; matrix.len()]);
            pack(rows, columns, &matrix, &mut panels);
            unpack(rows, columns, &panels, &mut back);
            assert_eq!(matrix, back);
        }
    }
}
