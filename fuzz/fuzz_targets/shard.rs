//! A shard's header and tail, and an index: refused or consistent, never a panic, never more
//! memory than the file's length justifies.
#![no_main]

use alexnet_mp::data::shards::format::{Entry, Index, Tail};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Seek, SeekFrom};

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len() as u64;
    let seek = |file: &mut Cursor<&[u8]>, to| file.seek(SeekFrom::Start(to)).map(drop);
    if let Ok((tail, _)) = Tail::read(&mut Cursor::new(bytes), length, seek) {
        for entry in tail.entries.iter().map(|&words| Entry::unpack(words)) {
            assert!(entry.offset + u64::from(entry.bytes) <= tail.offset);
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
});
