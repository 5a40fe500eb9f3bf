//! Runs a command on the virtual driver:
//! `cargo run --release -p vcuda -- target/release/alexnet-mp train --gpus 0,1`.
//!
//! Without a command it prints what to set for that, as a shell assignment.

use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let libraries = [
        vcuda::SANITIZER_RUNTIME,
        vcuda::LIBRARY,
        vcuda::CUBLAS,
        vcuda::NVML,
    ];
    let preload = libraries
        .iter()
        .filter(|path| !path.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(":");
    let Some(program) = arguments.next() else {
        println!("LD_PRELOAD={preload}");
        return;
    };
    let error = Command::new(&program)
        .args(arguments)
        .env("LD_PRELOAD", preload)
        .exec();
    eprintln!("{}: {error}", program.display());
    std::process::exit(127);
}
