//! Matrix products in registers: `C = A · B`, B and C in panels of 16 columns.
//!
//! A tile of C, some rows by one or more panels, stays in registers while the depth runs; each
//! element of A is broadcast and multiplied with the vectors of B's row. Two forms: A by rows
//! ([`product`], [`product_at`]), and A by columns ([`outer`]), which weight gradients need.

use super::simd::{Vector, kernel};

/// Columns of a panel.
pub const PANEL: usize = 16;

/// What a tile starts from.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// What C holds.
    Add,
    /// The bias of each column, all panels whole.
    Bias(&'a [f32]),
}

/// Extent and strides (in elements) of a product.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub rows: usize,
    pub panels: usize,
    /// The depth is `segments` runs of `run` elements; A's runs are `a_segment` apart.
    pub segments: usize,
    pub run: usize,
    pub a_segment: usize,
    /// From a panel of B to the next; a panel's rows are 16 apart.
    pub b_panel: usize,
    pub c_row: usize,
    pub c_panel: usize,
    pub start: Start<'a>,
    pub relu: bool,
}

/// Where A's rows lie.
trait Rows: Copy {
    unsafe fn at(&self, row: usize) -> *const f32;
    unsafe fn from(self, row: usize) -> Self;
}

/// Rows 16 elements apart.
#[derive(Clone, Copy)]
struct Blocked(*const f32);

impl Rows for Blocked {
    #[inline(always)]
    unsafe fn at(&self, row: usize) -> *const f32 {
        self.0.wrapping_add(row * PANEL)
    }
    #[inline(always)]
    unsafe fn from(self, row: usize) -> Self {
        Blocked(self.0.wrapping_add(row * PANEL))
    }
}

/// Rows at offsets from a start.
#[derive(Clone, Copy)]
struct Offsets(*const f32, *const u32);

impl Rows for Offsets {
    #[inline(always)]
    unsafe fn at(&self, row: usize) -> *const f32 {
        // SAFETY: there is an offset for each row of the product.
        self.0.wrapping_add(unsafe { *self.1.add(row) } as usize)
    }
    #[inline(always)]
    unsafe fn from(self, row: usize) -> Self {
        Offsets(self.0, self.1.wrapping_add(row))
    }
}

/// Offset of vector `w` of a row across panels `panel` apart.
#[inline(always)]
fn column<V: Vector>(w: usize, panel: usize) -> usize {
    let per = PANEL / V::LANES;
    w / per * panel + w % per * V::LANES
}

/// One tile: `ROWS` rows by `WIDE` vectors.
#[inline(always)]
unsafe fn tile<V: Vector, R: Rows, const ROWS: usize, const WIDE: usize>(
    p: &Product<'_>,
    a: R,
    b: *const f32,
    c: *mut f32,
    bias: usize,
) {
    // SAFETY: the caller of the product promises its extents.
    unsafe {
        let mut sum = [[V::zero(); WIDE]; ROWS];
        for (i, row) in sum.iter_mut().enumerate() {
            for (w, x) in row.iter_mut().enumerate() {
                match p.start {
                    Start::Zero => {}
                    Start::Add => *x = V::load(c.add(i * p.c_row + column::<V>(w, p.c_panel))),
                    Start::Bias(biases) => {
                        *x = V::load(biases.as_ptr().add(bias + column::<V>(w, PANEL)));
                    }
                }
            }
        }
        let rows: [*const f32; ROWS] = std::array::from_fn(|i| a.at(i));
        let mut b = b;
        for s in 0..p.segments {
            let offset = s * p.a_segment;
            for k in offset..offset + p.run {
                let vectors: [V; WIDE] =
                    std::array::from_fn(|w| V::load(b.add(column::<V>(w, p.b_panel))));
                for (i, sum) in sum.iter_mut().enumerate() {
                    let x = V::splat(*rows[i].add(k));
                    for w in 0..WIDE {
                        sum[w] = x.mul_add(vectors[w], sum[w]);
                    }
                }
                b = b.add(PANEL);
            }
        }
        for (i, row) in sum.iter().enumerate() {
            for (w, x) in row.iter().enumerate() {
                let x = if p.relu { V::zero().max(*x) } else { *x };
                x.store(c.add(i * p.c_row + column::<V>(w, p.c_panel)));
            }
        }
    }
}

