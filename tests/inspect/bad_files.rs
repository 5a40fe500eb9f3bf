//! Weight files that cannot be used: exit 4, one line that names what is wrong.

use crate::support::Case;
use alexnet_mp::network::params::{Tensor, Tensors};

const EVALUATE: [&str; 5] = [
    "evaluate",
    "--weights",
    "bad.safetensors",
    "--json",
    "--cpu",
];

/// The case's file with its bytes changed.
fn changed(case: &Case, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = std::fs::read(case.path("w.safetensors")).unwrap();
    change(&mut bytes);
    std::fs::write(case.path("bad.safetensors"), bytes).unwrap();
    let error = case.bad(4, &EVALUATE);
    assert!(error.contains("bad.safetensors"), "{error}");
    error
}

/// A file of a header and data.
fn made(case: &Case, header: &str, data: usize) -> String {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; data]);
    std::fs::write(case.path("bad.safetensors"), bytes).unwrap();
    case.bad(4, &EVALUATE)
}

/// The case's tensors changed, written without a checksum's mismatch.
fn tensors(case: &Case, change: impl FnOnce(&mut Vec<Tensor>)) -> String {
    let mut tensors = case.parameters.clone();
    change(&mut tensors.0);
    std::fs::write(case.path("config.toml"), case.config.to_toml()).unwrap();
    case.bare("bad.safetensors", &Tensors(tensors.0));
    case.bad(4, &EVALUATE)
}

#[test]
fn truncated_and_padded_files() {
    let case = Case::new("paper", &[]);
    for length in [0, 5, 8, 100, 5000] {
        let error = changed(&case, |b| b.truncate(length));
        assert!(error.contains("truncated"), "{length}: {error}");
    }
    let error = changed(&case, |b| b.push(0));
    assert!(error.contains("truncated or damaged"), "{error}");
}

#[test]
fn a_header_of_100_gigabytes() {
    let case = Case::new("paper", &[]);
    let huge = 100_000_000_000u64.to_le_bytes();
    let error = changed(&case, |b| b[..8].copy_from_slice(&huge));
    assert!(error.contains("a header of 100000000000 bytes"), "{error}");
}

#[test]
fn a_tensor_that_claims_a_terabyte() {
    let case = Case::new("paper", &[]);
    let header = r#"{"conv1.weight":{"dtype":"F32","shape":[250000000000],"data_offsets":[0,1000000000000]}}"#;
    let error = made(&case, header, 16);
    assert!(
        error.contains("where its header asks for 1000000000"),
        "{error}"
    );
    let header =
        r#"{"conv1.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#;
    let error = made(&case, header, 16);
    assert!(error.contains("tensor conv1.weight: shape"), "{error}");
}

#[test]
fn wrong_types_and_duplicates() {
    let case = Case::new("paper", &[]);
    let header = r#"{"conv1.weight":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}"#;
    let error = made(&case, header, 16);
    assert!(
        error.contains("tensor conv1.weight: expected F32, found F16"),
        "{error}"
    );
    let one = r#""conv1.bias":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#;
    let error = made(&case, &format!("{{{one},{one}}}"), 16);
    assert!(
        error.contains("tensor conv1.bias: is in the file twice"),
        "{error}"
    );
}

#[test]
fn another_version_of_the_format() {
    let case = Case::new("paper", &[]);
    let header = r#"{"__metadata__":{"format":"alexnet-mp","version":"9"},"conv1.bias":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let error = made(&case, header, 16);
    assert!(
        error.contains("version 9 of the format; this program reads version 1"),
        "{error}"
    );
}

