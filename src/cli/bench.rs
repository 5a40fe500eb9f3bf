//! `alexnet-mp bench`.

use super::device_choice::{DeviceFlags, Job};
use super::open::{ConfigFlags, PrecisionFlag, dataset};
use crate::bench::{self, LayerTime, LoaderTime, Pace, Report, StageTime, StepTimes};
use crate::config::Config;
use crate::data::Dataset;
use crate::device::{Device, Peak};
use crate::error::{Result, usage};
use crate::precision::Precision;
use crate::report::format::{percent, rate};
use crate::report::messages::result;
use crate::report::tables::table;
use std::path::PathBuf;
use std::time::Duration;

/// Measure the speed of training steps, inference, single layers or the loader
///
/// Steps run on random images that stay on the devices, after a few to warm up; the median counts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp bench                              training, the paper's network, batch 128
  alexnet-mp bench --inference --batch 32
  alexnet-mp bench --layers --cpu               where a column's time goes
  alexnet-mp bench --gpus 0 --precision bf16 --roofline
  alexnet-mp bench --loader --data imagenet/    reading, decoding and augmenting alone
  alexnet-mp bench --gpus 0,1 --json")]
pub struct Bench {
    /// Images of one step [default: 128]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Steps to time [default: as many as fit in 12 seconds, at least three]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// The test-time network instead of training
    #[arg(long, conflicts_with_all = ["layers", "loader"])]
    inference: bool,
    /// Also every layer of one column on one device
    #[arg(long, conflicts_with = "loader")]
    layers: bool,
    /// The way of the images alone: read, decode, crop, upload
    #[arg(long)]
    loader: bool,
    /// Folder of images for --loader [default: the built-in set]
    #[arg(long, value_name = "DIR", requires = "loader")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// With every layer's floor: operations and least bytes against the device's peaks
    #[arg(long, conflicts_with_all = ["loader", "inference"])]
    roofline: bool,
    /// Launch operations one by one on GPUs, instead of whole steps as CUDA graphs
    #[arg(long)]
    no_graph: bool,
    #[command(flatten)]
    precision: PrecisionFlag,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

/// Time given to the steps unless --steps says how many.
const TIME: Duration = Duration::from_secs(12);

impl Bench {
    pub fn run(self) -> Result<()> {
        if self.steps == Some(0) {
            return Err(usage("--steps 0: at least one step is needed"));
        }
        let batch = self.batch.map(|batch| format!("train.batch={batch}"));
        let overrides: Vec<String> = batch
            .into_iter()
            .chain(self.precision.overrides())
            .collect();
        let config = self.config.load("paper", &overrides)?;
        let pace = self.steps.map_or(Pace::Within(TIME), Pace::Steps);
        let (columns, devices) = (config.network.columns, self.devices.clone());
        let (report, text) = if self.loader {
            let set = dataset(self.data.as_deref(), &config)?;
            devices.run(columns, LoaderJob { config, set, pace })?
        } else {
            let job = StepsJob {
                config,
                pace,
                inference: self.inference,
                layers: self.layers,
                roofline: self.roofline,
                graphs: !self.no_graph,
            };
            devices.run(columns, job)?
        };
        if self.json {
            result(&serde_json::to_string_pretty(&report).unwrap_or_default());
        } else {
            result(&text);
        }
        Ok(())
    }
}

struct StepsJob {
    config: Config,
    pace: Pace,
    inference: bool,
    layers: bool,
    roofline: bool,
    graphs: bool,
}

impl Job for StepsJob {
    type Output = (Report, String);

    fn run<D: Device>(self, devices: Vec<D>) -> Result<Self::Output> {
        let work = bench::Work {
            inference: self.inference,
            graphs: self.graphs,
        };
        let (times, mut devices) = bench::steps(&self.config, devices, work, self.pace)?;
        let mut config = self.config;
        // A GPU without tensor cores computes in f32, whatever was asked for.
        config.train.precision = times.precision;
        let mut report = report(&config, times.median(), times.devices.clone());
        report.graphs = times.graphs;
        report.exchanged_bytes_per_step = times.exchanged_bytes_per_step;
        let what = if self.inference {
            "inference"
        } else {
            "training"
        };
        let mut text = steps_text(what, &times, &report);
        if self.layers {
            let device = &mut devices[0];
            let (layers, peak) = bench::layers(&config, device)?;
            text += &format!("\n\none column on {}:\n", device.name());
            text += &layers_text(&layers, peak, config.train.precision);
            report.layers = layers;
        }
        if self.roofline {
            let device = &mut devices[0];
            let roofline = bench::roofline(&config, device)?;
            text += &format!("\n\n{}", super::roofline::text(&roofline, &times, &config));
            report.roofline = Some(roofline);
        }
        Ok((report, text))
    }
}

/// Training steps that are timed beside the loader, to compare with.
const STEPS_BESIDE: usize = 3;

struct LoaderJob {
    config: Config,
    set: Dataset,
    pace: Pace,
}

impl Job for LoaderJob {
    type Output = (Report, String);

