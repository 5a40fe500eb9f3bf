//! The operations in float64 as their definitions read, over whole tensors `[image, map, row,
//! column]`: convolution in groups, normalisation over groups of maps, nothing of columns.

/// Maps of a batch of images.
#[derive(Clone, Debug)]
pub struct Maps {
    pub images: usize,
    pub maps: usize,
    pub side: usize,
    pub values: Vec<f64>,
}

impl Maps {
    pub fn new(images: usize, maps: usize, side: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), images * maps * side * side);
        Maps {
            images,
            maps,
            side,
            values,
        }
    }

    pub fn zeros(images: usize, maps: usize, side: usize) -> Self {
        Maps::new(images, maps, side, vec![0.0; images * maps * side * side])
    }

    pub fn at(&self, image: usize, map: usize, row: usize, column: usize) -> usize {
        ((image * self.maps + map) * self.side + row) * self.side + column
    }

    /// The same values as units of fully connected layers.
    pub fn flat(&self) -> Self {
        let units = self.maps * self.side * self.side;
        Maps::new(self.images, units, 1, self.values.clone())
    }

    fn like(&self) -> Self {
        Maps::zeros(self.images, self.maps, self.side)
    }
}

/// Positions of a window along an edge: `1 + ceil((side + 2·pad − size) / stride)`.
pub fn positions(side: usize, size: usize, stride: usize, pad: usize) -> usize {
    let span = (side + 2 * pad) as f64 - size as f64;
    1 + (span.max(0.0) / stride as f64).ceil() as usize
}

/// A grouped convolution's window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub size: usize,
    pub stride: usize,
    pub pad: usize,
    pub groups: usize,
}

impl Window {
    /// Calls `each(output place, input place, weight)` for every product of one image. Places
    /// beyond an edge hold zeros and take no part.
    fn each(self, image: usize, x: &Maps, y: &Maps, mut each: impl FnMut(usize, usize, usize)) {
        let (inputs, outputs) = (x.maps / self.groups, y.maps / self.groups);
        let inside = |position: usize, k: usize| {
            (position * self.stride + k)
                .checked_sub(self.pad)
                .filter(|&p| p < x.side)
        };
        for o in 0..y.maps {
            let first = o / outputs * inputs;
            for (row, column) in pixels(y.side) {
                let to = y.at(image, o, row, column);
                for (i, j) in pixels(self.size) {
                    let (Some(r), Some(c)) = (inside(row, i), inside(column, j)) else {
                        continue;
                    };
                    for m in 0..inputs {
                        let weight = ((o * inputs + m) * self.size + i) * self.size + j;
                        each(to, x.at(image, first + m, r, c), weight);
                    }
                }
            }
        }
    }

    /// Convolution with bias; `weights` `[outputs, inputs / groups, size, size]`.
    pub fn forward(self, x: &Maps, weights: &[f64], bias: &[f64]) -> Maps {
        let side = positions(x.side, self.size, self.stride, self.pad);
        let mut y = Maps::zeros(x.images, bias.len(), side);
        for (i, value) in y.values.iter_mut().enumerate() {
            *value = bias[i / (side * side) % bias.len()];
        }
        let shape = Maps {
            values: vec![],
            ..y
        };
        let mut values = std::mem::take(&mut y.values);
        for image in 0..x.images {
            self.each(image, x, &shape, |to, from, w| {
                values[to] += x.values[from] * weights[w]
            });
        }
        Maps { values, ..shape }
    }

    /// Gradients of the input, the weights and the bias.
    pub fn backward(self, x: &Maps, weights: &[f64], dy: &Maps) -> (Maps, Vec<f64>, Vec<f64>) {
        let mut dx = x.like();
        let mut dw = vec![0.0; weights.len()];
        let mut db = vec![0.0; dy.maps];
        for image in 0..x.images {
            self.each(image, x, dy, |to, from, w| {
                dx.values[from] += dy.values[to] * weights[w];
                dw[w] += dy.values[to] * x.values[from];
            });
        }
        for (i, d) in dy.values.iter().enumerate() {
            db[i / (dy.side * dy.side) % dy.maps] += d;
        }
        (dx, dw, db)
    }
}

/// Rows and columns of a square.
fn pixels(side: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..side).flat_map(move |r| (0..side).map(move |c| (r, c)))
}

