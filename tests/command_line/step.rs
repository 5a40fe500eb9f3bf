//! `step`: what it writes, and what it says of inputs that do not fit.

use crate::support::*;
use alexnet_mp::checkpoint::{read, write_tensors};
use alexnet_mp::network::params::Tensors;

#[test]
fn every_tensor_of_the_contract_is_written() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 3);
    for (more, steps) in [
        (vec!["--masks", "m.safetensors", "--steps", "3"], 3),
        (vec!["--steps", "1"], 1),
    ] {
        let more = [
            &more[..],
            &["--cpu", "--lr", "1e-4", "--out", "out.safetensors"],
        ]
        .concat();
        inputs.step(folder.path(), &more).well();
        let out = read(&folder.path().join("out.safetensors"))
            .unwrap()
            .tensors;
        out.expect("logits", &[3, 6]).unwrap();
        out.expect("loss", &[steps]).unwrap();
        let params = inputs.config.plan().unwrap().params;
        for param in &params {
            for kind in ["grad", "param", "momentum"] {
                let name = format!("{kind}.{}", param.weight_name());
                out.expect(&name, &param.weight_shape()).unwrap();
                let name = format!("{kind}.{}", param.bias_name());
                out.expect(&name, &[param.all_outputs()]).unwrap();
            }
        }
        assert_eq!(out.0.len(), 2 + 3 * 2 * params.len());
    }
}

/// Three steps from the weights and momentum after two steps are five steps.
#[test]
fn steps_go_on_from_given_weights_and_momentum() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 3);
    let fixed = ["--cpu", "--lr", "1e-3", "--masks", "m.safetensors"];
    let step = |more: &[&str]| {
        inputs
            .step(folder.path(), &[&fixed[..], more].concat())
            .well();
    };
    step(&["--steps", "5", "--out", "five.safetensors"]);
    step(&["--steps", "2", "--out", "two.safetensors"]);
    let two = read(&folder.path().join("two.safetensors"))
        .unwrap()
        .tensors;
    let mut weights = two.clone();
    weights.0.retain_mut(|t| {
        let name = t.name.strip_prefix("param.").map(str::to_string);
        name.map(|name| t.name = name).is_some()
    });
    write_tensors(&folder.path().join("w.safetensors"), &weights).unwrap();
    step(&[
        "--steps",
        "3",
        "--momentum",
        "two.safetensors",
        "--out",
        "three.safetensors",
    ]);
    let [five, three] = ["five", "three"].map(|name| {
        read(&folder.path().join(format!("{name}.safetensors")))
            .unwrap()
            .tensors
    });
    for tensor in &five.0 {
        if tensor.name.starts_with("param.") || tensor.name.starts_with("momentum.") {
            assert_eq!(Some(tensor), three.get(&tensor.name));
        }
    }
}

#[test]
fn images_labels_and_masks_of_other_shapes_are_refused_with_both_shapes() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 3);
    let zeros = vec![0u8; 4 * 3 * 3 * 64 * 64];
    let refused = |more: &[&str], words: &[&str]| {
        let message = inputs
            .step(
                folder.path(),
                &[&["--cpu", "--out", "o.safetensors"], more].concat(),
            )
            .wrong(3);
        for word in words {
            assert!(message.contains(word), "{message} does not say {word}");
        }
        assert!(!folder.path().join("o.safetensors").exists());
    };
    npy(
        &folder.path().join("x2.npy"),
        "<f4",
        &[3, 3, 64, 32],
        &zeros,
    );
    refused(
        &["--images", "x2.npy"],
        &["x2.npy", "[N,3,64,64]", "[3, 3, 64, 32]"],
    );
    npy(
        &folder.path().join("x3.npy"),
        "<f4",
        &[3, 3, 64, 64],
        &zeros[..1000],
    );
    refused(&["--images", "x3.npy"], &["x3.npy", "truncated"]);
    npy(
        &folder.path().join("x4.npy"),
        "<f8",
        &[1, 3, 64, 64],
        &zeros,
    );
    refused(
        &["--images", "x4.npy"],
        &["x4.npy: expected f32, found float64 (convert with .astype('f4'))"],
    );
    let mut pixels = vec![0f32; 3 * 64 * 64];
    pixels[70] = f32::NAN;
    npy(
        &folder.path().join("x7.npy"),
        "<f4",
        &[1, 3, 64, 64],
        bytemuck::cast_slice(&pixels),
    );
    refused(&["--images", "x7.npy"], &["x7.npy", "element 70 is NaN"]);
    npy(&folder.path().join("x5.npy"), "<f4", &[0, 3, 64, 64], &[]);
    refused(&["--images", "x5.npy"], &["x5.npy", "no image"]);
    std::fs::write(folder.path().join("x6.npy"), "hello").unwrap();
    refused(&["--images", "x6.npy"], &["x6.npy", "npy"]);
    npy(&folder.path().join("y2.npy"), "<i8", &[2], &[0; 16]);
    refused(&["--labels", "y2.npy"], &["y2.npy", "[3]", "[2]"]);
    let labels: [i64; 3] = [0, 6, 1];
    npy(
        &folder.path().join("y3.npy"),
        "<i8",
        &[3],
        bytemuck::cast_slice(&labels),
    );
    refused(&["--labels", "y3.npy"], &["y3.npy", "label 6", "6 classes"]);
    let labels: [i64; 3] = [0, -1, 1];
    npy(
        &folder.path().join("y4.npy"),
        "<i8",
        &[3],
        bytemuck::cast_slice(&labels),
    );
    refused(&["--labels", "y4.npy"], &["y4.npy", "label -1"]);
    refused(&["--masks", "w.safetensors"], &["w.safetensors", "mask6"]);
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 3);
    let good = read(&folder.path().join("w.safetensors")).unwrap().tensors;
    let refused = |change: &dyn Fn(&mut Tensors), words: &[&str]| {
        let mut bad = good.clone();
        change(&mut bad);
        write_tensors(&folder.path().join("bad.safetensors"), &bad).unwrap();
        let flags = [
            "--cpu",
            "--weights",
            "bad.safetensors",
            "--out",
            "o.safetensors",
        ];
        let message = inputs.step(folder.path(), &flags).wrong(4);
        for word in words {
            assert!(message.contains(word), "{message} does not say {word}");
        }
    };
    refused(
        &|w| w.0.retain(|t| t.name != "conv4.weight"),
        &[
            "bad.safetensors",
            "conv4.weight",
            "missing",
            "[20, 10, 3, 3]",
        ],
    );
    refused(
        &|w| {
            for t in w.0.iter_mut().filter(|t| t.name == "fc8.bias") {
                t.shape = vec![t.values.len(), 1];
            }
        },
        &["bad.safetensors", "fc8.bias", "[6]", "[6, 1]"],
    );
    refused(
        &|w| {
            for t in w.0.iter_mut().filter(|t| t.name == "conv1.bias") {
                t.values[2] = f32::INFINITY;
            }
        },
        &["bad.safetensors", "conv1.bias", "element 2", "inf"],
    );
    let mut more = good.clone();
    more.0.push(alexnet_mp::network::params::Tensor {
        name: "fc9.bias".into(),
        shape: vec![1],
        values: vec![0.0],
    });
    refused(&|w| *w = more.clone(), &["bad.safetensors", "fc9.bias"]);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 2);
    let ran = inputs.step(folder.path(), &["--cpu", "--out", "absent/out.safetensors"]);
    assert!(ran.wrong(4).contains("absent/out.safetensors"));
}

