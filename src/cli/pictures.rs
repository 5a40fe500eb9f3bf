//! Images as the network sees them, for pictures.

use super::model::Model;
use crate::data::augment::views;
use crate::data::files::Files;
use crate::error::{Result, usage};
use crate::report::picture::Picture;
use std::path::Path;

/// The central crop of a file, as a picture.
pub fn centre(files: &Files, image: usize, model: &Model) -> Result<Picture> {
    let (side, crop) = (model.config.data.side, model.config.network.image);
    let stored = files.pixels(image)?;
    let mut rgb = vec![0; crop * crop * 3];
    views(1, side, crop, false)?[0].copy(&stored, side, crop, &mut rgb);
    Picture::from_rgb(crop, crop, rgb)
}

/// A file's own name, without its folders.
pub fn short_name(files: &Files, image: usize) -> String {
    let name = files.path(image).file_name().unwrap_or_default();
    crate::data::decode::escape(name)
}

/// The class an image is in, in folders by class, else [`short_name`].
pub fn shown_name(files: &Files, image: usize, model: &Model) -> String {
    let class = files.folder(image).filter(|f| model.classes.contains(f));
    class.unwrap_or_else(|| short_name(files, image))
}

/// Refuses a name for a picture that promises another format than the one that is written.
pub fn check_png(path: Option<&Path>) -> Result<()> {
    let png = |path: &&Path| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("png"))
    };
    match path.filter(|path| !png(path)) {
        None => Ok(()),
        Some(path) => Err(usage(format!(
            "--picture {}: pictures are PNG files: give a name that ends in .png",
            path.display()
        ))),
    }
}
