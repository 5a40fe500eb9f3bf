//! What the build knows about the kernels: the compiler, the architectures, each kernel's resources.

/// Resources of one kernel on one architecture, as ptxas reported them; memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelReport {
    /// Stem of the file in `kernels/`.
    pub file: &'static str,
    pub kernel: &'static str,
    /// 90 for sm_90.
    pub arch: u32,
    /// Of one thread.
    pub registers: u32,
    /// Local memory of one thread, and how much of it is registers that did not fit.
    pub stack: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
    /// Static shared memory of one block.
    pub shared: u32,
    /// Products by wgmma wait for each other, where they could be under way together.
    pub serialized: bool,
}

include!(concat!(env!("OUT_DIR"), "/kernel_report.rs"));

/// Whether the program holds GPU kernels: it does where the build found nvcc.
pub const fn has_kernels() -> bool {
    NVCC_VERSION.is_some()
}

/// One line on what the program holds: "GPU kernels for sm_80, sm_90 and newer (CUDA 13.0)".
pub fn summary() -> String {
    let Some((major, minor)) = NVCC_VERSION else {
        return "no GPU kernels (built without nvcc)".into();
    };
    let archs: Vec<String> = ARCHS.iter().map(|arch| format!("sm_{arch}")).collect();
    format!(
        "GPU kernels for {} and newer (CUDA {major}.{minor})",
        archs.join(", ")
    )
}

/// How to get kernels into the program.
pub const HOW_TO_GET_KERNELS: &str = "install the CUDA toolkit, or `pip install \
     \"cuda-toolkit[nvcc,cudart,crt,nvvm,cccl,nvrtc]\"` into an active virtual environment, and build again; NVCC names \
     another nvcc";