    fn run<D: Device>(self, mut devices: Vec<D>) -> Result<Self::Output> {
        let time = bench::loader(&self.config, &self.set, &mut devices[0], self.pace)?;
        let mut report = report(&self.config, time.median(), vec![time.device_name.clone()]);
        let work = bench::Work {
            inference: false,
            graphs: true,
        };
        let (times, _) = bench::steps(&self.config, devices, work, Pace::Steps(STEPS_BESIDE))?;
        let used = self.config.train.batch as f64 / times.median();
        report.step_images_per_second = Some(used);
        report.bound = time.bound().map(|stage| stage.stage);
        report.stages = time.stages.clone();
        let text = loader_text(&time, &report, used);
        Ok((report, text))
    }
}

fn report(config: &Config, seconds: f64, devices: Vec<String>) -> Report {
    Report {
        images_per_second: config.train.batch as f64 / seconds,
        milliseconds_per_step: seconds * 1e3,
        batch: config.train.batch,
        devices,
        precision: config.train.precision,
        graphs: false,
        roofline: None,
        peak_rss_bytes: bench::peak_rss_bytes(),
        exchanged_bytes_per_step: 0,
        layers: vec![],
        stages: vec![],
        bound: None,
        step_images_per_second: None,
    }
}

fn steps_text(what: &str, times: &StepTimes, report: &Report) -> String {
    let (fast, slow) = times.spread();
    let batch = report.batch as f64;
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let memory: Vec<String> = times.allocated_bytes.iter().map(|&b| mib(b)).collect();
    let mut text = format!(
        "{what}, batch {}, {}, on {}: {} images/s, {:.1} ms a step (median of {} of {}; {} to {} images/s)\n\
         allocated on the devices: {}; exchanged a step: {} bytes",
        report.batch,
        report.precision,
        report.devices.join(" and "),
        rate(report.images_per_second),
        report.milliseconds_per_step,
        counted(times.laps.len(), "lap"),
        counted(times.steps_per_lap, "step"),
        rate(batch / slow),
        rate(batch / fast),
        memory.join(" and "),
        report.exchanged_bytes_per_step,
    );
    if let Some(bytes) = report.peak_rss_bytes {
        text += &format!("; peak memory of the process: {}", mib(bytes as usize));
    }
    text
}

/// "1 lap", "3 laps".
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn layers_text(layers: &[LayerTime], peak: Option<Peak>, precision: Precision) -> String {
    let share = |gflops: f64| match peak {
        Some(peak) if gflops > 0.0 => percent(gflops * 1e9 / peak.flops_in(precision), 0),
        _ => String::new(),
    };
    let row = |l: &LayerTime| {
        vec![
            l.layer.clone(),
            format!("{:.2}", l.forward_milliseconds),
            format!("{:.1}", l.forward_gflops),
            share(l.forward_gflops),
            format!("{:.2}", l.backward_milliseconds),
            format!("{:.1}", l.backward_gflops),
            share(l.backward_gflops),
            format!("{:.2}", l.update_milliseconds),
        ]
    };
    let mut rows: Vec<Vec<String>> = layers.iter().map(row).collect();
    let sum = |of: fn(&LayerTime) -> f64| format!("{:.2}", layers.iter().map(of).sum::<f64>());
    let none = String::new;
    rows.push(vec![
        "sum".into(),
        sum(|l| l.forward_milliseconds),
        none(),
        none(),
        sum(|l| l.backward_milliseconds),
        none(),
        none(),
        sum(|l| l.update_milliseconds),
    ]);
    let header = [
        "layer",
        "forward ms",
        "GFLOP/s",
        "of peak",
        "backward ms",
        "GFLOP/s",
        "of peak",
        "update ms",
    ];
    let mut text = table(&header, &rows);
    if let Some(peak) = peak {
        let how = if peak.measured { "measured" } else { "nominal" };
        text += &format!(
            "\n{how} peak: {:.1} GFLOP/s {precision}, {:.1} GB/s; GFLOP/s count the definition's operations, whatever the method",
            peak.flops_in(precision) / 1e9,
            peak.bandwidth / 1e9
        );
    }
    text
}

fn loader_text(time: &LoaderTime, report: &Report, used: f64) -> String {
    let mut text = format!(
        "loader, batch {}, {} worker(s), to {}: {} images/s, {:.1} ms a batch (median of {} batches)\n",
        report.batch,
        time.workers,
        time.device_name,
        rate(report.images_per_second),
        report.milliseconds_per_step,
        time.laps.len()
    );
    let workers = format!("{} worker(s)", time.workers);
    let row = |name: &str, by: &str, microseconds: f64| {
        let (time, rate) = match microseconds > 0.0 {
            true => (format!("{microseconds:.1}"), rate(1e6 / microseconds)),
            false => ("none".to_string(), String::new()),
        };
        vec![name.to_string(), by.to_string(), time, rate]
    };
    let (by_workers, by_device) = time.parts();
    let mut rows = Vec::new();
    for (stages, by) in [(by_workers, &workers[..]), (by_device, "device")] {
        rows.extend(stages.iter().map(|s| row(s.stage, by, s.microseconds)));
    }
    let sum = |stages: &[StageTime]| stages.iter().map(|s| s.microseconds).sum::<f64>();
    let crops = sum(by_workers);
    rows.push(row("8-bit crops: disk to crop", &workers, crops));
    rows.push(row("images: disk to augment", "", crops + sum(by_device)));
    let header = ["stage", "done by", "µs an image", "images/s of one thread"];
    text += &table(&header, &rows);
    let enough = if report.images_per_second < used {
        "the loader is too slow"
    } else {
        "enough"
    };
    if let Some(stage) = time.bound() {
        text += &format!(
            "\nbound by: {}; a training step here uses {} images/s: {enough}",
            stage.stage,
            rate(used)
        );
    }
    text
}
