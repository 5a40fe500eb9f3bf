//! Normalisation of a row of pixels in vectors: the paper's exponent, one part, and maps that
//! whole vectors fill.
//!
//! A pixel's squares stand in a row of their own between 16 zeros, so that sums over neighbours
//! are unaligned loads without an edge. All squares of a row are stored before the first is
//! loaded so: a load that spans two stores still under way would stall.

use super::simd::Vector;
use crate::network::op::Lrn;

/// Zeros between the maps of two pixels.
const GAP: usize = 16;

/// Whether these kernels do it.
pub fn suits(op: &Lrn) -> bool {
    op.parts == 1 && op.beta == 0.75 && op.size <= GAP && op.shape.maps.is_multiple_of(16)
}

/// Elements of the padded row that the functions below work in; zeros at first.
pub const fn padded(maps: usize, pixels: usize) -> usize {
    (maps + GAP) * pixels + GAP
}

/// A row's normalised maps and their factors.
#[derive(Clone, Copy)]
pub struct Row {
    /// `x · s^-0.75`, s the scale.
    pub normalised: *mut f32,
    /// `s^-0.75` and `1 / s`; null where backward does not follow.
    pub factor: *mut f32,
    pub inverse: *mut f32,
}

impl Row {
    /// The row `elements` further.
    pub fn at(self, elements: usize) -> Row {
        let further = |p: *mut f32| {
            if p.is_null() {
                p
            } else {
                p.wrapping_add(elements)
            }
        };
        Row {
            normalised: further(self.normalised),
            factor: further(self.factor),
            inverse: further(self.inverse),
        }
    }
}

/// Sum of `size` neighbours from `start` on.
#[inline(always)]
unsafe fn neighbours<V: Vector>(start: *const f32, size: usize) -> V {
    // SAFETY: the padded row has `GAP` zeros around every pixel's maps.
    unsafe {
        let mut sum = V::load(start);
        for d in 1..size {
            sum = sum.add(V::load(start.add(d)));
        }
        sum
    }
}

/// Normalises `pixels` pixels of `x`.
///
/// # Safety
/// The pointers must be good for `pixels` pixels, `padded` for the extent of [`padded`].
#[inline(always)]
pub unsafe fn forward<V: Vector>(
    op: &Lrn,
    pixels: usize,
    x: *const f32,
    padded: *mut f32,
    to: Row,
) {
    // Known sizes unroll.
    // SAFETY: the caller's promise.
    unsafe {
        match op.size {
            5 => forward_sized::<V>(op, 5, pixels, x, padded, to),
            size => forward_sized::<V>(op, size, pixels, x, padded, to),
        }
    }
}

#[inline(always)]
unsafe fn forward_sized<V: Vector>(
    op: &Lrn,
    size: usize,
    pixels: usize,
    x: *const f32,
    padded: *mut f32,
    to: Row,
) {
    let (maps, padded) = (op.shape.maps, padded.wrapping_add(GAP));
    // SAFETY: as promised to `forward`.
    unsafe {
        for pixel in 0..pixels {
            for c in (0..maps).step_by(V::LANES) {
                let v = V::load(x.add(pixel * maps + c));
                v.mul(v).store(padded.add(pixel * (maps + GAP) + c));
            }
        }
        let (alpha, k) = (V::splat(op.alpha), V::splat(op.k));
        for pixel in 0..pixels {
            for c in (0..maps).step_by(V::LANES) {
                let start = padded.add(pixel * (maps + GAP) + c).sub(size / 2);
                let scale = neighbours::<V>(start, size).mul_add(alpha, k);
                let root = scale.inverse_root();
                // s^-1 times the fourth root of s.
                let inverse = root.mul(root);
                let factor = root.inverse_root().mul(inverse);
                let at = pixel * maps + c;
                V::load(x.add(at)).mul(factor).store(to.normalised.add(at));
                if !to.factor.is_null() {
                    factor.store(to.factor.add(at));
                    inverse.store(to.inverse.add(at));
                }
            }
        }
    }
}

/// Gradient of `pixels` pixels: `g` of the normalised maps to `dx` of `x`.
///
/// # Safety
/// As of [`forward`]; `from` must hold what that gave for `x`.
#[inline(always)]
pub unsafe fn backward<V: Vector>(
    op: &Lrn,
    pixels: usize,
    (x, from, g): (*const f32, Row, *const f32),
    padded: *mut f32,
    dx: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match op.size {
            5 => backward_sized::<V>(op, 5, pixels, (x, from, g), padded, dx),
            size => backward_sized::<V>(op, size, pixels, (x, from, g), padded, dx),
        }
    }
}

#[inline(always)]
unsafe fn backward_sized<V: Vector>(
    op: &Lrn,
    size: usize,
    pixels: usize,
    (x, from, g): (*const f32, Row, *const f32),
    padded: *mut f32,
    dx: *mut f32,
) {
    let (maps, padded) = (op.shape.maps, padded.wrapping_add(GAP));
    // SAFETY: as promised to `backward`.
    unsafe {
        for pixel in 0..pixels {
            for c in (0..maps).step_by(V::LANES) {
                let at = pixel * maps + c;
                let term = V::load(g.add(at)).mul(V::load(from.normalised.add(at)));
                let term = term.mul(V::load(from.inverse.add(at)));
                term.store(padded.add(pixel * (maps + GAP) + c));
            }
        }
        let factor = V::splat(-2.0 * op.alpha * op.beta);
        for pixel in 0..pixels {
            for c in (0..maps).step_by(V::LANES) {
                // Map i's sum reaches back by size / 2 maps, so its term reaches forward as far.
                let start = padded.add(pixel * (maps + GAP) + c).sub((size - 1) / 2);
                let sum = neighbours::<V>(start, size).mul(factor);
                let at = pixel * maps + c;
                let direct = V::load(g.add(at)).mul(V::load(from.factor.add(at)));
                sum.mul_add(V::load(x.add(at)), direct).store(dx.add(at));
            }
        }
    }
}
