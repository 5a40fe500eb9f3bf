//! The true classes of ILSVRC's validation images.

use super::{find, matlab, shown};
use crate::error::{Result, data};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// WordNet id of every validation image.
pub struct Truth {
    /// Where it was read.
    pub path: PathBuf,
    classes: Classes,
}

enum Classes {
    /// By the image's name without its ending.
    Named(HashMap<String, String>),
    /// By the image's number, from 1.
    Numbered(Vec<String>),
}

/// Kaggle's file.
const SOLUTION: &str = "LOC_val_solution.csv";

/// Files of a devkit are far smaller; so is what it unpacks to.
const LARGEST_FILE: u64 = 16 << 20;
const LARGEST_DEVKIT: u64 = 256 << 20;

impl Truth {
    /// Looks for `LOC_val_solution.csv`, or a devkit as archive or folder, in these folders.
    ///
    /// Errors: `Data` where there is neither, or what is there is broken.
    pub fn find(folders: &[&Path]) -> Result<Self> {
        let wrong = |path: &Path, e: String| data(format!("{}: {e}", shown(path)));
        for folder in folders {
            let path = folder.join(SOLUTION);
            if path.is_file() {
                return solution(&path).map_err(|e| wrong(&path, e));
            }
            if let Some(path) = find(folder, |n| n.starts_with("ILSVRC") && n.contains("devkit")) {
                return devkit(&path).map_err(|e| wrong(&path, e));
            }
        }
        let first = folders.first().map_or(String::new(), |f| shown(f));
        Err(data(format!(
            "{first}: validation images without classes: expected ILSVRC2012_devkit_t12.tar.gz or \
             {SOLUTION} beside them"
        )))
    }

    /// The class of an image's file name.
    pub fn class(&self, file: &[u8]) -> Option<&str> {
        let name = std::str::from_utf8(file).ok()?;
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        match &self.classes {
            Classes::Named(classes) => classes.get(stem).map(String::as_str),
            Classes::Numbered(classes) => {
                let digits = stem.rsplit(|c: char| !c.is_ascii_digit()).next()?;
                let number: usize = digits.parse().ok()?;
                classes.get(number.checked_sub(1)?).map(String::as_str)
            }
        }
    }
}

/// Lines such as `ILSVRC2012_val_00048981,n03995372 85 1 499 272 …`.
fn solution(path: &Path) -> Result<Truth, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut classes = HashMap::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let mut parts = line.split([',', ' ']);
        match (parts.next(), parts.next()) {
            (Some(image), Some(class)) if !class.is_empty() => {
                classes.insert(image.to_owned(), class.to_owned());
            }
            _ => {
                let line = line.escape_debug();
                return Err(format!(
                    "line {}: expected image,class …, found {line}",
                    number + 1
                ));
            }
        }
    }
    Ok(Truth {
        path: path.to_owned(),
        classes: Classes::Named(classes),
    })
}

fn devkit(path: &Path) -> Result<Truth, String> {
    let (truth, meta) = match path.is_dir() {
        true => unpacked(path),
        false => packed(path),
    }?;
    let truth = truth.ok_or("no …validation_ground_truth.txt in it")?;
    let ids: HashMap<u32, String> = matlab::synsets(&meta.ok_or("no meta.mat in it")?)
        .map_err(|e| format!("meta.mat: {e}"))?
        .into_iter()
        .collect();
    let text = String::from_utf8_lossy(&truth);
    let class = |(number, line): (usize, &str)| {
        let id = line.trim().parse::<u32>().ok();
        id.and_then(|id| ids.get(&id).cloned()).ok_or_else(|| {
            let line = line.escape_debug();
            format!(
                "ground truth, line {}: expected a class's number, found {line}",
                number + 1
            )
        })
    };
    let classes: Result<Vec<String>, String> = text.lines().enumerate().map(class).collect();
    Ok(Truth {
        path: path.to_owned(),
        classes: Classes::Numbered(classes?),
    })
}

/// Contents of the ground truth and of meta.mat.
type Files = (Option<Vec<u8>>, Option<Vec<u8>>);

fn is_truth(name: &str) -> bool {
    name.ends_with("validation_ground_truth.txt")
}

fn unpacked(path: &Path) -> Result<Files, String> {
    let read = |path: PathBuf| crate::data::decode::read_file(&path);
    let folder = path.join("data");
    let truth = find(&folder, is_truth).map(read).transpose()?;
    let meta = find(&folder, |name| name == "meta.mat")
        .map(read)
        .transpose()?;
    Ok((truth, meta))
}

fn packed(path: &Path) -> Result<Files, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let unzipped = flate2::read::GzDecoder::new(file).take(LARGEST_DEVKIT);
    let mut archive = tar::Archive::new(unzipped);
    let broken = |e: std::io::Error| format!("broken: {e}");
    let (mut truth, mut meta) = (None, None);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path_bytes().into_owned();
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let into = match &name[..] {
            name if is_truth(name) => &mut truth,
            "meta.mat" => &mut meta,
            _ => continue,
        };
        let mut bytes = Vec::new();
        entry
            .by_ref()
            .take(LARGEST_FILE)
            .read_to_end(&mut bytes)
            .map_err(broken)?;
        *into = Some(bytes);
    }
    Ok((truth, meta))
}
