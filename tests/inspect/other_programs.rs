//! Other programs compute our probabilities from our files. Each test needs Python packages and
//! says so where they are missing (`ALEXNET_MP_PYTHON` names the interpreter).

use crate::support::{Case, MEAN, python, python_run, read_npy, relative};
use npyz::WriterBuilder;
use std::path::Path;

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
                f32::from(stored[at]) - MEAN(at)
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
// OpenCV 5 has no reader of Caffe's files.
const OPENCV_CAFFE: &str = "
import numpy as np, cv2
net = cv2.dnn.readNetFromCaffe('net.prototxt', 'net.caffemodel')
net.setInput(np.ascontiguousarray(np.load('x.npy')[:, ::-1]))
np.save('out.npy', net.forward().reshape(len(np.load('x.npy')), -1))
";

/// Networks whose every part another program must compute as we do.
fn networks() -> Vec<(&'static str, Case)> {
    let full = ["network.image=224", "data.side=256", "network.width=0.04"];
    let one_column_from_fc6 = [
        "layers.fc6.on=first",
        "layers.fc7.on=first",
        "layers.fc7.reads=own",
        "layers.conv4.then=['lrn', 'activation']",
        "layers.conv5.then=['activation', 'pool', 'dropout']",
    ];
    let cases: [(&str, &str, &[&str], f32); 8] = [
        ("paper", "paper", &[], 1.0),
        ("paper, 224 pixels", "paper", &full, 1.0),
        ("caffe", "caffe", &[], 1.0),
        (
            "caffe, nothing beyond an edge",
            "caffe",
            &["network.image=47"],
            1.0,
        ),
        ("source-145", "source-145", &[], 1.0),
        ("source-145-half", "source-145-half", &[], 1.0),
        ("one column from fc6", "paper", &one_column_from_fc6, 1.0),
        ("tanh", "paper", &["network.activation=tanh"], 20.0),
    ];
    let made = |(name, preset, more, factor)| {
        let case = Case::new(preset, more).with_images(2);
        (name, case.sharpened(factor))
    };
    cases.into_iter().map(made).collect()
}

/// Our probabilities of the validation images are 1e-4 close to another program's, and would not
/// be so were an image mistaken for another.
fn check_equal(case: &Case, theirs: &str, views: &str, what: &str) {
    case.good(&[
        "evaluate",
        "--weights",
        "w.safetensors",
        "--data",
        "data",
        "--cpu",
        "--views",
        views,
        "--probabilities",
        "p.npy",
    ]);
    let ours = read_npy(&case.path("p.npy")).1;
    let theirs = read_npy(&case.path(theirs)).1;
    let difference = relative(&theirs, &ours);
    eprintln!("{what}: relative difference {difference:.1e}");
    assert!(difference < 1e-4, "{what}: {difference}");
    let first = &ours[..6];
    assert!(
        ours.chunks(6).any(|row| relative(row, first) > 1e-2),
        "{what}: all alike"
    );
    let worst = theirs.iter().zip(&ours).map(|(a, b)| (a - b).abs());
    let worst = worst.fold(0.0, f32::max);
    assert!(worst < 1e-5, "{what}: a probability is off by {worst}");
}

/// Exports each network and compares what `script` makes of it.
fn compare(format: &str, packages: &str, script: &str) {
    let Some(python) = python(&format!("numpy, {packages}")) else {
        return;
    };
    for (name, case) in networks() {
        write_inputs(&case);
        case.export(format, "net.onnx");
        python_run(&python, &case, &["-c", script]);
        check_equal(
            &case,
            "out.npy",
            "1",
            &format!("{format} by {packages}, {name}"),
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
    let needs = "cv2; cv2.dnn.readNetFromCaffe";
    compare("caffe", needs, OPENCV_CAFFE);
}

#[test]
fn the_onnx_file_is_valid() {
    let Some(python) = python("onnx") else {
        return;
    };
    for (_, case) in networks() {
        case.export("onnx", "net.onnx");
        python_run(&python, &case, &["-c", CHECKER]);
    }
}

/// `tests/pytorch/probabilities.py` on the case's exported weights and validation images.
fn pytorch(python: &Path, case: &Case, preset: &str, views: &str, more: &[&str]) {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/pytorch/probabilities.py"
    );
    case.export("safetensors", "e.safetensors");
    let crop = case.config.network.image.to_string();
    let arguments = [
        script,
        "--preset",
        preset,
        "--weights",
        "e.safetensors",
        "--stats",
        "stats.safetensors",
        "--images",
        "data/val",
        "--crop",
        &crop,
        "--views",
        views,
        "--out",
        "out.npy",
    ];
    python_run(python, case, &[&arguments[..], more].concat());
}

const PYTORCH: &str = "numpy, torch, safetensors.torch, PIL.Image";

#[test]
fn a_grouped_module_of_pytorch_computes_the_same_probabilities() {
    let Some(python) = python(PYTORCH) else {
        return;
    };
    for preset in ["paper", "caffe", "source-145", "source-145-half"] {
        let case = Case::new(preset, &[]).with_images(2);
        for views in ["1", "10"] {
            pytorch(&python, &case, preset, views, &[]);
            check_equal(
                &case,
                "out.npy",
                views,
                &format!("PyTorch, {preset}, {views} views"),
            );
        }
    }
}

#[test]
fn a_file_of_pytorch_with_torchvisions_names_comes_back() {
    let Some(python) = python(PYTORCH) else {
        return;
    };
    let case = Case::new("paper", &[]).with_images(1);
    let more = ["--torchvision-names", "theirs.safetensors"];
    pytorch(&python, &case, "paper", "1", &more);
    std::fs::write(case.path("net.toml"), case.config.to_toml()).unwrap();
    case.good(&[
        "import",
        "theirs.safetensors",
        "--config",
        "net.toml",
        "--out",
        "i.safetensors",
    ]);
    let back = alexnet_mp::checkpoint::read(&case.path("i.safetensors")).unwrap();
    for tensor in &case.parameters.0 {
        assert_eq!(back.tensors.get(&tensor.name).unwrap(), tensor);
    }
}
