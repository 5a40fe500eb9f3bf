//! Normalisation over neighbouring maps, then max pooling, without keeping the normalised maps:
//! a ring of as many rows as a window has is made as the windows move down, backward once more.

use super::lrn_row::{self, Row};
use super::pool::inside;
use super::simd::{Isa, Vector, kernel};
use super::team::Team;
use super::{activation, lrn, pool};
use crate::error::Result;
use crate::network::op::{Lrn, Pool};

/// One image by plain loops: any shape, any exponent.
#[inline(always)]
fn forward_plain_body(lrn: &Lrn, pool: &Pool, x: &[f32], y: &mut [f32], own: &mut [f32]) {
    let (normalised, own) = own.split_at_mut(x.len());
    lrn::forward_body(lrn, 0, &[x], normalised, own);
    pool::forward_body(pool, normalised, y);
}

#[inline(always)]
fn backward_plain_body(
    (lrn, pool): (&Lrn, &Pool),
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    own: &mut [f32],
) {
    let (normalised, own) = own.split_at_mut(x.len());
    let (gradient, own) = own.split_at_mut(x.len());
    lrn::forward_body(lrn, 0, &[x], normalised, own);
    pool::backward_body(pool, normalised, y, dy, gradient, own);
    lrn::backward_body(lrn, 0, &[x], gradient, own, |_, at, g| {
        dx[at..at + g.len()].copy_from_slice(g);
    });
}

kernel!(fn forward_plain = forward_plain_body(
    lrn: &Lrn,
    pool: &Pool,
    x: &[f32],
    y: &mut [f32],
    own: &mut [f32],
));
kernel!(fn backward_plain = backward_plain_body(
    ops: (&Lrn, &Pool),
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    own: &mut [f32],
));

/// The rings of one image: of normalised rows, and for backward of their factors and gradients.
#[derive(Clone, Copy)]
struct Rings {
    padded: *mut f32,
    rows: Row,
    gradient: *mut f32,
    /// Elements of a row, rows of a ring.
    row: usize,
    count: usize,
}

impl Rings {
    /// Elements of work space of the padded row and `rings` rings.
    fn elements(pool: &Pool, rings: usize) -> usize {
        let row = pool.input.width * pool.input.maps;
        lrn_row::padded(pool.input.maps, pool.input.width) + rings * pool.window.size * row
    }

    fn new(pool: &Pool, own: &mut [f32], backward: bool) -> Rings {
        let row = pool.input.width * pool.input.maps;
        let ring = pool.window.size * row;
        let (padded, rings) = own.split_at_mut(lrn_row::padded(pool.input.maps, pool.input.width));
        assert!(rings.len() >= if backward { 4 * ring } else { ring });
        padded.fill(0.0);
        let normalised = rings.as_mut_ptr();
        let other = |i: usize| match backward {
            true => normalised.wrapping_add(i * ring),
            false => std::ptr::null_mut(),
        };
        Rings {
            padded: padded.as_mut_ptr(),
            rows: Row {
                normalised,
                factor: other(1),
                inverse: other(2),
            },
            gradient: other(3),
            row,
            count: pool.window.size,
        }
    }

    /// Offset of image row `row` in a ring.
    fn at(&self, row: usize) -> usize {
        row % self.count * self.row
    }
}

