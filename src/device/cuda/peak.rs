//! What a GPU can do at most, from the clocks and widths that the driver states.

use crate::device::Peak;
use cudarc::driver::{result, sys};

/// Nominal rates without and with tensor cores, and memory bandwidth; none where the driver tells no clocks.
pub fn nominal(ordinal: usize) -> Option<Peak> {
    use sys::CUdevice_attribute as Attribute;
    let gpu = result::device::get(ordinal as i32).ok()?;
    // SAFETY: `gpu` was given by the driver.
    let ask = |attribute| unsafe { result::device::get_attribute(gpu, attribute) }.ok();
    let positive = |attribute| ask(attribute).filter(|&n| n > 0).map(f64::from);
    let capability = (
        ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let units = positive(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // Clocks are in kHz, the bus in bits; memory transfers twice a clock.
    let clock = positive(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? * 1e3;
    let memory_clock = positive(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)? * 1e3;
    let bus = positive(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
    Some(Peak {
        flops: 2.0 * units * lanes(capability) * clock,
        tensor_flops: tensor_lanes(capability).map(|lanes| 2.0 * units * lanes * clock),
        bandwidth: 2.0 * memory_clock * bus / 8.0,
        measured: false,
    })
}

/// Dense multiply-adds on tensor cores of one multiprocessor in a clock, in 16 bits with f32 sums and in TF32, of the
/// products for servers and workstations; GeForce cards since 8.6 do half as many.
fn tensor_lanes(capability: (i32, i32)) -> [f64; 2] {
    match capability {
        (8, 0) => [1024.0, 512.0],
        (8, _) | (12, _) => [512.0, 256.0],
        (9, _) => [2048.0, 1024.0],
        (10 | 11, _) => [4096.0, 2048.0],
        _ => [0.0; 2],
    }
}

/// f32 multiply-adds of one multiprocessor in a clock.
fn lanes(capability: (i32, i32)) -> f64 {
    match capability {
        (7, _) | (8, 0) => 64.0,
        _ => 128.0,
    }
}
