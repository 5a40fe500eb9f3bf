//! A checkpoint: refused with exit code 4, or read, and then what was read is written and read
//! again as it was.
#![no_main]

use alexnet_mp::checkpoint::{Checkpoint, read, write_tensors};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;

fn file(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    folder.join(format!("alexnet-mp-fuzz-{}-{name}", std::process::id()))
}

fuzz_target!(|bytes: &[u8]| {
    let (path, again) = (file("in"), file("again"));
    std::fs::write(&path, bytes).unwrap();
    match read(&path) {
        Ok(contents) => {
            write_tensors(&again, &contents.tensors).unwrap();
            assert!(read(&again).unwrap().tensors == contents.tensors);
        }
        Err(error) => assert_eq!(error.exit_code(), 4),
    }
    if let Err(error) = Checkpoint::load(&path) {
        assert_eq!(error.exit_code(), 4);
    }
});
