//! Errors and probabilities, against a plain implementation of its own.

use crate::support::{Case, MEAN, read_npy};
use alexnet_mp::network::layer::{LrnScope, Then};
use serde_json::Value;

/// Maps `[map][row][column]` of one image.
struct Maps {
    maps: usize,
    side: usize,
    values: Vec<f64>,
}

impl Maps {
    fn at(&self, map: usize, y: isize, x: isize) -> f64 {
        let side = self.side as isize;
        if y < 0 || x < 0 || y >= side || x >= side {
            return 0.0;
        }
        self.values[(map * self.side + y as usize) * self.side + x as usize]
    }
}

/// Grouped convolution with the ceiling rule.
fn conv(x: &Maps, w: &[f32], b: &[f32], (k, stride, pad): (usize, usize, usize)) -> Maps {
    let outputs = b.len();
    let inputs = w.len() / outputs / k / k;
    let groups = x.maps / inputs;
    let side = 1 + (x.side + 2 * pad).saturating_sub(k).div_ceil(stride);
    let mut values = Vec::new();
    for (o, &bias) in b.iter().enumerate() {
        let first = o / (outputs / groups) * inputs;
        for y in 0..side {
            for column in 0..side {
                let mut sum = f64::from(bias);
                for (i, &w) in w[o * inputs * k * k..][..inputs * k * k].iter().enumerate() {
                    let (map, dy, dx) = (i / k / k, i / k % k, i % k);
                    let at = |p: usize, d: usize| (p * stride + d) as isize - pad as isize;
                    sum += f64::from(w) * x.at(first + map, at(y, dy), at(column, dx));
                }
                values.push(sum);
            }
        }
    }
    Maps {
        maps: outputs,
        side,
        values,
    }
}

fn lrn(x: &Maps, groups: usize, n: usize, (k, alpha, beta): (f64, f64, f64)) -> Maps {
    let plane = x.side * x.side;
    let group = x.maps / groups;
    let values = (0..x.values.len()).map(|i| {
        let (map, pixel) = (i / plane, i % plane);
        let (from, to) = (map / group * group, (map / group + 1) * group);
        let window = map.saturating_sub(n / 2).max(from)..(map + (n - 1) / 2 + 1).min(to);
        let sum: f64 = window.map(|m| x.values[m * plane + pixel].powi(2)).sum();
        x.values[i] / (k + alpha * sum).powf(beta)
    });
    Maps {
        maps: x.maps,
        side: x.side,
        values: values.collect(),
    }
}

/// Normalisation within each map, over a square of pixels around each.
fn local_norm(x: &Maps, size: usize, (k, alpha, beta): (f64, f64, f64)) -> Maps {
    let (plane, around) = (x.side * x.side, (size / 2) as isize);
    let values = (0..x.values.len()).map(|i| {
        let (map, row, column) = (i / plane, i % plane / x.side, i % x.side);
        let mut sum = 0.0;
        for dy in -around..=around {
            for dx in -around..=around {
                sum += x.at(map, row as isize + dy, column as isize + dx).powi(2);
            }
        }
        x.values[i] / (k + alpha * sum).powf(beta)
    });
    Maps {
        maps: x.maps,
        side: x.side,
        values: values.collect(),
    }
}

fn pool(x: &Maps, size: usize, stride: usize) -> Maps {
    let side = 1 + x.side.saturating_sub(size).div_ceil(stride);
    let mut values = Vec::new();
    for map in 0..x.maps {
        for y in 0..side {
            for column in 0..side {
                let mut best = f64::MIN;
                for dy in y * stride..(y * stride + size).min(x.side) {
                    for dx in column * stride..(column * stride + size).min(x.side) {
                        best = best.max(x.at(map, dy as isize, dx as isize));
                    }
                }
                values.push(best);
            }
        }
    }
    Maps {
        maps: x.maps,
        side,
        values,
    }
}