#[inline(always)]
unsafe fn forward_body<V: Vector>(lrn: &Lrn, pool: &Pool, x: &[f32], y: &mut [f32], rings: Rings) {
    let (maps, width) = (pool.input.maps, pool.input.width);
    let mut next = 0;
    for p in 0..pool.output.height {
        let rows = inside(pool.window, p, pool.input.height);
        // SAFETY: rows stay inside the image and the rings.
        unsafe {
            while next < rows.end {
                let x = x[next * rings.row..].as_ptr();
                let to = rings.rows.at(rings.at(next));
                lrn_row::forward::<V>(lrn, width, x, rings.padded, to);
                next += 1;
            }
        }
        for q in 0..pool.output.width {
            let columns = inside(pool.window, q, width);
            let empty = rows.is_empty() || columns.is_empty();
            let y = &mut y[(p * pool.output.width + q) * maps..][..maps];
            for c in (0..maps).step_by(V::LANES) {
                // SAFETY: as above; `y` has all maps.
                unsafe {
                    let least = if empty { 0.0 } else { f32::NEG_INFINITY };
                    let mut largest = V::splat(least);
                    for row in rows.clone() {
                        let row = rings.rows.normalised.add(rings.at(row) + c);
                        for column in columns.clone() {
                            largest = V::load(row.add(column * maps)).max(largest);
                        }
                    }
                    largest.store(y[c..].as_mut_ptr());
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn backward_body<V: Vector>(
    (lrn, pool): (&Lrn, &Pool),
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    rings: Rings,
) {
    let (height, width) = (pool.input.height, pool.input.width);
    let (mut next, mut done) = (0, 0);
    for p in 0..=pool.output.height {
        // The last time round only finishes the rows that are left.
        let last = p == pool.output.height;
        let rows = if last {
            height..height
        } else {
            inside(pool.window, p, height)
        };
        // SAFETY: rows stay inside the image and the rings: a row's place is taken again only
        // when no window reaches it any more.
        unsafe {
            loop {
                // Rows above this window are complete.
                while done < next.min(rows.start) {
                    let (x, at) = (x[done * rings.row..].as_ptr(), rings.at(done));
                    let from = (x, rings.rows.at(at), rings.gradient.add(at).cast_const());
                    let dx = dx[done * rings.row..][..rings.row].as_mut_ptr();
                    lrn_row::backward::<V>(lrn, width, from, rings.padded, dx);
                    done += 1;
                }
                if next == rows.end {
                    break;
                }
                let x = x[next * rings.row..].as_ptr();
                lrn_row::forward::<V>(lrn, width, x, rings.padded, rings.rows.at(rings.at(next)));
                rings.gradient.add(rings.at(next)).write_bytes(0, rings.row);
                next += 1;
            }
            if !last {
                unpool_row::<V>(pool, p, y, dy, &rings);
            }
        }
    }
}

/// Gives the gradient of one row of windows to their first maxima.
#[inline(always)]
unsafe fn unpool_row<V: Vector>(pool: &Pool, p: usize, y: &[f32], dy: &[f32], rings: &Rings) {
    let (maps, width) = (pool.input.maps, pool.input.width);
    let rows = inside(pool.window, p, pool.input.height);
    for q in 0..pool.output.width {
        let columns = inside(pool.window, q, width);
        let at = (p * pool.output.width + q) * maps;
        let (y, dy) = (&y[at..at + maps], &dy[at..at + maps]);
        for c in (0..maps).step_by(V::LANES) {
            // SAFETY: the window's rows are in the rings.
            unsafe {
                let largest = V::load(y[c..].as_ptr());
                let mut left = V::load(dy[c..].as_ptr());
                for row in rows.clone() {
                    for column in columns.clone() {
                        let at = rings.at(row) + column * maps + c;
                        let here = V::load(rings.rows.normalised.add(at));
                        // What the first maximum takes is not left for a later one.
                        let taken = left.where_equal(here, largest);
                        left = left.sub(taken);
                        let to = rings.gradient.add(at);
                        V::load(to).add(taken).store(to);
                    }
                }
            }
        }
    }
}

kernel!(
    /// One image.
    ///
    /// # Safety
    /// The rings must be made for `pool`, and `lrn` suit them.
    unsafe fn forward_rows = [forward_body::<Portable>][forward_body::<Avx2>][forward_body::<Avx512>](
        lrn: &Lrn,
        pool: &Pool,
        x: &[f32],
        y: &mut [f32],
        rings: Rings,
    )
);
kernel!(
    /// One image.
    ///
    /// # Safety
    /// The rings must be made for `pool`, and `lrn` suit them.
    unsafe fn backward_rows = [backward_body::<Portable>][backward_body::<Avx2>][backward_body::<Avx512>](
        ops: (&Lrn, &Pool),
        x: &[f32],
        y: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        rings: Rings,
    )
);

/// Whether the vector kernels do it: they never skip rows between windows.
fn suits(lrn: &Lrn, pool: &Pool) -> bool {
    lrn_row::suits(lrn) && pool.window.stride <= pool.window.size
}

/// Both operations, forward.
pub fn forward(
    team: &mut Team,
    lrn: &Lrn,
    pool: &Pool,
    images: usize,
    x: &[f32],
    y: &mut [f32],
) -> Result<()> {
    debug_assert_eq!(lrn.parts, 1);
    let (isa, len): (Isa, usize) = (team.workers.isa, pool.input.len());
    let suits = suits(lrn, pool);
    let plain = len + lrn::work_space(lrn);
    team.reserve(
        0,
        if suits {
            Rings::elements(pool, 1)
        } else {
            plain
        },
    )?;
    let y = &mut y[..images * pool.output.len()];
    team.workers.chunks(y, pool.output.len(), |image, y, own| {
        let x = &x[image * len..][..len];
        if suits {
            // SAFETY: the rings are made for this.
            unsafe { forward_rows(isa, lrn, pool, x, y, Rings::new(pool, own, false)) }
        } else {
            forward_plain(isa, lrn, pool, x, y, own);
        }
    });
    Ok(())
}

/// Gradient of the normalisation's input.
pub fn backward(
    team: &mut Team,
    lrn: &Lrn,
    pool: &Pool,
    images: usize,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    debug_assert_eq!(lrn.parts, 1);
    let (isa, len, pooled) = (team.workers.isa, pool.input.len(), pool.output.len());
    let suits = suits(lrn, pool);
    let plain = 2 * len + lrn::work_space(lrn);
    team.reserve(
        0,
        if suits {
            Rings::elements(pool, 4)
        } else {
            plain
        },
    )?;
    team.workers
        .chunks(&mut dx[..images * len], len, |image, dx, own| {
            let (y, dy) = (
                &y[image * pooled..][..pooled],
                &dy[image * pooled..][..pooled],
            );
            let x = &x[image * len..][..len];
            if suits {
                let rings = Rings::new(pool, own, true);
                // SAFETY: the rings are made for this.
                unsafe { backward_rows(isa, (lrn, pool), x, y, dy, dx, rings) }
            } else {
                backward_plain(isa, (lrn, pool), x, y, dy, dx, own);
            }
            activation::slope(isa, pool.activated, x, dx);
        });
    Ok(())
}
