//! What stands only where it is needed: `unsafe`, in what calls the driver, in kernels of vector instructions, in stores
//! past the caches and in what maps files; and the time of day, on which nothing may depend. Whoever needs one of them
//! elsewhere adds the file here, and says why in the file.

use std::path::{Path, PathBuf};

/// The files of the program that may hold it.
const ALLOWED: &[&str] = &[
    // Maps shards into memory.
    "src/data/shards/reader.rs",
    "src/device/cpu/buffer.rs",
    "src/device/cpu/direct.rs",
    "src/device/cpu/gemm.rs",
    "src/device/cpu/linear.rs",
    "src/device/cpu/lrn.rs",
    "src/device/cpu/lrn_pool.rs",
    "src/device/cpu/lrn_row.rs",
    "src/device/cpu/peak.rs",
    "src/device/cpu/simd.rs",
    "src/device/cpu/team.rs",
    "src/device/cpu/transform.rs",
    "src/device/cpu/winograd.rs",
    // Stores past the caches, for what the loader and the augmentation write.
    "src/nontemporal.rs",
    // Every file here launches kernels or calls the driver.
    "src/device/cuda/",
];

/// Whether a line of source holds the word outside a comment and a string.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let outside: String = code.split('"').step_by(2).collect();
    outside
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == "unsafe")
}

/// The files that may ask for the time of day: for a folder's name, and the stamps of events.
const TIME_OF_DAY: &[&str] = &["src/cli/train.rs", "src/report/tensorboard.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_code_is_in_no_other_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![];
    sources(&root.join("src"), &mut paths);
    assert!(paths.len() > 50);
    let (mut elsewhere, mut files, mut places) = (vec![], 0, 0);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let count = text.lines().filter(|line| is_unsafe(line)).count();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        if count > 0 && !ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
            elsewhere.push(format!("{name}: {count}"));
        }
        files += usize::from(count > 0);
        places += count;
    }
    println!("unsafe stands in {places} lines of {files} files");
    assert!(elsewhere.is_empty(), "unsafe in {elsewhere:?}");
}

#[test]
fn nothing_but_names_and_stamps_depends_on_the_time_of_day() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![];
    sources(&root.join("src"), &mut paths);
    let asks = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        ["SystemTime::now", "Zoned::now", "Timestamp::now"]
            .iter()
            .any(|clock| text.contains(clock))
    };
    let found: Vec<_> = paths.into_iter().filter(asks).collect();
    let mut names: Vec<_> = found
        .iter()
        .map(|path| path.strip_prefix(root).unwrap().to_str().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, TIME_OF_DAY);
}

#[test]
fn the_list_holds_no_file_that_needs_it_no_more() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ALLOWED.iter().filter(|name| name.ends_with(".rs")) {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        assert!(text.lines().any(is_unsafe), "{file}");
    }
}

#[test]
fn the_word_counts_in_code_alone() {
    assert!(is_unsafe("    unsafe { *p }"));
    assert!(is_unsafe("pub unsafe fn f() {"));
    assert!(!is_unsafe("    // unsafe"));
    assert!(!is_unsafe("    let text = \"unsafe\";"));
    assert!(!is_unsafe("    fn is_unsafe() {"));
}
