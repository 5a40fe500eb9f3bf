//! `step` against PyTorch in float64, where Python with torch is there: `tests/pytorch/step.py`.
//! `ALEXNET_MP_PYTHON` names the interpreter.

use std::io::Write;
use std::path::Path;
use std::process::Command;

fn compare(flags: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch/step.py");
    let python = std::env::var("ALEXNET_MP_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = Command::new(&python)
        .arg(script)
        .args(["--program", env!("CARGO_BIN_EXE_alexnet-mp")])
        .args(flags)
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) => return skipped(&format!("{python}: {error}")),
    };
    println!("{}", String::from_utf8_lossy(&output.stdout));
    // 77: torch or numpy is missing, and it said so.
    if output.status.code() == Some(77) {
        return skipped(String::from_utf8_lossy(&output.stdout).trim());
    }
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Said past the test's captured output.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED comparison with PyTorch: {why}");
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
