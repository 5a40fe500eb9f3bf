//! Builds the shared libraries: the virtual CUDA driver with every kernel in it, the virtual
//! cuBLAS, and the virtual NVML.

mod compile;
mod kernels;

use compile::{Compiler, Job};
use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=VCUDA_SANITIZE");
    println!("cargo:rerun-if-env-changed=CXX");
    println!("cargo:rerun-if-env-changed=VCUDA_ABSENT");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let root = here.join("../..").canonicalize().unwrap();
    for watched in [
        here.join("emu"),
        here.join("kernels"),
        here.join("build"),
        root.join("kernels"),
    ] {
        // A path that does not exist would make Cargo run this script every time.
        if watched.exists() {
            println!("cargo:rerun-if-changed={}", watched.display());
        }
    }
    let supported = env::var("CARGO_CFG_TARGET_OS").unwrap() == "linux"
        && env::var("CARGO_CFG_TARGET_ARCH").unwrap() == "x86_64"
        && env::var_os("VCUDA_ABSENT").is_none();
    let libraries = if supported {
        build(&here, &root)
    } else {
        Libraries::default()
    };
    println!("cargo:rustc-env=VCUDA_DRIVER={}", libraries.driver);
    println!("cargo:rustc-env=VCUDA_CUBLAS={}", libraries.cublas);
    println!("cargo:rustc-env=VCUDA_NVML={}", libraries.nvml);
    println!("cargo:rustc-env=VCUDA_RUNTIME={}", libraries.runtime);
}

/// Paths of what was built; empty where there is nothing.
#[derive(Default)]
struct Libraries {
    driver: String,
    cublas: String,
    nvml: String,
    /// The sanitizer's own library, which must be loaded before everything else.
    runtime: String,
}

fn build(here: &Path, root: &Path) -> Libraries {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let emulator = here.join("emu");
    let compiler = Compiler::new(
        &out,
        &emulator,
        &[&root.join("kernels"), &here.join("kernels")],
    );

    let mut jobs: Vec<Job> = [
        files(&emulator, "cpp"),
        files(&emulator.join("driver"), "cpp"),
    ]
    .concat()
    .into_iter()
    .map(Job::Emulator)
    .collect();
    let kernel_files = [
        files(&root.join("kernels"), "cu"),
        files(&here.join("kernels"), "cu"),
    ]
    .concat();
    jobs.extend(kernel_files.into_iter().map(Job::Kernels));
    let driver_objects = compiler.compile(jobs);
    let driver = compiler.link(
        "libvcuda.so",
        "libcuda.so",
        &driver_objects,
        Some(&emulator.join("shared.ld")),
    );

    let sources = files(&emulator.join("cublas"), "cpp");
    let cublas_objects = compiler.compile(sources.into_iter().map(Job::Emulator).collect());
    let cublas = compiler.link("libvcublas.so", "libcublas.so", &cublas_objects, None);

    let sources = files(&emulator.join("nvml"), "cpp");
    let nvml_objects = compiler.compile(sources.into_iter().map(Job::Emulator).collect());
    let nvml = compiler.link("libvnvml.so", "libnvidia-ml.so.1", &nvml_objects, None);

    Libraries {
        driver: driver.display().to_string(),
        cublas: cublas.display().to_string(),
        nvml: nvml.display().to_string(),
        runtime: compiler.sanitizer_runtime(),
    }
}

/// The files of a folder that end in `.extension`, sorted; none if there is no such folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folder
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}
