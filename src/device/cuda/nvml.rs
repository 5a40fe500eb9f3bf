//! What NVIDIA's management library (NVML) tells about GPUs beyond what the driver does. It is loaded at run time; a
//! machine may lack it, and many cards answer some questions and refuse others.

use cudarc::driver::{result, sys};
use nvml_wrapper::enum_wrappers::device::{TemperatureSensor, TopologyLevel};
use nvml_wrapper::{Device, Nvml};

/// How a GPU is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// In °C.
    pub temperature: Option<u32>,
    /// Drawn now, and the limit, in W.
    pub power: Option<f64>,
    pub power_limit: Option<f64>,
    /// Generation and lanes of its link, as they are now: idle cards take them down.
    pub pcie: Option<(u32, u32)>,
    /// Share of the last moments in which some kernel ran, in %.
    pub busy: Option<u32>,
    /// Per GPU what lies between it and this one.
    pub between: Vec<Option<&'static str>>,
}

/// The driver's version ("580.65.06") and one answer per GPU, by the driver's numbers.
///
/// # Errors
/// Half a sentence, where there is no NVML or it does not start.
pub fn ask(gpus: usize) -> Result<(Option<String>, Vec<Health>), String> {
    let nvml = Nvml::init().map_err(|error| format!("NVML does not start: {error}"))?;
    // NVML numbers all GPUs, the driver those of CUDA_VISIBLE_DEVICES: the bus tells which is which.
    let device = |ordinal| nvml.device_by_pci_bus_id(bus_address(ordinal)?).ok();
    let devices: Vec<Option<Device<'_>>> = (0..gpus).map(device).collect();
    let healths = devices.iter().map(|device| match device {
        Some(device) => health(&nvml, device, &devices),
        None => Health::default(),
    });
    Ok((nvml.sys_driver_version().ok(), healths.collect()))
}

/// "00000000:65:00.0"
fn bus_address(ordinal: usize) -> Option<String> {
    use sys::CUdevice_attribute as Attribute;
    let gpu = result::device::get(ordinal as i32).ok()?;
    // SAFETY: `gpu` was given by the driver.
    let ask = |attribute| unsafe { result::device::get_attribute(gpu, attribute) }.ok();
    Some(format!(
        "{:08x}:{:02x}:{:02x}.0",
        ask(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
        ask(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
        ask(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?
    ))
}

fn health(nvml: &Nvml, device: &Device<'_>, all: &[Option<Device<'_>>]) -> Health {
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1e3;
    let generation = device.current_pcie_link_gen().ok();
    let lanes = device.current_pcie_link_width().ok();
    Health {
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        power: device.power_usage().ok().map(watts),
        power_limit: device.enforced_power_limit().ok().map(watts),
        pcie: generation.zip(lanes),
        busy: device.utilization_rates().ok().map(|rates| rates.gpu),
        between: all
            .iter()
            .map(|other| between(nvml, device, other.as_ref()?))
            .collect(),
    }
}

#[cfg(target_os = "linux")]
fn between(nvml: &Nvml, device: &Device<'_>, other: &Device<'_>) -> Option<&'static str> {
    Some(match nvml.topology_common_ancestor(device, other).ok()? {
        TopologyLevel::Internal => "one board",
        TopologyLevel::Single => "one PCIe switch",
        TopologyLevel::Multiple => "PCIe switches",
        TopologyLevel::HostBridge => "a host bridge",
        TopologyLevel::Node => "one processor",
        TopologyLevel::System => "two processors",
    })
}

#[cfg(not(target_os = "linux"))]
fn between(_: &Nvml, _: &Device<'_>, _: &Device<'_>) -> Option<&'static str> {
    None
}
