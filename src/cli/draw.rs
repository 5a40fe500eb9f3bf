//! `alexnet-mp draw`.

use super::device_choice::DeviceFlags;
use super::inference::{Inference, Wanted};
use super::model::{Model, ModelFlags};
use super::pictures::short_name;
use super::similar::slot;
use crate::data::files::Files;
use crate::error::{Result, checkpoint, usage};
use crate::network::op::Shape;
use crate::report::activations::{Maps, activations};
use crate::report::colour::colour_specialisation;
use crate::report::curves::{Run, learning_curves};
use crate::report::kernels::kernels;
use crate::report::messages::result;
use crate::report::metrics;
use crate::report::picture::Picture;
use crate::report::tables::table;
use crate::train::METRICS;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Draw the kernels of conv1, learning curves, and what the layers answer to an image
///
/// Prints how much each column's kernels see colour: the share of their energy off the grey
/// axis, 0 for brightness only, 1 for colour only, 0.67 for an untrained network.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp draw runs/first                            conv1.png and curves.png, into the run
  alexnet-mp draw runs/relu runs/tanh --out pictures/   the curves of both in one picture
  alexnet-mp draw runs/first --image cat.jpg --layers conv1,conv5")]
pub struct Draw {
    /// Run folders, or weight files
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Where the pictures go [default: the run's folder; of several, here]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Draw what every layer answers to this image
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Layers drawn for --image [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "image")]
    layers: Vec<String>,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

impl Draw {
    pub fn run(self, quiet: bool) -> Result<()> {
        let out = self.folder();
        std::fs::create_dir_all(&out)
            .map_err(|e| usage(format!("--out {}: cannot be created: {e}", out.display())))?;
        let models = self
            .runs
            .iter()
            .map(|run| Model::open(run, &self.model))
            .collect::<Result<Vec<_>>>()?;
        let mut written = Vec::new();
        let mut save = |name: String, picture: Picture| -> Result<()> {
            let path = out.join(name);
            picture.save(&path)?;
            written.push(path);
            Ok(())
        };
        if let Some(curves) = self.curves()? {
            save("curves.png".into(), curves)?;
        }
        let mut colours = Vec::new();
        for model in &models {
            let suffix = match models.len() {
                1 => String::new(),
                _ => format!("-{}", model.name()),
            };
            save(format!("conv1{suffix}.png"), first_kernels(model)?)?;
            colours.extend(colour_rows(model)?);
            if let Some(image) = &self.image {
                for (layer, picture) in self.answers(model, image, quiet)? {
                    save(format!("activations-{layer}{suffix}.png"), picture)?;
                }
            }
        }
        result(&table(
            &["run", "column", "colour index", "mean of kernels"],
            &colours,
        ));
        for path in &written {
            result(&path.display().to_string());
        }
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        match (&self.out, &self.runs[..]) {
            (Some(out), _) => out.clone(),
            (None, [run]) if run.is_dir() => run.clone(),
            _ => PathBuf::from("."),
        }
    }

    /// The learning curves of all runs that have metrics, in one picture.
    fn curves(&self) -> Result<Option<Picture>> {
        let mut runs = Vec::new();
        for run in self.runs.iter().filter(|run| run.join(METRICS).is_file()) {
            let name = run.file_name().map_or_else(
                || run.display().to_string(),
                |n| n.to_string_lossy().into_owned(),
            );
            let records = metrics::read(&run.join(METRICS))?;
            runs.push(Run { name, records });
        }
        if runs.is_empty() {
            return Ok(None);
        }
        learning_curves("Learning curves", &runs).map(Some)
    }

    /// A picture per layer of its values after activation.
    fn answers(&self, model: &Model, image: &Path, quiet: bool) -> Result<Vec<(String, Picture)>> {
        let plan = model.config.plan()?;
        let slots: Vec<usize> = if self.layers.is_empty() {
            let own = |name: &str| model.config.layers.contains_key(name);
            (0..plan.slots.len())
                .filter(|&s| own(&plan.slots[s].name))
                .collect()
        } else {
            let named = self.layers.iter().map(|layer| slot(&plan, layer));
            named.collect::<Result<_>>()?
        };
        let files = Files::find(&[image.to_path_buf()], model.config.data.side)?;
        let name = short_name(&files, 0);
        let pass = Inference {
            model,
            statistics: model.statistics(None)?,
            source: Arc::new(files),
            views: 1,
            wanted: slots.iter().map(|&s| Wanted::Slot(s)).collect(),
            title: "computing",
            quiet,
        };
        let rows = pass.on(&self.devices)?;
        let mut pictures = Vec::new();
        for (&slot, values) in slots.iter().zip(&rows.values) {
            let slot = &plan.slots[slot];
            let title = format!("{} for {name}, {}", slot.name, model.name());
            let columns = columns(slot.shape, slot.columns, values);
            pictures.push((slot.name.clone(), activations(&title, &columns)?));
        }
        Ok(pictures)
    }
}

/// The first image's maps, column by column.
fn columns(shape: Shape, columns: usize, values: &[f32]) -> Vec<Maps<'_>> {
    values
        .chunks_exact(shape.len())
        .take(columns)
        .map(|values| Maps {
            maps: shape.maps,
            height: shape.height,
            width: shape.width,
            values,
        })
        .collect()
}

fn conv1(model: &Model) -> Result<&crate::network::params::Tensor> {
    let first = &model.parameters.0.iter().find(|t| t.name == "conv1.weight");
    first.ok_or_else(|| {
        checkpoint(format!(
            "{}: tensor conv1.weight is missing",
            model.path.display()
        ))
    })
}

fn first_kernels(model: &Model) -> Result<Picture> {
    let weights = conv1(model)?;
    let title = format!("conv1 kernels, {}", model.name());
    let columns = model.config.network.columns;
    kernels(&title, &weights.values, weights.shape[0], columns)
}

fn colour_rows(model: &Model) -> Result<Vec<Vec<String>>> {
    let weights = conv1(model)?;
    let columns = model.config.network.columns;
    let found = colour_specialisation(&weights.values, weights.shape[0], columns)?;
    let row = |(column, colour): (usize, &crate::report::colour::ColumnColour)| {
        vec![
            model.name(),
            column.to_string(),
            format!("{:.3}", colour.energy_share),
            format!("{:.3}", colour.mean),
        ]
    };
    Ok(found.iter().enumerate().map(row).collect())
}
