//! Convolution of stride 1 by Winograd's minimal filtering: tiles of all images are transformed,
//! multiplied as N² matrices, and transformed back.
//!
//! `V[N²][maps / 16][tile][16]` holds transformed inputs, `U[N²][outputs / 16][map][16]` kernels,
//! `P[N²][outputs / 16][tile][16]` products or transformed output gradients.
//!
//! Small images are laid out as a mosaic with shared borders, so that fewer tiles overhang: four
//! of 13 × 13 pixels take 49 tiles of 4 × 4 instead of 64.

use super::direct::turn;
use super::gemm::{Outer, PANEL, Product, Start, outer, product};
use super::simd::Isa;
use super::team::{Shared, Team, Workers};
use super::transform::{F43, F45, Scheme, Spread, Tiles};
use crate::error::Result;
use crate::network::op::{Activation, Conv};

/// Tiles of one task: the transformed inputs of one of the N² matrices fit the second-level
/// cache, and 6 and 12 rows divide it.
const BLOCK: usize = 96;

/// Where the tiles of a mosaic of images find their pixels.
pub struct Winograd {
    scheme: &'static Scheme,
    /// Images and tiles of one mosaic.
    images: usize,
    tiles: usize,
    /// Pixel numbers (counted through the mosaic's images) of every tile's input and output.
    input: Vec<u32>,
    output: Vec<u32>,
    input_pixels: usize,
    output_pixels: usize,
    /// Parts' maps one after the other, and outputs.
    maps: usize,
    outputs: usize,
}

/// Pixel number of position (`row`, `column`) of a mosaic, or MAX where no pixel is.
fn pixel(
    side: usize,
    (period_y, period_x): (usize, usize),
    (height, width): (usize, usize),
    (row, column): (isize, isize),
) -> u32 {
    if row < 0 || column < 0 {
        return u32::MAX;
    }
    let (row, column) = (row as usize, column as usize);
    let (y, x) = (row / period_y, column / period_x);
    let (row, column) = (row % period_y, column % period_x);
    if y >= side || x >= side || row >= height || column >= width {
        return u32::MAX;
    }
    (((y * side + x) * height + row) * width + column) as u32
}

impl Winograd {
    /// A plan for the convolution, where it has a shape that this method is for: stride 1, a
    /// kernel of 3 × 3 or 5 × 5, and maps in panels of 16.
    pub fn new(op: &Conv) -> Option<Winograd> {
        let scheme = match op.window.size {
            3 => &F43,
            5 => &F45,
            _ => return None,
        };
        let whole = op.input.maps.is_multiple_of(PANEL) && op.output.maps.is_multiple_of(PANEL);
        let exact =
            |input: usize, output: usize| input + 2 * op.window.pad + 1 == output + scheme.r;
        let fits =
            exact(op.input.height, op.output.height) && exact(op.input.width, op.output.width);
        if op.window.stride != 1 || op.window.pad >= scheme.r || !whole || !fits {
            return None;
        }
        let (input, output) = (
            (op.input.height, op.input.width),
            (op.output.height, op.output.width),
        );
        let period = (input.0 + op.window.pad, input.1 + op.window.pad);
        let across = |side: usize, period: usize, output: usize| {
            ((side - 1) * period + output).div_ceil(scheme.m)
        };
        let tiles =
            |side: usize| across(side, period.0, output.0) * across(side, period.1, output.1);
        // The smallest mosaic with the fewest tiles an image.
        let side = (1..=3).min_by_key(|&s| tiles(s) * 36 / (s * s))?;
        let columns = across(side, period.1, output.1);
        let table = |size: usize, before: usize, extent: (usize, usize)| -> Vec<u32> {
            let place = |i: usize| {
                let (tile, i) = (i / (size * size), i % (size * size));
                let row = (tile / columns * scheme.m + i / size) as isize - before as isize;
                let column = (tile % columns * scheme.m + i % size) as isize - before as isize;
                pixel(side, period, extent, (row, column))
            };
            (0..tiles(side) * size * size).map(place).collect()
        };
        Some(Winograd {
            scheme,
            images: side * side,
            tiles: tiles(side),
            input: table(scheme.n, op.window.pad, input),
            output: table(scheme.m, 0, output),
            input_pixels: op.input.pixels(),
            output_pixels: op.output.pixels(),
            maps: op.parts * op.input.maps,
            outputs: op.output.maps,
        })
    }

