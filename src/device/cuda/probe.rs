//! Which GPUs there are, and whether this program can use them. Never panics where there is no driver.

use super::failure::describe;
use super::report::{ARCHS, HOW_TO_GET_KERNELS, NVCC_VERSION};
use crate::error::{Result, device};
use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, result, sys};

/// The first driver of each CUDA release that kernels may have been built with, for the message alone.
const DRIVERS: [(u32, &str); 3] = [(11, "450"), (12, "525"), (13, "580")];

/// One GPU, as `devices` lists it.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    pub ordinal: usize,
    pub name: String,
    pub total_bytes: usize,
    /// Free now; none where the GPU cannot be opened.
    pub free_bytes: Option<usize>,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// CUDA version that the driver supports.
    pub driver: (u32, u32),
    /// Why this program cannot use the GPU, if it cannot.
    pub obstacle: Option<String>,
    /// Per GPU whether this one can reach its memory directly, as the driver says (unproven).
    pub peers: Vec<bool>,
}

/// All GPUs the driver shows. An error where there is no driver, or where it does not start.
pub fn probe() -> Result<Vec<GpuInfo>> {
    let (count, driver) = start()?;
    (0..count)
        .map(|ordinal| describe_gpu(ordinal, count, driver))
        .collect()
}

/// Per GPU the driver shows, why this program cannot use it, if it cannot. Opens none of them: that takes time and some
/// hundred MiB of each, which other programs may have filled. Errors as [`probe`].
pub fn obstacles() -> Result<Vec<Option<String>>> {
    let (count, driver) = start()?;
    (0..count)
        .map(|ordinal| {
            let (name, capability) = name_and_capability(ordinal)?;
            Ok(obstacle(&name, capability, driver))
        })
        .collect()
}

/// Whether the driver's library is here. One that is and does not start is an error of [`probe`].
pub fn has_driver() -> bool {
    // SAFETY: only loads the driver's library and lets go of it.
    unsafe { sys::is_culib_present() }
}

/// The name of GPU `ordinal`, or an error that says why it cannot be used.
pub fn usable(ordinal: usize) -> Result<String> {
    let (count, driver) = start()?;
    if ordinal >= count {
        return Err(device(match count {
            0 => format!(
                "GPU {ordinal} is not there: the driver shows no GPU; --cpu runs without one"
            ),
            1 => format!("GPU {ordinal} is not there: the only GPU is number 0"),
            _ => format!(
                "GPU {ordinal} is not there: there are {count} GPUs, numbers 0 to {}",
                count - 1
            ),
        }));
    }
    let (name, capability) = name_and_capability(ordinal)?;
    match obstacle(&name, capability, driver) {
        Some(obstacle) => Err(device(format!("GPU {ordinal}, {name}: {obstacle}"))),
        None => Ok(name),
    }
}

/// Starts the driver; the number of GPUs and the CUDA version it supports.
fn start() -> Result<(usize, (u32, u32))> {
    if !has_driver() {
        return Err(device(
            "no NVIDIA driver: libcuda.so is not found; install the driver, or run on the CPU with --cpu",
        ));
    }
    let failed = |error: DriverError| {
        device(format!(
            "the NVIDIA driver does not start: {}; {}",
            describe(error),
            start_remedy(error)
        ))
    };
    match result::init() {
        Err(DriverError(sys::cudaError_enum::CUDA_ERROR_NO_DEVICE)) => return Ok((0, (0, 0))),
        other => other.map_err(failed)?,
    }
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(failed)?;
    let version = version.max(0) as u32;
    let count = CudaContext::device_count().map_err(failed)?;
    Ok((count.max(0) as usize, (version / 1000, version % 1000 / 10)))
}

fn start_remedy(error: DriverError) -> &'static str {
    use sys::cudaError_enum as Code;
    match error.0 {
        Code::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "libcuda.so and the kernel's module are of different versions: restart the machine after an update of the \
             driver; --cpu runs without it"
        }
        Code::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the libcuda.so that is found is a forward-compatibility package, which this GPU does not support: take its \
             folder (cuda/compat) out of LD_LIBRARY_PATH; --cpu runs without it"
        }
        _ => "see whether `nvidia-smi` works, or run on the CPU with --cpu",
    }
}

fn name_and_capability(ordinal: usize) -> Result<(String, (u32, u32))> {
    let ask = || {
        let gpu = result::device::get(ordinal as i32)?;
        use sys::CUdevice_attribute as Attribute;
        // SAFETY: `gpu` was given by the driver.
        let number = |attribute| unsafe { result::device::get_attribute(gpu, attribute) };
        let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok((
            result::device::get_name(gpu)?,
            (major.max(0) as u32, minor.max(0) as u32),
        ))
    };
    ask().map_err(|error| device(format!("GPU {ordinal}: {}", describe(error))))
}