#[test]
fn missing_extra_and_misshapen_tensors() {
    let case = Case::new("paper", &[]);
    let error = tensors(&case, |t| drop(t.remove(4)));
    assert!(
        error.contains("tensor conv3.weight is missing (expected shape ["),
        "{error}"
    );
    let error = tensors(&case, |t| {
        let extra = Tensor {
            name: "fc9.weight".into(),
            shape: vec![1],
            values: vec![0.0],
        };
        t.push(extra);
    });
    assert!(
        error.contains("tensor fc9.weight (shape [1]) is none of this network's 16"),
        "{error}"
    );
    let error = tensors(&case, |t| t[0].shape.swap(0, 1));
    assert!(
        error.contains("tensor conv1.weight: expected shape [6, 3, 11, 11], found [3, 6"),
        "{error}"
    );
}

#[test]
fn numbers_that_are_not_finite_and_flipped_bits() {
    let case = Case::new("paper", &[]);
    let error = tensors(&case, |t| t[15].values[2] = f32::NAN);
    assert!(
        error.contains("tensor fc8.bias: element 2 is NaN"),
        "{error}"
    );
    let error = changed(&case, |b| {
        let middle = b.len() / 2;
        b[middle] ^= 1;
    });
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn files_that_are_none() {
    let case = Case::new("paper", &[]);
    let error = case.bad(4, &EVALUATE);
    assert!(error.contains("cannot be read"), "{error}");
    std::fs::create_dir(case.path("empty")).unwrap();
    let error = case.bad(4, &["evaluate", "--weights", "empty"]);
    assert!(
        error.contains("checkpoint.safetensors: cannot be read"),
        "{error}"
    );
}

#[test]
fn caffemodels_of_garbage() {
    let case = Case::new("caffe", &[]);
    std::fs::write(case.path("net.toml"), case.config.to_toml()).unwrap();
    case.good(&["export", "w.safetensors", "--to", "caffe", "--out", "net"]);
    let good = std::fs::read(case.path("net.caffemodel")).unwrap();
    let import = [
        "import",
        "bad.caffemodel",
        "--config",
        "net.toml",
        "--out",
        "i.safetensors",
    ];
    let bad = |bytes: &[u8]| {
        std::fs::write(case.path("bad.caffemodel"), bytes).unwrap();
        let error = case.bad(4, &import);
        assert!(error.contains("bad.caffemodel"), "{error}");
        assert!(!case.path("i.safetensors").exists());
        error
    };
    assert!(bad(b"").contains("no layer in it holds weights"));
    assert!(bad(b"<html>not here</html>").contains("not a caffemodel"));
    assert!(bad(&good[..good.len() / 2]).contains("truncated"));
    assert!(bad(&[&good[..], &good[..]].concat()).contains("layer conv1 is in the file twice"));
    // A length of nearly 2^63 is refused before anything of that size is allocated.
    assert!(bad(b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\x7f").contains("not a caffemodel"));
    let mut other = import;
    other[1] = "net.caffemodel";
    other[3] = "caffe";
    let error = case.bad(4, &other);
    assert!(
        error.contains("tensor conv1.weight: expected shape [96, 3, 11, 11], found [6, 3"),
        "{error}"
    );
}

#[test]
fn changed_caffemodels_never_panic() {
    use alexnet_mp::formats::from_caffe;
    let case = Case::new("caffe", &["network.width=0.02"]);
    case.good(&["export", "w.safetensors", "--to", "caffe", "--out", "net"]);
    let good = std::fs::read(case.path("net.caffemodel")).unwrap();
    let plan = case.config.plan().unwrap();
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    for _ in 0..500 {
        let mut bad = good.clone();
        for _ in 0..1 + next() % 8 {
            // The messages' own bytes are few; most changes should hit them.
            let at = if next() % 2 == 0 {
                next() % 64
            } else {
                next() % bad.len()
            };
            bad[at] ^= 1 << (next() % 8);
        }
        bad.truncate(good.len() - next() % 3 * (next() % good.len()) / 2);
        if let Err(error) = from_caffe(&bad).and_then(|w| w.tensors(&plan)) {
            assert_eq!(error.exit_code(), 4);
        }
    }
}
