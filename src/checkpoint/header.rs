//! The header of a safetensors file, checked before anything of the file's size is allocated.

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The format's own limit, in bytes.
const LARGEST: u64 = 100_000_000;

/// One tensor's entry.
#[derive(Deserialize)]
struct Entry {
    dtype: Option<String>,
    #[serde(default)]
    shape: Vec<u64>,
    data_offsets: Option<[u64; 2]>,
}

/// The entries in the order of the file, names given twice included.
struct Entries(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Entries(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Checks that the header can be, that no tensor is in it twice, that all are F32 and as long as
/// their shapes say, and that the file is as long as the header says.
///
/// An error is what is wrong, naming the tensor.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let (Entries(entries), size) = read(path, metadata.len())?;
    let start = 8 + size;
    let mut names = BTreeSet::new();
    let mut end = 0;
    for (name, entry) in &entries {
        if !names.insert(name) {
            return Err(format!("tensor {name}: is in the file twice"));
        }
        if name != "__metadata__" {
            end = end.max(check_entry(name, entry)?);
        }
    }
    if start.checked_add(end) != Some(metadata.len()) {
        return Err(format!(
            "truncated or damaged: {} bytes, where its header asks for {}",
            metadata.len(),
            start.saturating_add(end)
        ));
    }
    Ok(())
}

/// The entries and the length of the header in bytes.
fn read(path: &Path, length: u64) -> Result<(Entries, u64), String> {
    let not = |why: String| format!("not a safetensors file, or a truncated one ({why})");
    let mut file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut size = [0; 8];
    file.read_exact(&mut size)
        .map_err(|_| not(format!("{length} bytes are too few")))?;
    let size = u64::from_le_bytes(size);
    if size > LARGEST || size > length - 8 {
        return Err(not(format!(
            "a header of {size} bytes in a file of {length}"
        )));
    }
    let mut text = vec![0; size as usize];
    file.read_exact(&mut text)
        .map_err(|e| not(format!("its header cannot be read: {e}")))?;
    let entries = serde_json::from_slice(&text).map_err(|e| not(format!("its header: {e}")))?;
    Ok((entries, size))
}

/// Puts the metadata of a file in memory in the order of its keys, so that the same contents are
/// the same bytes: the library writes them in the order of a hash map.
pub(super) fn sort_metadata(file: &mut [u8]) {
    let sorted = || -> Option<Vec<u8>> {
        let size = u64::from_le_bytes(file.get(..8)?.try_into().ok()?) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(file.get(8..8 + size)?).ok()?;
        header.get_mut("__metadata__")?.as_object_mut()?.sort_keys();
        let mut text = serde_json::to_vec(&header).ok()?;
        // Padded with spaces as it was; of another length it would be of no use.
        text.resize(size.max(text.len()), b' ');
        (text.len() == size).then_some(text)
    };
    if let Some(text) = sorted() {
        file[8..8 + text.len()].copy_from_slice(&text);
    }
}

/// Where the tensor ends among the data.
fn check_entry(name: &str, entry: &serde_json::Value) -> Result<u64, String> {
    let entry =
        Entry::deserialize(entry).map_err(|e| format!("tensor {name}: damaged entry: {e}"))?;
    let (Some(dtype), Some([start, end])) = (entry.dtype, entry.data_offsets) else {
        return Err(format!("tensor {name}: has no dtype or no data_offsets"));
    };
    if dtype != "F32" {
        return Err(format!("tensor {name}: expected F32, found {dtype}"));
    }
    let elements = entry.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    let bytes = elements.and_then(|n| n.checked_mul(4));
    if bytes.is_none() || end.checked_sub(start) != bytes {
        return Err(format!(
            "tensor {name}: shape {:?} does not fit its bytes {start} to {end}",
            entry.shape
        ));
    }
    Ok(end)
}
