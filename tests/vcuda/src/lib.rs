//! Virtual CUDA driver.
/// d
pub const LIBRARY: &str = env!("VCUDA_DRIVER");
