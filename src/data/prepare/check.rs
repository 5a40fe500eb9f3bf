//! Looking through a prepared set: is everything in it what it should be?

use super::Watch;
use super::merge::read_tail;
use crate::data::shards::format::Entry;
use crate::data::shards::{self, CLASSES, MANIFEST, Shards, Store, shard_path, shown};
use crate::data::statistics::Sums;
use crate::data::{Reads, Source, Statistics, image_bytes};
use crate::error::{Error, Result, data};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Each makes the set unfit for training.
    pub problems: Vec<String>,
    /// Each may be meant so.
    pub warnings: Vec<String>,
    /// What is right, in numbers.
    pub facts: Vec<String>,
}

/// Problems beyond this are counted only.
const MOST_PROBLEMS: usize = 20;

/// Checks the prepared set in `root`. The set is returned for pictures where it could be opened.
///
/// Errors: `Data` where there is no finished preparation; what [`Watch::stop`] says.
pub fn check(root: &Path, watch: &dyn Watch) -> Result<(Findings, Option<crate::data::Dataset>)> {
    if !root.join(MANIFEST).is_file() {
        return Err(data(format!(
            "{}: no finished preparation; run `alexnet-mp prepare SRC DST` to its end first",
            shown(root)
        )));
    }
    let mut findings = Findings::default();
    let set = match shards::open_any_side(root, Reads::Mapped) {
        Ok(set) => set,
        Err(error) => {
            findings.problems.push(error.to_string());
            return Ok((findings, None));
        }
    };
    let classes = set.train.classes();
    check_classes(root, classes, &mut findings);
    let mut seen = Vec::new();
    for half in [shards::TRAIN, shards::VAL] {
        if half == shards::VAL && set.val.is_none() {
            findings.warnings.push("no validation images".into());
            continue;
        }
        let shards = Shards::open(root, half, classes.to_vec(), Reads::Mapped)?;
        let looked = Looked::through(root, half, &shards, watch)?;
        looked.report(half, &shards, &mut findings);
        if half == shards::TRAIN {
            check_statistics(root, &shards, &looked.sums, &mut findings)?;
        }
        seen.push((half, shards));
    }
    check_duplicates(&seen, &mut findings);
    let more = findings.problems.len().saturating_sub(MOST_PROBLEMS);
    if more > 0 {
        findings.problems.truncate(MOST_PROBLEMS);
        findings.problems.push(format!("and {more} more"));
    }
    Ok((findings, Some(set)))
}

fn check_classes(root: &Path, classes: &[String], findings: &mut Findings) {
    let path = shown(&root.join(CLASSES));
    let mut sorted: Vec<&String> = classes.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() < classes.len() {
        let repeated = classes.len() - sorted.len();
        let problem = format!("{path}: {repeated} names of classes stand there twice");
        findings.problems.push(problem);
    } else if !classes.iter().eq(sorted) {
        let warning = format!("{path}: not in byte order, as other programs expect their labels");
        findings.warnings.push(warning);
    }
    if classes.len() == 1 {
        let warning = "1 class only, so there is nothing to tell apart";
        findings.warnings.push(warning.into());
    }
}

/// What a look at every image of a half showed.
struct Looked {
    problems: Vec<String>,
    sums: Sums,
}

impl Looked {
    fn through(root: &Path, half: &str, shards: &Shards, watch: &dyn Watch) -> Result<Self> {
        let mut problems = check_tails(root, half, shards);
        let stopped = Mutex::new(None);
        let found = Mutex::new(Vec::new());
        let images: Vec<usize> = (0..shards.len()).collect();
        let sums = images
            .par_chunks(256)
            .map(|images| {
                let mut sums = Sums::new(shards.side());
                let mut pixels = vec![0; image_bytes(shards)];
                for &image in images {
                    if let Some(stop) = watch.stop() {
                        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
                        break;
                    }
                    match shards.read(image, &mut pixels) {
                        Ok(_) => sums.add(&pixels),
                        Err(error) => note(&found, image, &error),
                    }
                    watch.advance(1);
                }
                sums
            })
            .reduce_with(|mut a, b| {
                a.merge(&b);
                a
            });
        if let Some(stop) = stopped.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(stop);
        }
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable();
        problems.extend(found.into_iter().map(|(_, problem)| problem));
        problems.extend(out_of_order(half, shards));
        Ok(Looked {
            problems,
            sums: sums.unwrap_or_else(|| Sums::new(shards.side())),
        })
    }

    fn report(&self, half: &str, shards: &Shards, findings: &mut Findings) {
        findings.problems.extend(self.problems.iter().cloned());
        let mut counts = vec![0usize; shards.classes().len()];
        for image in 0..shards.len() {
            counts[shards.label(image) as usize] += 1;
        }
        let empty: Vec<&String> = shards
            .classes()
            .iter()
            .zip(&counts)
            .filter(|(_, count)| **count == 0)
            .map(|(class, _)| class)
            .collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        findings.facts.push(format!(
            "{half}: {} images of {} classes, {} to {} in each, in {} shards",
            shards.len(),
            counts.len() - empty.len(),
            least.unwrap_or(&0),
            most.unwrap_or(&0),
            shards.index().shards.len()
        ));
        if let Some(first) = empty.first() {
            let count = empty.len();
            let warning = format!("{half}: {count} classes without images, the first is {first}");
            findings.warnings.push(warning);
        }
    }
}

