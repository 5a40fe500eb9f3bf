//! Tar archives and the devkit's meta.mat: refused, or members that lie inside the archive.
#![no_main]

use alexnet_mp::data::ilsvrc::{archive, matlab};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len() as u64;
    for member in archive::members(bytes, 0, length).unwrap_or_default() {
        assert!(member.offset + member.bytes <= length);
        // What looks like an archive is opened as one, as a class's is.
        let inner = archive::members(bytes, member.offset, member.bytes);
        for inner in inner.unwrap_or_default() {
            assert!(inner.offset >= member.offset);
            assert!(inner.offset + inner.bytes <= member.offset + member.bytes);
        }
    }
    let _ = matlab::synsets(bytes);
});
