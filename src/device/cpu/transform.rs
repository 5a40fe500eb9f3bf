//! The transforms of Winograd's minimal filtering (Toom–Cook's form of it), tile by tile.
//!
//! A tile of `M` × `M` outputs of an `R` × `R` kernel, `N = M + R − 1`, is
//! `y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A`. The matrices follow from the interpolation points: 0, pairs
//! ±p, and infinity. In 1-D, for points a_j with n_j = Π (a_j − a_l): row j of Bᵀ holds the
//! coefficients of Π_{l≠j} (t − a_l), of G the powers of a_j over n_j, of A the powers of a_j.

use super::gemm::PANEL;
use super::simd::{Isa, Vector, kernel};

/// The positive points of each tile size, chosen for small rounding errors.
const fn points<const N: usize>() -> &'static [f64] {
    match N {
        6 => &[0.75, 1.5],
        _ => &[1.0, 2.0, 0.5],
    }
}

/// Point `j` of the `N − 1` finite ones: 0, then the pairs.
const fn point<const N: usize>(j: usize) -> f64 {
    match j {
        0 => 0.0,
        _ if j % 2 == 1 => points::<N>()[j / 2],
        _ => -points::<N>()[j / 2 - 1],
    }
}

/// Coefficients of the product of (t − a_l) over the finite points but number `skipped`.
const fn product_without<const N: usize>(skipped: usize) -> [f64; N] {
    let mut p = [0.0; N];
    p[0] = 1.0;
    let mut l = 0;
    while l < N - 1 {
        if l != skipped {
            let mut k = N - 1;
            while k > 0 {
                p[k] = p[k - 1] - point::<N>(l) * p[k];
                k -= 1;
            }
            p[0] *= -point::<N>(l);
        }
        l += 1;
    }
    p
}

/// Bᵀ. The last row, of the point at infinity, skips no point.
const fn b_transposed<const N: usize>() -> [[f32; N]; N] {
    let mut b = [[0.0; N]; N];
    let mut j = 0;
    while j < N {
        let p = product_without::<N>(j);
        let mut k = 0;
        while k < N {
            b[j][k] = p[k] as f32;
            k += 1;
        }
        j += 1;
    }
    // With no point skipped, index N − 1, the loop above has made the product of all.
    b
}

/// G for kernels of `K` taps.
const fn g<const N: usize, const K: usize>() -> [[f32; K]; N] {
    let mut g = [[0.0; K]; N];
    let mut j = 0;
    while j < N - 1 {
        let mut norm = 1.0;
        let mut l = 0;
        while l < N - 1 {
            if l != j {
                norm *= point::<N>(j) - point::<N>(l);
            }
            l += 1;
        }
        let (mut power, mut k) = (1.0, 0);
        while k < K {
            g[j][k] = (power / norm) as f32;
            power *= point::<N>(j);
            k += 1;
        }
        j += 1;
    }
    g[N - 1][K - 1] = 1.0;
    g
}

/// Σ c_k x_k over k = first, first + step, …; zeros among the constants cost nothing.
#[inline(always)]
unsafe fn combine<V: Vector, const K: usize>(
    c: &[f32; K],
    x: &[V; K],
    first: usize,
    step: usize,
) -> V {
    // SAFETY: register arithmetic; see `Vector`.
    unsafe {
        let mut sum: Option<V> = None;
        let mut k = first;
        while k < K {
            if c[k] != 0.0 {
                sum = Some(match sum {
                    None if c[k] == 1.0 => x[k],
                    None => x[k].mul(V::splat(c[k])),
                    Some(s) if c[k] == 1.0 => s.add(x[k]),
                    Some(s) => x[k].mul_add(V::splat(c[k]), s),
                });
            }
            k += step;
        }
        match sum {
            Some(s) => s,
            None => V::zero(),
        }
    }
}

/// `matrix · x` for Bᵀ and G: the rows of ±p differ in the signs of odd terms only.
#[inline(always)]
unsafe fn spread<V: Vector, const N: usize, const K: usize>(
    matrix: &[[f32; K]; N],
    x: [V; K],
) -> [V; N] {
    // SAFETY: register arithmetic; see `Vector`.
    unsafe {
        let mut y = [V::zero(); N];
        y[0] = combine(&matrix[0], &x, 0, 1);
        let mut j = 1;
        while j < N - 1 {
            let (even, odd) = (combine(&matrix[j], &x, 0, 2), combine(&matrix[j], &x, 1, 2));
            y[j] = even.add(odd);
            y[j + 1] = even.sub(odd);
            j += 2;
        }
        y[N - 1] = combine(&matrix[N - 1], &x, 0, 1);
        y
    }
}

