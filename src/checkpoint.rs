//! Tensors in files, and the state of a run: written atomically, checksummed, read by validation.
//!
//! The format is safetensors with the whole tensors of [`Tensors`]; a run's checkpoint adds
//! `momentum.*` and, in the metadata, all that a bit-exact resume needs. No file names a device.

use crate::device::loss_scale::LossScale;
use crate::error::{Error, Result, checkpoint};
use crate::network::params::{Tensor, Tensors};
use crate::optimizer::Plateau;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

mod header;

/// Name of a run's newest checkpoint.
pub const FILE_NAME: &str = "checkpoint.safetensors";
const VERSION: &str = "1";

/// Everything besides tensors that a run needs to go on as if it had never stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates done.
    pub step: u64,
    pub plateau: Plateau,
    /// The step of the last evaluation the schedule asked for.
    pub evaluated: Option<u64>,
    /// The configuration as TOML.
    pub config: String,
    /// The data set's folder; none: the built-in set.
    pub data: Option<PathBuf>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Sums of loss and errors since the last logged record, and their images.
    pub pending: Pending,
    /// The scale of the loss, of a run in f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// How often the run went back to a checkpoint with the learning rate halved.
    #[serde(default)]
    pub rollbacks: u32,
}

/// Training loss and errors not yet logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub loss: f64,
    pub top1_errors: u64,
    pub images: u64,
}

/// A checkpoint in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub parameters: Tensors,
    pub momentum: Tensors,
    pub state: State,
}

/// Tensors of a file and its metadata.
pub struct Contents {
    pub tensors: Tensors,
    pub metadata: HashMap<String, String>,
}

impl Checkpoint {
    /// Writes the checkpoint to `path`, replacing what is there in one step: after a crash at any
    /// moment the old or the new one is there, whole.
    pub fn save(&self, path: &Path) -> Result<()> {
        let momentum = self
            .momentum
            .0
            .iter()
            .map(|t| (format!("momentum.{}", t.name), t));
        let all: Vec<_> = self
            .parameters
            .0
            .iter()
            .map(|t| (t.name.clone(), t))
            .chain(momentum)
            .collect();
        let state = serde_json::to_string(&self.state)
            .map_err(|e| checkpoint(format!("{}: {e}", path.display())))?;
        write(path, &all, [("state".to_string(), state)])
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// `Checkpoint`, naming the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        let Contents { tensors, metadata } = read(path)?;
        let state = metadata.get("state").ok_or_else(|| {
            checkpoint(format!("{}: holds weights but no training state; a run cannot go on from it, `evaluate --weights`, `predict` and `export` can use it", path.display()))
        })?;
        let state = serde_json::from_str(state)
            .map_err(|e| checkpoint(format!("{}: damaged training state: {e}", path.display())))?;
        let (momentum, parameters): (Vec<_>, Vec<_>) = tensors
            .0
            .into_iter()
            .partition(|t| t.name.starts_with("momentum."));
        let momentum = momentum
            .into_iter()
            .map(|t| Tensor {
                name: t.name["momentum.".len()..].into(),
                ..t
            })
            .collect();
        Ok(Checkpoint {
            parameters: Tensors(parameters),
            momentum: Tensors(momentum),
            state,
        })
    }
}

/// The weight file that `path` means: a file, or the newest checkpoint of a run folder.
pub fn weights_path(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(FILE_NAME)
    } else {
        path.to_path_buf()
    }
}

/// Writes tensors to a safetensors file, atomically, with a checksum.
pub fn write_tensors(path: &Path, tensors: &Tensors) -> Result<()> {
    let all: Vec<_> = tensors.0.iter().map(|t| (t.name.clone(), t)).collect();
    write(path, &all, [])
}

/// Writes tensors as [`write_tensors`], with entries of its own in the metadata.
pub fn write_with<const N: usize>(
    path: &Path,
    tensors: &Tensors,
    metadata: [(String, String); N],
) -> Result<()> {
    let all: Vec<_> = tensors.0.iter().map(|t| (t.name.clone(), t)).collect();
    write(path, &all, metadata)
}

fn write<const N: usize>(
    path: &Path,
    tensors: &[(String, &Tensor)],
    extra: [(String, String); N],
) -> Result<()> {
    let mut metadata = HashMap::from(extra);
    metadata.insert("format".into(), "alexnet-mp".into());
    metadata.insert("version".into(), VERSION.into());
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, t)| {
            let bytes: &[u8] = as_bytes(&t.values);
            let view = TensorView::new(Dtype::F32, t.shape.clone(), bytes);
            view.map(|view| (name.as_str(), view))
                .map_err(|e| checkpoint(format!("{}: tensor {name}: {e}", path.display())))
        })
        .collect::<Result<_>>()?;
    metadata.insert(
        "checksum".into(),
        checksum(&metadata, views.iter().map(|(n, v)| (*n, v.data()))),
    );
    let mut bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| checkpoint(format!("{}: {e}", path.display())))?;
    header::sort_metadata(&mut bytes);
    replace(path, &bytes).map_err(|e| {
        checkpoint(format!(
            "cannot write {}: {e}; what was there before is unchanged",
            path.display()
        ))
    })
}

