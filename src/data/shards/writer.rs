//! Writing one shard: under a name of its own until it is whole.

use super::format::{DATA_START, Entry, LeftOut, Tail};
use super::{Store, shown};
use crate::data::statistics::Sums;
use crate::error::{Error, Result, data};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// A shard being written. Dropped unfinished, it leaves a file that nobody reads.
pub struct ShardWriter {
    file: BufWriter<File>,
    path: PathBuf,
    unfinished: PathBuf,
    tail: Tail,
}

impl ShardWriter {
    /// Begins the shard `path`; `sums` where statistics of its images are wanted.
    ///
    /// Errors: `Data` naming the file.
    pub fn create(path: &Path, store: Store, side: usize, sums: bool) -> Result<Self> {
        let unfinished = path.with_extension("shard.tmp");
        let create = || -> std::io::Result<_> {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
            file.write_all(&[0; DATA_START as usize])?;
            Ok(file)
        };
        Ok(ShardWriter {
            file: create().map_err(|e| unwritable(path, &e))?,
            path: path.to_owned(),
            unfinished,
            tail: Tail {
                store,
                side,
                offset: DATA_START,
                entries: Vec::new(),
                names: Vec::new(),
                sums: sums.then(|| Sums::new(side)),
                left_out: Vec::new(),
            },
        })
    }

    /// Appends image number `image` of the source: its pixels, and what is stored of them.
    ///
    /// Errors: `Data` where the disk takes no more.
    pub fn push(
        &mut self,
        image: u32,
        label: u32,
        file_name: &str,
        pixels: &[u8],
        stored: &[u8],
    ) -> Result<()> {
        self.file
            .write_all(stored)
            .map_err(|e| unwritable(&self.path, &e))?;
        let tail = &mut self.tail;
        tail.names.extend(file_name.as_bytes());
        let entry = Entry {
            checksum: xxh3_64(stored),
            offset: tail.offset,
            bytes: stored.len() as u32,
            label,
            place: image,
            name_end: tail.names.len() as u32,
        };
        tail.entries.push(entry.pack());
        tail.offset += stored.len() as u64;
        if let Some(sums) = &mut tail.sums {
            sums.add(pixels);
        }
        Ok(())
    }

    /// Notes an image that cannot be read.
    pub fn leave_out(&mut self, image: u32, name: String, reason: String) {
        self.tail.left_out.push(LeftOut {
            image,
            name,
            reason,
        });
    }

    /// Completes the file and gives it its name.
    ///
    /// Errors: `Data` where the disk takes no more.
    pub fn finish(mut self) -> Result<()> {
        let (header, tail, _) = self.tail.to_bytes();
        let mut complete = || -> std::io::Result<()> {
            self.file.write_all(&tail)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            std::fs::rename(&self.unfinished, &self.path)
        };
        complete().map_err(|e| unwritable(&self.path, &e))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    data(format!("{}: cannot be written: {error}", shown(path)))
}