    /// The plan of the data gradient of one part: a convolution with the turned kernels.
    pub fn backward(op: &Conv) -> Option<Winograd> {
        let mut turned = *op;
        (turned.input, turned.output, turned.parts) = (op.output, op.input, 1);
        turned.window.pad = (op.window.size - 1).checked_sub(op.window.pad)?;
        Winograd::new(&turned)
    }

    /// Tiles of so many images.
    fn all_tiles(&self, images: usize) -> usize {
        images.div_ceil(self.images) * self.tiles
    }

    /// Elements from one of the N² matrices to the next; odd in cache lines, so that the N²
    /// places of one tile do not compete for the same lines of the cache.
    fn step(channels: usize) -> usize {
        channels * BLOCK + PANEL
    }

    fn matrices(&self) -> usize {
        self.scheme.n * self.scheme.n
    }

    /// Calls `each(tiles, first place, mosaic's first image)` for the runs of tiles
    /// `first..first + count` that lie in one mosaic.
    fn runs(
        &self,
        first: usize,
        count: usize,
        mut each: impl FnMut(std::ops::Range<usize>, usize, usize),
    ) {
        let mut tile = first;
        while tile < first + count {
            let (mosaic, from) = (tile / self.tiles, tile % self.tiles);
            let to = self.tiles.min(from + first + count - tile);
            each(from..to, tile - first, mosaic * self.images);
            tile += to - from;
        }
    }

    /// Transforms a block of tiles: of inputs, or (`gradient`) of output gradients. Channels go
    /// to the blocks of 16 from `to.start` on.
    fn transform(
        &self,
        isa: Isa,
        gradient: bool,
        images: usize,
        (first, count): (usize, usize),
        channels: usize,
        x: &[f32],
        zeros: &[f32],
        to: Spread,
    ) {
        let (table, size, pixels, kernel) = if gradient {
            (
                &self.output,
                self.scheme.m,
                self.output_pixels,
                self.scheme.gradient,
            )
        } else {
            (
                &self.input,
                self.scheme.n,
                self.input_pixels,
                self.scheme.input,
            )
        };
        assert!(x.len() >= images * pixels * channels && zeros.len() >= channels);
        self.runs(first, count, |tiles, place, image| {
            let t = Tiles {
                table: &table[tiles.start * size * size..tiles.end * size * size],
                pixels: (self.images.min(images - image) * pixels) as u32,
                channels,
                outside: zeros.as_ptr().cast_mut(),
            };
            let start = to.start.wrapping_add(place * PANEL);
            // SAFETY: pixels are inside `x`; `to` has room for `BLOCK` tiles. Outside pixels are
            // only read.
            unsafe {
                let x = x[image * pixels * channels..].as_ptr();
                kernel(isa, &t, x, Spread { start, ..to });
            }
        });
    }

    /// Transforms the kernels of all parts into `u`.
    fn filters(&self, workers: &Workers, weights: &[&[f32]], u: &mut [f32]) {
        let (r, part) = (self.scheme.r, self.maps / weights.len());
        let step = self.maps * self.outputs;
        let target = Shared::new(&mut u[..self.matrices() * step]);
        workers.run(self.outputs / PANEL * weights.len(), |task, _| {
            let (panel, p) = (task / weights.len(), task % weights.len());
            let source = &weights[p][panel * r * r * part * PANEL..][..r * r * part * PANEL];
            let at = (panel * self.maps + p * part) * PANEL;
            let extent = (self.matrices() - 1) * step + part * PANEL;
            // SAFETY: each task has its own rows of the N² matrices.
            unsafe {
                let to = target.pointer(at, extent);
                (self.scheme.filter)(workers.isa, part, source.as_ptr(), to, step);
            }
        });
    }

    /// Products of transformed tiles and kernels, in the N² matrices.
    fn multiply(&self, isa: Isa, tiles: usize, v: *const f32, u: &[f32], p: *mut f32) {
        let size = Product {
            rows: tiles,
            panels: self.outputs / PANEL,
            segments: self.maps / PANEL,
            run: PANEL,
            a_segment: BLOCK * PANEL,
            b_panel: self.maps * PANEL,
            c_row: PANEL,
            c_panel: BLOCK * PANEL,
            start: Start::Zero,
            relu: false,
        };
        for i in 0..self.matrices() {
            let u = u[i * self.maps * self.outputs..].as_ptr();
            let v = v.wrapping_add(i * Winograd::step(self.maps));
            let p = p.wrapping_add(i * Winograd::step(self.outputs));
            // SAFETY: the work spaces have room for `BLOCK` tiles of every matrix.
            unsafe { product(isa, &size, v, u, p) };
        }
    }

