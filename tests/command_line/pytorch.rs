//! `step` against PyTorch in float64, where Python with torch is there: `tests/pytorch/step.py`.
//! `PYTHON` names the interpreter.

use std::path::Path;
use std::process::Command;

fn compare(flags: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch/step.py");
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let run = Command::new(&python)
        .arg(script)
        .args(["--program", env!("CARGO_BIN_EXE_alexnet-mp")])
        .args(flags)
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) => return println!("skipped: {python}: {error}"),
    };
    println!("{}", String::from_utf8_lossy(&output.stdout));
    // 77: torch or numpy is missing, and it said so.
    if output.status.code() != Some(77) {
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn steps_at_a_quarter_of_the_width_equal_pytorchs() {
    let small = ["--width", "0.25", "--image", "64", "--classes", "10"];
    compare(&small);
    compare(&[&small[..], &["--test-time"]].concat());
}

#[test]
#[ignore = "full size: minutes, and several GiB of memory"]
fn steps_at_full_size_equal_pytorchs() {
    compare(&["--batch", "4"]);
}