/// `Aᵀ · x` with `K` outputs.
#[inline(always)]
unsafe fn gather<V: Vector, const N: usize, const K: usize>(x: [V; N]) -> [V; K] {
    // SAFETY: register arithmetic; see `Vector`.
    unsafe {
        let mut powers = [1.0f32; 3];
        let mut y = [V::zero(); K];
        let mut i = 0;
        while i < K {
            let mut sum: Option<V> = if i == 0 { Some(x[0]) } else { None };
            let mut pair = 0;
            while pair < (N - 2) / 2 {
                let (a, b) = (x[2 * pair + 1], x[2 * pair + 2]);
                let term = if i % 2 == 0 { a.add(b) } else { a.sub(b) };
                let factor = powers[pair];
                sum = Some(match sum {
                    None if factor == 1.0 => term,
                    None => term.mul(V::splat(factor)),
                    Some(s) if factor == 1.0 => s.add(term),
                    Some(s) => term.mul_add(V::splat(factor), s),
                });
                powers[pair] *= points::<N>()[pair] as f32;
                pair += 1;
            }
            y[i] = match sum {
                Some(s) if i == K - 1 => s.add(x[N - 1]),
                Some(s) => s,
                None => x[N - 1],
            };
            i += 1;
        }
        y
    }
}

/// Tiles of an image buffer: where each tile's pixels lie, and the channels of a pixel.
#[derive(Clone, Copy)]
pub struct Tiles<'a> {
    /// Pixel numbers, tile by tile; those from `pixels` on are outside.
    pub table: &'a [u32],
    pub pixels: u32,
    pub channels: usize,
    /// Zeros, or a place to write what is outside: as many elements as channels.
    pub outside: *mut f32,
}

impl Tiles<'_> {
    #[inline(always)]
    unsafe fn pointer(&self, start: *mut f32, tile: usize, of: usize, i: usize) -> *mut f32 {
        // SAFETY: the table has `of` entries for every tile.
        let pixel = unsafe { *self.table.get_unchecked(tile * of + i) };
        if pixel < self.pixels {
            start.wrapping_add(pixel as usize * self.channels)
        } else {
            self.outside
        }
    }
}

/// Extent of transformed tiles `[N²][channels / 16][tiles][16]`, a tile's first block at `at`.
#[derive(Clone, Copy)]
pub struct Spread {
    pub start: *mut f32,
    /// Elements from one of the N² matrices to the next.
    pub step: usize,
    pub tiles: usize,
}