/// Response normalisation `b_i = a_i / (k + alpha · Σ a_j²)^beta` over the places that `around`
/// names; `around` must be symmetric (j is around i where i is around j).
fn normalise(
    x: &Maps,
    [k, alpha, beta]: [f64; 3],
    around: impl Fn(usize) -> Vec<usize>,
    dy: Option<&Maps>,
) -> Maps {
    let scale: Vec<f64> = (0..x.values.len())
        .map(|i| k + alpha * around(i).iter().map(|&j| x.values[j].powi(2)).sum::<f64>())
        .collect();
    let value = |i: usize| match dy {
        None => x.values[i] * scale[i].powf(-beta),
        // ∂b_j/∂a_i = [i = j]·s_j^−β − 2αβ·a_i·a_j·s_j^(−β−1)
        Some(dy) => {
            let through: f64 = around(i)
                .iter()
                .map(|&j| dy.values[j] * x.values[j] * scale[j].powf(-beta - 1.0))
                .sum();
            dy.values[i] * scale[i].powf(-beta) - 2.0 * alpha * beta * x.values[i] * through
        }
    };
    let values = (0..x.values.len()).map(value).collect();
    Maps { values, ..x.like() }
}

/// Over the `n` neighbouring maps (n odd) within each of `groups` groups of maps. With `dy`: the
/// gradient of the input instead.
pub fn lrn(x: &Maps, n: usize, groups: usize, constants: [f64; 3], dy: Option<&Maps>) -> Maps {
    assert!(n % 2 == 1, "the reference knows symmetric windows only");
    let (pixels, group) = (x.side * x.side, x.maps / groups);
    let around = |i: usize| {
        let map = i / pixels % x.maps;
        let first = map / group * group;
        let low = map.saturating_sub(n / 2).max(first);
        let high = (map + n / 2).min(first + group - 1);
        (low..=high)
            .map(|m| i + m * pixels - map * pixels)
            .collect()
    };
    normalise(x, constants, around, dy)
}

/// Over squares of `n` × `n` pixels (n odd) of the same map. With `dy`: the gradient.
pub fn local_norm(x: &Maps, n: usize, constants: [f64; 3], dy: Option<&Maps>) -> Maps {
    assert!(n % 2 == 1, "the reference knows symmetric windows only");
    let side = x.side;
    let near = move |p: usize| p.saturating_sub(n / 2)..(p + n / 2 + 1).min(side);
    let around = |i: usize| {
        let (row, column) = (i / side % side, i % side);
        let corner = i - row * side - column;
        near(row)
            .flat_map(|r| near(column).map(move |c| corner + r * side + c))
            .collect()
    };
    normalise(x, constants, around, dy)
}

/// Max pooling; with each output the place of its window's first maximum.
pub fn pool(x: &Maps, size: usize, stride: usize) -> (Maps, Vec<usize>) {
    let side = positions(x.side, size, stride, 0);
    let mut y = Maps::zeros(x.images, x.maps, side);
    let mut places = vec![0; y.values.len()];
    for (image, map) in (0..x.images).flat_map(|i| (0..x.maps).map(move |m| (i, m))) {
        for (row, column) in pixels(side) {
            let best = pixels(size)
                .map(|(i, j)| (row * stride + i, column * stride + j))
                .filter(|&(r, c)| r < x.side && c < x.side)
                .map(|(r, c)| x.at(image, map, r, c))
                .reduce(|best, p| {
                    if x.values[p] > x.values[best] {
                        p
                    } else {
                        best
                    }
                })
                .expect("a window begins inside");
            let to = y.at(image, map, row, column);
            y.values[to] = x.values[best];
            places[to] = best;
        }
    }
    (y, places)
}

/// The mean multinomial logistic loss and its gradient by the logits.
pub fn softmax_loss(logits: &Maps, labels: &[u32]) -> (f64, Maps) {
    let mut loss = 0.0;
    let mut gradient = logits.clone();
    for (row, &label) in gradient.values.chunks_mut(logits.maps).zip(labels) {
        let largest = row.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|z| (z - largest).exp()).sum();
        loss += sum.ln() + largest - row[label as usize];
        for (class, z) in row.iter_mut().enumerate() {
            let p = (*z - largest).exp() / sum;
            *z = (p - f64::from(u8::from(class == label as usize))) / labels.len() as f64;
        }
    }
    (loss / labels.len() as f64, gradient)
}
