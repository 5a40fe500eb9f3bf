//! Opening configurations and data sets as commands are told to.

use crate::config::Config;
use crate::data::{self, Dataset};
use crate::error::{Result, data as data_error};
use crate::precision::Precision;
use std::path::Path;

/// Flags that choose a configuration.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigFlags {
    /// Preset (quickstart, paper, source-145, source-145-half, caffe) or TOML file
    #[arg(long, value_name = "NAME|FILE")]
    pub config: Option<String>,
    /// Overrides a value, any number of times: --set train.batch=64
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

impl ConfigFlags {
    /// The configuration asked for, or preset `default`, with `more` overrides first.
    pub fn load(&self, default: &str, more: &[String]) -> Result<Config> {
        let overrides: Vec<String> = more.iter().chain(&self.overrides).cloned().collect();
        Config::load(self.config.as_deref().unwrap_or(default), &overrides)
    }

    /// Whether the number of classes was chosen, so that the data must fit it.
    pub fn sets_classes(&self) -> bool {
        let by_file = self
            .config
            .as_deref()
            .is_some_and(|c| std::fs::read_to_string(c).is_ok_and(|text| text.contains("classes")));
        by_file
            || self
                .overrides
                .iter()
                .any(|o| o.trim_start().starts_with("network.classes"))
    }
}

/// How a command that runs a network computes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct PrecisionFlag {
    /// What maps and the operands of products are held in; sums and weights stay f32. On the CPU
    /// f32 only [default: the configuration's train.precision, f32]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub precision: Option<Precision>,
}

impl PrecisionFlag {
    /// As an override of the configuration.
    pub fn overrides(&self) -> Option<String> {
        self.precision.map(|p| format!("train.precision={p}"))
    }
}

/// The data set in `folder`, or the built-in one.
pub fn dataset(folder: Option<&Path>, config: &Config) -> Result<Dataset> {
    match folder {
        None => data::builtin::dataset(
            config.train.seed,
            config.data.side,
            config.data.builtin_train,
            config.data.builtin_val,
        ),
        Some(folder) => data::open(
            folder,
            &data::OpenOptions {
                side: config.data.side,
                cache_mib: config.data.cache,
                reads: config.data.reads,
            },
        ),
    }
}

/// Refuses a data set with labels that the network has no class for.
pub fn check_classes(set: &Dataset, config: &Config) -> Result<()> {
    let (found, network) = (set.train.classes().len(), config.network.classes);
    if found > network {
        return Err(data_error(format!(
            "the data has {found} classes, the network {network}: set network.classes={found}"
        )));
    }
    Ok(())
}