/// Transforms tiles of `K` × `K` pixels of `x` by Bᵀ (`K = N`) or G.
#[inline(always)]
unsafe fn spread_tiles<V: Vector, const N: usize, const K: usize>(
    matrix: &[[f32; K]; N],
    t: &Tiles<'_>,
    x: *const f32,
    to: Spread,
) {
    // SAFETY: the caller promises the extents.
    unsafe {
        for tile in 0..t.table.len() / (K * K) {
            let mut from = [[x; K]; K];
            for i in 0..K * K {
                from[i / K][i % K] = t.pointer(x.cast_mut(), tile, K * K, i);
            }
            for c in (0..t.channels).step_by(V::LANES) {
                let mut rows = [[V::zero(); N]; K];
                for i in 0..K {
                    let line: [V; K] = std::array::from_fn(|j| V::load(from[i][j].add(c)));
                    rows[i] = spread(matrix, line);
                }
                let at = (c / PANEL * to.tiles + tile) * PANEL + c % PANEL;
                for j in 0..N {
                    let y = spread(matrix, std::array::from_fn(|i| rows[i][j]));
                    for i in 0..N {
                        y[i].store(to.start.add((i * N + j) * to.step + at));
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn input_body<V: Vector, const N: usize, const M: usize, const R: usize>(
    t: &Tiles<'_>,
    x: *const f32,
    to: Spread,
) {
    // SAFETY: the caller's promise.
    unsafe { spread_tiles::<V, N, N>(const { &b_transposed::<N>() }, t, x, to) }
}

#[inline(always)]
unsafe fn gradient_body<V: Vector, const N: usize, const M: usize, const R: usize>(
    t: &Tiles<'_>,
    dy: *const f32,
    to: Spread,
) {
    // SAFETY: the caller's promise.
    unsafe { spread_tiles::<V, N, M>(const { &g::<N, M>() }, t, dy, to) }
}

/// Products back to pixels, with bias.
#[inline(always)]
unsafe fn output_body<V: Vector, const N: usize, const M: usize, const R: usize>(
    t: &Tiles<'_>,
    from: Spread,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
) {
    // SAFETY: the caller promises the extents.
    unsafe {
        for tile in 0..t.table.len() / (M * M) {
            let mut to = [[y; M]; M];
            for i in 0..M * M {
                to[i / M][i % M] = t.pointer(y, tile, M * M, i);
            }
            for c in (0..t.channels).step_by(V::LANES) {
                let at = (c / PANEL * from.tiles + tile) * PANEL + c % PANEL;
                let mut rows = [[V::zero(); M]; N];
                for i in 0..N {
                    let load = |j| V::load(from.start.add((i * N + j) * from.step + at));
                    rows[i] = gather(std::array::from_fn::<V, N, _>(load));
                }
                let bias = V::load(bias.add(c));
                for j in 0..M {
                    let line: [V; M] = gather(std::array::from_fn::<V, N, _>(|i| rows[i][j]));
                    for i in 0..M {
                        let v = line[i].add(bias);
                        let v = if relu { V::zero().max(v) } else { v };
                        v.store(to[i][j].add(c));
                    }
                }
            }
        }
    }
}

/// One panel of kernels, `[R²][inputs][16]`, to `[N²]` matrices `[inputs][16]`, `step` apart.
#[inline(always)]
unsafe fn filter_body<V: Vector, const N: usize, const M: usize, const R: usize>(
    inputs: usize,
    panel: *const f32,
    to: *mut f32,
    step: usize,
) {
    // SAFETY: the caller promises the extents.
    unsafe {
        let matrix = const { &g::<N, R>() };
        for c in (0..inputs * PANEL).step_by(V::LANES) {
            let mut rows = [[V::zero(); N]; R];
            for i in 0..R {
                let load = |j| V::load(panel.add((i * R + j) * inputs * PANEL + c));
                rows[i] = spread(matrix, std::array::from_fn::<V, R, _>(load));
            }
            for j in 0..N {
                let y: [V; N] = spread(matrix, std::array::from_fn::<V, R, _>(|i| rows[i][j]));
                for i in 0..N {
                    y[i].store(to.add((i * N + j) * step + c));
                }
            }
        }
    }
}

/// The inverse for the weight gradient: `[N²]` matrices, `step` apart, to (or added to) a panel.
#[inline(always)]
unsafe fn filter_gradient_body<V: Vector, const N: usize, const M: usize, const R: usize>(
    inputs: usize,
    from: *const f32,
    step: usize,
    panel: *mut f32,
    add: bool,
) {
    // SAFETY: the caller promises the extents.
    unsafe {
        for c in (0..inputs * PANEL).step_by(V::LANES) {
            let mut rows = [[V::zero(); R]; N];
            for i in 0..N {
                let load = |j| V::load(from.add((i * N + j) * step + c));
                rows[i] = gather(std::array::from_fn::<V, N, _>(load));
            }
            for j in 0..R {
                let y: [V; R] = gather(std::array::from_fn::<V, N, _>(|i| rows[i][j]));
                for i in 0..R {
                    let to = panel.add((i * R + j) * inputs * PANEL + c);
                    let y = if add { y[i].add(V::load(to)) } else { y[i] };
                    y.store(to);
                }
            }
        }
    }
}

/// The kernels of one tile size. All are unsafe: pointers must be good for the extents given.
pub struct Scheme {
    pub n: usize,
    pub m: usize,
    pub r: usize,
    pub input: unsafe fn(Isa, &Tiles<'_>, *const f32, Spread),
    pub gradient: unsafe fn(Isa, &Tiles<'_>, *const f32, Spread),
    pub output: unsafe fn(Isa, &Tiles<'_>, Spread, *const f32, bool, *mut f32),
    pub filter: unsafe fn(Isa, usize, *const f32, *mut f32, usize),
    pub filter_gradient: unsafe fn(Isa, usize, *const f32, usize, *mut f32, bool),
}

macro_rules! scheme {
    ($(#[$doc:meta])* $name:ident, $module:ident, $n:literal, $m:literal, $r:literal) => {
        mod $module {
            use super::*;
            kernel!(pub unsafe fn input = [input_body::<Portable, $n, $m, $r>]
                [input_body::<Avx2, $n, $m, $r>][input_body::<Avx512, $n, $m, $r>](
                t: &Tiles<'_>, x: *const f32, to: Spread,
            ));
            kernel!(pub unsafe fn gradient = [gradient_body::<Portable, $n, $m, $r>]
                [gradient_body::<Avx2, $n, $m, $r>][gradient_body::<Avx512, $n, $m, $r>](
                t: &Tiles<'_>, dy: *const f32, to: Spread,
            ));
            kernel!(pub unsafe fn output = [output_body::<Portable, $n, $m, $r>]
                [output_body::<Avx2, $n, $m, $r>][output_body::<Avx512, $n, $m, $r>](
                t: &Tiles<'_>, from: Spread, bias: *const f32, relu: bool, y: *mut f32,
            ));
            kernel!(pub unsafe fn filter = [filter_body::<Portable, $n, $m, $r>]
                [filter_body::<Avx2, $n, $m, $r>][filter_body::<Avx512, $n, $m, $r>](
                inputs: usize, panel: *const f32, to: *mut f32, step: usize,
            ));
            kernel!(
                pub unsafe fn filter_gradient = [filter_gradient_body::<Portable, $n, $m, $r>]
                [filter_gradient_body::<Avx2, $n, $m, $r>][filter_gradient_body::<Avx512, $n, $m, $r>](
                    inputs: usize, from: *const f32, step: usize, panel: *mut f32, add: bool,
                )
            );
        }
        $(#[$doc])*
        pub static $name: Scheme = Scheme {
            n: $n,
            m: $m,
            r: $r,
            input: $module::input,
            gradient: $module::gradient,
            output: $module::output,
            filter: $module::filter,
            filter_gradient: $module::filter_gradient,
        };
    };
}

scheme!(
    /// 4 × 4 outputs of a 3 × 3 kernel: 36 products instead of 144.
    F43, f43, 6, 4, 3
);
scheme!(
    /// 4 × 4 outputs of a 5 × 5 kernel: 64 products instead of 400.
    F45, f45, 8, 4, 5
);
