//! `alexnet-mp predict`.

use super::device_choice::DeviceFlags;
use super::inference::{Inference, Rows, Wanted};
use super::model::{Model, ModelFlags};
use super::pictures::{centre, check_png, short_name};
use crate::data::Source;
use crate::data::files::Files;
use crate::error::{Result, usage};
use crate::report::figure4::{Prediction, predictions};
use crate::report::format::percent;
use crate::report::messages::result;
use crate::report::scores::best;
use crate::report::tables::table;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Classes shown of an image.
const SHOWN: usize = 5;
/// Images in a picture at most.
const PICTURED: usize = 48;

/// Name the five most probable classes of images
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp predict --weights runs/first cat.jpg dog.png
  alexnet-mp predict --weights runs/first photos/ --picture predictions.png
  alexnet-mp predict --weights runs/first 'photos/*.jpg' --views 10 --json")]
pub struct Predict {
    /// Weight file or run folder
    #[arg(long, value_name = "FILE|RUN")]
    weights: PathBuf,
    /// Files, folders (with all below them) or patterns
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Crops of each image whose probabilities are averaged: 1 or 10
    #[arg(long, value_name = "N", default_value_t = 1)]
    views: usize,
    /// Write a picture of the images and their classes (paper, Figure 4)
    #[arg(long, value_name = "PNG")]
    picture: Option<PathBuf>,
    /// Print a JSON object for each image
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

impl Predict {
    pub fn run(self, quiet: bool) -> Result<()> {
        if self.views != 1 && self.views != 10 {
            return Err(usage(format!("--views {}: expected 1 or 10", self.views)));
        }
        check_png(self.picture.as_deref())?;
        let model = Model::open(&self.weights, &self.model)?;
        let files = Arc::new(Files::find(&self.images, model.config.data.side)?);
        let pass = Inference {
            model: &model,
            statistics: model.statistics(None)?,
            source: files.clone(),
            views: self.views,
            wanted: vec![Wanted::Probabilities],
            title: "predicting",
            quiet,
        };
        let rows = pass.on(&self.devices)?;
        let found = top_classes(&model, &rows);
        if self.json {
            print_json(&files, &rows, &found);
        } else {
            result(&as_table(&files, &rows, &found));
        }
        match &self.picture {
            Some(path) => draw(path, &model, &files, &rows, &found),
            None => Ok(()),
        }
    }
}

/// Most probable classes of each row, best first.
fn top_classes(model: &Model, rows: &Rows) -> Vec<Vec<(String, f32)>> {
    let classes = model.config.network.classes;
    rows.values[0]
        .chunks_exact(classes)
        .map(|row| {
            let best = best(row, SHOWN).into_iter();
            best.map(|class| (model.class(class), row[class])).collect()
        })
        .collect()
}

fn as_table(files: &Files, rows: &Rows, found: &[Vec<(String, f32)>]) -> String {
    let cells: Vec<Vec<String>> = rows
        .images
        .iter()
        .zip(found)
        .map(|(&image, classes)| {
            let cell = |(name, p): &(String, f32)| format!("{name} {}", percent(f64::from(*p), 1));
            std::iter::once(files.name(image))
                .chain(classes.iter().map(cell))
                .collect()
        })
        .collect();
    let ranks = ["1st", "2nd", "3rd", "4th", "5th"];
    let shown = found.first().map_or(0, Vec::len);
    let header: Vec<&str> = std::iter::once("image")
        .chain(ranks.into_iter().take(shown))
        .collect();
    table(&header, &cells)
}

fn print_json(files: &Files, rows: &Rows, found: &[Vec<(String, f32)>]) {
    for (&image, classes) in rows.images.iter().zip(found) {
        let classes: Vec<_> = classes
            .iter()
            .map(|(name, p)| json!({ "class": name, "probability": p }))
            .collect();
        result(&json!({ "image": files.name(image), "classes": classes }).to_string());
    }
}

fn draw(
    path: &Path,
    model: &Model,
    files: &Files,
    rows: &Rows,
    found: &[Vec<(String, f32)>],
) -> Result<()> {
    let shown: Vec<Prediction> = rows
        .images
        .iter()
        .zip(found)
        .take(PICTURED)
        .map(|(&image, classes)| {
            // In folders by class the folder is the truth.
            let truth = files.folder(image).filter(|f| model.classes.contains(f));
            Ok(Prediction {
                image: centre(files, image, model)?,
                name: short_name(files, image),
                truth,
                classes: classes.clone(),
            })
        })
        .collect::<Result<_>>()?;
    if rows.images.len() > PICTURED {
        tracing::warn!(
            "the picture shows the first {PICTURED} of {} images",
            rows.images.len()
        );
    }
    let title = format!("Most probable classes, {}", model.name());
    predictions(&title, &shown)?.save(path)?;
    tracing::info!("picture written to {}", path.display());
    Ok(())
}
