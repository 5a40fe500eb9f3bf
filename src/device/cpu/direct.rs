//! Convolution by direct products: an image is copied into a frame with its border, where the
//! pixels under one row of a kernel are contiguous; no other copy is made.

use super::gemm::{Outer, PANEL, Product, Start, outer, product_at};
use super::matrix;
use super::matrix::{copy_rows, panel, widen};
use super::team::{Shared, Team, Workers};
use crate::error::Result;
use crate::network::op::{Activation, Conv, Shape};

/// Images whose frames are made before a weight gradient's products run over them, and lines of
/// their outputs that one product sums: so many stay in the first-level cache for all its rows.
const GROUP: usize = 4;
const LINES: usize = 2;

/// An image within a border of zeros, its pixels `dilation` apart.
pub struct Frame {
    image: Shape,
    height: usize,
    width: usize,
    /// Place of the image's first pixel, on both axes.
    before: isize,
    dilation: usize,
}

impl Frame {
    fn len(&self) -> usize {
        self.height * self.width * self.image.maps
    }

    /// Copies an image into the frame; what does not fit is not read by any window.
    fn fill(&self, x: &[f32], frame: &mut [f32]) {
        let maps = self.image.maps;
        frame.fill(0.0);
        let place = |i: usize| self.before + (i * self.dilation) as isize;
        let inside = |at: isize, end: usize| at >= 0 && at < end as isize;
        for row in (0..self.image.height).filter(|&r| inside(place(r), self.height)) {
            let x = &x[row * self.image.width * maps..][..self.image.width * maps];
            let line = &mut frame[place(row) as usize * self.width * maps..][..self.width * maps];
            if self.dilation == 1 && self.before >= 0 {
                let before = self.before as usize * maps;
                let len = x.len().min(line.len() - before);
                line[before..before + len].copy_from_slice(&x[..len]);
            } else {
                for column in (0..self.image.width).filter(|&c| inside(place(c), self.width)) {
                    let to = place(column) as usize * maps;
                    line[to..to + maps].copy_from_slice(&x[column * maps..][..maps]);
                }
            }
        }
    }

    /// Offsets of the windows at every `stride`th pixel.
    fn windows(&self, rows: usize, columns: usize, stride: usize) -> Vec<u32> {
        let offset = |r: usize, c: usize| (r * self.width + c) * stride * self.image.maps;
        (0..rows)
            .flat_map(|r| (0..columns).map(move |c| offset(r, c) as u32))
            .collect()
    }
}

/// Frames and window offsets of one convolution.
pub struct Direct {
    forward: Frame,
    windows: Vec<u32>,
    /// The output's gradient with a border, over which the turned kernel gives the input's.
    backward: Frame,
    pixels: Vec<u32>,
}

impl Direct {
    pub fn new(op: &Conv) -> Direct {
        let (size, stride) = (op.window.size, op.window.stride);
        let extent = |positions: usize| (positions - 1) * stride + size;
        let forward = Frame {
            image: op.input,
            height: extent(op.output.height),
            width: extent(op.output.width),
            before: op.window.pad as isize,
            dilation: 1,
        };
        let backward = Frame {
            image: op.output,
            height: op.input.height + size - 1,
            width: op.input.width + size - 1,
            before: size as isize - 1 - op.window.pad as isize,
            dilation: stride,
        };
        Direct {
            windows: forward.windows(op.output.height, op.output.width, stride),
            pixels: backward.windows(op.input.height, op.input.width, 1),
            forward,
            backward,
        }
    }
}

/// The product of all windows of a frame with a matrix of `columns` columns.
fn windows_product<'a>(
    frame: &Frame,
    size: usize,
    windows: &[u32],
    columns: usize,
    start: Start<'a>,
    relu: bool,
) -> Product<'a> {
    let run = size * frame.image.maps;
    Product {
        rows: windows.len(),
        panels: columns.div_ceil(PANEL),
        segments: size,
        run,
        a_segment: frame.width * frame.image.maps,
        b_panel: size * run * PANEL,
        c_row: columns.next_multiple_of(PANEL),
        c_panel: PANEL,
        start,
        relu,
    }
}

