//! Vectors of f32, and the choice of the instruction set at run time.
//!
//! A kernel is written once, over [`Vector`] or as plain loops, marked `#[inline(always)]`, and
//! instantiated by [`kernel!`] in a root function for each instruction set, whose
//! `#[target_feature]` then holds for everything inlined into it.

/// Instruction sets that kernels are instantiated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The same, or AVX2 for AVX-512: every processor that has the one has the other.
    pub fn without_avx512(self) -> Isa {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Isa::Avx2,
            other => other,
        }
    }

    /// The best that this processor has. The environment variable `ALEXNET_MP_PORTABLE=1`
    /// forces the portable one, `ALEXNET_MP_PORTABLE=avx2` forbids AVX-512: for tests.
    pub fn detect() -> Isa {
        let forced = std::env::var("ALEXNET_MP_PORTABLE").unwrap_or_default();
        if !matches!(forced.as_str(), "" | "0" | "avx2") {
            return Isa::Portable;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if forced != "avx2" && Isa::Avx512.available() {
                return Isa::Avx512;
            }
            if Isa::Avx2.available() {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// Whether this processor has it.
    pub fn available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => std::is_x86_feature_detected!("avx512f") && Isa::Avx2.available(),
        }
    }
}

/// Instantiates a kernel body for every [`Isa`]: `fn name = body(arguments)` for plain loops,
/// `unsafe fn name = [body::<Portable>][body::<Avx2>][body::<Avx512>](arguments)` for one over
/// [`Vector`]. The root's first argument is
/// the instruction set, which must be one that [`Isa::detect`] found on this processor.
macro_rules! kernel {
    ($(#[$doc:meta])* $vis:vis fn $name:ident = $body:ident ($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::device::cpu::simd::Isa, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            mod roots {
                use super::*;
                #[target_feature(enable = "avx2,fma")]
                pub fn avx2($($arg: $type),*) { $body($($arg),*) }
                #[target_feature(enable = "avx512f,avx2,fma")]
                pub fn avx512($($arg: $type),*) { $body($($arg),*) }
            }
            match isa {
                $crate::device::cpu::simd::Isa::Portable => $body($($arg),*),
                // SAFETY: `isa` was found on this processor.
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::simd::Isa::Avx2 => unsafe { roots::avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::simd::Isa::Avx512 => unsafe { roots::avx512($($arg),*) },
            }
        }
    };
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident =
        [$($portable:tt)*] [$($avx2:tt)*] [$($avx512:tt)*] ($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::device::cpu::simd::Isa, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            mod roots {
                use super::*;
                use $crate::device::cpu::simd::{Avx2, Avx512};
                #[target_feature(enable = "avx2,fma")]
                pub unsafe fn avx2($($arg: $type),*) {
                    // SAFETY: the caller's promises are the body's.
                    unsafe { $($avx2)*($($arg),*) }
                }
                #[target_feature(enable = "avx512f,avx2,fma")]
                pub unsafe fn avx512($($arg: $type),*) {
                    // SAFETY: the caller's promises are the body's.
                    unsafe { $($avx512)*($($arg),*) }
                }
            }
            use $crate::device::cpu::simd::Portable;
            // SAFETY: the caller's promises are the body's; `isa` was found on this processor.
            unsafe {
                match isa {
                    $crate::device::cpu::simd::Isa::Portable => $($portable)*($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::device::cpu::simd::Isa::Avx2 => roots::avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::device::cpu::simd::Isa::Avx512 => roots::avx512($($arg),*),
                }
            }
        }
    };
}
pub(super) use kernel;