fn describe_gpu(ordinal: usize, count: usize, driver: (u32, u32)) -> Result<GpuInfo> {
    let (name, capability) = name_and_capability(ordinal)?;
    let ask = || {
        let gpu = result::device::get(ordinal as i32)?;
        // SAFETY: `gpu` was given by the driver.
        let total = unsafe { result::device::total_mem(gpu) }?;
        let peers = (0..count)
            .map(|other| can_access(ordinal, other))
            .collect::<Result<_, _>>()?;
        Ok((total, peers))
    };
    let (total_bytes, peers) = ask().map_err(|error: DriverError| {
        device(format!("GPU {ordinal}, {name}: {}", describe(error)))
    })?;
    let free_bytes = CudaContext::new(ordinal)
        .and_then(|context| context.mem_get_info())
        .ok()
        .map(|(free, _)| free);
    let obstacle = obstacle(&name, capability, driver);
    Ok(GpuInfo {
        ordinal,
        name,
        total_bytes,
        free_bytes,
        capability,
        driver,
        obstacle,
        peers,
    })
}

/// Whether GPU `from` can reach the memory of GPU `to`, as the driver says; a GPU reaches its own.
pub fn can_access(from: usize, to: usize) -> Result<bool, DriverError> {
    if from == to {
        return Ok(true);
    }
    let (from, to) = (
        result::device::get(from as i32)?,
        result::device::get(to as i32)?,
    );
    let mut can = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDeviceCanAccessPeer(&mut can, from, to) }.result()?;
    Ok(can != 0)
}

/// Why a GPU that is there cannot be used by this program.
fn obstacle(name: &str, capability: (u32, u32), driver: (u32, u32)) -> Option<String> {
    // The virtual driver of the tests brings the kernels itself, compiled for the host.
    if name.starts_with("Virtual") {
        return None;
    }
    let Some((major, minor)) = NVCC_VERSION else {
        return Some(format!(
            "this program holds no GPU kernels: {HOW_TO_GET_KERNELS}; --cpu runs without"
        ));
    };
    // Within one major version any driver runs machine code of any minor one.
    if driver.0 < major {
        let at_least = DRIVERS
            .iter()
            .find(|(cuda, _)| *cuda == major)
            .map_or(String::new(), |(_, driver)| {
                format!(" (version {driver} or later)")
            });
        return Some(format!(
            "the driver supports CUDA {}.{}, the kernels were built with {major}.{minor}: update the driver{at_least}, \
             or build with nvcc {}",
            driver.0, driver.1, driver.0
        ));
    }
    let found = capability.0 * 10 + capability.1;
    (!runs(found, ARCHS)).then(|| {
        format!(
            "compute capability {}.{}, for which the program holds no kernels (it holds sm_{}): build with \
             ALEXNET_MP_CUDA_ARCHS={found} and an nvcc that knows it",
            capability.0,
            capability.1,
            ARCHS
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", sm_")
        )
    })
}

/// Whether a GPU of capability `found` (90 for 9.0) runs what was built for `archs`, ascending: machine code of the same
/// major version and no newer a minor one, or PTX, of the newest alone, which any GPU from there on compiles.
fn runs(found: u32, archs: &[u32]) -> bool {
    let by_machine_code = |&arch: &u32| arch / 10 == found / 10 && arch <= found;
    archs.iter().any(by_machine_code) || archs.last().is_some_and(|&newest| newest <= found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_gpus_need_no_kernels_in_the_program() {
        assert_eq!(obstacle("Virtual GPU 0", (9, 0), (13, 0)), None);
    }

    #[test]
    fn a_gpu_between_the_architectures_of_the_build_runs_only_what_suits_it() {
        let all = [75, 80, 86, 89, 90, 100, 120];
        for found in [75, 80, 86, 87, 89, 90, 100, 103, 120, 121, 130] {
            assert!(runs(found, &all), "{found}");
        }
        // 11.0 comes after 10.0, whose machine code it does not run, and before 12.0, whose PTX it does not compile.
        for found in [50, 70, 72, 110] {
            assert!(!runs(found, &all), "{found}");
        }
        assert!(!runs(80, &[90]) && runs(90, &[90]) && runs(120, &[90]));
        assert!(!runs(80, &[86]) && runs(89, &[86]));
        assert!(!runs(90, &[]));
    }

    #[test]
    fn an_old_driver_is_named_with_what_is_needed() {
        if let Some((major, _)) = NVCC_VERSION {
            let said = obstacle("NVIDIA Test", (9, 0), (major - 1, 4)).unwrap();
            assert!(
                said.contains("update the driver") && said.contains(&format!("{major}.")),
                "{said}"
            );
        } else {
            let said = obstacle("NVIDIA Test", (9, 0), (13, 0)).unwrap();
            assert!(said.contains("no GPU kernels"), "{said}");
        }
    }
}
