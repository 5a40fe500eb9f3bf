//! Fully connected layers. Weights are panels (see [`super::matrix`]) that each pass reads once
//! from memory; inputs and gradients are first cut into blocks of 16 that stay in the cache.

use super::gemm::{Outer, PANEL, Product, Start, outer, product};
use super::matrix::{panel, widen};
use super::team::{Shared, Team, Workers};
use super::{activation, sgd};
use crate::device::Sink;
use crate::error::Result;
use crate::network::op::{Linear, Sgd};

/// Depth of one product: two panels of it fit the first-level cache.
const DEPTH: usize = 256;
/// Panels of weights of one forward task, and rows of weights of one backward task.
const PANELS: usize = 16;
const ROWS: usize = 96;
/// Rows and panels of one task of the weight gradient.
const GRADIENT_ROWS: usize = 256;
const GRADIENT_PANELS: usize = 3;

/// `[image][column]` to `[column / 16][image][16]`, zeros beyond the last column.
fn block(workers: &Workers, images: usize, columns: usize, x: &[f32], blocks: &mut [f32]) {
    let blocks = &mut blocks[..images * columns.next_multiple_of(PANEL)];
    workers.chunks(blocks, images * PANEL, |b, block, _| {
        let width = PANEL.min(columns - b * PANEL);
        for (image, t) in block.chunks_exact_mut(PANEL).enumerate() {
            t[..width].copy_from_slice(&x[image * columns + b * PANEL..][..width]);
            t[width..].fill(0.0);
        }
    });
}

/// `[image][column]` to `[image / 16][column][16]`, zeros beyond the last image.
fn block_transposed(
    workers: &Workers,
    images: usize,
    columns: usize,
    x: &[f32],
    blocks: &mut [f32],
) {
    let blocks = &mut blocks[..images.next_multiple_of(PANEL) * columns];
    workers.chunks(blocks, columns * PANEL, |b, block, _| {
        let width = PANEL.min(images - b * PANEL);
        for (column, t) in block.chunks_exact_mut(PANEL).enumerate() {
            for (i, t) in t[..width].iter_mut().enumerate() {
                *t = x[(b * PANEL + i) * columns + column];
            }
            t[width..].fill(0.0);
        }
    });
}

/// `y = activation(Σ_parts x_part · weights_part + bias)`.
pub fn forward(
    team: &mut Team,
    op: &Linear,
    images: usize,
    x: &[&[f32]],
    weights: &[&[f32]],
    bias: &[f32],
    y: &mut [f32],
) -> Result<()> {
    let (depth, outputs) = (op.depth(), op.outputs);
    let part = depth.next_multiple_of(PANEL) * images;
    let panels = outputs.div_ceil(PANEL);
    team.reserve(op.parts * part + panels * images * PANEL, DEPTH * PANEL)?;
    let (blocks, sums) = team.shared.split_at_mut(op.parts * part);
    for (x, blocks) in x.iter().zip(blocks.chunks_exact_mut(part)) {
        block(&team.workers, images, depth, x, blocks);
    }
    let (blocks, isa) = (&*blocks, team.workers.isa);
    let sums = &mut sums[..panels * images * PANEL];
    team.workers
        .chunks(sums, PANELS * images * PANEL, |task, sums, own| {
            for (p, start) in
                (0..op.parts).flat_map(|p| (0..depth).step_by(DEPTH).map(move |s| (p, s)))
            {
                let a = &blocks[p * part + start * images..];
                let extent = (start, DEPTH.min(depth - start), p + start == 0);
                forward_chunk(
                    isa,
                    op,
                    images,
                    extent,
                    a,
                    weights[p],
                    task * PANELS,
                    sums,
                    own,
                );
            }
        });
    let sums = &*sums;
    team.workers
        .chunks(&mut y[..images * outputs], outputs, |image, y, _| {
            for (p, (y, bias)) in y.chunks_mut(PANEL).zip(bias.chunks(PANEL)).enumerate() {
                let sums = &sums[(p * images + image) * PANEL..];
                for ((y, b), s) in y.iter_mut().zip(bias).zip(sums) {
                    *y = s + b;
                }
            }
            activation::apply(isa, op.activation, y);
        });
    Ok(())
}

