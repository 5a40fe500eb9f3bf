//! The bytes of shard and index files, little-endian throughout; `docs/data.md` draws them.
//!
//! Everything is checked against the length of the file before memory for it is asked for.

use super::Store;
use crate::data::statistics::Sums;
use serde::{Deserialize, Serialize};
use std::io::Read;
use xxhash_rust::xxh3::xxh3_64;

/// Where the first image of a shard begins: on a page, as direct reads need it.
pub const DATA_START: u64 = 4096;

const SHARD_MAGIC: u64 = u64::from_le_bytes(*b"AMPSHARD");
const INDEX_MAGIC: u64 = u64::from_le_bytes(*b"AMPINDEX");
const VERSION: u32 = 1;

/// Words of either header; the last one is the checksum of those before.
const HEADER_WORDS: usize = 9;
const HEADER_BYTES: usize = HEADER_WORDS * 8;

/// Sides beyond this are no images of ours.
const LARGEST_SIDE: u32 = 8192;

/// One stored image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// XXH3 of the stored bytes.
    pub checksum: u64,
    /// Where they begin in the shard's file, and how many they are.
    pub offset: u64,
    pub bytes: u32,
    pub label: u32,
    /// In an index the number of the shard, in a shard the image's number in the source.
    pub place: u32,
    /// Where the file's name ends among the names; it begins where the one before ends.
    pub name_end: u32,
}

pub const ENTRY_BYTES: u64 = 32;

impl Entry {
    pub fn pack(self) -> [u64; 4] {
        [
            self.checksum,
            self.offset,
            pair(self.bytes, self.label),
            pair(self.place, self.name_end),
        ]
        .map(u64::to_le)
    }

    pub fn unpack(words: [u64; 4]) -> Self {
        let [checksum, offset, third, fourth] = words.map(u64::from_le);
        let ((bytes, label), (place, name_end)) = (halves(third), halves(fourth));
        Entry {
            checksum,
            offset,
            bytes,
            label,
            place,
            name_end,
        }
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// An image of the source that a shard does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub image: u32,
    pub name: String,
    pub reason: String,
}

/// What a shard says of itself after its images.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    pub store: Store,
    pub side: usize,
    /// Where the images end and this begins.
    pub offset: u64,
    pub entries: Vec<[u64; 4]>,
    /// File names one after another.
    pub names: Vec<u8>,
    /// Of the pixels as they were before compression; only in shards of a training set.
    pub sums: Option<Sums>,
    pub left_out: Vec<LeftOut>,
}

impl Tail {
    /// The header, to stand at the start of the file, the tail, and the tail's checksum.
    pub fn to_bytes(&self) -> (Vec<u8>, Vec<u8>, u64) {
        let left_out = serde_json::to_vec(&self.left_out).unwrap_or_default();
        let mut tail: Vec<u8> = bytemuck::cast_slice(&self.entries).to_vec();
        if let Some(sums) = &self.sums {
            tail.extend(sums.to_bytes());
        }
        tail.extend(&self.names);
        tail.extend(&left_out);
        let checksum = xxh3_64(&tail);
        let header = header([
            SHARD_MAGIC,
            pair(VERSION, self.store.code()),
            pair(self.side as u32, self.entries.len() as u32),
            self.offset,
            pair(self.names.len() as u32, left_out.len() as u32),
            u64::from(self.sums.is_some()),
            checksum,
            0,
        ]);
        (header, tail, checksum)
    }

