//! Images in a tar archive, of which the training set's holds one archive per class. Only headers
//! are read at first; an image's bytes are read where they lie, when they are needed.

use super::{Truth, labels, shown, shown_name};
use crate::data::decode::LARGEST_FILE;
use crate::data::folder::is_image;
use crate::data::images::FileSet;
use crate::error::{Result, data};
use rayon::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A regular file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path there, as it is; nothing is ever written under it.
    pub path: Vec<u8>,
    /// Where its bytes begin in the outermost file, and how many they are.
    pub offset: u64,
    pub bytes: u64,
}

impl Member {
    /// The last part of its path.
    fn file_name(&self) -> &[u8] {
        self.path.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The part before it: the folder it is in.
    fn folder(&self) -> Option<&[u8]> {
        self.path.rsplit(|&b| b == b'/').nth(1)
    }
}

/// The regular files of a tar archive of `length` bytes that begins at byte `start` of `file`;
/// links, folders and everything else are left out.
///
/// An error is the reason, with the place.
pub fn members<F: ReadAt + ?Sized>(
    file: &F,
    start: u64,
    length: u64,
) -> Result<Vec<Member>, String> {
    let section = Section {
        file,
        start,
        length,
        at: 0,
    };
    let mut archive = tar::Archive::new(section);
    let entries = archive
        .entries_with_seek()
        .map_err(|e| format!("not a tar archive: {e}"))?;
    let (mut members, mut end) = (Vec::new(), 0);
    for entry in entries {
        let entry = entry.map_err(|e| format!("broken after byte {}: {e}", start + end))?;
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        let path = entry.path_bytes().into_owned();
        let last = offset.checked_add(bytes).filter(|&last| last <= length);
        let Some(last) = last else {
            let name = shown_name(&path);
            return Err(format!(
                "truncated: {name} at byte {} is cut off",
                start + offset
            ));
        };
        end = last.next_multiple_of(512);
        let kind = entry.header().entry_type();
        if kind.is_file() || kind.is_contiguous() {
            members.push(Member {
                path,
                offset: start + offset,
                bytes,
            });
        }
    }
    // An archive that was cut between two files can be told by its missing end mark only.
    if end + 512 > length {
        return Err(format!("truncated: no end mark at byte {}", start + end));
    }
    Ok(members)
}

/// What can be read at any place: a file, or bytes.
pub trait ReadAt: Sync {
    /// As `FileExt::read_at`.
    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|o| self.get(o..));
        let mut rest = rest.unwrap_or_default();
        rest.read(into)
    }
}

/// A range of a file, read from its beginning to its end.
struct Section<'a, F: ?Sized> {
    file: &'a F,
    start: u64,
    length: u64,
    at: u64,
}

impl<F: ReadAt + ?Sized> Read for Section<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.length.saturating_sub(self.at).min(into.len() as u64);
        let read = self
            .file
            .read_at(&mut into[..rest as usize], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<F: ?Sized> Seek for Section<'_, F> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        // Beyond the end nothing is read; so far that sums cannot overflow.
        let at = at.filter(|at| *at <= i64::MAX as u64 / 2);
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// One image.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u32,
    label: u32,
    /// Where its name ends among the names.
    name_end: usize,
}

/// The images of one half.
pub struct Archive {
    /// Where it is, escaped for messages.
    path: String,
    file: File,
    classes: Vec<String>,
    places: Vec<Place>,
    /// File names one after another.
    names: Vec<u8>,
}

