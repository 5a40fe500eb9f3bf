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
    refused(&["--images", "x4.npy"], &["x4.npy"]);
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