/// Atomic replacement: temporary file, fsync, rename, fsync of the folder.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let result = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    })();
    if result.is_err() {
        // The error matters, not the left-over.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// Reads all tensors of a safetensors file: f32, finite, and of the checksum it states, if any.
///
/// # Errors
/// `Checkpoint`, naming the file, the tensor, what was expected and what was found.
pub fn read(path: &Path) -> Result<Contents> {
    let at = |message: String| checkpoint(format!("{}: {message}", path.display()));
    header::check(path).map_err(&at)?;
    let bytes = std::fs::read(path).map_err(|e| at(format!("cannot be read: {e}")))?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| at(format!("not a safetensors file, or a truncated one ({e})")))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    if let Some(version) = metadata
        .get("version")
        .filter(|v| metadata.get("format").is_some_and(|f| f == "alexnet-mp") && *v != VERSION)
    {
        return Err(at(format!(
            "version {version} of the format; this program reads version {VERSION}"
        )));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| at(format!("damaged: {e}")))?;
    let mut views = file.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(stated) = metadata.get("checksum") {
        let found = checksum(&metadata, views.iter().map(|(n, v)| (n.as_str(), v.data())));
        if found != *stated {
            return Err(at(format!(
                "checksum {found} differs from the stated {stated}: the file is damaged"
            )));
        }
    }
    let tensors = views
        .iter()
        .map(|(name, view)| tensor(name, view).map_err(&at))
        .collect::<Result<_>>()?;
    Ok(Contents {
        tensors: Tensors(tensors),
        metadata,
    })
}

fn tensor(name: &str, view: &TensorView<'_>) -> std::result::Result<Tensor, String> {
    if view.dtype() != Dtype::F32 {
        return Err(format!(
            "tensor {name}: expected F32, found {:?}",
            view.dtype()
        ));
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return Err(format!(
            "tensor {name}: element {i} is {}; expected finite numbers",
            values[i]
        ));
    }
    Ok(Tensor {
        name: name.into(),
        shape: view.shape().to_vec(),
        values,
    })
}

/// xxh3 over the metadata (without the checksum) and the tensors, in order of their names.
fn checksum<'a>(
    metadata: &HashMap<String, String>,
    tensors: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> String {
    let mut hash = Xxh3::new();
    let mut entries: Vec<_> = metadata
        .iter()
        .filter(|(key, _)| *key != "checksum")
        .collect();
    entries.sort();
    for (key, value) in entries {
        hash.update(key.as_bytes());
        hash.update(value.as_bytes());
    }
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by_key(|(name, _)| *name);
    for (name, data) in tensors {
        hash.update(name.as_bytes());
        hash.update(data);
    }
    format!("xxh3:{:032x}", hash.digest128())
}

/// The values as little-endian bytes.
fn as_bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Turns an error of any kind into one about weights given by the user.
pub fn in_file(path: &Path, error: Error) -> Error {
    checkpoint(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let tensor = |name: &str, base: f32| Tensor {
            name: name.into(),
            shape: vec![2, 3],
            values: (0..6).map(|i| base + i as f32).collect(),
        };
        let state = State {
            step: 7,
            plateau: Plateau::default(),
            evaluated: None,
            config: "x = 1".into(),
            data: Some("photos".into()),
            classes: vec!["a".into()],
            pending: Pending::default(),
            loss_scale: Some(LossScale {
                scale: 4096.0,
                steps: 17.0,
            }),
            rollbacks: 0,
        };
        Checkpoint {
            parameters: Tensors(vec![tensor("conv1.weight", 0.5)]),
            momentum: Tensors(vec![tensor("conv1.weight", -9.0)]),
            state,
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        example().save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), example());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        example().save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            // A flip in padding or key order may leave the contents as they were.
            match Checkpoint::load(&path) {
                Err(error) => assert_eq!(error.exit_code(), 4, "byte {i}"),
                Ok(loaded) => assert_eq!(loaded, example(), "byte {i}"),
            }
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert_eq!(
                Checkpoint::load(&path).unwrap_err().exit_code(),
                4,
                "length {length}"
            );
        }
    }

    #[test]
    fn a_header_of_100_gigabytes_is_refused_before_it_is_allocated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut bytes = 100_000_000_000u64.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        std::fs::write(&path, bytes).unwrap();
        assert!(
            read(&path)
                .err()
                .unwrap()
                .to_string()
                .contains("not a safetensors file")
        );
    }

    #[test]
    fn weights_that_are_not_finite_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensors = Tensors(vec![Tensor {
            name: "fc8.bias".into(),
            shape: vec![2],
            values: vec![1.0, f32::NAN],
        }]);
        write_tensors(&path, &tensors).unwrap();
        let message = read(&path).err().unwrap().to_string();
        assert!(
            message.contains("tensor fc8.bias: element 1 is NaN"),
            "{message}"
        );
    }
}
