//! The operations in float64, written as their definitions read. One image at a time.

use alexnet_mp::network::op::{Conv, LocalNorm, Lrn, Pool, Shape};

fn at(shape: Shape, row: usize, column: usize, map: usize) -> usize {
    (row * shape.width + column) * shape.maps + map
}

/// Calls `each(output pixel, input pixel, first row of the weights)` for every pixel that a
/// window of the convolution reads.
pub fn for_each_tap(op: &Conv, mut each: impl FnMut(usize, usize, usize)) {
    let w = op.window;
    for (row, column) in
        (0..op.output.height).flat_map(|r| (0..op.output.width).map(move |c| (r, c)))
    {
        for (i, j) in (0..w.size).flat_map(|i| (0..w.size).map(move |j| (i, j))) {
            let (y, x) = (row * w.stride + i, column * w.stride + j);
            if y < w.pad || x < w.pad || y - w.pad >= op.input.height || x - w.pad >= op.input.width
            {
                continue;
            }
            let input = (y - w.pad) * op.input.width + x - w.pad;
            each(
                row * op.output.width + column,
                input,
                (i * w.size + j) * op.input.maps,
            );
        }
    }
}

/// Σ conv(x, weights), without bias and activation, of one part.
pub fn conv(op: &Conv, x: &[f64], weights: &[f64]) -> Vec<f64> {
    let (inputs, outputs) = (op.input.maps, op.output.maps);
    let mut y = vec![0.0; op.output.len()];
    for_each_tap(op, |to, from, row| {
        for map in 0..inputs {
            let x = x[from * inputs + map];
            for o in 0..outputs {
                y[to * outputs + o] += x * weights[(row + map) * outputs + o];
            }
        }
    });
    y
}

/// Gradient of `conv`'s input.
pub fn conv_data(op: &Conv, dy: &[f64], weights: &[f64]) -> Vec<f64> {
    let (inputs, outputs) = (op.input.maps, op.output.maps);
    let mut dx = vec![0.0; op.input.len()];
    for_each_tap(op, |to, from, row| {
        for map in 0..inputs {
            for o in 0..outputs {
                dx[from * inputs + map] +=
                    dy[to * outputs + o] * weights[(row + map) * outputs + o];
            }
        }
    });
    dx
}

/// Adds the gradient of `conv`'s weights.
pub fn add_conv_weights(op: &Conv, x: &[f64], dy: &[f64], gradient: &mut [f64]) {
    let (inputs, outputs) = (op.input.maps, op.output.maps);
    for_each_tap(op, |to, from, row| {
        for map in 0..inputs {
            let x = x[from * inputs + map];
            for o in 0..outputs {
                gradient[(row + map) * outputs + o] += x * dy[to * outputs + o];
            }
        }
    });
}

/// Gradient of a bias: sums of the columns of `dy`.
pub fn bias(outputs: usize, dy: &[f32]) -> Vec<f64> {
    let mut sums = vec![0.0; outputs];
    for (i, d) in dy.iter().enumerate() {
        sums[i % outputs] += f64::from(*d);
    }
    sums
}

/// `x · weights` of one row.
pub fn linear(outputs: usize, x: &[f64], weights: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; outputs];
    for (x, row) in x.iter().zip(weights.chunks_exact(outputs)) {
        for (y, w) in y.iter_mut().zip(row) {
            *y += x * w;
        }
    }
    y
}

/// Normalised own maps; `x` holds the parts one after the other, own column first.
pub fn lrn(op: &Lrn, x: &[f64]) -> Vec<f64> {
    let (shape, maps) = (op.shape, op.shape.maps);
    let part = |p: usize| {
        if p == op.column || op.parts == 1 {
            0
        } else {
            1
        }
    };
    let first = if op.parts == 1 { 0 } else { op.column * maps };
    let mut y = vec![0.0; shape.len()];
    for pixel in 0..shape.pixels() {
        // All maps of the pixel, column 0's first.
        let value = |m: usize| x[part(m / maps) * shape.len() + pixel * maps + m % maps];
        for map in 0..maps {
            let place = first + map;
            let window = place.saturating_sub(op.size / 2)
                ..(place + (op.size - 1) / 2 + 1).min(op.parts * maps);
            let sum: f64 = window.map(|m| value(m).powi(2)).sum();
            let scale = f64::from(op.k) + f64::from(op.alpha) * sum;
            y[pixel * maps + map] = value(place) * scale.powf(-f64::from(op.beta));
        }
    }
    y
}

