//! Reading a shard's file: mapped into memory, or past the system's cache of file pages.

use super::format::{Entry, ShardFile};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// How shards are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// Mapped into memory: no copies, and what was read stays in memory while there is room.
    #[default]
    Mapped,
    /// Past the page cache: for sets much larger than the memory, of which nothing would be found
    /// in it again.
    Direct,
}

/// One open shard.
pub enum Reader {
    Mapped(memmap2::Mmap),
    Direct(File),
}

/// Direct reads begin and end at multiples of this, in the file and in memory.
const BLOCK: u64 = 4096;

thread_local! {
    static BLOCKS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Reader {
    /// Opens a shard and compares its length with the index.
    pub fn open(path: &Path, expected: &ShardFile, reads: Reads) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("cannot be opened: {e}");
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() || found.len() != expected.bytes {
            let (expected, found) = (expected.bytes, found.len());
            let what = if found < expected { "truncated: " } else { "" };
            return Err(format!(
                "{what}{found} bytes, the index says {expected}: prepare the set again"
            ));
        }
        match reads {
            Reads::Direct => Ok(Reader::Direct(direct(path).unwrap_or(file))),
            // SAFETY: finished shards are never written again by this program; who truncates one
            // during a run ends the run by SIGBUS, as with every mapped file.
            Reads::Mapped => unsafe { memmap2::Mmap::map(&file) }
                .map(Reader::Mapped)
                .map_err(|e| format!("cannot be mapped: {e}")),
        }
    }

    /// The bytes of an image where they are in memory already.
    pub fn in_memory(&self, entry: &Entry) -> Option<&[u8]> {
        match self {
            Reader::Mapped(map) => map
                .get(entry.offset as usize..)?
                .get(..entry.bytes as usize),
            Reader::Direct(_) => None,
        }
    }

    /// Hands the bytes of an image to `use_them`.
    pub fn with<T>(&self, entry: &Entry, use_them: impl FnOnce(&[u8]) -> T) -> std::io::Result<T> {
        match self {
            Reader::Mapped(_) => self
                .in_memory(entry)
                .map(use_them)
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()),
            Reader::Direct(file) => BLOCKS.with_borrow_mut(|blocks| {
                let start = entry.offset / BLOCK * BLOCK;
                let skip = (entry.offset - start) as usize;
                let need = skip + entry.bytes as usize;
                let whole = need.next_multiple_of(BLOCK as usize);
                blocks.resize(blocks.len().max(whole + BLOCK as usize), 0);
                let aligned = blocks.as_ptr().align_offset(BLOCK as usize);
                let blocks = &mut blocks[aligned..aligned + whole];
                read_at_least(file, blocks, start, need)?;
                Ok(use_them(&blocks[skip..need]))
            }),
        }
    }

    /// Lets the system begin to read a range of the file.
    pub fn will_need(&self, offset: u64, bytes: u64) {
        if let Reader::Mapped(map) = self {
            // Advice only: a system without it reads later.
            let _ = map.advise_range(memmap2::Advice::WillNeed, offset as usize, bytes as usize);
        }
    }
}

/// Opens past the page cache, which not every file system allows.
fn direct(path: &Path) -> Option<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(target_os = "linux")]
    options.custom_flags(libc::O_DIRECT);
    let file = options.open(path).ok()?;
    // Some accept the flag and refuse the read.
    let mut probe = vec![0; 2 * BLOCK as usize];
    let aligned = probe.as_ptr().align_offset(BLOCK as usize);
    file.read_at(&mut probe[aligned..aligned + BLOCK as usize], 0)
        .ok()?;
    Some(file)
}

/// Fills `into`, the end of the file permitting, but at least `need` bytes.
fn read_at_least(file: &File, into: &mut [u8], start: u64, need: usize) -> std::io::Result<()> {
    let mut done = 0;
    while done < need {
        match file.read_at(&mut into[done..], start + done as u64) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
