//! predict, similar and draw: tables, and pictures that are there.

use crate::support::Case;
use serde_json::Value;

fn is_picture(case: &Case, name: &str) {
    let picture = image::open(case.path(name)).unwrap().to_rgb8();
    let first = *picture.get_pixel(0, 0);
    assert!(picture.pixels().any(|p| *p != first), "{name} is blank");
}

#[test]
fn predictions_of_files_folders_and_patterns() {
    let case = Case::new("paper", &[]).with_images(2);
    let json = case.good(&[
        "predict",
        "--weights",
        "w.safetensors",
        "--json",
        "--picture",
        "p.png",
        "--cpu",
        "data/val/class0",
        "data/val/class1/0.png",
        "data/val/class[23]/*.png",
    ]);
    let lines: Vec<Value> = json
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let names: Vec<&str> = lines.iter().map(|l| l["image"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 7);
    assert_eq!(
        names[..3],
        [
            "data/val/class0/0.png",
            "data/val/class0/1.png",
            "data/val/class1/0.png"
        ]
    );
    for line in &lines {
        let p: Vec<f64> = (0..5)
            .map(|i| line["classes"][i]["probability"].as_f64().unwrap())
            .collect();
        assert!(
            p.is_sorted_by(|a, b| a >= b) && p.iter().sum::<f64>() <= 1.0 + 1e-5,
            "{p:?}"
        );
    }
    is_picture(&case, "p.png");
    let table = case.good(&[
        "predict",
        "--weights",
        "w.safetensors",
        "--cpu",
        "data/val/class0/0.png",
    ]);
    assert!(
        table.starts_with("image") && table.contains(" %"),
        "{table}"
    );
}

#[test]
fn what_is_no_image_is_an_error_of_the_data() {
    let case = Case::new("paper", &[]).with_images(1);
    std::fs::write(case.path("no.jpg"), b"<html>").unwrap();
    for (name, said) in [
        ("gone.jpg", "gone.jpg: "),
        ("*.gif", "no files"),
        ("no.jpg", "no.jpg"),
    ] {
        let error = case.bad(3, &["predict", "--weights", "w.safetensors", "--cpu", name]);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_copy_of_an_image_is_its_nearest() {
    let case = Case::new("paper", &[]).with_images(2);
    std::fs::copy(case.path("data/val/class3/1.png"), case.path("query.png")).unwrap();
    let table = case.good(&[
        "similar",
        "--weights",
        "w.safetensors",
        "--index",
        "data/val",
        "query.png",
        "--count",
        "3",
        "--picture",
        "s.png",
        "--cpu",
    ]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(
        lines[1].contains("data/val/class3/1.png") && lines[1].ends_with("0.000"),
        "{table}"
    );
    is_picture(&case, "s.png");
}

#[test]
fn a_run_is_drawn() {
    let case = Case::new("paper", &[]).with_images(1);
    let run = case.path("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::copy(
        case.path("w.safetensors"),
        run.join("checkpoint.safetensors"),
    )
    .unwrap();
    std::fs::copy(
        case.path("stats.safetensors"),
        run.join("stats.safetensors"),
    )
    .unwrap();
    let metrics = r#"{"step":1,"epoch":0.1,"loss":2.3,"top1_error":0.9,"learning_rate":0.01,"images_per_second":9.0,"data_wait":0.0}
{"step":2,"epoch":0.2,"loss":2.1,"top1_error":0.8,"learning_rate":0.01,"images_per_second":9.0,"data_wait":0.0}
{"step":2,"epoch":0.2,"val_loss":2.2,"val_top1_error":0.85,"val_top5_error":0.4}
"#;
    std::fs::write(run.join("metrics.jsonl"), metrics).unwrap();
    let printed = case.good(&[
        "draw",
        "run",
        "--image",
        "data/val/class0/0.png",
        "--layers",
        "conv1,fc7",
        "--cpu",
    ]);
    assert!(
        printed.starts_with("run  column  colour index"),
        "{printed}"
    );
    for name in ["curves", "conv1", "activations-conv1", "activations-fc7"] {
        is_picture(&case, &format!("run/{name}.png"));
    }
    let error = case.bad(
        2,
        &[
            "draw",
            "run",
            "--image",
            "data/val/class0/0.png",
            "--layers",
            "conv9",
        ],
    );
    assert!(error.contains("did you mean \"conv"), "{error}");
}