    /// Reads a shard of `length` bytes; `seek` brings the reader to an offset.
    pub fn read<R: Read>(
        file: &mut R,
        length: u64,
        seek: impl FnOnce(&mut R, u64) -> std::io::Result<()>,
    ) -> Result<(Self, u64), String> {
        let words = read_header(file, SHARD_MAGIC, "shard")?;
        let (_, store) = halves(words[1]);
        let (side, images) = halves(words[2]);
        let offset = words[3];
        let (names, left_out) = halves(words[4]);
        let has_sums = words[5] == 1;
        let (store, side) = (Store::from_code(store)?, checked_side(side)?);
        let sums = if has_sums {
            Sums::bytes(side) as u64
        } else {
            0
        };
        let expected = [
            u64::from(images) * ENTRY_BYTES,
            sums,
            names.into(),
            left_out.into(),
        ]
        .into_iter()
        .try_fold(offset, u64::checked_add);
        check_length(length, expected)?;
        let mut tail = vec![0; (length - offset) as usize];
        seek(file, offset)
            .and_then(|()| file.read_exact(&mut tail))
            .map_err(|e| format!("cannot be read at byte {offset}: {e}"))?;
        if xxh3_64(&tail) != words[6] {
            return Err(format!("checksum error in the tail at byte {offset}"));
        }
        let mut rest = &tail[..];
        let mut take = |n: u64| rest.split_off(..n as usize).unwrap_or_default();
        let entries = words_of(take(u64::from(images) * ENTRY_BYTES));
        let sums = take(sums);
        let tail = Tail {
            store,
            side,
            offset,
            sums: has_sums.then(|| Sums::from_bytes(side, sums)).flatten(),
            names: take(names.into()).to_vec(),
            left_out: serde_json::from_slice(take(left_out.into()))
                .map_err(|e| format!("the list of what was left out is broken: {e}"))?,
            entries,
        };
        check_entries(&tail.entries, tail.names.len(), |_| {
            Ok((DATA_START, offset))
        })?;
        Ok((tail, words[6]))
    }
}

/// One shard's file, as an index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardFile {
    /// Length of the file.
    pub bytes: u64,
    /// Where its images end.
    pub data_end: u64,
    /// Checksum of its tail.
    pub checksum: u64,
}

/// All images of one half of a set, in byte order of class and file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub store: Store,
    pub side: usize,
    pub shards: Vec<ShardFile>,
    pub entries: Vec<[u64; 4]>,
    pub names: Vec<u8>,
}

impl Index {
    pub fn to_bytes(&self) -> Vec<u8> {
        let table: Vec<[u64; 3]> = self
            .shards
            .iter()
            .map(|s| [s.bytes, s.data_end, s.checksum].map(u64::to_le))
            .collect();
        let mut body: Vec<u8> = bytemuck::cast_slice(&table).to_vec();
        body.extend(bytemuck::cast_slice::<_, u8>(&self.entries));
        body.extend(&self.names);
        let mut bytes = header([
            INDEX_MAGIC,
            pair(VERSION, self.store.code()),
            pair(self.side as u32, self.shards.len() as u32),
            self.entries.len() as u64,
            self.names.len() as u64,
            0,
            xxh3_64(&body),
            0,
        ]);
        bytes.extend(body);
        bytes
    }

    /// Reads an index file of `length` bytes whose labels are below `classes`.
    pub fn read(file: &mut impl Read, length: u64, classes: usize) -> Result<Self, String> {
        let words = read_header(file, INDEX_MAGIC, "index")?;
        let (_, store) = halves(words[1]);
        let (side, shards) = halves(words[2]);
        let (images, names) = (words[3], words[4]);
        let (store, side) = (Store::from_code(store)?, checked_side(side)?);
        let expected = images
            .checked_mul(ENTRY_BYTES)
            .and_then(|n| n.checked_add(u64::from(shards) * 24))
            .and_then(|n| n.checked_add(names))
            .and_then(|n| n.checked_add(HEADER_BYTES as u64));
        check_length(length, expected)?;
        let mut table = vec![[0u64; 3]; shards as usize];
        let mut entries = vec![[0u64; 4]; images as usize];
        let mut name_bytes = vec![0; names as usize];
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in [
            bytemuck::cast_slice_mut(&mut table),
            bytemuck::cast_slice_mut(&mut entries),
            &mut name_bytes[..],
        ] {
            file.read_exact(part)
                .map_err(|e| format!("cannot be read: {e}"))?;
            hash.update(part);
        }
        if hash.digest() != words[6] {
            return Err(format!("checksum error after byte {HEADER_BYTES}"));
        }
        let shards: Vec<ShardFile> = table
            .into_iter()
            .map(|words| {
                let [bytes, data_end, checksum] = words.map(u64::from_le);
                ShardFile {
                    bytes,
                    data_end,
                    checksum,
                }
            })
            .collect();
        check_entries(&entries, name_bytes.len(), |entry| {
            if entry.label as usize >= classes {
                return Err(format!("label {} with {classes} classes", entry.label));
            }
            let shard = shards
                .get(entry.place as usize)
                .ok_or_else(|| format!("shard {} of {}", entry.place, shards.len()))?;
            Ok((DATA_START, shard.data_end.min(shard.bytes)))
        })?;
        if store == Store::Raw {
            check_raw_sizes(&entries, side)?;
        }
        Ok(Index {
            store,
            side,
            shards,
            entries,
            names: name_bytes,
        })
    }