/// Gradient of `lrn`, by the parts of its input: from `y = v·s^−β`, `s = k + α Σ v²` over the window,
/// `dv_j = dy_j s_j^−β − 2αβ v_j Σ dy_i v_i s_i^(−β−1)` over the own maps i whose windows hold j.
pub fn lrn_backward(op: &Lrn, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let (shape, maps) = (op.shape, op.shape.maps);
    let own = if op.parts == 1 { 0 } else { op.column };
    let (k, alpha, beta) = (f64::from(op.k), f64::from(op.alpha), f64::from(op.beta));
    let mut dx = vec![0.0; x.len()];
    for pixel in 0..shape.pixels() {
        // The element of map m of all, column 0's first; the own column's part comes first.
        let element =
            |m: usize| usize::from(m / maps != own) * shape.len() + pixel * maps + m % maps;
        for map in 0..maps {
            let place = own * maps + map;
            let window = place.saturating_sub(op.size / 2)
                ..(place + (op.size - 1) / 2 + 1).min(op.parts * maps);
            let sum: f64 = window.clone().map(|m| x[element(m)].powi(2)).sum();
            let (scale, d) = (k + alpha * sum, dy[pixel * maps + map]);
            dx[element(place)] += d * scale.powf(-beta);
            let share = 2.0 * alpha * beta * d * x[element(place)] * scale.powf(-beta - 1.0);
            window.for_each(|m| dx[element(m)] -= share * x[element(m)]);
        }
    }
    dx
}

/// Response normalisation over squares of pixels.
pub fn local_norm(op: &LocalNorm, x: &[f64]) -> Vec<f64> {
    let s = op.shape;
    let mut y = vec![0.0; s.len()];
    let around =
        |i: usize, end: usize| i.saturating_sub(op.size / 2)..(i + (op.size - 1) / 2 + 1).min(end);
    for (row, column, map) in places(s) {
        let mut sum = 0.0;
        for (r, c) in
            around(row, s.height).flat_map(|r| around(column, s.width).map(move |c| (r, c)))
        {
            sum += x[at(s, r, c, map)].powi(2);
        }
        let scale = f64::from(op.k) + f64::from(op.alpha) * sum;
        y[at(s, row, column, map)] = x[at(s, row, column, map)] * scale.powf(-f64::from(op.beta));
    }
    y
}

/// Gradient of `local_norm`, as that of `lrn`.
pub fn local_norm_backward(op: &LocalNorm, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let s = op.shape;
    let (k, alpha, beta) = (f64::from(op.k), f64::from(op.alpha), f64::from(op.beta));
    let around =
        |i: usize, end: usize| i.saturating_sub(op.size / 2)..(i + (op.size - 1) / 2 + 1).min(end);
    let mut dx = vec![0.0; s.len()];
    for (row, column, map) in places(s) {
        let window = || {
            around(row, s.height)
                .flat_map(|r| around(column, s.width).map(move |c| at(s, r, c, map)))
        };
        let sum: f64 = window().map(|i| x[i].powi(2)).sum();
        let (scale, here) = (k + alpha * sum, at(s, row, column, map));
        dx[here] += dy[here] * scale.powf(-beta);
        let share = 2.0 * alpha * beta * dy[here] * x[here] * scale.powf(-beta - 1.0);
        window().for_each(|i| dx[i] -= share * x[i]);
    }
    dx
}

fn places(s: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..s.len()).map(move |i| (i / s.maps / s.width, i / s.maps % s.width, i % s.maps))
}

/// For each output, the element of the input that is its window's first maximum.
pub fn maxima(op: &Pool, x: &[f64]) -> Vec<Option<usize>> {
    let w = op.window;
    let pixel = |position: usize, i: usize, end: usize| {
        (position * w.stride + i)
            .checked_sub(w.pad)
            .filter(|&p| p < end)
    };
    let first = |(row, column, map): (usize, usize, usize)| {
        let mut best: Option<usize> = None;
        for (i, j) in (0..w.size).flat_map(|i| (0..w.size).map(move |j| (i, j))) {
            let (Some(r), Some(c)) = (
                pixel(row, i, op.input.height),
                pixel(column, j, op.input.width),
            ) else {
                continue;
            };
            let here = at(op.input, r, c, map);
            if best.is_none_or(|b| x[here] > x[b]) {
                best = Some(here);
            }
        }
        best
    };
    places(op.output).map(first).collect()
}

/// Max pooling.
pub fn pool(op: &Pool, x: &[f64]) -> Vec<f64> {
    maxima(op, x)
        .iter()
        .map(|m| m.map_or(0.0, |m| x[m]))
        .collect()
}

/// Gradient of max pooling.
pub fn pool_backward(op: &Pool, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; op.input.len()];
    for (m, d) in maxima(op, x).iter().zip(dy) {
        if let Some(m) = m {
            dx[*m] += d;
        }
    }
    dx
}
