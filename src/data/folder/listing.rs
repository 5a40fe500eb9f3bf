//! The files of one half of an image folder, by class.

use crate::data::decode::{escape, read_file};
use crate::data::images::FileSet;
use crate::error::{Result, data};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// One class's folder.
pub struct Class {
    /// Escaped for messages, and unique.
    pub name: String,
    pub label: u32,
    folder: PathBuf,
    /// Index after its last image.
    end: usize,
}

/// File names in byte order of class and name; nothing is opened.
pub struct Listing {
    classes: Vec<Class>,
    files: Vec<Box<OsStr>>,
}

impl Listing {
    /// Lists `root/CLASS/*`.
    ///
    /// Errors: `Data` where `root` cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut names = entries(root)
            .map_err(|e| data(format!("{}: cannot be read: {e}", escape(root.as_os_str()))))?;
        // Follows links; a dangling one, or a loop of them, is no folder.
        names.retain(|name| root.join(name).is_dir());
        let mut listing = Listing {
            classes: Vec::with_capacity(names.len()),
            files: Vec::new(),
        };
        let mut ignored = 0;
        for (label, name) in names.iter().enumerate() {
            let folder = root.join(name);
            let found = entries(&folder).unwrap_or_else(|e| {
                let folder = escape(folder.as_os_str());
                tracing::warn!("skipping the class folder {folder}: {e}");
                Vec::new()
            });
            let files = listing.files.len();
            ignored += found.len();
            let images = found.into_iter().filter(|name| is_image(name));
            listing
                .files
                .extend(images.map(OsString::into_boxed_os_str));
            ignored -= listing.files.len() - files;
            listing.classes.push(Class {
                name: escape(name),
                label: label as u32,
                folder,
                end: listing.files.len(),
            });
        }
        if ignored > 0 {
            let root = escape(root.as_os_str());
            tracing::warn!("{root}: {ignored} entries ignored that are not .jpg, .jpeg or .png");
        }
        Ok(listing)
    }

    /// Takes the labels of equally named classes of `train`.
    ///
    /// Errors: `Data` where this has a class with images that `train` has not.
    pub fn matching(mut self, train: &Listing, root: &Path) -> Result<Self> {
        let labels: HashMap<&str, u32> = train
            .classes
            .iter()
            .map(|c| (c.name.as_str(), c.label))
            .collect();
        let mut unknown = Vec::new();
        let mut start = 0;
        for class in &mut self.classes {
            match labels.get(class.name.as_str()) {
                Some(&label) => class.label = label,
                None if class.end > start => unknown.push(class.name.clone()),
                None => {}
            }
            start = class.end;
        }
        match unknown.first() {
            None => Ok(self),
            Some(first) => Err(data(format!(
                "{}: {} of {} classes are not among the {} of train, the first is {first}",
                escape(root.as_os_str()),
                unknown.len(),
                self.classes.len(),
                train.classes.len()
            ))),
        }
    }

    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Names of the classes without images.
    pub fn empty_classes(&self) -> impl Iterator<Item = &str> {
        let start = |i: usize| if i == 0 { 0 } else { self.classes[i - 1].end };
        let classes = self.classes.iter().enumerate();
        classes
            .filter(move |(i, c)| c.end == start(*i))
            .map(|(_, c)| c.name.as_str())
    }

    fn class_of(&self, image: usize) -> &Class {
        &self.classes[self.classes.partition_point(|class| class.end <= image)]
    }

    pub fn path(&self, image: usize) -> PathBuf {
        self.class_of(image).folder.join(&*self.files[image])
    }
}

impl FileSet for Listing {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, image: usize) -> u32 {
        self.class_of(image).label
    }

    fn name(&self, image: usize) -> String {
        format!(
            "{}/{}",
            self.class_of(image).name,
            escape(&self.files[image])
        )
    }

    fn place(&self, image: usize) -> String {
        escape(self.path(image).as_os_str())
    }

    fn bytes(&self, image: usize) -> Result<Vec<u8>, String> {
        read_file(&self.path(image))
    }
}

/// Names in a folder in byte order, hidden ones left out.
pub(crate) fn entries(folder: &Path) -> std::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
    Ok(names)
}

pub(crate) fn is_image(name: &OsStr) -> bool {
    Path::new(name).extension().is_some_and(|end| {
        ["jpg", "jpeg", "png"]
            .iter()
            .any(|known| end.eq_ignore_ascii_case(known))
    })
}