    /// `y = activation(conv(x, u) + bias)`, in blocks of tiles.
    fn convolve(
        &self,
        workers: &Workers,
        images: usize,
        x: &[&[f32]],
        u: &[f32],
        bias: &[f32],
        relu: bool,
        y: &mut [f32],
    ) {
        let (part, isa) = (self.maps / x.len(), workers.isa);
        let pixels = self.output_pixels;
        let (all, target) = (
            self.all_tiles(images),
            Shared::new(&mut y[..images * pixels * self.outputs]),
        );
        workers.run(all.div_ceil(BLOCK), |task, own| {
            let (first, count) = (task * BLOCK, BLOCK.min(all - task * BLOCK));
            let (v, rest) = own.split_at_mut(self.matrices() * Winograd::step(self.maps));
            let (p, rest) = rest.split_at_mut(self.matrices() * Winograd::step(self.outputs));
            let (zeros, sink) = rest.split_at_mut(self.maps);
            zeros.fill(0.0);
            for (i, x) in x.iter().enumerate() {
                let start = v[i * part * BLOCK..].as_mut_ptr();
                let to = Spread {
                    start,
                    step: Winograd::step(self.maps),
                    tiles: BLOCK,
                };
                self.transform(isa, false, images, (first, count), part, x, zeros, to);
            }
            self.multiply(isa, count, v.as_ptr(), u, p.as_mut_ptr());
            self.runs(first, count, |tiles, place, image| {
                let size = self.scheme.m * self.scheme.m;
                let inside = self.images.min(images - image) * pixels;
                let t = Tiles {
                    table: &self.output[tiles.start * size..tiles.end * size],
                    pixels: inside as u32,
                    channels: self.outputs,
                    outside: sink.as_mut_ptr(),
                };
                let start = p[place * PANEL..].as_mut_ptr();
                let from = Spread {
                    start,
                    step: Winograd::step(self.outputs),
                    tiles: BLOCK,
                };
                let at = image * pixels * self.outputs;
                let y = target.pointer(at, inside * self.outputs);
                // SAFETY: every pixel belongs to one tile, so no other task writes it.
                unsafe { (self.scheme.output)(isa, &t, from, bias.as_ptr(), relu, y) };
            });
        });
    }

    /// Work space of a thread in `convolve`.
    fn own(&self) -> usize {
        self.matrices() * (Winograd::step(self.maps) + Winograd::step(self.outputs))
            + self.maps
            + self.outputs
    }

    /// `y = activation(Σ_parts conv(x_part, weights_part) + bias)`; ReLU or nothing.
    pub fn forward(
        &self,
        team: &mut Team,
        op: &Conv,
        images: usize,
        x: &[&[f32]],
        weights: &[&[f32]],
        bias: &[f32],
        y: &mut [f32],
    ) -> Result<()> {
        let size = self.matrices() * self.maps * self.outputs;
        team.reserve(size, self.own())?;
        let u = &mut team.shared[..size];
        self.filters(&team.workers, weights, u);
        let relu = op.activation == Some(Activation::Relu);
        self.convolve(&team.workers, images, x, u, &bias[..self.outputs], relu, y);
        Ok(())
    }

    /// Gradient of one part's input; `self` is the plan of [`Winograd::backward`].
    pub fn backward_data(
        &self,
        team: &mut Team,
        op: &Conv,
        images: usize,
        dy: &[f32],
        weights: &[f32],
        dx: &mut [f32],
    ) -> Result<()> {
        let (size, matrix) = (
            self.matrices() * self.maps * self.outputs,
            op.depth() * op.output.maps,
        );
        team.reserve(size + matrix + self.outputs, self.own())?;
        let (u, rest) = team.shared.split_at_mut(size);
        let (turned, bias) = rest.split_at_mut(matrix);
        turn(op, weights, turned);
        self.filters(&team.workers, &[turned], u);
        bias[..self.outputs].fill(0.0);
        self.convolve(&team.workers, images, &[dy], u, bias, false, dx);
        Ok(())
    }

