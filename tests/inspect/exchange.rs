//! Export and import: the same bits, other programs' names, Caffe's files.

use crate::support::{CLASSES, Case, MEAN, read_npy};
use alexnet_mp::checkpoint;
use alexnet_mp::network::params::{Tensor, Tensors};
use prost::Message;

fn same_bits(a: &Tensors, b: &Tensors) {
    assert_eq!(a.0.len(), b.0.len());
    for tensor in &a.0 {
        let other = b.get(&tensor.name).unwrap();
        assert_eq!(tensor.shape, other.shape, "{}", tensor.name);
        let bits = |t: &Tensor| t.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(tensor), bits(other), "{}", tensor.name);
    }
}

/// Exports networks in this format and imports `file`, which tells its own configuration.
fn comes_back(format: &str, file: &str) {
    let presets = ["paper", "source-145", "source-145-half", "caffe"];
    // 48 pixels let conv1 read 3 beyond the edge, 47 none.
    for (preset, image) in presets.into_iter().zip([48, 48, 47, 48]) {
        let case = Case::new(preset, &[&format!("network.image={image}")]);
        case.export(format, file);
        let said = case.good(&["import", file, "--out", "sub/i.safetensors"]);
        assert!(said.contains("parameters in 16 tensors"), "{said}");
        let back = checkpoint::read(&case.path("sub/i.safetensors")).unwrap();
        same_bits(&case.parameters, &back.tensors);
        assert_eq!(back.metadata["config"], case.config.to_toml());
        assert_eq!(
            back.metadata["classes"],
            serde_json::json!(CLASSES).to_string()
        );
    }
}

#[test]
fn safetensors_come_back_with_the_same_bits() {
    comes_back("safetensors", "e.safetensors");
}

#[test]
fn a_caffemodel_comes_back_with_the_same_bits() {
    comes_back("caffe", "net.caffemodel");
}

#[test]
fn pytorchs_names_are_understood() {
    let case = Case::new("paper", &[]);
    std::fs::write(case.path("net.toml"), case.config.to_toml()).unwrap();
    let names = [
        ("conv1", "features.0"),
        ("conv2", "features.4"),
        ("conv3", "features.8"),
        ("conv4", "features.10"),
        ("conv5", "features.12"),
        ("fc6", "classifier.1"),
        ("fc7", "classifier.4"),
        ("fc8", "classifier.6"),
    ];
    for prefix in ["", "module."] {
        let renamed = case.parameters.0.iter().map(|t| {
            let (layer, kind) = t.name.split_once('.').unwrap();
            let theirs = names.iter().find(|(ours, _)| *ours == layer).unwrap().1;
            Tensor {
                name: format!("{prefix}{theirs}.{kind}"),
                ..t.clone()
            }
        });
        case.bare("theirs.safetensors", &Tensors(renamed.collect()));
        let import = [
            "import",
            "theirs.safetensors",
            "--config",
            "net.toml",
            "--out",
            "i.safetensors",
        ];
        case.good(&import);
        let back = checkpoint::read(&case.path("i.safetensors")).unwrap();
        same_bits(&case.parameters, &back.tensors);
    }
}