/// A run of the depth, `(start, length, first)`, times the panels from `first_panel`.
fn forward_chunk(
    isa: super::simd::Isa,
    op: &Linear,
    images: usize,
    (start, len, first): (usize, usize, bool),
    a: &[f32],
    weights: &[f32],
    first_panel: usize,
    sums: &mut [f32],
    own: &mut [f32],
) {
    let count = sums.len() / (images * PANEL);
    let whole = (op.outputs / PANEL).saturating_sub(first_panel).min(count);
    for (from, panels) in (0..whole).step_by(2).map(|f| (f, 2.min(whole - f))) {
        let (at, _) = panel(op.depth(), op.outputs, first_panel + from);
        let b = &weights[at + start * PANEL..];
        let c = &mut sums[from * images * PANEL..];
        rows_times_panels(
            isa,
            images,
            len,
            first,
            a,
            b,
            (panels, op.depth() * PANEL),
            c,
        );
    }
    if whole < count {
        let (at, width) = panel(op.depth(), op.outputs, first_panel + whole);
        widen(width, &weights[at + start * width..][..len * width], own);
        let c = &mut sums[whole * images * PANEL..];
        rows_times_panels(isa, images, len, first, a, own, (1, 0), c);
    }
}

/// Blocked rows `[depth / 16][rows][16]` times panels of `len` rows, into `[panel][rows][16]`.
fn rows_times_panels(
    isa: super::simd::Isa,
    rows: usize,
    len: usize,
    first: bool,
    a: &[f32],
    b: &[f32],
    (panels, b_panel): (usize, usize),
    c: &mut [f32],
) {
    let segments = len / PANEL;
    let p = Product {
        rows,
        panels,
        segments,
        run: PANEL,
        a_segment: rows * PANEL,
        b_panel,
        c_row: PANEL,
        c_panel: rows * PANEL,
        start: if first { Start::Zero } else { Start::Add },
        relu: false,
    };
    let tail = Product {
        segments: 1,
        run: len % PANEL,
        start: if first && segments == 0 {
            Start::Zero
        } else {
            Start::Add
        },
        ..p
    };
    let extent = (panels - 1) * b_panel + len * PANEL;
    assert!(a.len() >= rows * len.next_multiple_of(PANEL) && b.len() >= extent);
    assert!(c.len() >= panels * rows * PANEL);
    // SAFETY: the slices cover the extents, as just checked.
    unsafe {
        if segments > 0 {
            product(isa, &p, a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        }
        if tail.run > 0 {
            let (a, b) = (
                &a[segments * rows * PANEL..],
                &b[segments * PANEL * PANEL..],
            );
            product(isa, &tail, a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        }
    }
}

/// Gradient of one part's input: rows of weights times the transposed `dy`.
pub fn backward_data(
    team: &mut Team,
    op: &Linear,
    images: usize,
    dy: &[f32],
    weights: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    let (depth, outputs) = (op.depth(), op.outputs);
    let wide = images.next_multiple_of(PANEL);
    team.reserve(wide * outputs, ROWS * (wide + PANEL))?;
    let blocks = &mut team.shared[..wide * outputs];
    block_transposed(&team.workers, images, outputs, dy, blocks);
    let (blocks, isa) = (&*blocks, team.workers.isa);
    let target = Shared::new(&mut dx[..images * depth]);
    team.workers.run(depth.div_ceil(ROWS), |task, own| {
        let first = task * ROWS;
        let rows = ROWS.min(depth - first);
        let (sums, narrow) = own.split_at_mut(ROWS * wide);
        let sums = &mut sums[..rows * wide];
        for start in (0..outputs).step_by(DEPTH) {
            let len = DEPTH.min(outputs - start);
            rows_of_weights(
                isa,
                op,
                (first, rows),
                (start, len),
                weights,
                blocks,
                narrow,
                sums,
            );
        }
        for image in 0..images {
            let sums = &sums[image / PANEL * rows * PANEL + image % PANEL..];
            // SAFETY: no other task has these columns of the images.
            let dx = unsafe { target.part(image * depth + first, rows) };
            for (t, s) in dx.iter_mut().zip(sums.iter().step_by(PANEL)) {
                *t = *s;
            }
        }
    });
    Ok(())
}

/// `(first, rows)` of the weights times outputs `(start, len)` of the transposed `dy`, added to
/// `sums` (in place of it where `start` is 0).
fn rows_of_weights(
    isa: super::simd::Isa,
    op: &Linear,
    (first, rows): (usize, usize),
    (start, len): (usize, usize),
    weights: &[f32],
    dy: &[f32],
    narrow: &mut [f32],
    sums: &mut [f32],
) {
    let panels = sums.len() / (rows * PANEL);
    let segments = len / PANEL;
    let p = Product {
        rows,
        panels,
        segments,
        run: PANEL,
        a_segment: op.depth() * PANEL,
        b_panel: op.outputs * PANEL,
        c_row: PANEL,
        c_panel: rows * PANEL,
        start: if start == 0 { Start::Zero } else { Start::Add },
        relu: false,
    };
    assert!(dy.len() >= panels * op.outputs * PANEL && weights.len() >= op.depth() * op.outputs);
    let at = |output: usize| output / PANEL * op.depth() * PANEL;
    // SAFETY: the extents are those of the weights and of `dy`, as just checked.
    unsafe {
        if segments > 0 {
            let a = weights[at(start) + first * PANEL..].as_ptr();
            let b = dy[start * PANEL..].as_ptr();
            product(isa, &p, a, b, sums.as_mut_ptr());
        }
        let width = len % PANEL;
        if width > 0 {
            let output = start + segments * PANEL;
            widen(
                width,
                &weights[at(output) + first * width..][..rows * width],
                narrow,
            );
            let replace = start == 0 && segments == 0;
            let tail = Product {
                segments: 1,
                run: width,
                start: if replace { Start::Zero } else { Start::Add },
                ..p
            };
            let b = dy[output * PANEL..].as_ptr();
            product(isa, &tail, narrow.as_ptr(), b, sums.as_mut_ptr());
        }
    }
}

/// Where the tiles of a weight gradient go.
enum Target<'a> {
    Gradient(Shared<'a>, bool),
    Update(Shared<'a>, Shared<'a>, Sgd),
}

/// Gradient of one part's weights, into `sink`.
pub fn backward_weights(
    team: &mut Team,
    op: &Linear,
    images: usize,
    x: &[f32],
    dy: &[f32],
    sink: Sink<'_, super::buffer::Buffer>,
) -> Result<()> {
    let (depth, outputs) = (op.depth(), op.outputs);
    let (rows, columns) = (
        depth.next_multiple_of(PANEL) * images,
        outputs.next_multiple_of(PANEL) * images,
    );
    team.reserve(rows + columns, GRADIENT_PANELS * PANEL * PANEL)?;
    let (x_blocks, dy_blocks) = team.shared.split_at_mut(rows);
    block(&team.workers, images, depth, x, x_blocks);
    block(&team.workers, images, outputs, dy, dy_blocks);
    let (x_blocks, dy_blocks, isa) = (&*x_blocks, &*dy_blocks, team.workers.isa);
    let target = match sink {
        Sink::Gradient { into, accumulate } => Target::Gradient(Shared::new(into), accumulate),
        Sink::Update {
            weights,
            momentum,
            sgd,
        } => Target::Update(Shared::new(weights), Shared::new(momentum), sgd),
    };
    let groups = outputs.div_ceil(PANEL).div_ceil(GRADIENT_PANELS);
    team.workers
        .run(depth.div_ceil(GRADIENT_ROWS) * groups, |task, tile| {
            let (chunk, first) = (task / groups, task % groups * GRADIENT_PANELS);
            let end = depth.min((chunk + 1) * GRADIENT_ROWS);
            for row in (chunk * GRADIENT_ROWS..end).step_by(PANEL) {
                let panels = GRADIENT_PANELS.min(outputs.div_ceil(PANEL) - first);
                let (a, b) = (
                    &x_blocks[row * images..],
                    &dy_blocks[first * images * PANEL..],
                );
                gradient_tile(isa, images, panels, a, b, tile);
                for p in 0..panels {
                    let (start, width) = panel(depth, outputs, first + p);
                    let rows = PANEL.min(depth - row);
                    let tile = &mut tile[p * PANEL * PANEL..][..rows * PANEL];
                    store(isa, &target, start + row * width, width, tile);
                }
            }
        });
    Ok(())
}

/// Sixteen rows by some panels of the gradient, `[panel][row][16]`.
fn gradient_tile(
    isa: super::simd::Isa,
    images: usize,
    panels: usize,
    a: &[f32],
    b: &[f32],
    tile: &mut [f32],
) {
    let p = Outer {
        rows: PANEL,
        panels,
        segments: 1,
        run: images,
        a_segment: 0,
        a_step: PANEL,
        b_segment: 0,
        b_step: PANEL,
        b_panel: images * PANEL,
        c_panel: PANEL * PANEL,
        add: false,
    };
    assert!(a.len() >= images * PANEL && b.len() >= panels * images * PANEL);
    assert!(tile.len() >= panels * PANEL * PANEL);
    // SAFETY: the slices cover the extents, as just checked.
    unsafe { outer(isa, &p, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) }
}

/// Hands rows of one panel of the gradient to the target at element `at`.
fn store(isa: super::simd::Isa, target: &Target, at: usize, width: usize, tile: &mut [f32]) {
    let len = tile.len() / PANEL * width;
    if width < PANEL {
        for i in 0..len {
            tile[i] = tile[i / width * PANEL + i % width];
        }
    }
    let tile = &tile[..len];
    // SAFETY: no other task has these rows of this panel.
    unsafe {
        match target {
            Target::Gradient(into, false) => into.part(at, len).copy_from_slice(tile),
            Target::Gradient(into, true) => {
                for (t, g) in into.part(at, len).iter_mut().zip(tile) {
                    *t += g;
                }
            }
            Target::Update(weights, momentum, op) => {
                sgd::update(isa, op, weights.part(at, len), momentum.part(at, len), tile);
            }
        }
    }
}

/// Rows of one partial sum of a bias gradient.
const SUMMED_ROWS: usize = 1024;

/// Sums `dy` of `rows` × `outputs` over the rows: in f32 within a chunk, then in f64.
pub fn bias_backward(
    team: &mut Team,
    rows: usize,
    outputs: usize,
    dy: &[f32],
    accumulate: bool,
    gradient: &mut [f32],
) -> Result<()> {
    let chunks = rows.div_ceil(SUMMED_ROWS);
    team.reserve(chunks * outputs, 0)?;
    let (sums, isa) = (&mut team.shared[..chunks * outputs], team.workers.isa);
    let dy = &dy[..rows * outputs];
    team.workers.chunks(sums, outputs, |chunk, sums, _| {
        let end = rows.min((chunk + 1) * SUMMED_ROWS);
        sums.fill(0.0);
        add_rows(isa, &dy[chunk * SUMMED_ROWS * outputs..end * outputs], sums);
    });
    for (output, g) in gradient[..outputs].iter_mut().enumerate() {
        let sum: f64 = sums[output..]
            .iter()
            .step_by(outputs)
            .map(|&s| f64::from(s))
            .sum();
        *g = if accumulate {
            *g + sum as f32
        } else {
            sum as f32
        };
    }
    Ok(())
}

#[inline(always)]
fn add_rows_body(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += x;
        }
    }
}

super::simd::kernel!(fn add_rows = add_rows_body(rows: &[f32], sums: &mut [f32]));
