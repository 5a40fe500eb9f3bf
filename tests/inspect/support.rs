//! Small networks and images, and the program run on them.

use alexnet_mp::checkpoint::{write_tensors, write_with};
use alexnet_mp::config::Config;
use alexnet_mp::data::Statistics;
use alexnet_mp::network::params::{Tensor, Tensors};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that goes away, with a small network in it.
pub struct Case {
    pub folder: tempfile::TempDir,
    pub config: Config,
    pub parameters: Tensors,
}

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
        let metadata = [("config".to_string(), case.config.to_toml())];
        write_with(&case.path("w.safetensors"), &case.parameters, metadata).unwrap();
        case
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Tensors alone, without anything that tells the network.
    pub fn bare(&self, name: &str, tensors: &Tensors) {
        write_tensors(&self.path(name), tensors).unwrap();
    }

    /// An image folder with the statistics' file beside the weights.
    pub fn with_images(self, per_class: usize) -> Self {
        let side = self.config.data.side;
        for (half, seed) in [("train", 1), ("val", 2)] {
            for class in 0..self.config.network.classes {
                let folder = self.path("data").join(half).join(format!("class{class}"));
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
        let mean = (0..side * side * 3).map(|i| 100.0 + (i % 37) as f32);
        statistics.mean = mean.collect();
        statistics
            .write(&self.path("stats.safetensors"), None)
            .unwrap();
        self
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

/// A Python with the packages that the checks against other programs need.
pub fn python(packages: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ALEXNET_MP_PYTHON").map(PathBuf::from);
    let candidates = named.into_iter().chain([PathBuf::from("python3")]);
    candidates.into_iter().find(|python| {
        let found = Command::new(python)
            .args(["-c", &format!("import {packages}")])
            .output();
        found.is_ok_and(|o| o.status.success())
    })
}
