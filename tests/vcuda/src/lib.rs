//! Virtual CUDA driver.