/// A vector register of f32.
///
/// # Safety of the methods
/// Pointers must be good for `LANES` elements, and the code must have been inlined into a
/// function that has the instruction set's features.
pub trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · factor + sum`.
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// `other` where either is a NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// 1 / √self, to a few units in the last place.
    unsafe fn inverse_root(self) -> Self;
    /// `self` where `a` equals `b`, else 0.
    unsafe fn where_equal(self, a: Self, b: Self) -> Self;
}

/// Four elements that the compiler maps to what the target always has.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[derive(Clone, Copy)]
pub struct Array([f32; 4]);

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Array {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Array(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Vector for Array {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Array([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Array([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; arrays of f32 need no more alignment than f32.
        unsafe { Array(from.cast::<[f32; 4]>().read()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // A fused multiply-add only where it is an instruction and not a library call.
        if cfg!(target_arch = "aarch64") {
            Array(std::array::from_fn(|i| {
                self.0[i].mul_add(factor.0[i], sum.0[i])
            }))
        } else {
            Array(std::array::from_fn(|i| self.0[i] * factor.0[i] + sum.0[i]))
        }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn inverse_root(self) -> Self {
        self.zip(self, |x, _| 1.0 / x.sqrt())
    }
    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        Array(std::array::from_fn(|i| {
            if a.0[i] == b.0[i] { self.0[i] } else { 0.0 }
        }))
    }
}

/// What every processor of the target has.
#[cfg(not(target_arch = "x86_64"))]
pub type Portable = Array;
/// What every processor of the target has.
#[cfg(target_arch = "x86_64")]
pub type Portable = Sse2;

/// Defines a vector type over the intrinsics of one x86 instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_vector {
    ($(#[$doc:meta])* $name:ident, $inner:ident, $lanes:literal, $zero:ident, $splat:ident,
     $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $max:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(x86::$inner);

        // SAFETY of every method: the trait's promises are what the intrinsic asks for.
        impl Vector for $name {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn zero() -> Self {
                unsafe { $name(x86::$zero()) }
            }
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                unsafe { $name(x86::$splat(x)) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                unsafe { $name(x86::$load(from)) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { x86::$store(to, self.0) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                unsafe { $name(x86::$add(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                unsafe { $name(x86::$sub(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                unsafe { $name(x86::$mul(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
                unsafe { self.multiply_add(factor, sum) }
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                unsafe { $name(x86::$max(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn inverse_root(self) -> Self {
                // Newton's steps double the estimate's right digits.
                unsafe {
                    let half = self.mul(Self::splat(-0.5));
                    let mut r = self.estimate();
                    for _ in 0..Self::STEPS {
                        let error = half.mul(r).mul_add(r, Self::splat(1.5));
                        r = r.mul(error);
                    }
                    r
                }
            }
            #[inline(always)]
            unsafe fn where_equal(self, a: Self, b: Self) -> Self {
                unsafe { self.masked(a, b) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;

// SAFETY of these: as of the trait's methods.
#[cfg(target_arch = "x86_64")]
impl Sse2 {
    /// Newton's steps from 12 bits to 24 and a margin.
    const STEPS: usize = 2;
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
        unsafe { self.mul(factor).add(sum) }
    }
    #[inline(always)]
    unsafe fn estimate(self) -> Self {
        unsafe { Sse2(x86::_mm_rsqrt_ps(self.0)) }
    }
    #[inline(always)]
    unsafe fn masked(self, a: Self, b: Self) -> Self {
        unsafe { Sse2(x86::_mm_and_ps(self.0, x86::_mm_cmpeq_ps(a.0, b.0))) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
        unsafe { Avx2(x86::_mm256_fmadd_ps(self.0, factor.0, sum.0)) }
    }
    /// Newton's steps from 12 bits to 24 and a margin.
    const STEPS: usize = 2;
    #[inline(always)]
    unsafe fn estimate(self) -> Self {
        unsafe { Avx2(x86::_mm256_rsqrt_ps(self.0)) }
    }
    #[inline(always)]
    unsafe fn masked(self, a: Self, b: Self) -> Self {
        unsafe {
            let equal = x86::_mm256_cmp_ps::<{ x86::_CMP_EQ_OQ }>(a.0, b.0);
            Avx2(x86::_mm256_and_ps(self.0, equal))
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
        unsafe { Avx512(x86::_mm512_fmadd_ps(self.0, factor.0, sum.0)) }
    }
    /// One of Newton's steps from 14 bits.
    const STEPS: usize = 1;
    #[inline(always)]
    unsafe fn estimate(self) -> Self {
        unsafe { Avx512(x86::_mm512_rsqrt14_ps(self.0)) }
    }
    #[inline(always)]
    unsafe fn masked(self, a: Self, b: Self) -> Self {
        unsafe {
            let equal = x86::_mm512_cmp_ps_mask::<{ x86::_CMP_EQ_OQ }>(a.0, b.0);
            Avx512(x86::_mm512_maskz_mov_ps(equal, self.0))
        }
    }
}

#[cfg(target_arch = "x86_64")]
x86_vector!(
    /// Four elements, what every x86-64 processor has.
    Sse2,
    __m128,
    4,
    _mm_setzero_ps,
    _mm_set1_ps,
    _mm_loadu_ps,
    _mm_storeu_ps,
    _mm_add_ps,
    _mm_sub_ps,
    _mm_mul_ps,
    _mm_max_ps
);

#[cfg(target_arch = "x86_64")]
x86_vector!(
    /// Eight elements, AVX2 and FMA.
    Avx2,
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_max_ps
);

#[cfg(target_arch = "x86_64")]
x86_vector!(
    /// Sixteen elements, AVX-512F.
    Avx512,
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_max_ps
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method's results on a few numbers.
    unsafe fn results<V: Vector>() -> Vec<f32> {
        let (a, b) = ([1.5f32, -2.0, 0.25, 9.0], [1.5f32, 4.0, -0.5, 3.0]);
        let mut all = Vec::new();
        // SAFETY: the arrays have four elements; the caller has the features.
        unsafe {
            let (x, y) = (V::load(a.as_ptr()), V::load(b.as_ptr()));
            let two = V::splat(2.0);
            let values = [
                x.add(y),
                x.sub(y),
                x.mul(y),
                x.mul_add(y, two),
                x.max(y),
                x.mul(x).inverse_root(),
                two.where_equal(x, y),
                V::zero(),
            ];
            for v in values {
                let mut to = [0.0; 4];
                v.store(to.as_mut_ptr());
                all.extend(to);
            }
        }
        all
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn arrays_and_registers_agree() {
        // SAFETY: SSE2 is always there.
        let (array, sse) = unsafe { (results::<Array>(), results::<Sse2>()) };
        for (a, s) in array.iter().zip(&sse) {
            assert!((a - s).abs() <= 2e-7 * a.abs(), "{array:?} {sse:?}");
        }
    }
}
