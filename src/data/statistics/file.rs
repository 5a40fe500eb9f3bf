//! Statistics as a safetensors file: `mean` f32 `[3, side, side]`, `eigval` f32 `[3]`, `eigvec`
//! f32 `[3, 3]` with the eigenvectors as columns.

use super::Statistics;
use crate::error::{Result, data};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::HashMap;
use std::path::Path;

/// Far larger than any statistics file: side 8192.
const LARGEST_FILE: u64 = 1 << 30;

impl Statistics {
    /// Writes the file, replacing an older one in one step. `fingerprint` goes into its metadata.
    ///
    /// Errors: `Data` naming the file.
    pub fn write(&self, path: &Path, fingerprint: Option<&str>) -> Result<()> {
        let side = self.side;
        let mean: Vec<u8> = (0..3)
            .flat_map(|c| self.mean.iter().skip(c).step_by(3))
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let values: Vec<u8> = self
            .eigenvalues
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let vectors: Vec<u8> = (0..9)
            .flat_map(|i| self.eigenvectors[i % 3][i / 3].to_le_bytes())
            .collect();
        let mut metadata = HashMap::from([("images".to_owned(), self.images.to_string())]);
        if let Some(fingerprint) = fingerprint {
            metadata.insert("fingerprint".to_owned(), fingerprint.to_owned());
        }
        let unwritable = |e: &dyn std::fmt::Display| {
            data(format!(
                "{}: cannot write the statistics: {e}",
                path.display()
            ))
        };
        let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        let tensors = [
            ("mean", view(&[3, side, side], &mean)),
            ("eigval", view(&[3], &values)),
            ("eigvec", view(&[3, 3], &vectors)),
        ];
        let mut views = Vec::new();
        for (name, tensor) in tensors {
            views.push((name, tensor.map_err(|e| unwritable(&e))?));
        }
        let bytes = serialize(views, Some(metadata)).map_err(|e| unwritable(&e))?;
        let unfinished = path.with_extension("safetensors.tmp");
        std::fs::write(&unfinished, bytes)
            .and_then(|()| std::fs::rename(&unfinished, path))
            .map_err(|e| unwritable(&e))
    }

    /// Reads a file and the fingerprint in its metadata.
    ///
    /// Errors: `Data` naming the file, what was expected and what was found.
    pub fn read(path: &Path) -> Result<(Self, Option<String>)> {
        let wrong = |what: &str| data(format!("{}: {what}", path.display()));
        let size = std::fs::metadata(path)
            .map_err(|e| wrong(&e.to_string()))?
            .len();
        if size > LARGEST_FILE {
            return Err(wrong(&format!("{size} bytes are too many for statistics")));
        }
        let bytes = std::fs::read(path).map_err(|e| wrong(&e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes)
            .map_err(|e| wrong(&format!("not a safetensors file: {e}")))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| wrong(&format!("not a safetensors file: {e}")))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let (shape, mean) = tensor(&file, "mean").map_err(|e| wrong(&e))?;
        let side = match shape[..] {
            [3, height, width] if height == width && height > 0 => height,
            _ => {
                return Err(wrong(&format!(
                    "mean: expected [3, side, side], found {shape:?}"
                )));
            }
        };
        let (value_shape, values) = tensor(&file, "eigval").map_err(|e| wrong(&e))?;
        let (vector_shape, vectors) = tensor(&file, "eigvec").map_err(|e| wrong(&e))?;
        if value_shape != [3] || vector_shape != [3, 3] {
            return Err(wrong(&format!(
                "expected eigval [3] and eigvec [3, 3], found {value_shape:?} and {vector_shape:?}"
            )));
        }
        let plane = side * side;
        let statistics = Statistics {
            side,
            images: metadata
                .get("images")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0),
            mean: (0..3 * plane)
                .map(|i| mean[i % 3 * plane + i / 3])
                .collect(),
            eigenvalues: [values[0], values[1], values[2]],
            eigenvectors: [0, 1, 2].map(|k| [0, 1, 2].map(|c| vectors[c * 3 + k])),
        };
        Ok((statistics, metadata.get("fingerprint").cloned()))
    }
}

/// Shape and finite values of an f32 tensor, or what is wrong with it.
fn tensor(file: &SafeTensors, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
    let view = file
        .tensor(name)
        .map_err(|_| format!("{name}: tensor is missing"))?;
    if view.dtype() != Dtype::F32 {
        return Err(format!("{name}: expected F32, found {:?}", view.dtype()));
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    if values.iter().any(|x| !x.is_finite()) {
        return Err(format!("{name}: holds NaN or infinity"));
    }
    Ok((view.shape().to_vec(), values))
}
