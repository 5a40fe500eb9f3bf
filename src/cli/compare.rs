//! `alexnet-mp compare`: the paper's experiments, or one's own.

use super::device_choice::DeviceFlags;
use super::open::{check_classes, dataset};
use super::train::{Prepared, TrainJob};
use crate::config::Config;
use crate::error::{Error, Result, data, usage};
use crate::report::comparison::{Experiment, comparison, mean_and_spread};
use crate::report::curves::{Run, learning_curves};
use crate::report::messages::result;
use crate::report::metrics;
use crate::report::tables::table;
use crate::train::{METRICS, Outcome, Signals};
use std::path::{Path, PathBuf};

/// Train several configurations with equal seeds and compare their validation errors
///
/// Each is trained once per seed; what is printed and drawn is the mean with the standard
/// deviation over the seeds.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp compare quickstart configs/experiments/tanh.toml
  alexnet-mp compare quickstart configs/experiments/*.toml --seeds 3 --out runs/experiments")]
pub struct Compare {
    /// Presets or TOML files; the first is what the others are compared with
    #[arg(value_name = "CONFIG", required = true, num_args = 2..)]
    configs: Vec<String>,
    /// Seeds, from 0 on
    #[arg(long, value_name = "N", default_value_t = 2)]
    seeds: u64,
    /// Folder of images [default: the built-in set]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the runs and pictures go
    #[arg(long, value_name = "DIR", default_value = "runs/comparison")]
    out: PathBuf,
    /// Updates of each run
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Passes over the training images of each run
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Overrides a value in all of them: --set train.batch=64
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    devices: DeviceFlags,
}

/// A configuration's runs, one for each seed.
struct Trained {
    name: String,
    top1: Vec<f64>,
    loss: Vec<f64>,
    speed: Vec<f64>,
    /// The first seed's run.
    folder: PathBuf,
}

impl Compare {
    pub fn run(self, quiet: bool) -> Result<()> {
        if self.seeds == 0 {
            return Err(usage("--seeds 0: expected 1 or more"));
        }
        let names = names(&self.configs)?;
        let signals = Signals::install()?;
        // All are read before the first is trained, which takes long.
        for config in &self.configs {
            self.config(config, 0)?;
        }
        let mut all = Vec::new();
        for (config, name) in self.configs.iter().zip(names) {
            all.push(self.train(config, name, &signals, quiet)?);
        }
        result(&as_table(&all));
        for path in self.draw(&all)? {
            result(&path.display().to_string());
        }
        Ok(())
    }

    fn config(&self, name: &str, seed: u64) -> Result<Config> {
        let mut overrides = self.overrides.clone();
        overrides.push(format!("train.seed={seed}"));
        if let Some(steps) = self.steps {
            overrides.push(format!("train.steps={steps}"));
        }
        if let Some(epochs) = self.epochs {
            overrides.extend([format!("train.epochs={epochs}"), "train.steps=0".into()]);
        }
        Config::load(name, &overrides)
    }

    fn train(&self, config: &str, name: String, signals: &Signals, quiet: bool) -> Result<Trained> {
        let mut trained = Trained {
            folder: self.folder(&name, 0),
            name,
            top1: vec![],
            loss: vec![],
            speed: vec![],
        };
        for seed in 0..self.seeds {
            tracing::info!("{}, seed {seed} of {}", trained.name, self.seeds);
            let folder = self.folder(&trained.name, seed);
            let outcome = self.one(self.config(config, seed)?, folder, signals, quiet)?;
            if let Some(signal) = outcome.stopped {
                return Err(Error::Interrupted(signal));
            }
            let found = outcome
                .validation
                .ok_or_else(|| data("there is no folder val to compare on"))?;
            trained.top1.push(found.top1_error * 100.0);
            trained.loss.push(found.loss);
            trained.speed.push(outcome.images_per_second);
        }
        Ok(trained)
    }

    fn one(
        &self,
        mut config: Config,
        folder: PathBuf,
        signals: &Signals,
        quiet: bool,
    ) -> Result<Outcome> {
        let set = dataset(self.data.as_deref(), &config)?;
        config.network.classes = set.train.classes().len();
        check_classes(&set, &config)?;
        let columns = config.network.columns;
        let name = self.data.clone();
        let prepared = Prepared {
            config,
            data: set,
            name,
            folder,
            resume: None,
            check_exchange: 0,
            quiet,
        };
        let signals = signals.clone();
        self.devices.run(columns, TrainJob { prepared, signals })
    }

    fn folder(&self, name: &str, seed: u64) -> PathBuf {
        self.out.join(format!("{name}-seed{seed}"))
    }

    fn draw(&self, all: &[Trained]) -> Result<Vec<PathBuf>> {
        let experiments: Vec<Experiment> = all
            .iter()
            .map(|t| Experiment {
                name: t.name.clone(),
                results: t.top1.clone(),
            })
            .collect();
        let title = format!("Validation error, {} seed(s) each", self.seeds);
        let bars = self.out.join("comparison.png");
        comparison(&title, "top-1 error (%)", &experiments)?.save(&bars)?;
        let runs = all
            .iter()
            .map(|t| {
                Ok(Run {
                    name: t.name.clone(),
                    records: metrics::read(&t.folder.join(METRICS))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let curves = self.out.join("curves.png");
        learning_curves("Learning curves, seed 0", &runs)?.save(&curves)?;
        Ok(vec![bars, curves])
    }
}

/// What the configurations are called: a preset's name, a file's stem.
fn names(configs: &[String]) -> Result<Vec<String>> {
    let stem = |config: &String| {
        let stem = Path::new(config).file_stem();
        stem.map_or_else(|| config.clone(), |s| s.to_string_lossy().into_owned())
    };
    let names: Vec<String> = configs.iter().map(stem).collect();
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(usage(format!("{name} is named twice")));
        }
    }
    Ok(names)
}

fn as_table(all: &[Trained]) -> String {
    let spread = |values: &[f64], decimals: usize| {
        let (mean, spread) = mean_and_spread(values);
        match values.len() {
            1 => format!("{mean:.decimals$}"),
            _ => format!("{mean:.decimals$} ± {spread:.decimals$}"),
        }
    };
    let first = all.first().map_or(0.0, |t| mean_and_spread(&t.top1).0);
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|t| {
            vec![
                t.name.clone(),
                spread(&t.top1, 2),
                format!("{:+.2}", mean_and_spread(&t.top1).0 - first),
                spread(&t.loss, 4),
                spread(&t.speed, 0),
            ]
        })
        .collect();
    let header = [
        "configuration",
        "top-1 error (%)",
        "change",
        "log loss",
        "images/s",
    ];
    table(&header, &rows)
}
