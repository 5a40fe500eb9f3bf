//! `alexnet-mp similar`.

use super::device_choice::DeviceFlags;
use super::inference::{Inference, Rows, Wanted};
use super::model::{Model, ModelFlags};
use super::pictures::{centre, check_png, short_name, shown_name};
use crate::config::nearest;
use crate::data::files::Files;
use crate::data::{Source, Statistics};
use crate::error::{Result, usage};
use crate::network::plan::Plan;
use crate::report::figure4::{Neighbours, neighbours};
use crate::report::messages::result;
use crate::report::tables::table;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Queries in a picture at most.
const PICTURED: usize = 24;

/// Find the images most alike to others, by the distance of their fc7 features
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp similar --weights runs/first --index photos/ cat.jpg
  alexnet-mp similar --weights runs/first --index photos/ 'new/*.jpg' --picture similar.png
  alexnet-mp similar --weights runs/first --index photos/ --layer conv5 --count 3 cat.jpg")]
pub struct Similar {
    /// Weight file or run folder
    #[arg(long, value_name = "FILE|RUN")]
    weights: PathBuf,
    /// Where to search: files, folders (with all below them) or patterns
    #[arg(long, value_name = "FOLDER", required = true)]
    index: Vec<PathBuf>,
    /// Images to find others for
    #[arg(value_name = "QUERY", required = true)]
    queries: Vec<PathBuf>,
    /// Images found for each query
    #[arg(long, value_name = "N", default_value_t = 6)]
    count: usize,
    /// Layer whose values are compared
    #[arg(long, value_name = "LAYER", default_value = "fc7")]
    layer: String,
    /// Write a picture of the queries and what was found (paper, Figure 4, right)
    #[arg(long, value_name = "PNG")]
    picture: Option<PathBuf>,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

/// An image of the index and its distance, nearest first.
type Found = Vec<(usize, f32)>;

impl Similar {
    pub fn run(self, quiet: bool) -> Result<()> {
        if self.count == 0 {
            return Err(usage("--count 0: expected 1 or more"));
        }
        check_png(self.picture.as_deref())?;
        let model = Model::open(&self.weights, &self.model)?;
        let statistics = model.statistics(None)?;
        let side = model.config.data.side;
        let index = Arc::new(Files::find(&self.index, side)?);
        let queries = Arc::new(Files::find(&self.queries, side)?);
        let features = |files: &Arc<Files>, title| {
            self.features(&model, files, statistics.clone(), title, quiet)
        };
        let indexed = features(&index, "reading the index")?;
        let asked = features(&queries, "reading the queries")?;
        let found = self.search(&index, &indexed, &queries, &asked);
        result(&as_table(&index, &queries, &asked, &found));
        match &self.picture {
            Some(path) => {
                let shown = self.shown(&model, &index, &queries, &asked, &found)?;
                let title = format!("Most similar images, {}", model.name());
                neighbours(&title, &self.layer, &shown)?.save(path)?;
                tracing::info!("picture written to {}", path.display());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn features(
        &self,
        model: &Model,
        files: &Arc<Files>,
        statistics: Arc<Statistics>,
        title: &str,
        quiet: bool,
    ) -> Result<Rows> {
        let slot = slot(&model.config.plan()?, &self.layer)?;
        let pass = Inference {
            model,
            statistics,
            source: files.clone(),
            views: 1,
            wanted: vec![Wanted::Slot(slot)],
            title,
            quiet,
        };
        pass.on(&self.devices)
    }

    /// What the picture shows: the first queries and what was found for them.
    fn shown(
        &self,
        model: &Model,
        index: &Files,
        queries: &Files,
        asked: &Rows,
        found: &[Found],
    ) -> Result<Vec<Neighbours>> {
        if found.len() > PICTURED {
            tracing::warn!(
                "the picture shows the first {PICTURED} of {} queries",
                found.len()
            );
        }
        let pictured = asked.images.iter().zip(found).take(PICTURED);
        pictured
            .map(|(&query, found)| {
                let nearest = found.iter().take(6).map(|&(image, distance)| {
                    let picture = centre(index, image, model)?;
                    Ok((picture, shown_name(index, image, model), distance))
                });
                Ok(Neighbours {
                    image: centre(queries, query, model)?,
                    name: short_name(queries, query),
                    nearest: nearest.collect::<Result<_>>()?,
                })
            })
            .collect()
    }

    /// The nearest images of every query; a file is not found for itself.
    fn search(&self, index: &Files, indexed: &Rows, queries: &Files, asked: &Rows) -> Vec<Found> {
        let length = indexed.values[0].len() / indexed.images.len();
        let same = |a: &Path, b: &Path| {
            a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
        };
        asked
            .images
            .par_iter()
            .zip(asked.values[0].par_chunks_exact(length))
            .map(|(&query, features)| {
                let rows = indexed.values[0].chunks_exact(length);
                let mut all: Found = indexed
                    .images
                    .iter()
                    .zip(rows)
                    .map(|(&image, row)| (image, distance(features, row)))
                    .collect();
                all.sort_by(|a, b| a.1.total_cmp(&b.1));
                all.retain({
                    let mut kept = 0;
                    move |&(image, _)| {
                        let take =
                            kept < self.count && !same(index.path(image), queries.path(query));
                        kept += usize::from(take);
                        take
                    }
                });
                all
            })
            .collect()
    }
}

/// The slot of a layer's values.
pub fn slot(plan: &Plan, layer: &str) -> Result<usize> {
    let found = plan.slots.iter().position(|slot| slot.name == layer);
    found.ok_or_else(|| {
        let names = || plan.slots.iter().skip(1).map(|slot| slot.name.as_str());
        let hint = match nearest(layer, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("layers: {}", names().collect::<Vec<_>>().join(", ")),
        };
        usage(format!("no layer \"{layer}\"; {hint}"))
    })
}

/// Euclidean distance.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    a.iter().zip(b).map(square).sum::<f64>().sqrt() as f32
}

fn as_table(index: &Files, queries: &Files, asked: &Rows, found: &[Found]) -> String {
    let mut rows = Vec::new();
    for (&query, found) in asked.images.iter().zip(found) {
        for (rank, &(image, distance)) in found.iter().enumerate() {
            rows.push(vec![
                if rank == 0 {
                    queries.name(query)
                } else {
                    String::new()
                },
                (rank + 1).to_string(),
                index.name(image),
                format!("{distance:.3}"),
            ]);
        }
    }
    table(&["query", "rank", "image", "distance"], &rows)
}
