//! `alexnet-mp evaluate`.

use super::device_choice::DeviceFlags;
use super::inference::{Inference, Rows, Wanted};
use super::model::{Model, ModelFlags};
use super::open::{check_classes, dataset};
use crate::error::{Result, data, usage};
use crate::precision::Precision;
use crate::report::format::percent;
use crate::report::messages::result;
use crate::report::scores::{Scores, scores};
use crate::report::tables::table;
use npyz::WriterBuilder;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Measure top-1 and top-5 error and log loss over the validation images
///
/// Of several weight files the probabilities are averaged. Without --data it is the set that the
/// run was trained on, the built-in one where that was none.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp evaluate --weights runs/first                      the run's own validation set
  alexnet-mp evaluate --weights runs/first --data imagenet/ --views 10
  alexnet-mp evaluate --weights runs/a runs/b runs/c --data imagenet/ --json
  alexnet-mp evaluate --weights w.safetensors --config paper --data photos/ --per-class")]
pub struct Evaluate {
    /// Weight file or run folder; several make an ensemble
    #[arg(long, value_name = "FILE|RUN", num_args = 1.., required = true)]
    weights: Vec<PathBuf>,
    /// Folder of images (train/CLASS/*.jpg, val/CLASS/*) or one made by `prepare`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Crops of each image whose probabilities are averaged: 1 (centre) or 10 (paper, §4.1)
    #[arg(long, value_name = "N", default_value_t = 1)]
    views: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the probabilities, f32 [images, classes]
    #[arg(long, value_name = "NPY")]
    probabilities: Option<PathBuf>,
    /// Print every class's errors
    #[arg(long)]
    per_class: bool,
    /// Print the N pairs of classes confused most often
    #[arg(long, value_name = "N", default_value_t = 0)]
    confusions: usize,
    /// What maps and the operands of products are held in; on the CPU f32 only
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    precision: Precision,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

impl Evaluate {
    pub fn run(self, quiet: bool) -> Result<()> {
        if self.views != 1 && self.views != 10 {
            return Err(usage(format!("--views {}: expected 1 or 10", self.views)));
        }
        let models = self
            .weights
            .iter()
            .map(|path| {
                let mut model = Model::open(path, &self.model)?;
                model.config.train.precision = self.precision;
                Ok(model)
            })
            .collect::<Result<Vec<_>>>()?;
        let (first, classes) = (&models[0], models[0].config.network.classes);
        let mut names = first.classes.clone();
        let mut mean: Option<Rows> = None;
        for model in &models {
            let rows = self.pass(model, first, &mut names, quiet)?;
            mean = Some(match mean {
                None => rows,
                Some(sum) => added(sum, rows, &model.path)?,
            });
        }
        let mut rows = mean.ok_or_else(|| usage("--weights: name a file"))?;
        let members = models.len() as f32;
        rows.values[0].iter_mut().for_each(|p| *p /= members);
        if let Some(path) = &self.probabilities {
            write_npy(path, &rows.values[0], classes)?;
        }
        let scores = scores(&rows.values[0], &rows.labels, classes);
        if self.json {
            result(&self.as_json(&scores, &names).to_string());
        } else {
            result(self.as_text(&scores, &names, models.len()).trim_end());
        }
        Ok(())
    }

    /// One model over the validation half of its data.
    fn pass(
        &self,
        model: &Model,
        first: &Model,
        names: &mut Vec<String>,
        quiet: bool,
    ) -> Result<Rows> {
        let mut config = model.config.clone();
        // All members see the same built-in images.
        config.train.seed = first.config.train.seed;
        config.data.builtin_train = first.config.data.builtin_train;
        config.data.builtin_val = first.config.data.builtin_val;
        let folder = self.data.as_ref().or(first.data.as_ref());
        let mut set = dataset(folder.map(PathBuf::as_path), &config)?;
        if folder.is_none() {
            fits_built_in(model, set.train.classes())?;
        }
        check_classes(&set, &config)?;
        same_classes(&model.classes, set.train.classes(), model)?;
        if names.is_empty() {
            *names = set.train.classes().to_vec();
        }
        let source = set.val.clone().ok_or_else(|| {
            let folder = folder.map_or(String::new(), |f| f.display().to_string());
            data(format!("{folder}: there is no folder val to evaluate on"))
        })?;
        let statistics = model.statistics(Some(&mut set))?;
        let pass = Inference {
            model,
            statistics,
            source,
            views: self.views,
            wanted: vec![Wanted::Probabilities],
            title: "evaluating",
            quiet,
        };
        pass.on(&self.devices)
    }