#[test]
fn a_learning_rate_that_is_none_is_refused() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 2);
    for (rate, shown) in [("--lr=nan", "NaN"), ("--lr=-1", "-1"), ("--lr=inf", "inf")] {
        let ran = inputs.step(folder.path(), &["--cpu", "--out", "o.safetensors", rate]);
        let message = ran.wrong(2);
        let expected = format!("--lr {shown}: expected 0 to 1000");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn a_loss_that_is_not_finite_is_written_and_then_an_error() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 2);
    let path = folder.path().join("w.safetensors");
    let mut weights = read(&path).unwrap().tensors;
    for t in weights.0.iter_mut().filter(|t| t.name == "fc8.weight") {
        t.values.fill(1e38);
    }
    write_tensors(&path, &weights).unwrap();
    let flags = ["--cpu", "--out", "o.safetensors"];
    let message = inputs.step(folder.path(), &flags).wrong(6);
    for word in ["the loss of step 1 is ", "o.safetensors"] {
        assert!(message.contains(word), "{message} does not say {word}");
    }
    assert!(folder.path().join("o.safetensors").exists());
}

#[test]
fn there_are_as_many_steps_as_batches_unless_told_otherwise() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 4);
    // The same images as two batches of two.
    let bytes = std::fs::read(folder.path().join("x.npy")).unwrap();
    let pixels = &bytes[bytes.len() - 4 * 4 * 3 * 64 * 64..];
    let x2 = folder.path().join("x2.npy");
    npy(&x2, "<f4", &[2, 2, 3, 64, 64], pixels);
    let labels: [i64; 4] = [0, 1, 2, 3];
    let y2 = folder.path().join("y2.npy");
    npy(&y2, "<i8", &[2, 2], bytemuck::cast_slice(&labels));
    let y1 = folder.path().join("y1.npy");
    npy(&y1, "<i8", &[2], bytemuck::cast_slice(&labels[..2]));
    let step = |labels: &str, more: &[&str]| {
        let fixed = [
            "--cpu",
            "--out",
            "o.safetensors",
            "--images",
            "x2.npy",
            "--labels",
        ];
        inputs.step(folder.path(), &[&fixed[..], &[labels], more].concat())
    };
    let losses = |labels: &str, more: &[&str]| {
        step(labels, more).well();
        let out = read(&folder.path().join("o.safetensors")).unwrap().tensors;
        out.get("loss").unwrap().shape.clone()
    };
    assert_eq!(losses("y2.npy", &[]), [2]);
    assert_eq!(losses("y1.npy", &[]), [2]);
    assert_eq!(losses("y2.npy", &["--steps", "1"]), [1]);
    assert_eq!(losses("y2.npy", &["--steps", "3"]), [3]);
    // What goes together is equally many, or one for all.
    let units = inputs.config.network.scaled(4096);
    let mask = |name: &str, count: usize| alexnet_mp::network::params::Tensor {
        name: name.into(),
        shape: vec![count, 2, units],
        values: vec![1.0; count * 2 * units],
    };
    let masks = Tensors(vec![mask("mask6", 2), mask("mask7", 3)]);
    write_tensors(&folder.path().join("m3.safetensors"), &masks).unwrap();
    let message = step("y2.npy", &["--masks", "m3.safetensors"]).wrong(3);
    let expected = "holds 2 batches: expected 1 for all steps, or 3 as another file does";
    assert!(message.contains(expected), "{message}");
}
