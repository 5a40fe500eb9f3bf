//! A shard's header and tail, and an index: refused or consistent, never a panic, never more
//! memory than the file's length justifies. Tried as given, and with the checksums made right, so
//! that what they guard is reached too.
#![no_main]

use alexnet_mp::data::shards::format::{Entry, Index, Tail};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Seek, SeekFrom};
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut mended = bytes.to_vec();
    if mended.len() >= 72 {
        let is_shard = mended.starts_with(b"AMPSHARD");
        let offset = u64::from_le_bytes(mended[24..32].try_into().unwrap());
        let start = if is_shard { offset.min(bytes.len() as u64) as usize } else { 72 };
        let checksum = xxh3_64(&mended[start..]);
        mended[48..56].copy_from_slice(&checksum.to_le_bytes());
        let checksum = xxh3_64(&mended[..64]);
        mended[64..72].copy_from_slice(&checksum.to_le_bytes());
        read(&mended);
    }
});

fn read(bytes: &[u8]) {
    let length = bytes.len() as u64;
    let seek = |file: &mut Cursor<&[u8]>, to| file.seek(SeekFrom::Start(to)).map(drop);
    if let Ok((tail, _)) = Tail::read(&mut Cursor::new(bytes), length, seek) {
        for entry in tail.entries.iter().map(|&words| Entry::unpack(words)) {
            assert!(entry.offset + u64::from(entry.bytes) <= tail.offset);
            assert!(entry.name_end as usize <= tail.names.len());
        }
    }
    if let Ok(index) = Index::read(&mut Cursor::new(bytes), length, 3) {
        for image in 0..index.entries.len() {
            let entry = index.entry(image);
            let shard = index.shards[entry.place as usize];
            assert!(entry.label < 3 && entry.offset + u64::from(entry.bytes) <= shard.bytes);
            let _ = index.name(image);
        }
    }
}
