//! What the driver's errors mean for a user and for what comes after them.

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::cudaError_enum as Code;
use std::ffi::CStr;

/// What the driver calls an error: "CUDA_ERROR_INVALID_VALUE (invalid argument)".
pub fn describe(error: DriverError) -> String {
    let text = |s: Result<&CStr, DriverError>| s.map(|s| s.to_string_lossy().into_owned()).ok();
    match (text(error.error_name()), text(error.error_string())) {
        (Some(name), Some(meaning)) if name != meaning => format!("{name} ({meaning})"),
        (Some(name), _) => name,
        _ => format!("{:?}", error.0),
    }
}

/// Whether an error stays with the context: every later call fails with it, and what was issued is never done. Any other
/// refuses one call alone.
pub fn is_sticky(error: DriverError) -> bool {
    matches!(
        error.0,
        Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_LAUNCH_FAILED
    )
}

/// What to do about an error, as the end of a line; empty where nothing general can be said.
pub fn remedy(error: DriverError) -> &'static str {
    match error.0 {
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
        | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Code::CUDA_ERROR_LAUNCH_FAILED
        | Code::CUDA_ERROR_MISALIGNED_ADDRESS => {
            "; a kernel failed: run `alexnet-mp verify`, and report what it says"
        }
        Code::CUDA_ERROR_ECC_UNCORRECTABLE | Code::CUDA_ERROR_HARDWARE_STACK_ERROR => {
            "; the GPU's hardware failed: see `nvidia-smi -q`"
        }
        Code::CUDA_ERROR_LAUNCH_TIMEOUT => "; the GPU also drives a display: use another GPU",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_kernel_and_of_hardware_stay_and_refusals_do_not() {
        let sticky = |code| is_sticky(DriverError(code));
        assert!(sticky(Code::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(sticky(Code::CUDA_ERROR_ECC_UNCORRECTABLE));
        assert!(!sticky(Code::CUDA_ERROR_OUT_OF_MEMORY));
        assert!(!sticky(Code::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES));
        assert!(!sticky(Code::CUDA_ERROR_NOT_SUPPORTED));
    }
}