    fn as_json(&self, scores: &Scores, names: &[String]) -> serde_json::Value {
        let mut value = json!({
            "images": scores.images,
            "views": self.views,
            "top1_error": scores.top1_error,
            "top5_error": scores.top5_error,
            "log_loss": scores.log_loss,
        });
        if self.per_class {
            let class = |(i, c): (usize, &crate::report::scores::ClassScore)| {
                json!({ "class": name(names, i), "images": c.images,
                    "top1_errors": c.top1_errors, "top5_errors": c.top5_errors })
            };
            value["classes"] = scores.classes.iter().enumerate().map(class).collect();
        }
        if self.confusions > 0 {
            let worst = scores.confusions.iter().take(self.confusions);
            value["confusions"] = worst
                .map(|&(a, b, n)| json!({ "class": name(names, a), "taken_for": name(names, b), "images": n }))
                .collect();
        }
        value
    }

    fn as_text(&self, scores: &Scores, names: &[String], members: usize) -> String {
        let ensemble = match members {
            1 => String::new(),
            n => format!(", {n} networks averaged"),
        };
        let mut text = format!(
            "{} images, {} view{}{ensemble}\ntop-1 error  {}\ntop-5 error  {}\nlog loss     {:.5}\n",
            scores.images,
            self.views,
            if self.views == 1 { "" } else { "s" },
            percent(scores.top1_error, 2),
            percent(scores.top5_error, 2),
            scores.log_loss
        );
        if self.per_class {
            text += &format!("\n{}\n", class_table(scores, names));
        }
        if self.confusions > 0 {
            let rows: Vec<_> = scores
                .confusions
                .iter()
                .take(self.confusions)
                .map(|&(a, b, n)| vec![name(names, a), name(names, b), n.to_string()])
                .collect();
            text += &match rows.is_empty() {
                true => "\nno image was taken for one of another class\n".to_string(),
                false => format!("\n{}\n", table(&["class", "taken for", "images"], &rows)),
            };
        }
        text
    }
}

/// The classes that have images.
fn class_table(scores: &Scores, names: &[String]) -> String {
    let share = |errors: usize, images: usize| percent(errors as f64 / images as f64, 1);
    let rows: Vec<_> = scores
        .classes
        .iter()
        .enumerate()
        .filter(|(_, c)| c.images > 0)
        .map(|(i, c)| {
            vec![
                name(names, i),
                c.images.to_string(),
                share(c.top1_errors, c.images),
                share(c.top5_errors, c.images),
            ]
        })
        .collect();
    table(&["class", "images", "top-1 error", "top-5 error"], &rows)
}

fn name(names: &[String], class: usize) -> String {
    let known = names.get(class).cloned();
    known.unwrap_or_else(|| format!("class {class}"))
}

/// Adds the probabilities of another network over the same images.
fn added(mut sum: Rows, more: Rows, path: &Path) -> Result<Rows> {
    if sum.images != more.images || sum.values[0].len() != more.values[0].len() {
        return Err(usage(format!(
            "--weights {}: {} probabilities of {} images cannot be averaged with {} of {} before: an ensemble needs equal classes",
            path.display(),
            more.values[0].len(),
            more.images.len(),
            sum.values[0].len(),
            sum.images.len()
        )));
    }
    for (sum, p) in sum.values[0].iter_mut().zip(&more.values[0]) {
        *sum += p;
    }
    Ok(sum)
}

/// Refuses data whose classes are not those the network was trained on: its labels would mean
/// something else.
fn same_classes(trained: &[String], found: &[String], model: &Model) -> Result<()> {
    if trained.is_empty() || trained == found {
        return Ok(());
    }
    let index = (0..trained.len().max(found.len()))
        .find(|&i| trained.get(i) != found.get(i))
        .unwrap_or(0);
    let shown = |names: &[String]| {
        names
            .get(index)
            .map_or("none".into(), |n| format!("\"{n}\""))
    };
    Err(data(format!(
        "the data's classes are not those of {}: class {index} is {}, was {} in training ({} and {} classes)",
        model.path.display(),
        shown(found),
        shown(trained),
        found.len(),
        trained.len()
    )))
}

/// Refuses the built-in set, taken where no other was named, for a network of other classes.
fn fits_built_in(model: &Model, found: &[String]) -> Result<()> {
    let classes = model.config.network.classes;
    if classes == found.len() || model.classes == found {
        return Ok(());
    }
    Err(data(format!(
        "{}: a network of {classes} classes, and the built-in set has {}: give --data",
        model.path.display(),
        found.len()
    )))
}

fn write_npy(path: &Path, values: &[f32], classes: usize) -> Result<()> {
    let shape = [(values.len() / classes) as u64, classes as u64];
    let write = || -> std::io::Result<()> {
        let file = std::io::BufWriter::new(std::fs::File::create(path)?);
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&shape)
            .writer(file)
            .begin_nd()?;
        writer.extend(values)?;
        writer.finish()
    };
    write().map_err(|e| data(format!("cannot write {}: {e}", path.display())))
}