fn note(found: &Mutex<Vec<(usize, String)>>, image: usize, error: &Error) {
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    found.push((image, error.to_string()));
}

/// Compares what the shards say of themselves with the index.
fn check_tails(root: &Path, half: &str, shards: &Shards) -> Vec<String> {
    let mut of_shard: Vec<Vec<(u64, u64, u32)>> = vec![Vec::new(); shards.index().shards.len()];
    for &words in &shards.index().entries {
        let entry = Entry::unpack(words);
        of_shard[entry.place as usize].push((entry.offset, entry.checksum, entry.label));
    }
    let numbered: Vec<_> = of_shard.into_iter().enumerate().collect();
    let look = |(number, mut indexed): (usize, Vec<(u64, u64, u32)>)| {
        let path = shard_path(root, half, number);
        let problem = |what: &str| Some(format!("{}: {what}", shown(&path)));
        let (tail, checksum, _) = match read_tail(&path) {
            Ok(read) => read,
            Err(e) => return problem(&e),
        };
        if checksum != shards.index().shards[number].checksum {
            return problem("not the shard that the index was made from");
        }
        let own = tail.entries.iter().map(|&words| {
            let entry = Entry::unpack(words);
            (entry.offset, entry.checksum, entry.label)
        });
        indexed.sort_unstable();
        if !own.eq(indexed) {
            return problem("its list of images is not the index's");
        }
        None
    };
    numbered.into_par_iter().filter_map(look).collect()
}

/// Images must be in byte order of class and name: tests are reported in that order.
fn out_of_order(half: &str, shards: &Shards) -> Option<String> {
    let key = |image: usize| (shards.label(image), shards.index().name(image).as_bytes());
    let wrong = (1..shards.len()).find(|&image| key(image - 1).0 > key(image).0)?;
    Some(format!(
        "{half}.index: image {wrong} has label {} after label {}: not in order of labels",
        key(wrong).0,
        key(wrong - 1).0
    ))
}

/// The statistics must be those of the images, and look like those of photographs.
fn check_statistics(
    root: &Path,
    shards: &Shards,
    sums: &Sums,
    findings: &mut Findings,
) -> Result<()> {
    let path = root.join(shards::STATISTICS);
    let (stored, _) = Statistics::read(&path)?;
    let found = sums.statistics();
    // Statistics are of the pixels before they were compressed.
    let allowed = match shards.index().store {
        Store::Raw => 1e-3,
        Store::Jpeg => 4.0,
    };
    let apart = |a: &[f32], b: &[f32]| {
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max)
    };
    let far = apart(&stored.mean, &found.mean);
    if far > allowed {
        findings.problems.push(format!(
            "{}: the mean image differs from the images' by {far:.2} grey levels",
            shown(&path)
        ));
    }
    let [red, green, blue] = channel_means(&stored.mean);
    findings.facts.push(format!(
        "mean colour: red {red:.1}, green {green:.1}, blue {blue:.1}; deviations along the \
         principal axes: {:.1}, {:.1}, {:.1}",
        stored.eigenvalues[0].max(0.0).sqrt(),
        stored.eigenvalues[1].max(0.0).sqrt(),
        stored.eigenvalues[2].max(0.0).sqrt()
    ));
    if blue > red + 10.0 {
        findings.warnings.push(format!(
            "the mean's blue ({blue:.0}) is above its red ({red:.0}), in photographs it is below: \
             are the images' channels in the order blue, green, red?"
        ));
    }
    Ok(())
}

fn channel_means(mean: &[f32]) -> [f64; 3] {
    let pixels = (mean.len() / 3).max(1) as f64;
    [0, 1, 2].map(|c| {
        let values = mean.iter().skip(c).step_by(3);
        values.map(|&x| f64::from(x)).sum::<f64>() / pixels
    })
}

/// Equal images within train, and in both halves.
fn check_duplicates(halves: &[(&str, Shards)], findings: &mut Findings) {
    let mut first: HashMap<u64, u32> = HashMap::new();
    for (half, shards) in halves {
        let (mut equal, mut example, mut other_class) = (0, None, 0);
        let is_train = *half == shards::TRAIN;
        for image in 0..shards.len() {
            let checksum = shards.index().entry(image).checksum;
            let known = match is_train {
                true => match first.entry(checksum) {
                    std::collections::hash_map::Entry::Occupied(known) => Some(*known.get()),
                    std::collections::hash_map::Entry::Vacant(place) => {
                        place.insert(image as u32);
                        None
                    }
                },
                false => first.get(&checksum).copied(),
            };
            let Some(known) = known else { continue };
            let train = &halves[0].1;
            equal += 1;
            other_class += usize::from(train.label(known as usize) != shards.label(image));
            example.get_or_insert_with(|| {
                format!(
                    "{} as train/{}",
                    shards.name(image),
                    train.name(known as usize)
                )
            });
        }
        if let Some(example) = example {
            let what = match is_train {
                true => "training images repeat another one",
                false => "validation images are in train too",
            };
            findings.warnings.push(format!(
                "{equal} {what}, {other_class} of them in another class: {example}"
            ));
        }
    }
}
