//! Presets, TOML files and `--set` overrides, merged into one validated [`Config`].

mod tables;

use crate::data::{AugmentOptions, ColourRule, Reads};
use crate::error::{Result, usage};
use crate::network::layer::{Layers, Network};
use crate::network::plan::Plan;
use crate::precision::Precision;
use serde::{Deserialize, Serialize};
use std::path::Path;
pub use tables::nearest;
use tables::{from_file, one_line, parse, preset, set};
use toml::{Table, Value};

/// The highest `train.learning_rate`.
pub const HIGHEST_LEARNING_RATE: f64 = 1e3;

/// Everything a run depends on, besides its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub network: Network,
    pub layers: Layers,
    pub train: Train,
    pub data: Data,
}

/// The `[train]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Images of one step on the devices; the update sees `batch · accumulate`.
    pub batch: usize,
    pub accumulate: usize,
    pub epochs: u64,
    /// Updates in all; 0: `epochs` decide.
    pub steps: u64,
    pub learning_rate: f64,
    pub momentum: f32,
    pub weight_decay: f64,
    pub schedule: Schedule,
    pub seed: u64,
    /// What maps and the operands of products are held in. Not in files written before there was
    /// a choice.
    #[serde(default)]
    pub precision: Precision,
    /// Steps between evaluations and between checkpoints; 0: each epoch.
    pub evaluate_every: u64,
    pub checkpoint_every: u64,
    /// Older checkpoints kept beside the newest.
    pub keep: usize,
    /// Steps between logged records.
    pub log_every: u64,
    /// Seconds a step may take, where ten usual steps take less.
    pub step_timeout: f64,
    /// What to do about numbers that are not finite, or a loss that explodes.
    #[serde(default)]
    pub on_nan: OnNan,
}

/// What a run does about numbers that are not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNan {
    /// Ends with exit code 6.
    #[default]
    Stop,
    /// Goes back to the last checkpoint with the learning rate halved, at most three times.
    Rollback,
}

/// How the learning rate falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub kind: ScheduleKind,
    /// What a drop multiplies the rate by.
    pub factor: f64,
    /// `epochs`: the epochs of the drops.
    pub at: Vec<f64>,
    /// `plateau`: evaluations without improvement before a drop, and drops in all.
    pub patience: u32,
    pub drops: u32,
    /// Whether biases follow the drops.
    pub biases: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    Constant,
    Epochs,
    Plateau,
}

/// The `[data]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Side of the stored images, in pixels.
    pub side: usize,
    pub flip: bool,
    /// Standard deviation of α (paper §4.1).
    pub colour_noise: f32,
    pub colour_rule: ColourRule,
    /// Epoch from which there is no colour noise; 0: always.
    pub colour_noise_until: f64,
    /// Images that share one crop and flip.
    pub crop_shared: usize,
    /// Crop positions a side; 0: all.
    pub positions: usize,
    pub mean: MeanRule,
    pub builtin_train: usize,
    pub builtin_val: usize,
    pub workers: usize,
    /// Batches held ready.
    pub queue: usize,
    /// MiB of decoded images kept in memory.
    pub cache: usize,
    /// Images that are mixed at a time, read in the order they are stored; 0: the whole epoch.
    #[serde(default)]
    pub shuffle_window: usize,
    /// How prepared shards are read.
    #[serde(default)]
    pub reads: Reads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeanRule {
    Pixel,
    Centre,
}

/// The presets by name.
pub const PRESETS: [(&str, &str); 5] = [
    ("quickstart", include_str!("../configs/quickstart.toml")),
    ("paper", include_str!("../configs/paper.toml")),
    ("source-145", include_str!("../configs/source-145.toml")),
    (
        "source-145-half",
        include_str!("../configs/source-145-half.toml"),
    ),
    ("caffe", include_str!("../configs/caffe.toml")),
];

