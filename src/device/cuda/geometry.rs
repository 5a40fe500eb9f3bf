//! What kernels take as arguments: the twins of the structures in `kernels/*.cu*`, field by field.

use crate::error::{Result, device};
use crate::network::op::{Activation, LocalNorm, Lrn};

/// An address on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Pointer(pub u64);

impl Pointer {
    pub const NULL: Pointer = Pointer(0);

    /// The address so many bytes further.
    pub fn offset(self, bytes: usize) -> Pointer {
        Pointer(self.0 + bytes as u64)
    }
}

/// A value that may be handed to a kernel as it is.
///
/// # Safety
/// The type's layout is that of the kernel's parameter: a number, an address, or `repr(C)` of such, field by field.
pub unsafe trait Argument: Copy {}

/// Declares types to be [`Argument`]s.
macro_rules! argument_types {
    ($($name:ty),* $(,)?) => { $(
        // SAFETY: a plain number, or `repr(C)` with the fields of its twin in the kernels.
        unsafe impl $crate::device::cuda::geometry::Argument for $name {}
    )* };
}
argument_types!(Pointer, i32, u32, f32, Divider, LrnConstants);
pub(super) use argument_types;

/// A count as kernels index: 32 bits, with room for the last block's overhang.
pub fn int(value: usize) -> Result<i32> {
    const LARGEST: usize = (1 << 31) - (1 << 14);
    if value > LARGEST {
        return Err(device(format!(
            "an operation of {value} elements exceeds the {LARGEST} that kernels address: take a smaller --batch"
        )));
    }
    Ok(value as i32)
}

/// Division by multiplication, for dividends below 2³¹ (`kernels/index.cuh`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Divider {
    divisor: u32,
    multiplier: u32,
    shift: u32,
}

impl Divider {
    /// `divisor` at least 1.
    pub fn new(divisor: usize) -> Result<Self> {
        let divisor = int(divisor.max(1))? as u32;
        // With s = ceil(log2 d), ceil(2^(31+s) / d) fits 32 bits and is exact for n < 2^31.
        let log = divisor.next_power_of_two().trailing_zeros();
        let multiplier = (1u64 << (31 + log)).div_ceil(u64::from(divisor)) as u32;
        Ok(Divider {
            divisor,
            multiplier,
            shift: 31 + log,
        })
    }
}

/// How kernels are told an activation.
pub fn activation_code(activation: Option<Activation>) -> i32 {
    match activation {
        None => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Tanh) => 2,
    }
}

/// `kernels/lrn.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LrnConstants {
    size: i32,
    k: f32,
    alpha: f32,
    beta: f32,
}

impl LrnConstants {
    pub fn of_maps(op: &Lrn) -> Result<Self> {
        Ok(LrnConstants {
            size: int(op.size)?,
            k: op.k,
            alpha: op.alpha,
            beta: op.beta,
        })
    }

    pub fn of_pixels(op: &LocalNorm) -> Result<Self> {
        Ok(LrnConstants {
            size: int(op.size)?,
            k: op.k,
            alpha: op.alpha,
            beta: op.beta,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divider_divides_exactly() {
        for divisor in (1..2000).chain([3025, 65_535, 65_536, 65_537, (1 << 31) - (1 << 14)]) {
            let d = Divider::new(divisor).unwrap();
            let quotient = |n: u64| (n * u64::from(d.multiplier)) >> d.shift;
            for base in [0u64, 1, 1000, 123_456_789, (1 << 31) - 5] {
                let near = base / divisor as u64 * divisor as u64;
                for n in [near.saturating_sub(1), near, near + 1, base] {
                    if n < 1 << 31 {
                        assert_eq!(quotient(n), n / divisor as u64, "{n} / {divisor}");
                    }
                }
            }
        }
    }

    #[test]
    fn more_elements_than_kernels_address_are_refused() {
        assert!(int(1 << 31).is_err());
    }
}
