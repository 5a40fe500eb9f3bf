//! `--weights`: a trained network as commands are given it, with its configuration, the names of
//! its classes and its mean image.

use super::open::ConfigFlags;
use crate::checkpoint::{self, State, in_file};
use crate::config::Config;
use crate::data::{Dataset, Statistics};
use crate::error::{Result, checkpoint as weights_error, data};
use crate::network::params::{Param, Tensors};
use crate::precision::Precision;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keys of the metadata by which a file of weights alone tells its network.
pub const CONFIG_KEY: &str = "config";
pub const CLASSES_KEY: &str = "classes";
const STATISTICS: &str = "stats.safetensors";

/// Flags that say what a weight file lacks.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ModelFlags {
    /// Mean image, a stats.safetensors [default: the one beside the weights]
    #[arg(long, value_name = "FILE")]
    pub mean: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Weights and all that is needed to use them.
#[derive(Clone, Debug)]
pub struct Model {
    /// The file.
    pub path: PathBuf,
    pub config: Config,
    pub parameters: Tensors,
    /// Names of the classes; empty where they are not known.
    pub classes: Vec<String>,
    /// The folder a run was trained on.
    pub data: Option<PathBuf>,
    mean: Option<PathBuf>,
}

impl Model {
    /// Opens a weight file, or the newest checkpoint of a run folder. The configuration is that
    /// of --config; else the one in the file; else config.toml beside it; else `paper` with as
    /// many classes as the last layer has outputs.
    ///
    /// # Errors
    /// `Checkpoint` where the file is damaged or its tensors are not the network's; `Usage`.
    pub fn open(path: &Path, flags: &ModelFlags) -> Result<Model> {
        let path = checkpoint::weights_path(path);
        let mut contents = checkpoint::read(&path)?;
        let told = described(&path, &contents.metadata)?;
        let (mut config, assumed) = configuration(&path, flags, told.config, &contents.tensors)?;
        // What it was trained in is no matter to who uses it, on whatever device.
        config.train.precision = Precision::F32;
        let momentum = |name: &str| name.starts_with("momentum.");
        contents.tensors.0.retain(|t| !momentum(&t.name));
        check(&contents.tensors, &config.plan()?.params).map_err(|e| match assumed {
            false => in_file(&path, e),
            true => weights_error(format!(
                "{}: {e}; the file holds no configuration, `paper` was assumed: give --config",
                path.display()
            )),
        })?;
        Ok(Model {
            path,
            config,
            parameters: contents.tensors,
            classes: told.classes,
            data: told.data,
            mean: flags.mean.clone(),
        })
    }

    /// Name of a class, its number where names are not known.
    pub fn class(&self, class: usize) -> String {
        self.classes
            .get(class)
            .cloned()
            .unwrap_or_else(|| format!("class {class}"))
    }

    /// A short name: the run's folder, or the file's stem.
    pub fn name(&self) -> String {
        let file = self.path.file_name().unwrap_or_default();
        let shown = if file == checkpoint::FILE_NAME {
            self.path.parent().and_then(Path::file_name)
        } else {
            self.path.file_stem()
        };
        shown.map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned())
    }

    /// The mean image: of --mean, else of the file beside the weights, else of `set`'s training
    /// half.
    ///
    /// # Errors
    /// `Data` where there is none, or one of another side than the stored images'.
    pub fn statistics(&self, set: Option<&mut Dataset>) -> Result<Arc<Statistics>> {
        let side = self.config.data.side;
        let beside = self.path.with_file_name(STATISTICS);
        let file = match &self.mean {
            Some(file) => file.clone(),
            None if beside.is_file() => beside,
            None => {
                let set = set.ok_or_else(|| {
                    data(format!(
                        "no mean image: there is no {}; name one by --mean FILE (train and prepare write it)",
                        beside.display()
                    ))
                })?;
                tracing::info!(
                    "there is no {}: the mean image is that of the data's training images (--mean FILE names another)",
                    beside.display()
                );
                let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
                return set.statistics(None, threads);
            }
        };
        let (found, _) = Statistics::read(&file)?;
        if found.side != side {
            return Err(data(format!(
                "{}: expected a mean image of side {side} (data.side), found {}",
                file.display(),
                found.side
            )));
        }
        Ok(Arc::new(found))
    }
}

/// What a file's metadata holds.
struct Described {
    config: Option<String>,
    classes: Vec<String>,
    data: Option<PathBuf>,
}

fn described(path: &Path, metadata: &HashMap<String, String>) -> Result<Described> {
    let damaged = |what: &str, e: serde_json::Error| {
        weights_error(format!("{}: damaged {what}: {e}", path.display()))
    };
    if let Some(state) = metadata.get("state") {
        let state: State = serde_json::from_str(state).map_err(|e| damaged("training state", e))?;
        return Ok(Described {
            config: Some(state.config),
            classes: state.classes,
            data: state.data,
        });
    }
    let classes = match metadata.get(CLASSES_KEY) {
        Some(text) => serde_json::from_str(text).map_err(|e| damaged("list of classes", e))?,
        None => vec![],
    };
    Ok(Described {
        config: metadata.get(CONFIG_KEY).cloned(),
        classes,
        data: None,
    })
}

/// The configuration, and whether it is but assumed.
fn configuration(
    path: &Path,
    flags: &ModelFlags,
    own: Option<String>,
    tensors: &Tensors,
) -> Result<(Config, bool)> {
    let overrides = &flags.config.overrides;
    if flags.config.config.is_none() {
        let beside = path.with_file_name("config.toml");
        let text = own.or_else(|| std::fs::read_to_string(beside).ok());
        if let Some(text) = text {
            return Config::from_toml_with(&text, overrides)
                .map(|config| (config, false))
                .map_err(|e| weights_error(format!("{}: {e}", path.display())));
        }
    }
    let mut config = flags.config.load("paper", &[])?;
    let last = config
        .layers
        .keys()
        .next_back()
        .cloned()
        .unwrap_or_default();
    let outputs = tensors.get(&format!("{last}.weight")).map(|t| t.shape[0]);
    if let Some(outputs) = outputs.filter(|_| !flags.config.sets_classes()) {
        config.network.classes = outputs;
    }
    Ok((config, flags.config.config.is_none()))
}

/// Whether the tensors are the plan's, all of them and no others.
///
/// # Errors
/// `Checkpoint`, naming the tensor.
pub fn check(tensors: &Tensors, params: &[Param]) -> Result<()> {
    tensors.check(params)?;
    let known: BTreeSet<String> = params
        .iter()
        .flat_map(|p| [p.weight_name(), p.bias_name()])
        .collect();
    match tensors.0.iter().find(|t| !known.contains(&t.name)) {
        None => Ok(()),
        Some(extra) => Err(weights_error(format!(
            "tensor {} (shape {:?}) is none of this network's {}",
            extra.name,
            extra.shape,
            known.len()
        ))),
    }
}