impl Config {
    /// The configuration of a preset's name or a TOML file, with `overrides` of the form
    /// `section.key=value` applied in order. A file need not be whole: what it lacks is taken
    /// from the preset, or the TOML file in the same folder, that its key `base` names (default
    /// `paper`).
    ///
    /// # Errors
    /// `Usage`, naming the key, what was found and the allowed range or the nearest valid key.
    pub fn load(name: &str, overrides: &[String]) -> Result<Config> {
        let mut table = match preset(name) {
            Some(text) => parse(text, name)?,
            None => from_file(Path::new(name), 0)?,
        };
        for assignment in overrides {
            set(&mut table, assignment)?;
        }
        let config: Config = Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| {
                // The whole text, not the message alone: it names the key.
                usage(format!(
                    "configuration {name}: {}",
                    one_line(&e.to_string())
                ))
            })?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration of the text that [`Config::to_toml`] wrote.
    pub fn from_toml(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)
            .map_err(|e| usage(format!("configuration: {}", one_line(e.message()))))?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration of such a text with `overrides` as in [`Config::load`].
    pub fn from_toml_with(text: &str, overrides: &[String]) -> Result<Config> {
        let mut table = parse(text, "of the checkpoint")?;
        for assignment in overrides {
            set(&mut table, assignment)?;
        }
        let config: Config = Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| {
                usage(format!("configuration: {}", one_line(e.message())))
            })?;
        config.validate()?;
        Ok(config)
    }

    /// The whole configuration as TOML.
    pub fn to_toml(&self) -> String {
        let mut table = Table::try_from(self).expect("a configuration is a table");
        // Fully connected layers have none of these keys; a preset's table has neither.
        for layer in table["layers"].as_table_mut().into_iter().flatten() {
            if let Some(layer) = layer.1.as_table_mut()
                && layer.get("kernel").and_then(Value::as_integer) == Some(0)
            {
                layer.retain(|key, _| !["kernel", "stride", "pad"].contains(&key));
            }
        }
        toml::to_string_pretty(&table).expect("a configuration is representable as TOML")
    }

    /// Loader threads: those asked for, else half the cores.
    pub fn workers(&self) -> usize {
        match self.data.workers {
            0 => std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1)),
            n => n,
        }
    }

    /// What the loader draws in training.
    pub fn augmentation(&self) -> AugmentOptions {
        let data = &self.data;
        AugmentOptions {
            crop: self.network.image,
            flip: data.flip,
            colour_noise: data.colour_noise,
            colour_rule: data.colour_rule,
            colour_noise_until: data.colour_noise_until,
            crop_shared: data.crop_shared,
            centre_mean: data.mean == MeanRule::Centre,
            positions: data.positions,
        }
    }

    /// The plan of its network at its batch size.
    pub fn plan(&self) -> Result<Plan> {
        Plan::derive(&self.network, &self.layers, self.train.batch)?
            .in_precision(self.train.precision)
    }

    fn validate(&self) -> Result<()> {
        let Config {
            network,
            train,
            data,
            ..
        } = self;
        within("network.columns", network.columns, 1, 2)?;
        within("network.width", network.width, 1e-3, 16.0)?;
        within("network.image", network.image, 16, 4096)?;
        within("network.classes", network.classes, 1, 1 << 20)?;
        within("network.lrn.n", network.lrn.n, 1, 255)?;
        within("network.lrn.k", network.lrn.k, 1e-6, 1e6)?;
        within("network.lrn.alpha", network.lrn.alpha, 0.0, 1e3)?;
        within("network.lrn.beta", network.lrn.beta, 0.0, 10.0)?;
        within(
            "network.pool.stride",
            network.pool.stride,
            1,
            network.pool.size,
        )?;
        within("network.dropout.rate", network.dropout.rate, 0.0, 0.99)?;
        within("train.batch", train.batch, 1, 1 << 16)?;
        within("train.accumulate", train.accumulate, 1, 1 << 16)?;
        let rate = train.learning_rate;
        within("train.learning_rate", rate, 0.0, HIGHEST_LEARNING_RATE)?;
        within("train.momentum", train.momentum, 0.0, 0.9999)?;
        within("train.weight_decay", train.weight_decay, 0.0, 1.0)?;
        within("train.schedule.factor", train.schedule.factor, 1e-6, 1.0)?;
        within("train.log_every", train.log_every, 1, u64::MAX)?;
        within("train.step_timeout", train.step_timeout, 1.0, 1e6)?;
        within("data.side", data.side, network.image, 4096)?;
        within("data.colour_noise", data.colour_noise, 0.0, 10.0)?;
        within("data.crop_shared", data.crop_shared, 1, 1 << 16)?;
        within(
            "data.positions",
            data.positions,
            0,
            data.side - network.image + 1,
        )?;
        within("data.queue", data.queue, 2, 1024)?;
        for (name, layer) in &self.layers {
            if layer.is_convolution() {
                within(
                    &format!("layers.{name}.stride"),
                    layer.stride,
                    1,
                    layer.kernel,
                )?;
                within(
                    &format!("layers.{name}.pad"),
                    layer.pad,
                    0,
                    layer.kernel - 1,
                )?;
            }
            within(&format!("layers.{name}.sigma"), layer.sigma, 0.0, 1e3)?;
        }
        if train.epochs == 0 && train.steps == 0 {
            return Err(usage(
                "train.epochs and train.steps are both 0: nothing to do (set one of them)",
            ));
        }
        self.plan().map(drop)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, low: T, high: T) -> Result<()> {
    // Written so that a NaN fails too.
    if value >= low && value <= high {
        return Ok(());
    }
    Err(usage(format!(
        "{key} = {value} is out of range: {low} to {high}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        Config::load(name, &overrides).unwrap_err().to_string()
    }

    #[test]
    fn every_preset_is_valid_and_survives_a_round_trip() {
        for (name, _) in PRESETS {
            let config = Config::load(name, &[]).unwrap();
            assert_eq!(
                Config::from_toml(&config.to_toml()).unwrap(),
                config,
                "{name}"
            );
        }
    }

    #[test]
    fn the_papers_network_has_60_965_224_parameters() {
        for name in ["paper", "source-145"] {
            assert_eq!(
                Config::load(name, &[])
                    .unwrap()
                    .plan()
                    .unwrap()
                    .parameters(),
                60_965_224
            );
        }
        let one_column = ["network.columns=1".to_string()];
        assert_eq!(
            Config::load("paper", &one_column)
                .unwrap()
                .plan()
                .unwrap()
                .parameters(),
            62_378_344
        );
    }

    #[test]
    fn the_papers_step_exchanges_30_015_488_bytes_each_way() {
        let plan = Config::load("paper", &[]).unwrap().plan().unwrap();
        assert_eq!(plan.exchanged_bytes(128), 30_015_488);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_valid_one() {
        assert_eq!(
            error("paper", &["train.learning_rte=0.1"]),
            "unknown configuration key \"train.learning_rte\"; did you mean \"train.learning_rate\"?"
        );
        assert!(error("papr", &[]).contains("did you mean \"paper\"?"));
    }

    #[test]
    fn a_value_out_of_range_names_the_range() {
        assert_eq!(
            error("paper", &["train.batch=0"]),
            "train.batch = 0 is out of range: 1 to 65536"
        );
        assert!(
            error("paper", &["data.side=200"]).contains("data.side = 200 is out of range: 224")
        );
        assert!(error("paper", &["train.learning_rate=nan"]).contains("out of range"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        assert!(error("paper", &["train.batch=many"]).contains("invalid type"));
        assert!(error("paper", &["network.activation=sigmoid"]).contains("relu"));
    }

    #[test]
    fn strings_need_no_quotes_on_the_command_line() {
        let config = Config::load(
            "paper",
            &["network.init=fan-in".into(), "network.lrn.k=1".into()],
        )
        .unwrap();
        assert_eq!(config.network.lrn.k, 1.0);
        assert_eq!(config.network.init, crate::network::layer::Init::FanIn);
    }
}
