//! Running the program, and small inputs for it.

use alexnet_mp::checkpoint::{Checkpoint, FILE_NAME, write_tensors};
use alexnet_mp::config::Config;
use alexnet_mp::network::params::{Tensor, Tensors};
use alexnet_mp::random::{Key, Purpose};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program, with a folder of its own to run in.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alexnet-mp"));
    command
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        Ran {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Ran {
    /// Itself, having ended well.
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// What stderr says went wrong, having ended with `code`: one line, unless clap wrote it.
    #[track_caller]
    pub fn wrong(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        let start = self.stderr.find("error: ").expect("an error is announced");
        let message = self.stderr[start..].trim_end();
        let by_clap = message.contains("For more information, try '--help'");
        assert!(by_clap || message.lines().count() == 1, "{self:?}");
        message.to_string()
    }
}

/// Runs the program in `folder`.
#[track_caller]
pub fn run(folder: &Path, arguments: &[&str]) -> Ran {
    program(folder).args(arguments).output().unwrap().into()
}

/// Overrides that make a run of the built-in data small: eight steps an epoch.
pub const TINY: &[&str] = &[
    "--set",
    "data.builtin_train=128",
    "--set",
    "data.builtin_val=32",
    "--set",
    "network.width=0.05",
    "--set",
    "train.batch=16",
    "--set",
    "train.log_every=3",
];

/// Arguments of a tiny training run.
pub fn tiny<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--cpu", "--out", out];
    arguments.extend(TINY);
    arguments.extend(more);
    arguments
}

/// Trains a tiny network in `folder`/`out`.
#[track_caller]
pub fn train(folder: &Path, out: &str, more: &[&str]) -> Ran {
    run(folder, &tiny(out, more)).well()
}

/// Goes on with the run in `folder`/`out`.
#[track_caller]
pub fn resume(folder: &Path, out: &str, more: &[&str]) -> Ran {
    let mut arguments = vec!["train", "--cpu", "--out", out, "--resume"];
    arguments.extend(more);
    run(folder, &arguments).well()
}

/// The newest checkpoint of the run in `folder`/`out`.
#[track_caller]
pub fn checkpoint(folder: &Path, out: &str) -> Checkpoint {
    Checkpoint::load(&folder.join(out).join(FILE_NAME)).unwrap()
}

/// Fails where the checkpoints of two runs are not the same to the bit.
#[track_caller]
pub fn assert_same_checkpoint(folder: &Path, a: &str, b: &str) {
    let (one, other) = (checkpoint(folder, a), checkpoint(folder, b));
    assert_eq!(one.state.step, other.state.step, "{a} and {b}");
    assert_eq!(one.state.plateau, other.state.plateau, "{a} and {b}");
    for (kind, one, other) in [
        ("parameter", &one.parameters, &other.parameters),
        ("momentum", &one.momentum, &other.momentum),
    ] {
        for (x, y) in one.0.iter().zip(&other.0) {
            let bits = |t: &Tensor| -> Vec<u32> { t.values.iter().map(|v| v.to_bits()).collect() };
            assert!(
                x.name == y.name && bits(x) == bits(y),
                "{kind} {} of {a} and {b} differs",
                x.name
            );
        }
    }
}

/// The lines of a run's metrics.
pub fn metrics(folder: &Path, out: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join(out).join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until a run has logged so many lines.
pub fn wait_for_metrics(run: &Path, lines: usize) {
    let begun = Instant::now();
    let logged = || std::fs::read_to_string(run.join("metrics.jsonl"));
    while logged().map_or(0, |text| text.lines().count()) < lines {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "nothing is logged"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a child.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: the process is our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Inputs of `step` in a folder: weights, images, labels, masks.
pub struct StepInputs {
    pub config: Config,
    pub flags: Vec<String>,
}

/// Overrides of the network that `step` is tried with.
const STEP_NETWORK: &[&str] = &[
    "network.width=0.05",
    "network.image=64",
    "network.classes=6",
    "network.init=fan-in",
];

impl StepInputs {
    pub fn write(folder: &Path, images: usize) -> Self {
        let overrides: Vec<String> = STEP_NETWORK.iter().map(ToString::to_string).collect();
        let config = Config::load("paper", &overrides).unwrap();
        let plan = config.plan().unwrap();
        let weights = Tensors::initial(&plan.params, 5);
        write_tensors(&folder.join("w.safetensors"), &weights).unwrap();
        let mut stream = Key::new(6, Purpose::Verify).stream(0, 0);
        let side = config.network.image;
        let mut pixel = || stream.between(-90.0, 90.0);
        let pixels: Vec<f32> = (0..images * 3 * side * side).map(|_| pixel()).collect();
        npy(
            &folder.join("x.npy"),
            "<f4",
            &[images, 3, side, side],
            bytemuck::cast_slice(&pixels),
        );
        let labels: Vec<i64> = (0..images).map(|i| (i % 6) as i64).collect();
        npy(
            &folder.join("y.npy"),
            "<i8",
            &[images],
            bytemuck::cast_slice(&labels),
        );
        let mut mask = |name: &str| {
            let units = config.network.scaled(4096);
            let values = (0..images * units).map(|_| stream.below(2) as f32);
            Tensor {
                name: name.into(),
                shape: vec![images, units],
                values: values.collect(),
            }
        };
        let masks = Tensors(vec![mask("mask6"), mask("mask7")]);
        write_tensors(&folder.join("m.safetensors"), &masks).unwrap();
        let mut flags = vec!["--config".to_string(), "paper".into()];
        for assignment in STEP_NETWORK {
            flags.extend(["--set".into(), assignment.to_string()]);
        }
        for (flag, file) in [
            ("--weights", "w.safetensors"),
            ("--images", "x.npy"),
            ("--labels", "y.npy"),
        ] {
            flags.extend([flag.into(), file.into()]);
        }
        StepInputs { config, flags }
    }

    /// Runs `step` on them; what is in `more` overrides.
    pub fn step(&self, folder: &Path, more: &[&str]) -> Ran {
        self.step_by(&mut program(folder), more)
    }

    /// As `step`, in a process made ready.
    pub fn step_by(&self, program: &mut Command, more: &[&str]) -> Ran {
        program.arg("step").args(more);
        for pair in self.flags.chunks(2) {
            if pair[0] == "--set" || !more.contains(&pair[0].as_str()) {
                program.args(pair);
            }
        }
        program.output().unwrap().into()
    }
}

/// Writes an array as an npy file, format version 1.0.
pub fn npy(path: &Path, kind: &str, shape: &[usize], bytes: &[u8]) {
    let shape: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    std::fs::write(path, file).unwrap();
}

/// A folder that goes away with the test.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Names of the files in a folder.
pub fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |e: PathBuf| e.file_name().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(|e| name(e.unwrap().path())).collect();
    names.sort();
    names
}
