//! Small networks and images, and the program run on them.

use alexnet_mp::checkpoint::{write_tensors, write_with};
use alexnet_mp::config::Config;
use alexnet_mp::data::Statistics;
use alexnet_mp::network::params::{Tensor, Tensors};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that goes away, with a small network in it.
pub struct Case {
    pub folder: tempfile::TempDir,
    pub config: Config,
    pub parameters: Tensors,
}

/// The classes of the images.
pub const CLASSES: [&str; 6] = ["class0", "class1", "class2", "class3", "class4", "class5"];

/// The mean image's values in the order (row, column, channel).
pub const MEAN: fn(usize) -> f32 = |i| 100.0 + (i % 37) as f32;

/// A small network: crops of 48 pixels and 6 classes.
pub fn config(preset: &str, more: &[&str]) -> Config {
    let small = [
        "network.width=0.06",
        "network.image=48",
        "network.classes=6",
        "network.init=fan-in",
        "data.side=56",
        "train.batch=8",
    ];
    let all: Vec<String> = small.iter().chain(more).map(|s| s.to_string()).collect();
    Config::load(preset, &all).unwrap()
}

impl Case {
    pub fn new(preset: &str, more: &[&str]) -> Self {
        let config = config(preset, more);
        let mut parameters = Tensors::initial(&config.plan().unwrap().params, 5);
        parameters.0.iter_mut().for_each(keep_signals);
        let case = Case {
            folder: tempfile::tempdir().unwrap(),
            config,
            parameters,
        };
        case.write();
        case
    }

    /// Weights, configuration and classes as the program writes them.
    fn write(&self) {
        let classes = match self.config.network.classes {
            6 => serde_json::json!(CLASSES).to_string(),
            _ => "[]".into(),
        };
        let metadata = [
            ("config".to_string(), self.config.to_toml()),
            ("classes".to_string(), classes),
        ];
        write_with(&self.path("w.safetensors"), &self.parameters, metadata).unwrap();
    }

    /// With the last layer's weights times a factor: networks in which little is left of an
    /// image's signal tell images apart with a large one.
    pub fn sharpened(mut self, factor: f32) -> Self {
        let last = self.parameters.0.iter_mut();
        for tensor in last.filter(|t| t.name == "fc8.weight") {
            tensor.values.iter_mut().for_each(|v| *v *= factor);
        }
        self.write();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Tensors alone, without anything that tells the network.
    pub fn bare(&self, name: &str, tensors: &Tensors) {
        write_tensors(&self.path(name), tensors).unwrap();
    }

    /// An image folder with the statistics' file beside the weights.
    pub fn with_images(self, per_class: usize) -> Self {
        let side = self.config.data.side;
        for (half, seed) in [("train", 1), ("val", 2)] {
            for (class, name) in CLASSES[..self.config.network.classes].iter().enumerate() {
                let folder = self.path("data").join(half).join(name);
                std::fs::create_dir_all(&folder).unwrap();
                for i in 0..per_class {
                    let pixels = pixels(side, seed * 1000 + (class * per_class + i) as u32);
                    let image =
                        image::RgbImage::from_raw(side as u32, side as u32, pixels).unwrap();
                    image.save(folder.join(format!("{i}.png"))).unwrap();
                }
            }
        }
        let mut statistics = Statistics::zero(side);
        statistics.mean = (0..side * side * 3).map(MEAN).collect();
        statistics
            .write(&self.path("stats.safetensors"), None)
            .unwrap();
        self
    }

    /// Exports its weights.
    pub fn export(&self, format: &str, out: &str) {
        self.good(&["export", "w.safetensors", "--to", format, "--out", out]);
    }

    /// Runs the program in the folder.
    pub fn run(&self, arguments: &[&str]) -> Output {
        run(self.folder.path(), arguments)
    }

    /// Runs it, expecting success; gives what it printed.
    pub fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it, expecting this exit code and one line; gives the line.
    pub fn bad(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{stderr}");
        errors[0].to_string()
    }
}

/// Scales a tensor so that signals keep their size from layer to layer, and logits are small.
fn keep_signals(tensor: &mut Tensor) {
    if tensor.name.ends_with("bias") {
        tensor.values.iter_mut().for_each(|v| *v *= 0.1);
        return;
    }
    let fan_in: usize = tensor.shape[1..].iter().product();
    let squares: f32 = tensor.values.iter().map(|v| v * v).sum();
    let own = (squares / tensor.values.len() as f32).sqrt();
    let last = if tensor.name == "fc8.weight" {
        0.1
    } else {
        1.0
    };
    let factor = last * (2.0 / fan_in as f32).sqrt() / own;
    tensor.values.iter_mut().for_each(|v| *v *= factor);
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alexnet-mp"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// A coloured pattern that differs with `seed`.
pub fn pixels(side: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let colours: Vec<[u8; 3]> = (0..9)
        .map(|_| next().to_le_bytes())
        .map(|b| [b[0], b[1], b[2]])
        .collect();
    let cell = side.div_ceil(3);
    (0..side * side)
        .flat_map(|p| {
            let (y, x) = (p / side, p % side);
            let noise = (next() >> 28) as u8;
            colours[y / cell * 3 + x / cell].map(|c| c.saturating_add(noise))
        })
        .collect()
}

/// f32 values of an npy file, and its shape.
pub fn read_npy(path: &Path) -> (Vec<u64>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

/// |a − b| / |b|
pub fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        difference += square(f64::from(a) - f64::from(b));
        norm += square(f64::from(b));
    }
    (difference / norm).sqrt()
}

/// A Python with the packages that a check against another program needs; where there is none,
/// it is said aloud, past the test's captured output, that the check is skipped.
pub fn python(packages: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ALEXNET_MP_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let found = Command::new(&python)
        .args(["-c", &format!("import {packages}")])
        .output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let test = std::thread::current()
        .name()
        .unwrap_or("a test")
        .to_string();
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {test}: {} lacks {packages} (ALEXNET_MP_PYTHON names another Python)",
        python.display()
    );
    None
}

/// Runs Python in the case's folder.
pub fn python_run(python: &Path, case: &Case, arguments: &[&str]) {
    let output = Command::new(python)
        .args(arguments)
        .current_dir(case.folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
}
