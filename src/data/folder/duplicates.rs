//! Warns of files that are there twice, and of training files among those of validation.

use super::listing::Listing;
use crate::data::decode::escape;
use crate::data::images::FileSet;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// Larger sets are left to `prepare --check`: a look at every file would take minutes.
const MOST_FILES: usize = 50_000;

/// Bytes that are read at most; only files of equal size are read.
const MOST_BYTES: u64 = 1 << 28;

/// Warns, with numbers, of equal files within `train` and in both halves.
pub fn warn(root: &Path, train: &Listing, val: Option<&Listing>) {
    let halves = [Some(train), val].into_iter().flatten();
    if halves.clone().map(FileSet::len).sum::<usize>() > MOST_FILES {
        return;
    }
    let files: Vec<(bool, usize)> = (0..train.len())
        .map(|i| (false, i))
        .chain((0..val.map_or(0, Listing::len)).map(|i| (true, i)))
        .collect();
    let half = |in_val| if in_val { val.unwrap_or(train) } else { train };
    let size = |&(in_val, i): &(bool, usize)| {
        let found = std::fs::metadata(half(in_val).path(i)).ok();
        found
            .filter(std::fs::Metadata::is_file)
            .map_or(0, |m| m.len())
    };
    let sizes: Vec<u64> = files.par_iter().map(size).collect();
    let mut of_size: HashMap<u64, Vec<(bool, usize)>> = HashMap::new();
    for (&file, &bytes) in files.iter().zip(&sizes).filter(|(_, bytes)| **bytes > 0) {
        of_size.entry(bytes).or_default().push(file);
    }
    of_size.retain(|_, group| group.len() > 1);
    if of_size
        .iter()
        .map(|(bytes, group)| bytes * group.len() as u64)
        .sum::<u64>()
        > MOST_BYTES
    {
        return;
    }
    let groups: Vec<Vec<(bool, usize)>> = of_size.into_values().collect();
    let equal: Vec<Vec<(bool, usize)>> = groups
        .into_par_iter()
        .flat_map_iter(|group| same_contents(group, half))
        .collect();
    report(root, train, val, &equal);
}

/// Splits files of one size into groups of equal contents.
fn same_contents<'a>(
    group: Vec<(bool, usize)>,
    half: impl Fn(bool) -> &'a Listing,
) -> impl Iterator<Item = Vec<(bool, usize)>> {
    let mut same: HashMap<u128, Vec<(bool, usize)>> = HashMap::new();
    for (in_val, i) in group {
        if let Ok(bytes) = std::fs::read(half(in_val).path(i)) {
            let hash = xxhash_rust::xxh3::xxh3_128(&bytes);
            same.entry(hash).or_default().push((in_val, i));
        }
    }
    same.into_values().filter(|files| files.len() > 1)
}

fn report(root: &Path, train: &Listing, val: Option<&Listing>, equal: &[Vec<(bool, usize)>]) {
    let root = escape(root.as_os_str());
    let of_train = |group: &[(bool, usize)]| group.iter().filter(|f| !f.0).count();
    let repeated: usize = equal.iter().map(|g| of_train(g).saturating_sub(1)).sum();
    let example = |group: &[(bool, usize)]| {
        let first = group.iter().filter(|f| !f.0).map(|f| f.1).min();
        first.map_or(String::new(), |i| train.name(i))
    };
    let first = |groups: Vec<String>| groups.into_iter().min().unwrap_or_default();
    if repeated > 0 {
        let names = equal
            .iter()
            .filter(|g| of_train(g) > 1)
            .map(|g| example(g))
            .collect();
        let first = first(names);
        tracing::warn!("{root}: {repeated} files of train repeat another one, as {first}");
    }
    // Every file of val whose contents are in train, with the first of train that has them.
    let of_val = |group: &Vec<(bool, usize)>| {
        let like = example(group);
        let files = group.iter().filter(|f| f.0 && !like.is_empty());
        let names = files.filter_map(|f| Some(val?.name(f.1)));
        names.map(|name| (name, like.clone())).collect::<Vec<_>>()
    };
    let leaked: Vec<(String, String)> = equal.iter().flat_map(of_val).collect();
    if let Some((first, like)) = leaked.iter().min() {
        let count = match leaked.len() {
            1 => "1 file of val is".into(),
            n => format!("{n} files of val are"),
        };
        tracing::warn!("{root}: {count} in train too, as val/{first}, which is train/{like}");
    }
}