/// Defines a function for all rows by `WIDE` vectors: tiles of `$full` rows, then one of what is
/// left. Only the sizes listed are compiled.
macro_rules! strip {
    ($name:ident, $full:literal, $($rows:literal)*) => {
        #[inline(always)]
        unsafe fn $name<V: Vector, R: Rows, const WIDE: usize>(
            p: &Product<'_>,
            a: R,
            b: *const f32,
            c: *mut f32,
            bias: usize,
        ) {
            // SAFETY: rows stay below `p.rows`.
            unsafe {
                let mut row = 0;
                while p.rows - row >= $full {
                    tile::<V, R, $full, WIDE>(p, a.from(row), b, c.add(row * p.c_row), bias);
                    row += $full;
                }
                let (a, c) = (a.from(row), c.wrapping_add(row * p.c_row));
                match p.rows - row {
                    $($rows => tile::<V, R, $rows, WIDE>(p, a, b, c, bias),)*
                    _ => {}
                }
            }
        }
    };
}
strip!(strip_2, 2, 1);
strip!(strip_6, 6, 1 2 3 4 5);
strip!(strip_8, 8, 1 2 3 4 5 6 7);
strip!(strip_12, 12, 1 2 3 4 5 6 7 8 9 10 11);

/// Defines the product of all rows and panels, the panels by strips of so many vectors:
/// the first count of panels while there are as many.
macro_rules! panels {
    ($name:ident, $rows:ident, $arguments:tt, $most:literal,
     $($panels:literal => $strip:ident $wide:literal),*) => {
        panels!(@ $name, $rows, $arguments, |p, a, b, c| {
            let mut panel = 0;
            while panel < p.panels {
                let (b, c) = (b.wrapping_add(panel * p.b_panel), c.wrapping_add(panel * p.c_panel));
                let left = (p.panels - panel).min($most);
                match left {
                    $($panels => $strip::<V, $rows, $wide>(p, a, b, c, panel * PANEL),)*
                    _ => {}
                }
                panel += left;
            }
        });
    };
    (@ $name:ident, Blocked, (), |$p:ident, $a:ident, $b:ident, $c:ident| $body:block) => {
        #[inline(always)]
        unsafe fn $name<V: Vector>($p: &Product<'_>, a: *const f32, $b: *const f32, $c: *mut f32) {
            let $a = Blocked(a);
            // SAFETY: the caller's promise; panels stay below `p.panels`.
            unsafe { $body }
        }
    };
    (@ $name:ident, Offsets, (offsets), |$p:ident, $a:ident, $b:ident, $c:ident| $body:block) => {
        #[inline(always)]
        unsafe fn $name<V: Vector>(
            $p: &Product<'_>,
            a: *const f32,
            offsets: &[u32],
            $b: *const f32,
            $c: *mut f32,
        ) {
            debug_assert_eq!(offsets.len(), $p.rows);
            let $a = Offsets(a, offsets.as_ptr());
            // SAFETY: the caller's promise; panels stay below `p.panels`.
            unsafe { $body }
        }
    };
}
panels!(product_4, Blocked, (), 1, 1 => strip_2 4);
panels!(product_8, Blocked, (), 1, 1 => strip_6 2);
panels!(product_16, Blocked, (), 2, 1 => strip_12 1, 2 => strip_12 2);
panels!(product_at_4, Offsets, (offsets), 1, 1 => strip_2 4);
panels!(product_at_8, Offsets, (offsets), 1, 1 => strip_6 2);
panels!(product_at_16, Offsets, (offsets), 4, 1 => strip_12 1, 2 => strip_8 2, 3 => strip_8 3, 4 => strip_6 4);

kernel!(
    /// `C = A · B`, A's rows 16 elements apart.
    ///
    /// # Safety
    /// The pointers must be good for the extents in `p`.
    pub unsafe fn product = [product_4::<Portable>][product_8::<Avx2>][product_16::<Avx512>](
        p: &Product<'_>,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
    )
);

kernel!(
    /// `C = A · B`, A's rows at `offsets` from `a`.
    ///
    /// # Safety
    /// The pointers must be good for the extents in `p`, at every offset.
    pub unsafe fn product_at =
        [product_at_4::<Portable>][product_at_8::<Avx2>][product_at_16::<Avx512>](
        p: &Product<'_>,
        a: *const f32,
        offsets: &[u32],
        b: *const f32,
        c: *mut f32,
    )
);