    /// Gradient of one part's weights: summed over all tiles before it is transformed back.
    pub fn backward_weights(
        &self,
        team: &mut Team,
        op: &Conv,
        images: usize,
        x: &[f32],
        dy: &[f32],
        accumulate: bool,
        gradient: &mut [f32],
    ) -> Result<()> {
        let (maps, outputs) = (op.input.maps, self.outputs);
        let (v_step, d_step) = (Winograd::step(maps), Winograd::step(outputs));
        let (n2, sums) = (self.matrices(), maps * outputs);
        team.reserve(n2 * (v_step + d_step + sums) + maps.max(outputs), 0)?;
        let (v, rest) = team.shared.split_at_mut(n2 * v_step);
        let (d, rest) = rest.split_at_mut(n2 * d_step);
        let (total, zeros) = rest.split_at_mut(n2 * sums);
        zeros.fill(0.0);
        let (workers, zeros, all) = (&team.workers, &*zeros, self.all_tiles(images));
        for first in (0..all).step_by(BLOCK) {
            let count = BLOCK.min(all - first);
            self.transform_pair(
                workers,
                images,
                (first, count),
                (x, maps, v),
                (dy, outputs, d),
                zeros,
            );
            self.add_products(workers, count, (v, maps), (d, outputs), first > 0, total);
        }
        let (r, isa) = (self.scheme.r, workers.isa);
        let panel = r * r * maps * PANEL;
        let gradient = &mut gradient[..outputs / PANEL * panel];
        workers.chunks(gradient, panel, |p, gradient, _| {
            let from = &total[p * maps * PANEL..];
            assert!(from.len() >= (n2 - 1) * sums + maps * PANEL);
            // SAFETY: the N² matrices and the panel have the extents given.
            unsafe {
                let (from, to) = (from.as_ptr(), gradient.as_mut_ptr());
                (self.scheme.filter_gradient)(isa, maps, from, sums, to, accumulate);
            }
        });
        Ok(())
    }

    /// Transforms a block of tiles of the input and of the output's gradient, in tasks of 16.
    fn transform_pair(
        &self,
        workers: &Workers,
        images: usize,
        (first, count): (usize, usize),
        (x, maps, v): (&[f32], usize, &mut [f32]),
        (dy, outputs, d): (&[f32], usize, &mut [f32]),
        zeros: &[f32],
    ) {
        const TASK: usize = 16;
        let (v, d) = (Shared::new(v), Shared::new(d));
        workers.run(2 * count.div_ceil(TASK), |task, _| {
            let (at, gradient) = (task / 2 * TASK, task % 2 == 1);
            let tiles = (first + at, TASK.min(count - at));
            let (x, channels, target) = if gradient {
                (dy, outputs, &d)
            } else {
                (x, maps, &v)
            };
            let to = Spread {
                start: target.pointer(at * PANEL, 0),
                step: Winograd::step(channels),
                tiles: BLOCK,
            };
            self.transform(workers.isa, gradient, images, tiles, channels, x, zeros, to);
        });
    }

    /// Adds a block's products to the sums `[N²][outputs / 16][map][16]`.
    fn add_products(
        &self,
        workers: &Workers,
        count: usize,
        (v, maps): (&[f32], usize),
        (d, outputs): (&[f32], usize),
        add: bool,
        total: &mut [f32],
    ) {
        let sums = maps * outputs;
        workers.chunks(total, sums, |i, total, _| {
            let size = Outer {
                rows: PANEL,
                panels: outputs / PANEL,
                segments: 1,
                run: count,
                a_segment: 0,
                a_step: PANEL,
                b_segment: 0,
                b_step: PANEL,
                b_panel: BLOCK * PANEL,
                c_panel: maps * PANEL,
                add,
            };
            let b = d[i * Winograd::step(outputs)..].as_ptr();
            for map in (0..maps).step_by(PANEL) {
                let a = v[i * Winograd::step(maps) + map * BLOCK..].as_ptr();
                let c = total[map * PANEL..].as_mut_ptr();
                // SAFETY: blocks hold `count` tiles; the sums all maps and outputs.
                unsafe { outer(workers.isa, &size, a, b, c) };
            }
        });
    }
}