/// A caffemodel of the form of 2014, as bvlc_alexnet is distributed: layers in field 2, shapes of
/// four numbers, conv1 reading blue first.
#[derive(Clone, PartialEq, prost::Message)]
struct OldNet {
    #[prost(message, repeated, tag = "2")]
    layers: Vec<OldLayer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OldLayer {
    #[prost(string, tag = "4")]
    name: String,
    /// CONVOLUTION = 4, INNER_PRODUCT = 14.
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(message, repeated, tag = "6")]
    blobs: Vec<OldBlob>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OldBlob {
    #[prost(int32, tag = "1")]
    num: i32,
    #[prost(int32, tag = "2")]
    channels: i32,
    #[prost(int32, tag = "3")]
    height: i32,
    #[prost(int32, tag = "4")]
    width: i32,
    #[prost(float, repeated, tag = "5")]
    data: Vec<f32>,
}

fn old_blob(shape: &[usize], data: Vec<f32>) -> OldBlob {
    let mut four = [1; 4];
    for (to, &from) in four.iter_mut().rev().zip(shape.iter().rev()) {
        *to = from as i32;
    }
    let [num, channels, height, width] = four;
    OldBlob {
        num,
        channels,
        height,
        width,
        data,
    }
}

/// Red and blue exchanged: the planes of `[n, 3, …]` in the order 2, 1, 0.
fn blue_first(values: &[f32], plane: usize) -> Vec<f32> {
    let kernels = values.chunks(3 * plane);
    kernels
        .flat_map(|k| (0..3).rev().flat_map(|c| k[c * plane..][..plane].to_vec()))
        .collect()
}

/// The case's weights and mean image as Caffe's files.
fn write_bvlc(case: &Case) {
    let layers = case.parameters.0.chunks(2).map(|pair| {
        let (weight, bias) = (&pair[0], &pair[1]);
        let name = weight.name.strip_suffix(".weight").unwrap().to_string();
        let values = match name.as_str() {
            "conv1" => blue_first(&weight.values, weight.shape[2] * weight.shape[3]),
            _ => weight.values.clone(),
        };
        OldLayer {
            kind: if name.starts_with("conv") { 4 } else { 14 },
            name,
            blobs: vec![
                old_blob(&weight.shape, values),
                old_blob(&bias.shape, bias.values.clone()),
            ],
        }
    });
    let net = OldNet {
        layers: layers.collect(),
    };
    std::fs::write(case.path("bvlc.caffemodel"), net.encode_to_vec()).unwrap();
    let side = case.config.data.side;
    let plane = side * side;
    let planar: Vec<f32> = (0..3 * plane)
        .map(|i| MEAN(i % plane * 3 + i / plane))
        .collect();
    let mean = old_blob(&[3, side, side], blue_first(&planar, plane));
    std::fs::write(case.path("mean.binaryproto"), mean.encode_to_vec()).unwrap();
}

#[test]
fn caffes_own_files_give_the_caffe_presets_network() {
    let case = Case::new("caffe", &[]).with_images(2);
    write_bvlc(&case);
    std::fs::write(case.path("net.toml"), case.config.to_toml()).unwrap();
    case.good(&[
        "import",
        "bvlc.caffemodel",
        "--caffe-mean",
        "mean.binaryproto",
        "--config",
        "net.toml",
        "--out",
        "bvlc/w.safetensors",
    ]);
    let back = checkpoint::read(&case.path("bvlc/w.safetensors")).unwrap();
    same_bits(&case.parameters, &back.tensors);
    let evaluate = |weights: &str| {
        let out = format!("{}.npy", weights.replace('/', "-"));
        case.good(&[
            "evaluate",
            "--data",
            "data",
            "--cpu",
            "--weights",
            weights,
            "--probabilities",
            &out,
        ]);
        read_npy(&case.path(&out)).1
    };
    assert_eq!(evaluate("bvlc/w.safetensors"), evaluate("w.safetensors"));
}

#[test]
fn an_enlarged_kernel_with_weights_where_zeros_belong_is_refused() {
    let mut wrong = Case::new("paper", &[]);
    wrong.parameters.0[0].shape = vec![6, 3, 14, 14];
    wrong.parameters.0[0].values = vec![0.5; 6 * 3 * 14 * 14];
    write_bvlc(&wrong);
    std::fs::write(wrong.path("net.toml"), wrong.config.to_toml()).unwrap();
    let error = wrong.bad(
        4,
        &[
            "import",
            "bvlc.caffemodel",
            "--config",
            "net.toml",
            "--out",
            "i.safetensors",
        ],
    );
    assert!(
        error.contains("with zeros in the first 3 rows and columns"),
        "{error}"
    );
}
