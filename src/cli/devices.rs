//! `alexnet-mp devices`.

use crate::device::cpu::Isa;
use crate::error::Result;
use crate::report::messages::result;
use crate::report::tables::table;
use serde::Serialize;

/// List the CPU, the GPUs, the driver, and what this program holds
///
/// Ends well on a machine without any GPU, and says what was not found.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp devices
  alexnet-mp devices --json")]
pub struct Devices {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything there is.
#[derive(Serialize)]
struct Machine {
    cpu: Cpu,
    /// "GPU kernels for sm_80 … and newer (CUDA 13.0)", and how to get them where there are none.
    program: String,
    program_hint: Option<String>,
    /// CUDA version that the driver supports.
    driver: Option<String>,
    /// "580.65.06", as NVML gives it.
    driver_version: Option<String>,
    /// Why no GPU is listed, or what else is missing.
    not_found: Option<String>,
    gpus: Vec<Gpu>,
}

#[derive(Serialize)]
struct Cpu {
    model: Option<String>,
    cores: usize,
    features: Vec<&'static str>,
    /// The instruction set whose kernels would run.
    kernels: String,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Gpu {
    index: usize,
    name: String,
    memory_bytes: usize,
    free_bytes: Option<usize>,
    capability: String,
    /// Why this program cannot use it; none: it can.
    obstacle: Option<String>,
    /// Per GPU, whether this one reaches its memory directly, as the driver says.
    peers: Vec<bool>,
    /// What NVML adds; null what it does not tell.
    temperature_celsius: Option<u32>,
    power_watts: Option<f64>,
    power_limit_watts: Option<f64>,
    pcie_generation: Option<u32>,
    pcie_lanes: Option<u32>,
    busy_percent: Option<u32>,
    /// Per GPU, what lies between it and this one.
    between: Vec<Option<&'static str>>,
}

impl Devices {
    pub fn run(self) -> Result<()> {
        let machine = machine();
        if self.json {
            result(&serde_json::to_string_pretty(&machine).unwrap_or_default());
        } else {
            result(&text(&machine));
        }
        Ok(())
    }
}

fn machine() -> Machine {
    let mut machine = Machine {
        cpu: cpu(),
        program: "CPU only (built without the feature \"cuda\")".into(),
        program_hint: Some("build it with --features cuda".into()),
        driver: None,
        driver_version: None,
        not_found: None,
        gpus: vec![],
    };
    add_gpus(&mut machine);
    machine
}

#[cfg(feature = "cuda")]
fn add_gpus(machine: &mut Machine) {
    use crate::device::cuda::{nvml, probe, report};
    machine.program = report::summary();
    machine.program_hint = (!report::has_kernels()).then(|| report::HOW_TO_GET_KERNELS.into());
    let found = match probe() {
        Ok(found) => found,
        Err(error) => {
            machine.not_found = Some(error.to_string());
            return;
        }
    };
    if found.is_empty() {
        machine.not_found = Some("the driver shows no GPU".into());
    }
    machine.driver = found
        .first()
        .map(|gpu| format!("{}.{}", gpu.driver.0, gpu.driver.1));
    let (version, healths) = nvml::ask(found.len()).unwrap_or_else(|why| {
        if !found.is_empty() {
            machine.not_found = Some(format!("{why}; temperatures, power and links are not told"));
        }
        (None, vec![nvml::Health::default(); found.len()])
    });
    machine.driver_version = version;
    machine.gpus = found
        .into_iter()
        .zip(healths)
        .map(|(gpu, health)| Gpu {
            index: gpu.ordinal,
            name: gpu.name,
            memory_bytes: gpu.total_bytes,
            free_bytes: gpu.free_bytes,
            capability: format!("{}.{}", gpu.capability.0, gpu.capability.1),
            obstacle: gpu.obstacle,
            peers: gpu.peers,
            temperature_celsius: health.temperature,
            power_watts: health.power,
            power_limit_watts: health.power_limit,
            pcie_generation: health.pcie.map(|(generation, _)| generation),
            pcie_lanes: health.pcie.map(|(_, lanes)| lanes),
            busy_percent: health.busy,
            between: health.between,
        })
        .collect();
}

#[cfg(not(feature = "cuda"))]
fn add_gpus(_: &mut Machine) {}

fn cpu() -> Cpu {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let kib = |name: &str| -> Option<u64> {
        let value = field("/proc/meminfo", name)?;
        let number: u64 = value.split_whitespace().next()?.parse().ok()?;
        Some(number * 1024)
    };
    Cpu {
        model: field("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        features: features(),
        kernels: format!("{:?}", Isa::detect()),
        memory_bytes: kib("MemTotal:"),
        available_bytes: kib("MemAvailable:"),
    }
}

/// Those of the processor's instruction sets that matter here.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("AVX2", std::is_x86_feature_detected!("avx2")),
            ("FMA", std::is_x86_feature_detected!("fma")),
            ("AVX-512F", std::is_x86_feature_detected!("avx512f")),
        ];
        known
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| name)
            .collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

fn text(machine: &Machine) -> String {
    let cpu = &machine.cpu;
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    let memory = |bytes: Option<u64>| bytes.map_or("unknown".into(), gib);
    let features = if cpu.features.is_empty() {
        "none of AVX2, FMA, AVX-512".into()
    } else {
        cpu.features.join(", ")
    };
    let mut lines = vec![
        format!(
            "CPU      {}, {} core(s); {features}; {} kernels",
            cpu.model.as_deref().unwrap_or("of unknown model"),
            cpu.cores,
            cpu.kernels
        ),
        format!(
            "memory   {}, {} available",
            memory(cpu.memory_bytes),
            memory(cpu.available_bytes)
        ),
        format!("program  {}", machine.program),
    ];
    if let Some(hint) = &machine.program_hint {
        lines.push(format!("         for GPU kernels: {hint}"));
    }
    match (&machine.driver, &machine.not_found) {
        (Some(cuda), what) => {
            let version = machine
                .driver_version
                .as_deref()
                .unwrap_or("of unknown version");
            lines.push(format!("driver   {version}, supports CUDA {cuda}"));
            lines.extend(what.iter().map(|what| format!("         {what}")));
        }
        (None, Some(what)) => lines.push(format!("GPUs     none: {what}")),
        _ => {}
    }
    if !machine.gpus.is_empty() {
        lines.extend([String::new(), gpu_table(&machine.gpus)]);
    }
    if machine.gpus.len() > 1 {
        lines.extend([
            String::new(),
            "direct access of a row's GPU to a column's memory, as the driver says (`verify` proves it):".into(),
            peer_table(&machine.gpus),
        ]);
    }
    lines.join("\n")
}

fn gpu_table(gpus: &[Gpu]) -> String {
    let mib = |bytes: usize| (bytes >> 20).to_string();
    let row = |gpu: &Gpu| {
        vec![
            gpu.index.to_string(),
            gpu.name.clone(),
            mib(gpu.memory_bytes),
            gpu.free_bytes.map_or(String::new(), mib),
            gpu.capability.clone(),
            unless_unknown(gpu.temperature_celsius),
            match (gpu.power_watts, gpu.power_limit_watts) {
                (Some(now), Some(limit)) => format!("{now:.0} of {limit:.0}"),
                (now, _) => now.map_or(String::new(), |now| format!("{now:.0}")),
            },
            match (gpu.pcie_generation, gpu.pcie_lanes) {
                (Some(generation), Some(lanes)) => format!("{generation} ×{lanes}"),
                _ => String::new(),
            },
            unless_unknown(gpu.busy_percent),
            gpu.obstacle
                .as_ref()
                .map_or("yes".into(), |why| format!("no: {why}")),
        ]
    };
    let rows: Vec<Vec<String>> = gpus.iter().map(row).collect();
    table(
        &[
            "GPU",
            "name",
            "MiB",
            "free MiB",
            "capability",
            "°C",
            "W",
            "PCIe now",
            "busy %",
            "usable",
        ],
        &rows,
    )
}

fn unless_unknown(number: Option<u32>) -> String {
    number.map_or(String::new(), |n| n.to_string())
}

fn peer_table(gpus: &[Gpu]) -> String {
    let names: Vec<String> = gpus
        .iter()
        .map(|gpu| format!("GPU {}", gpu.index))
        .collect();
    let mut header = vec![""];
    header.extend(names.iter().map(String::as_str));
    let row = |gpu: &Gpu| {
        let mut row = vec![format!("GPU {}", gpu.index)];
        for (other, reaches) in gpu.peers.iter().enumerate() {
            let between = gpu.between.get(other).copied().flatten();
            let over = between.map_or(String::new(), |what| format!(", over {what}"));
            row.push(match (other == gpu.index, *reaches) {
                (true, _) => "-".into(),
                (_, true) => format!("yes{over}"),
                (_, false) => format!("no{over}"),
            });
        }
        row
    };
    let rows: Vec<Vec<String>> = gpus.iter().map(row).collect();
    table(&header, &rows)
}