    pub fn entry(&self, image: usize) -> Entry {
        Entry::unpack(self.entries[image])
    }

    /// An image's file name.
    pub fn name(&self, image: usize) -> &str {
        let start = image.checked_sub(1).map_or(0, |i| self.entry(i).name_end);
        let name = &self.names[start as usize..self.entry(image).name_end as usize];
        std::str::from_utf8(name).unwrap_or("?")
    }
}

fn check_raw_sizes(entries: &[[u64; 4]], side: usize) -> Result<(), String> {
    let expected = side * side * 3;
    let wrong = |e: &Entry| e.bytes as usize != expected;
    match entries
        .iter()
        .map(|&e| Entry::unpack(e))
        .position(|e| wrong(&e))
    {
        None => Ok(()),
        Some(image) => Err(format!(
            "image {image} has not the {expected} bytes of side {side}"
        )),
    }
}

/// Checks that images lie in their room and names are in order.
fn check_entries(
    entries: &[[u64; 4]],
    names: usize,
    room: impl Fn(&Entry) -> Result<(u64, u64), String>,
) -> Result<(), String> {
    let mut name = 0;
    for (image, &words) in entries.iter().enumerate() {
        let entry = Entry::unpack(words);
        let (start, end) = room(&entry).map_err(|e| format!("image {image} has {e}"))?;
        let last = entry.offset.checked_add(entry.bytes.into());
        if entry.offset < start || last.is_none_or(|last| last > end) {
            return Err(format!("image {image} lies outside of its shard"));
        }
        if entry.name_end < name || entry.name_end as usize > names {
            return Err(format!("image {image} has no name"));
        }
        name = entry.name_end;
    }
    Ok(())
}

fn words_of(bytes: &[u8]) -> Vec<[u64; 4]> {
    let mut words = vec![[0u64; 4]; bytes.len() / ENTRY_BYTES as usize];
    bytemuck::cast_slice_mut(&mut words).copy_from_slice(bytes);
    words
}

fn header(words: [u64; HEADER_WORDS - 1]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn read_header(
    file: &mut impl Read,
    magic: u64,
    kind: &str,
) -> Result<[u64; HEADER_WORDS], String> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact(&mut bytes)
        .map_err(|e| format!("truncated: no {kind} header: {e}"))?;
    let mut words = [0; HEADER_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    if words[0] != magic {
        return Err(format!("not a finished {kind} of this program"));
    }
    let (version, _) = halves(words[1]);
    if version != VERSION {
        return Err(format!(
            "version {version}, expected {VERSION}: prepare the set anew"
        ));
    }
    if xxh3_64(&bytes[..HEADER_BYTES - 8]) != words[HEADER_WORDS - 1] {
        return Err("checksum error in the header at byte 0".into());
    }
    Ok(words)
}

fn checked_side(side: u32) -> Result<usize, String> {
    match side {
        1..=LARGEST_SIDE => Ok(side as usize),
        _ => Err(format!("images of side {side}")),
    }
}

fn check_length(found: u64, expected: Option<u64>) -> Result<(), String> {
    match expected {
        Some(expected) if expected == found => Ok(()),
        Some(expected) if expected > found => {
            Err(format!("truncated: {found} bytes, expected {expected}"))
        }
        Some(expected) => Err(format!("{found} bytes, expected {expected}")),
        None => Err("a header with impossible sizes".into()),
    }
}