/// Extent and strides (in elements) of a sum of outer products:
/// `C[i][j] = Σ_k A[k][i] · B[k][j]`, k over `segments` runs of `run`.
#[derive(Clone, Copy)]
pub struct Outer {
    pub rows: usize,
    pub panels: usize,
    pub segments: usize,
    pub run: usize,
    pub a_segment: usize,
    pub a_step: usize,
    pub b_segment: usize,
    pub b_step: usize,
    pub b_panel: usize,
    /// C's rows are 16 elements apart.
    pub c_panel: usize,
    pub add: bool,
}

#[inline(always)]
unsafe fn outer_tile<V: Vector, const ROWS: usize, const WIDE: usize>(
    p: &Outer,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
) {
    // SAFETY: the caller of `outer` promises its extents.
    unsafe {
        let mut sum = [[V::zero(); WIDE]; ROWS];
        for s in 0..p.segments {
            let (mut a, mut b) = (a.add(s * p.a_segment), b.add(s * p.b_segment));
            for _ in 0..p.run {
                let vectors: [V; WIDE] =
                    std::array::from_fn(|w| V::load(b.add(column::<V>(w, p.b_panel))));
                for (i, sum) in sum.iter_mut().enumerate() {
                    let x = V::splat(*a.add(i));
                    for w in 0..WIDE {
                        sum[w] = x.mul_add(vectors[w], sum[w]);
                    }
                }
                a = a.wrapping_add(p.a_step);
                b = b.wrapping_add(p.b_step);
            }
        }
        for (i, row) in sum.iter().enumerate() {
            for (w, x) in row.iter().enumerate() {
                let c = c.add(i * PANEL + column::<V>(w, p.c_panel));
                let x = if p.add { x.add(V::load(c)) } else { *x };
                x.store(c);
            }
        }
    }
}

/// Defines the sum of outer products of all rows and panels: tiles of `$full` rows, panels by so
/// many vectors.
macro_rules! outer_panels {
    ($name:ident, $full:literal [$($rows:literal)*] $most:literal,
     $($panels:literal => $wide:literal),*) => {
        #[inline(always)]
        unsafe fn $name<V: Vector>(p: &Outer, a: *const f32, b: *const f32, c: *mut f32) {
            #[inline(always)]
            unsafe fn strip<V: Vector, const WIDE: usize>(
                p: &Outer,
                a: *const f32,
                b: *const f32,
                c: *mut f32,
            ) {
                // SAFETY: rows stay below `p.rows`.
                unsafe {
                    let mut row = 0;
                    while p.rows - row >= $full {
                        outer_tile::<V, $full, WIDE>(p, a.add(row), b, c.add(row * PANEL));
                        row += $full;
                    }
                    let (a, c) = (a.wrapping_add(row), c.wrapping_add(row * PANEL));
                    match p.rows - row {
                        $($rows => outer_tile::<V, $rows, WIDE>(p, a, b, c),)*
                        _ => {}
                    }
                }
            }
            // SAFETY: panels stay below `p.panels`.
            unsafe {
                let mut panel = 0;
                while panel < p.panels {
                    let (b, c) = (b.wrapping_add(panel * p.b_panel), c.wrapping_add(panel * p.c_panel));
                    let left = (p.panels - panel).min($most);
                    match left {
                        $($panels => strip::<V, $wide>(p, a, b, c),)*
                        _ => {}
                    }
                    panel += left;
                }
            }
        }
    };
}
outer_panels!(outer_4, 2 [1] 1, 1 => 4);
outer_panels!(outer_8, 6 [1 2 3 4 5] 1, 1 => 2);
outer_panels!(outer_16, 8 [1 2 3 4 5 6 7] 3, 1 => 1, 2 => 2, 3 => 3);

kernel!(
    /// A sum of outer products.
    ///
    /// # Safety
    /// The pointers must be good for the extents in `p`.
    pub unsafe fn outer = [outer_4::<Portable>][outer_8::<Avx2>][outer_16::<Avx512>](
        p: &Outer,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
    )
);