/// `y = activation(Σ_parts conv(x_part, weights_part) + bias)`; ReLU or nothing.
pub fn forward(
    team: &mut Team,
    op: &Conv,
    plan: &Direct,
    images: usize,
    x: &[&[f32]],
    weights: &[&[f32]],
    bias: &[f32],
    y: &mut [f32],
) -> Result<()> {
    let (maps, wide) = (op.output.maps, op.output.maps.next_multiple_of(PANEL));
    let (narrow, frame) = (maps != wide, plan.forward.len());
    let matrix = op.depth() * wide;
    let tile = if narrow { op.output.pixels() * wide } else { 0 };
    team.reserve(wide + op.parts * matrix, frame + tile)?;
    let (biases, copies) = team.shared.split_at_mut(wide);
    biases[..maps].copy_from_slice(&bias[..maps]);
    if narrow {
        for (w, copy) in weights.iter().zip(copies.chunks_exact_mut(matrix)) {
            widen_matrix(op.depth(), maps, w, copy);
        }
    }
    let (biases, copies) = (&*biases, &*copies);
    let isa = team.workers.isa;
    let y = &mut y[..images * op.output.len()];
    team.workers.chunks(y, op.output.len(), |image, y, own| {
        let (frame, own) = own.split_at_mut(frame);
        let target = if narrow { &mut own[..tile] } else { &mut *y };
        for part in 0..op.parts {
            plan.forward
                .fill(&x[part][image * op.input.len()..][..op.input.len()], frame);
            let start = if part == 0 {
                Start::Bias(biases)
            } else {
                Start::Add
            };
            let relu = part + 1 == op.parts && op.activation == Some(Activation::Relu);
            let size = op.window.size;
            let p = windows_product(&plan.forward, size, &plan.windows, maps, start, relu);
            let b = if narrow {
                &copies[part * matrix..]
            } else {
                weights[part]
            };
            assert!(b.len() >= matrix && target.len() >= p.rows * wide);
            // SAFETY: the frame covers every window, `b` whole panels, and `target` every row.
            unsafe {
                product_at(
                    isa,
                    &p,
                    frame.as_ptr(),
                    &plan.windows,
                    b.as_ptr(),
                    target.as_mut_ptr(),
                );
            }
        }
        if narrow {
            copy_rows(op.output.pixels(), maps, (&own[..tile], wide), (y, maps));
        }
    });
    Ok(())
}

/// All panels of a matrix, the last one widened.
fn widen_matrix(rows: usize, columns: usize, source: &[f32], target: &mut [f32]) {
    for (p, target) in target.chunks_exact_mut(rows * PANEL).enumerate() {
        let (start, width) = panel(rows, columns, p);
        widen(width, &source[start..start + rows * width], target);
    }
}

/// The kernels turned by half a turn, inputs and outputs exchanged: `[input maps / 16][kernel
/// row, column, output map][16]`, the last panel filled with zeros.
pub fn turn(op: &Conv, weights: &[f32], turned: &mut [f32]) {
    let (taps, inputs) = (op.window.size * op.window.size, op.input.maps);
    let depth = taps * op.output.maps;
    for (p, turned) in turned.chunks_exact_mut(depth * PANEL).enumerate() {
        let width = PANEL.min(inputs - p * PANEL);
        for tap in 0..taps {
            let row = (taps - 1 - tap) * inputs + p * PANEL;
            for map in 0..op.output.maps {
                let (start, columns) = panel(op.depth(), op.output.maps, map / PANEL);
                let source = &weights[start + row * columns + map % PANEL..];
                let target = &mut turned[(tap * op.output.maps + map) * PANEL..][..PANEL];
                target[width..].fill(0.0);
                for (i, t) in target[..width].iter_mut().enumerate() {
                    *t = source[i * columns];
                }
            }
        }
    }
}

/// Gradient of one part's input.
pub fn backward_data(
    team: &mut Team,
    op: &Conv,
    plan: &Direct,
    images: usize,
    dy: &[f32],
    weights: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    let (maps, wide) = (op.input.maps, op.input.maps.next_multiple_of(PANEL));
    let (narrow, frame) = (maps != wide, plan.backward.len());
    let matrix = op.window.size * op.window.size * op.output.maps * wide;
    let tile = if narrow { op.input.pixels() * wide } else { 0 };
    team.reserve(matrix, frame + tile)?;
    let turned = &mut team.shared[..matrix];
    turn(op, weights, turned);
    let (turned, isa) = (&*turned, team.workers.isa);
    let dx = &mut dx[..images * op.input.len()];
    team.workers.chunks(dx, op.input.len(), |image, dx, own| {
        let (frame, own) = own.split_at_mut(frame);
        let target = if narrow { &mut own[..tile] } else { &mut *dx };
        let dy = &dy[image * op.output.len()..][..op.output.len()];
        plan.backward.fill(dy, frame);
        let size = op.window.size;
        let p = windows_product(&plan.backward, size, &plan.pixels, maps, Start::Zero, false);
        assert!(target.len() >= p.rows * wide);
        // SAFETY: the frame covers every window, `turned` has whole panels.
        unsafe {
            let (a, b) = (frame.as_ptr(), turned.as_ptr());
            product_at(isa, &p, a, &plan.pixels, b, target.as_mut_ptr());
        }
        if narrow {
            copy_rows(op.input.pixels(), maps, (&own[..tile], wide), (dx, maps));
        }
    });
    Ok(())
}