impl Archive {
    /// The training set: an archive per class, named for it, or folders named so.
    ///
    /// Errors: `Data` naming the archive, and the place where it is broken.
    pub fn train(path: &Path) -> Result<(Self, Vec<String>)> {
        let (file, outer) = open(path)?;
        let nested = |member: &Member| -> Result<Vec<(Vec<u8>, Member)>, String> {
            let name = member.file_name();
            match (name.strip_suffix(b".tar"), member.folder()) {
                (Some(class), _) => {
                    let inner = members(&file, member.offset, member.bytes)
                        .map_err(|e| format!("{}: {e}", shown_name(&member.path)))?;
                    Ok(inner.into_iter().map(|m| (class.to_vec(), m)).collect())
                }
                (None, Some(class)) => Ok(vec![(class.to_vec(), member.clone())]),
                (None, None) => Ok(vec![]),
            }
        };
        let found: Result<Vec<_>, String> = outer.par_iter().map(nested).collect();
        let found = found.map_err(|e| data(format!("{}: {e}", shown(path))))?;
        let mut images: Vec<(Vec<u8>, Member)> = found.into_iter().flatten().collect();
        drop_others(path, &mut images, |(_, member)| member);
        let mut classes: Vec<Vec<u8>> = images.iter().map(|(class, _)| class.clone()).collect();
        classes.sort_unstable();
        classes.dedup();
        let label = |class: &Vec<u8>| classes.binary_search(class).unwrap_or_default() as u32;
        let labelled = images
            .into_iter()
            .map(|(class, m)| (label(&class), m))
            .collect();
        let names: Vec<String> = classes.iter().map(|class| shown_name(class)).collect();
        Ok((Archive::new(path, file, labelled, names.clone()), names))
    }

    /// The validation set: numbered images without classes.
    ///
    /// Errors: `Data` naming the archive, and the place where it is broken; an image whose class is
    /// unknown.
    pub fn val(path: &Path, classes: &[String], truth: &Truth) -> Result<Self> {
        let (file, mut images) = open(path)?;
        drop_others(path, &mut images, |member| member);
        let labels = labels(images.iter().map(Member::file_name), classes, truth, path)?;
        let labelled = labels.into_iter().zip(images).collect();
        Ok(Archive::new(path, file, labelled, classes.to_vec()))
    }

    fn new(path: &Path, file: File, mut images: Vec<(u32, Member)>, classes: Vec<String>) -> Self {
        images.sort_by(|(a, m), (b, n)| (a, m.file_name()).cmp(&(b, n.file_name())));
        let (mut places, mut names) = (Vec::with_capacity(images.len()), Vec::new());
        for (label, member) in images {
            names.extend(member.file_name());
            places.push(Place {
                offset: member.offset,
                // Larger ones are refused when they are read.
                bytes: u32::try_from(member.bytes).unwrap_or(u32::MAX),
                label,
                name_end: names.len(),
            });
        }
        Archive {
            path: shown(path),
            file,
            classes,
            places,
            names,
        }
    }
}

fn open(path: &Path) -> Result<(File, Vec<Member>)> {
    let read = || -> Result<_, String> {
        let failed = |e: std::io::Error| format!("cannot be read: {e}");
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err("not a regular file".into());
        }
        let members = members(&file, 0, found.len())?;
        Ok((file, members))
    };
    read().map_err(|e| data(format!("{}: {e}", shown(path))))
}

/// Drops what is no image by its name, with a warning.
fn drop_others<T>(path: &Path, images: &mut Vec<T>, member: impl Fn(&T) -> &Member) {
    let before = images.len();
    images.retain(|m| is_image(std::ffi::OsStr::from_bytes(member(m).file_name())));
    let ignored = before - images.len();
    if ignored > 0 {
        let path = shown(path);
        tracing::warn!("{path}: {ignored} files ignored that are not .jpg, .jpeg or .png");
    }
}

impl FileSet for Archive {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn label(&self, image: usize) -> u32 {
        self.places[image].label
    }

    fn name(&self, image: usize) -> String {
        let start = image.checked_sub(1).map_or(0, |i| self.places[i].name_end);
        let place = self.places[image];
        let name = shown_name(&self.names[start..place.name_end]);
        format!("{}/{name}", self.classes[place.label as usize])
    }

    fn place(&self, image: usize) -> String {
        format!("{}: {}", self.path, self.name(image))
    }

    fn bytes(&self, image: usize) -> Result<Vec<u8>, String> {
        let place = self.places[image];
        if u64::from(place.bytes) > LARGEST_FILE {
            return Err(format!("{} bytes are too many for an image", place.bytes));
        }
        let mut bytes = vec![0; place.bytes as usize];
        self.file
            .read_exact_at(&mut bytes, place.offset)
            .map_err(|e| format!("cannot be read at byte {}: {e}", place.offset))?;
        Ok(bytes)
    }
}
