//! Export and import: the same bits, and other programs' probabilities equal to ours.

use crate::support::{Case, python, read_npy, relative};
use alexnet_mp::checkpoint;
use alexnet_mp::network::params::{Tensor, Tensors};
use npyz::WriterBuilder;
use std::path::Path;
use std::process::Command;

fn same_bits(a: &Tensors, b: &Tensors) {
    assert_eq!(a.0.len(), b.0.len());
    for tensor in &a.0 {
        let other = b.get(&tensor.name).unwrap();
        assert_eq!(tensor.shape, other.shape, "{}", tensor.name);
        let bits = |t: &Tensor| t.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(tensor), bits(other), "{}", tensor.name);
    }
}

#[test]
fn an_exported_file_comes_back_with_the_same_bits() {
    let case = Case::new("source-145", &[]);
    let export = [
        "export",
        "w.safetensors",
        "--to",
        "safetensors",
        "--out",
        "e.safetensors",
    ];
    case.good(&export);
    case.good(&["import", "e.safetensors", "--out", "sub/i.safetensors"]);
    let back = checkpoint::read(&case.path("sub/i.safetensors")).unwrap();
    same_bits(&case.parameters, &back.tensors);
    assert_eq!(back.metadata["config"], case.config.to_toml());
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

#[test]
fn a_caffemodel_comes_back_with_the_same_bits() {
    let case = Case::new("caffe", &[]);
    std::fs::write(
        case.path("net.toml"),
        format!("base = \"caffe\"\n{}", case.config.to_toml()),
    )
    .unwrap();
    case.good(&["export", "w.safetensors", "--to", "caffe", "--out", "net"]);
    let import = [
        "import",
        "net.caffemodel",
        "--config",
        "net.toml",
        "--out",
        "i.safetensors",
    ];
    let said = case.good(&import);
    assert!(said.contains("parameters in 16 tensors"), "{said}");
    let back = checkpoint::read(&case.path("i.safetensors")).unwrap();
    same_bits(&case.parameters, &back.tensors);
}

/// The central crops of the validation images, mean-subtracted, as another program takes them.
fn write_inputs(case: &Case) {
    let (side, crop) = (case.config.data.side, case.config.network.image);
    let offset = (side - crop) / 2;
    let mut values = Vec::new();
    for class in 0..case.config.network.classes {
        for i in 0..2 {
            let path = case.path(&format!("data/val/class{class}/{i}.png"));
            let stored = image::open(path).unwrap().to_rgb8().into_raw();
            values.extend((0..3 * crop * crop).map(|i| {
                let (colour, y, x) = (i / crop / crop, i / crop % crop, i % crop);
                let at = ((offset + y) * side + offset + x) * 3 + colour;
                f32::from(stored[at]) - (100.0 + (at % 37) as f32)
            }));
        }
    }
    let shape = [
        2 * case.config.network.classes as u64,
        3,
        crop as u64,
        crop as u64,
    ];
    let file = std::fs::File::create(case.path("x.npy")).unwrap();
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&shape)
        .writer(file)
        .begin_nd()
        .unwrap();
    writer.extend(values).unwrap();
    writer.finish().unwrap();
}

const ONNXRUNTIME: &str = "
import numpy as np, onnxruntime
s = onnxruntime.InferenceSession('net.onnx', providers=['CPUExecutionProvider'])
np.save('out.npy', s.run(None, {'image': np.load('x.npy')})[0])
";
const CHECKER: &str = "
import onnx
m = onnx.load('net.onnx')
onnx.checker.check_model(m, full_check=True)
assert [o.version for o in m.opset_import] == [13]
";
const OPENCV_ONNX: &str = "
import numpy as np, cv2
net = cv2.dnn.readNetFromONNX('net.onnx')
net.setInput(np.load('x.npy'))
np.save('out.npy', net.forward())
";
const OPENCV_CAFFE: &str = "
import numpy as np, cv2
net = cv2.dnn.readNetFromCaffe('net.prototxt', 'net.caffemodel')
net.setInput(np.ascontiguousarray(np.load('x.npy')[:, ::-1]))
np.save('out.npy', net.forward().reshape(len(np.load('x.npy')), -1))
";

fn python_run(python: &Path, case: &Case, script: &str) {
    let output = Command::new(python)
        .args(["-c", script])
        .current_dir(case.folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{stderr}");
}

/// Networks whose every part another program must compute as we do.
fn networks() -> Vec<(&'static str, Case)> {
    let full = ["network.image=224", "data.side=256", "network.width=0.04"];
    vec![
        ("paper", Case::new("paper", &[]).with_images(2)),
        (
            "paper, 224 pixels",
            Case::new("paper", &full).with_images(2),
        ),
        ("caffe", Case::new("caffe", &[]).with_images(2)),
        ("source-145", Case::new("source-145", &[]).with_images(2)),
        (
            "source-145-half",
            Case::new("source-145-half", &[]).with_images(2),
        ),
        (
            "tanh",
            Case::new("paper", &["network.activation=tanh"]).with_images(2),
        ),
    ]
}

/// Exports each network and compares what `script` makes of it.
fn compare(format: &str, packages: &str, script: &str) {
    let Some(python) = python(&format!("numpy, {packages}")) else {
        eprintln!("SKIPPED: no Python with numpy and {packages} (set ALEXNET_MP_PYTHON)");
        return;
    };
    for (name, case) in networks() {
        write_inputs(&case);
        case.good(&[
            "export",
            "w.safetensors",
            "--to",
            format,
            "--out",
            "net.onnx",
        ]);
        let evaluate = [
            "evaluate",
            "--weights",
            "w.safetensors",
            "--data",
            "data",
            "--cpu",
        ];
        case.good(&[&evaluate[..], &["--probabilities", "p.npy"]].concat());
        python_run(&python, &case, script);
        let ours = read_npy(&case.path("p.npy")).1;
        let theirs = read_npy(&case.path("out.npy")).1;
        let difference = relative(&theirs, &ours);
        eprintln!("{format} by {packages}, {name}: relative difference {difference:.1e}");
        assert!(difference < 1e-4, "{name}: {difference}");
        let first = &ours[..6];
        assert!(
            ours.chunks(6).any(|row| relative(row, first) > 1e-2),
            "{name}: all alike"
        );
    }
}

#[test]
fn onnxruntime_computes_the_same_probabilities() {
    compare("onnx", "onnxruntime", ONNXRUNTIME);
}

#[test]
fn opencv_computes_the_same_probabilities_from_onnx() {
    compare("onnx", "cv2", OPENCV_ONNX);
}

#[test]
fn opencv_computes_the_same_probabilities_from_caffe() {
    compare("caffe", "cv2", OPENCV_CAFFE);
}

#[test]
fn the_onnx_file_is_valid() {
    let Some(python) = python("onnx") else {
        eprintln!("SKIPPED: no Python with onnx (set ALEXNET_MP_PYTHON)");
        return;
    };
    for (_, case) in networks() {
        case.good(&[
            "export",
            "w.safetensors",
            "--to",
            "onnx",
            "--out",
            "net.onnx",
        ]);
        python_run(&python, &case, CHECKER);
    }
}