/// Gradient of one part's weights, summed over the images in order.
pub fn backward_weights(
    team: &mut Team,
    op: &Conv,
    plan: &Direct,
    images: usize,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    gradient: &mut [f32],
) -> Result<()> {
    let (maps, wide) = (op.output.maps, op.output.maps.next_multiple_of(PANEL));
    let (narrow, pixels) = (maps != wide, op.output.pixels());
    let (frame, image) = (plan.forward.len(), if narrow { pixels * wide } else { 0 });
    let sums = if narrow { op.depth() * wide } else { 0 };
    team.reserve(GROUP * (frame + image) + sums, 0)?;
    let (frames, rest) = team.shared.split_at_mut(GROUP * frame);
    let (copies, sums) = rest.split_at_mut(GROUP * image);
    for first in (0..images).step_by(GROUP) {
        let group = GROUP.min(images - first);
        let x = &x[first * op.input.len()..];
        let dy = &dy[first * op.output.len()..(first + group) * op.output.len()];
        team.workers
            .chunks(&mut frames[..group * frame], frame, |i, frame, _| {
                plan.forward
                    .fill(&x[i * op.input.len()..][..op.input.len()], frame);
            });
        let dy = if narrow {
            copies.fill(0.0);
            copy_rows(group * pixels, maps, (dy, maps), (copies, wide));
            &*copies
        } else {
            dy
        };
        let target = if narrow { &mut *sums } else { &mut *gradient };
        let add = first > 0 || (accumulate && !narrow);
        add_outer(&team.workers, op, plan, group, frames, dy, add, target);
    }
    if narrow {
        narrow_sums(op, sums, accumulate, gradient);
    }
    Ok(())
}

/// The products of a group of images: one task per kernel row and three panels.
fn add_outer(
    workers: &Workers,
    op: &Conv,
    plan: &Direct,
    images: usize,
    frames: &[f32],
    dy: &[f32],
    add: bool,
    gradient: &mut [f32],
) {
    let wide = op.output.maps.next_multiple_of(PANEL);
    let (size, stride, maps) = (op.window.size, op.window.stride, op.input.maps);
    let (panels, width) = (wide / PANEL, plan.forward.width * maps);
    let lines = (0..op.output.height).step_by(LINES);
    let groups = panels.div_ceil(3);
    let (rows, target) = (size * maps, Shared::new(gradient));
    workers.run(size * groups, |task, _| {
        let (kernel_row, first) = (task / groups, task % groups * 3);
        let at = (first * op.depth() + kernel_row * rows) * PANEL;
        for (image, line) in (0..images).flat_map(|i| lines.clone().map(move |l| (i, l))) {
            let p = Outer {
                rows,
                panels: 3.min(panels - first),
                segments: LINES.min(op.output.height - line),
                run: op.output.width,
                a_segment: stride * width,
                a_step: stride * maps,
                b_segment: op.output.width * wide,
                b_step: wide,
                b_panel: PANEL,
                c_panel: op.depth() * PANEL,
                add: add || image + line > 0,
            };
            let a = &frames[image * plan.forward.len() + (kernel_row + stride * line) * width..];
            let pixel = image * op.output.pixels() + line * op.output.width;
            let b = &dy[pixel * wide + first * PANEL..];
            let extent = (p.panels - 1) * p.c_panel + rows * PANEL;
            // SAFETY: no other task has these panels' rows of this kernel row; frames and `dy`
            // hold every window and pixel of the image.
            unsafe {
                let c = target.pointer(at, extent);
                outer(workers.isa, &p, a.as_ptr(), b.as_ptr(), c);
            }
        }
    });
}

/// Copies sums in whole panels into (or adds them to) a matrix whose last panel is narrow.
fn narrow_sums(op: &Conv, sums: &[f32], accumulate: bool, gradient: &mut [f32]) {
    let (depth, maps) = (op.depth(), op.output.maps);
    for p in 0..maps.div_ceil(PANEL) {
        let (start, width) = matrix::panel(depth, maps, p);
        let rows = gradient[start..start + depth * width].chunks_exact_mut(width);
        for (g, s) in rows.zip(sums[p * depth * PANEL..].chunks_exact(PANEL)) {
            for (g, s) in g.iter_mut().zip(s) {
                *g = if accumulate { *g + s } else { *s };
            }
        }
    }
}