/// Class probabilities of one crop, by the table of layers alone.
fn probabilities(case: &Case, crop: Maps) -> Vec<f64> {
    let network = &case.config.network;
    let rule = &network.lrn;
    let groups = if rule.scope == LrnScope::All {
        1
    } else {
        network.columns
    };
    let constants = (
        f64::from(rule.k),
        f64::from(network.lrn_alpha()),
        f64::from(rule.beta),
    );
    let mut x = crop;
    for (name, layer) in &case.config.layers {
        let w = &case
            .parameters
            .get(&format!("{name}.weight"))
            .unwrap()
            .values;
        let b = &case.parameters.get(&format!("{name}.bias")).unwrap().values;
        if !layer.is_convolution() {
            let values = std::mem::take(&mut x.values);
            x = Maps {
                maps: values.len(),
                side: 1,
                values,
            };
        }
        let window = if layer.is_convolution() {
            (layer.kernel, layer.stride, layer.pad)
        } else {
            (1, 1, 0)
        };
        x = conv(&x, w, b, window);
        for then in &layer.then {
            match then {
                Then::Activation => x.values.iter_mut().for_each(|v| *v = v.max(0.0)),
                Then::Lrn => x = lrn(&x, groups, rule.n, constants),
                Then::Pool => x = pool(&x, network.pool.size, network.pool.stride),
                Then::Dropout if network.dropout.rescale => {}
                Then::Dropout => {
                    let keep = 1.0 - f64::from(network.dropout.rate);
                    x.values.iter_mut().for_each(|v| *v *= keep);
                }
                Then::LocalNorm => {
                    let rule = &network.local_norm;
                    let constants = [rule.k, rule.alpha, rule.beta].map(f64::from);
                    x = local_norm(&x, rule.size, constants.into());
                }
            }
        }
    }
    let largest = x.values.iter().copied().fold(f64::MIN, f64::max);
    let exp: Vec<f64> = x.values.iter().map(|v| (v - largest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| e / sum).collect()
}

/// Mean probabilities of the paper's ten views of a stored image.
fn ten_views(case: &Case, stored: &[u8], mean: &[f32]) -> Vec<f64> {
    let (side, crop) = (case.config.data.side, case.config.network.image);
    let room = side - crop;
    let mut total = vec![0.0; case.config.network.classes];
    for (top, left) in [
        (0, 0),
        (0, room),
        (room, 0),
        (room, room),
        (room / 2, room / 2),
    ] {
        for mirror in [false, true] {
            let values = (0..3 * crop * crop).map(|i| {
                let (colour, y, x) = (i / crop / crop, i / crop % crop, i % crop);
                let x = if mirror { crop - 1 - x } else { x };
                let at = |top: usize, left: usize| ((top + y) * side + left + x) * 3 + colour;
                let of_mean = match case.config.augmentation().centre_mean {
                    true => at(room / 2, room / 2),
                    false => at(top, left),
                };
                f64::from(stored[at(top, left)]) - f64::from(mean[of_mean])
            });
            let maps = Maps {
                maps: 3,
                side: crop,
                values: values.collect(),
            };
            for (total, p) in total.iter_mut().zip(probabilities(case, maps)) {
                *total += p / 10.0;
            }
        }
    }
    total
}

fn stored(case: &Case) -> (Vec<Vec<u8>>, Vec<usize>) {
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for class in 0..case.config.network.classes {
        let folder = case.path("data").join("val").join(format!("class{class}"));
        for i in 0..std::fs::read_dir(&folder).unwrap().count() {
            let image = image::open(folder.join(format!("{i}.png"))).unwrap();
            images.push(image.to_rgb8().into_raw());
            labels.push(class);
        }
    }
    (images, labels)
}

fn check_ten_views(preset: &str, more: &[&str]) {
    let case = Case::new(preset, more).with_images(2);
    let printed = case.good(&[
        "evaluate",
        "--weights",
        "w.safetensors",
        "--data",
        "data",
        "--views",
        "10",
        "--json",
        "--probabilities",
        "p.npy",
        "--cpu",
    ]);
    let json: Value = serde_json::from_str(&printed).unwrap();
    let (shape, found) = read_npy(&case.path("p.npy"));
    let (images, labels) = stored(&case);
    assert_eq!(shape, [images.len() as u64, 6]);
    let mean: Vec<f32> = (0..56 * 56 * 3).map(MEAN).collect();
    let (mut worst, mut loss, mut errors) = (0.0f64, 0.0, 0);
    let mut distinct = std::collections::BTreeSet::new();
    for ((image, &label), row) in images.iter().zip(&labels).zip(found.chunks(6)) {
        let expected = ten_views(&case, image, &mean);
        for (p, e) in row.iter().zip(&expected) {
            worst = worst.max((f64::from(*p) - e).abs());
        }
        loss -= expected[label].ln() / labels.len() as f64;
        let best = expected.iter().copied().fold(0.0, f64::max);
        errors += usize::from(expected[label] < best);
        distinct.insert(format!("{:.3}", expected[0]));
    }
    assert!(worst < 1e-5, "{preset}: off by {worst}");
    assert!(
        distinct.len() > 4,
        "the images are not told apart: {distinct:?}"
    );
    assert_eq!(json["images"], images.len());
    assert_eq!(json["views"], 10);
    assert!((json["log_loss"].as_f64().unwrap() - loss).abs() < 1e-4);
    let top1 = json["top1_error"].as_f64().unwrap();
    assert!((top1 - errors as f64 / labels.len() as f64).abs() < 1e-9);
    assert!(json["top5_error"].as_f64().unwrap() <= top1);
}

#[test]
fn ten_view_probabilities_equal_a_plain_implementations() {
    check_ten_views("paper", &[]);
}

#[test]
fn so_they_do_with_caffes_conventions_and_views_beyond_the_batch() {
    check_ten_views("caffe", &["train.batch=3"]);
}

/// Two normalisations, ReLU after pooling, the mean's centre for every view.
#[test]
fn so_they_do_with_the_2012_sources_layers() {
    check_ten_views("source-145", &[]);
}

#[test]
fn an_ensemble_is_the_mean_of_its_members() {
    let case = Case::new("paper", &[]).with_images(2);
    let mut other = case.parameters.clone();
    other
        .0
        .iter_mut()
        .for_each(|t| t.values.iter_mut().for_each(|v| *v *= 0.9));
    case.bare("other.safetensors", &other);
    std::fs::write(case.path("config.toml"), case.config.to_toml()).unwrap();
    let mut found = Vec::new();
    for weights in [
        &["w.safetensors"][..],
        &["other.safetensors"],
        &["w.safetensors", "other.safetensors"],
    ] {
        let mut arguments = vec![
            "evaluate",
            "--data",
            "data",
            "--cpu",
            "--probabilities",
            "p.npy",
            "--weights",
        ];
        arguments.extend(weights);
        case.good(&arguments);
        found.push(read_npy(&case.path("p.npy")).1);
    }
    let [first, second, together] = &found[..] else {
        panic!("three evaluations");
    };
    assert_eq!(first.len(), together.len());
    for ((a, b), both) in first.iter().zip(second).zip(together) {
        assert!((both - (a + b) / 2.0).abs() < 1e-6);
    }
}

#[test]
fn classes_and_confusions_are_printed_on_request() {
    let case = Case::new("paper", &[]).with_images(2);
    let text = case.good(&[
        "evaluate",
        "--weights",
        "w.safetensors",
        "--data",
        "data",
        "--per-class",
        "--confusions",
        "2",
        "--cpu",
    ]);
    assert!(text.starts_with("12 images, 1 view\ntop-1 error"), "{text}");
    assert!(text.contains("\nclass5"), "{text}");
    assert!(text.contains("taken for"), "{text}");
}

#[test]
fn data_of_other_classes_is_refused() {
    let case = Case::new("paper", &[]).with_images(1);
    let metadata = [
        ("config".to_string(), case.config.to_toml()),
        (
            "classes".to_string(),
            r#"["a","b","c","d","e","f"]"#.to_string(),
        ),
    ];
    alexnet_mp::checkpoint::write_with(&case.path("w.safetensors"), &case.parameters, metadata)
        .unwrap();
    let error = case.bad(
        3,
        &[
            "evaluate",
            "--weights",
            "w.safetensors",
            "--data",
            "data",
            "--cpu",
        ],
    );
    assert!(
        error.contains("class 0 is \"class0\", was \"a\" in training"),
        "{error}"
    );
}

#[test]
fn without_data_the_built_in_set_is_evaluated() {
    let case = Case::new(
        "quickstart",
        &[
            "network.classes=10",
            "data.builtin_val=20",
            "data.builtin_train=20",
        ],
    );
    let printed = case.good(&["evaluate", "--weights", "w.safetensors", "--json", "--cpu"]);
    let json: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["images"], 20);
}

#[test]
fn a_runs_own_data_are_evaluated_where_none_are_named() {
    let case = Case::new("quickstart", &["data.workers=1"]).with_images(2);
    std::fs::write(
        case.path("net.toml"),
        format!("base = \"quickstart\"\n{}", case.config.to_toml()),
    )
    .unwrap();
    let train = [
        "train", "--config", "net.toml", "--data", "data", "--out", "run", "--steps", "1", "--cpu",
    ];
    case.good(&train);
    let own = case.good(&["evaluate", "--weights", "run", "--json", "--cpu"]);
    let named = [
        "evaluate",
        "--weights",
        "run",
        "--json",
        "--cpu",
        "--data",
        "data",
    ];
    assert_eq!(own, case.good(&named));
    let json: Value = serde_json::from_str(&own).unwrap();
    assert_eq!(json["images"], 12);
}
