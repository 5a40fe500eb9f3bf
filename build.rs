//! Compiles `kernels/*.cu` to fatbins where an nvcc is found, and keeps what ptxas says about each kernel.
//!
//! Without nvcc the build succeeds all the same: the program then holds no GPU kernels, and says so.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Compute capabilities that get machine code of their own, as far as the nvcc found knows them.
const ARCHS: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];

/// What begins the names of files whose instructions one architecture has and none after it: they are compiled for that
/// alone, as "sm_90a".
const SPECIFIC: [(&str, u32); 1] = [("conv_wgmma", 90)];

/// Stands in for a fatbin where there is no nvcc; the virtual driver of the tests needs no more.
const PLACEHOLDER: &[u8] = b"built without nvcc\0";

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    for variable in [
        "NVCC",
        "CUDA_HOME",
        "CUDA_PATH",
        "PATH",
        "VIRTUAL_ENV",
        "ALEXNET_MP_CUDA_ARCHS",
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    if let Err(message) = build() {
        println!("cargo::error={}", message.replace('\n', " | "));
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo gives no OUT_DIR")?);
    let kernels = kernel_files()?;
    let Some(nvcc) = find_nvcc() else {
        for file in &kernels {
            leave_out(&out, file)?;
        }
        return write_report(&out, None, &[], &[]);
    };
    let version = nvcc_version(&nvcc)?;
    let archs = choose_archs(&nvcc)?;
    compile_all(&nvcc, &archs, &kernels, &out)?;
    let mut rows = Vec::new();
    for file in &kernels {
        let report = output(&out, file, "ptxas");
        let text = fs::read_to_string(&report).map_err(|e| format!("{}: {e}", report.display()))?;
        rows.extend(parse_ptxas(&stem(file), &text));
    }
    write_report(&out, Some(version), &archs, &rows)
}

/// The kernel files in byte order of their names.
fn kernel_files() -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = fs::read_dir("kernels")
        .map_err(|e| format!("kernels: {e}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    files.sort();
    Ok(files)
}

fn stem(file: &Path) -> String {
    file.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn output(out: &Path, file: &Path, extension: &str) -> PathBuf {
    out.join(stem(file)).with_extension(extension)
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))
}

/// Puts a placeholder where a file is not compiled, and forgets an earlier compilation of it.
fn leave_out(out: &Path, file: &Path) -> Result<(), String> {
    write(&output(out, file, "stamp"), &[])?;
    write(&output(out, file, "ptxas"), &[])?;
    write(&output(out, file, "fatbin"), PLACEHOLDER)
}

// ---- the compiler -------------------------------------------------------------------------------

/// `NVCC`, `CUDA_HOME`, `CUDA_PATH`, `PATH`, the usual place, then a Python virtual environment's.
fn find_nvcc() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = env::var_os("NVCC").map(PathBuf::from).into_iter().collect();
    for home in ["CUDA_HOME", "CUDA_PATH"] {
        candidates.extend(env::var_os(home).map(|home| Path::new(&home).join("bin/nvcc")));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    candidates.extend(env::split_paths(&path).map(|folder| folder.join("nvcc")));
    candidates.push("/usr/local/cuda/bin/nvcc".into());
    // `pip install "cuda-toolkit[nvcc,...]"` puts it there.
    let lib = env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("lib"));
    for python in lib
        .and_then(|lib| fs::read_dir(lib).ok())
        .into_iter()
        .flatten()
        .flatten()
    {
        for toolkit in ["cu13", "cu12", "cuda_nvcc"] {
            candidates.push(
                python
                    .path()
                    .join("site-packages/nvidia")
                    .join(toolkit)
                    .join("bin/nvcc"),
            );
        }
    }
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// Standard output of `nvcc argument`.
fn ask(nvcc: &Path, argument: &str) -> Result<String, String> {
    let output = Command::new(nvcc)
        .arg(argument)
        .output()
        .map_err(|e| format!("{} does not run: {e}", nvcc.display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} {argument} failed: {stderr}", nvcc.display()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Major and minor number, from "..., release 13.0, V13.0.88".
fn nvcc_version(nvcc: &Path) -> Result<(u32, u32), String> {
    let text = ask(nvcc, "--version")?;
    text.split("release ")
        .nth(1)
        .and_then(|rest| rest.split([',', '\n']).next()?.split_once('.'))
        .and_then(|(major, minor)| Some((major.trim().parse().ok()?, minor.trim().parse().ok()?)))
        .ok_or_else(|| format!("{} --version names no release: {text}", nvcc.display()))
}

/// [`ARCHS`], or those `ALEXNET_MP_CUDA_ARCHS` lists, that this nvcc knows; ascending.
fn choose_archs(nvcc: &Path) -> Result<Vec<u32>, String> {
    let listing = ask(nvcc, "--list-gpu-code")?;
    let known: BTreeSet<u32> = listing
        .split_whitespace()
        .filter_map(|code| code.strip_prefix("sm_")?.parse().ok())
        .collect();
    let Ok(wanted) = env::var("ALEXNET_MP_CUDA_ARCHS") else {
        let archs: Vec<u32> = ARCHS
            .into_iter()
            .filter(|arch| known.contains(arch))
            .collect();
        return if archs.is_empty() {
            Err(format!(
                "{} knows none of the architectures {ARCHS:?}",
                nvcc.display()
            ))
        } else {
            Ok(archs)
        };
    };
    let mut archs = BTreeSet::new();
    for word in wanted
        .split([',', ';', ' '])
        .filter(|word| !word.is_empty())
    {
        match word.trim_start_matches("sm_").parse() {
            Ok(arch) if known.contains(&arch) => archs.insert(arch),
            _ => {
                return Err(format!(
                    "ALEXNET_MP_CUDA_ARCHS: {word:?} is no architecture that {} knows; it knows {known:?}",
                    nvcc.display()
                ));
            }
        };
    }
    if archs.is_empty() {
        return Err(
            "ALEXNET_MP_CUDA_ARCHS is empty; unset it, or list architectures, as in \"80,90\""
                .into(),
        );
    }
    Ok(archs.into_iter().collect())
}

// ---- compilation --------------------------------------------------------------------------------

/// Compiles every file, as many at a time as cargo allows jobs.
fn compile_all(nvcc: &Path, archs: &[u32], kernels: &[PathBuf], out: &Path) -> Result<(), String> {
    let jobs = env::var("NUM_JOBS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1usize);
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, kernels.len().max(1)) {
            scope.spawn(|| {
                while let Some(file) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let (Err(message), Ok(mut failures)) =
                        (compile(nvcc, archs, file, out), failures.lock())
                    {
                        failures.push(message);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().map_err(|e| e.to_string())?;
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n"))
    }
}

/// One file to a fatbin: machine code for `archs`, and PTX of the newest for GPUs yet to come.
fn compile(nvcc: &Path, archs: &[u32], file: &Path, out: &Path) -> Result<(), String> {
    let mut arguments: Vec<OsString> = [
        "-O3",
        "-std=c++17",
        "--fatbin",
        "-Xptxas",
        "-v,-warn-spills",
        "-Ikernels",
    ]
    .map(OsString::from)
    .into();
    let specific = SPECIFIC
        .iter()
        .find(|(start, _)| stem(file).starts_with(start));
    match specific {
        Some((_, arch)) if !archs.contains(arch) => {
            return leave_out(out, file);
        }
        Some((_, arch)) => {
            arguments.push(format!("-gencode=arch=compute_{arch}a,code=sm_{arch}a").into());
        }
        None => arguments.extend(generate_code(archs)),
    }
    arguments.extend([
        "-o".into(),
        output(out, file, "fatbin").into_os_string(),
        file.as_os_str().to_owned(),
    ]);
    // Cargo runs this script again when `PATH` changes; minutes of compilation should not follow from that.
    let stamp = format!("{nvcc:?} {arguments:?}\n{}", sources(file)?);
    let stamp_file = output(out, file, "stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(());
    }
    let run = Command::new(nvcc)
        .args(&arguments)
        .output()
        .map_err(|e| format!("{} does not run: {e}", nvcc.display()))?;
    write(&output(out, file, "ptxas"), &run.stderr)?;
    if run.status.success() {
        return write(&stamp_file, stamp.as_bytes());
    }
    let said = String::from_utf8_lossy(&run.stderr);
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("error"))
        .take(5)
        .collect();
    let shown = if errors.is_empty() {
        said.trim().to_owned()
    } else {
        errors.join("\n")
    };
    Err(format!(
        "nvcc failed on {} ({}): {shown}",
        file.display(),
        nvcc.display()
    ))
}

/// Options that ask for machine code for `archs`, and PTX of the newest.
fn generate_code(archs: &[u32]) -> impl Iterator<Item = OsString> {
    let real = archs
        .iter()
        .map(|arch| format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    let newest = archs.last().into_iter();
    let virtual_code =
        newest.map(|arch| format!("-gencode=arch=compute_{arch},code=compute_{arch}"));
    real.chain(virtual_code).map(OsString::from)
}

/// The text of a kernel file and of all headers.
fn sources(file: &Path) -> Result<String, String> {
    let mut files: Vec<PathBuf> = fs::read_dir("kernels")
        .map_err(|e| format!("kernels: {e}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "cuh"))
        .collect();
    files.sort();
    files.push(file.to_owned());
    files
        .iter()
        .map(|path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display())))
        .collect()
}

// ---- what ptxas said ----------------------------------------------------------------------------

/// Resources of one kernel on one architecture; memory in bytes.
#[derive(Default)]
struct Row {
    file: String,
    kernel: String,
    arch: u32,
    registers: u32,
    stack: u32,
    spill_stores: u32,
    spill_loads: u32,
    shared: u32,
    serialized: bool,
}

/// Reads the report of `nvcc -Xptxas -v`: warnings, then per kernel a line that names it, one with its stack and spills, one
/// with its registers and shared memory.
fn parse_ptxas(file: &str, text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let mut quoted = rest.split('\'');
            let quoted_name = quoted.next().unwrap_or_default();
            let arch = quoted
                .nth(1)
                .and_then(|arch| arch.strip_prefix("sm_"))
                .and_then(|arch| arch.trim_end_matches('a').parse().ok());
            rows.push(Row {
                file: file.into(),
                kernel: quoted_name.to_owned(),
                arch: arch.unwrap_or(0),
                serialized: text.lines().any(|line| is_serialized(line, quoted_name)),
                ..Row::default()
            });
        }
        let Some(row) = rows.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            row.stack = number_before(line, " bytes stack frame");
            row.spill_stores = number_before(line, " bytes spill stores");
            row.spill_loads = number_before(line, " bytes spill loads");
        }
        if line.contains(": Used ") {
            row.registers = number_before(line, " registers");
            row.shared = number_before(line, " bytes smem");
        }
    }
    rows
}

/// Whether a line warns that products by wgmma in this kernel wait for each other.
fn is_serialized(line: &str, kernel: &str) -> bool {
    line.contains("wgmma.mma_async instructions are serialized")
        && line.contains(&format!("'{kernel}'"))
}

/// The number that ends where `suffix` begins; 0 where there is none.
fn number_before(line: &str, suffix: &str) -> u32 {
    let before = line.split_once(suffix).map_or("", |(before, _)| before);
    before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// Writes what `src/device/cuda/report.rs` includes.
fn write_report(
    out: &Path,
    nvcc: Option<(u32, u32)>,
    archs: &[u32],
    rows: &[Row],
) -> Result<(), String> {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "pub const NVCC_VERSION: Option<(u32, u32)> = {nvcc:?};"
    );
    let _ = writeln!(text, "pub const ARCHS: &[u32] = &{archs:?};");
    let _ = writeln!(text, "pub const KERNELS: &[KernelReport] = &[");
    for r in rows {
        let _ = writeln!(
            text,
            "    KernelReport {{ file: {:?}, kernel: {:?}, arch: {}, registers: {}, stack: {}, spill_stores: {}, \
             spill_loads: {}, shared: {}, serialized: {} }},",
            r.file,
            r.kernel,
            r.arch,
            r.registers,
            r.stack,
            r.spill_stores,
            r.spill_loads,
            r.shared,
            r.serialized
        );
    }
    text.push_str("];\n");
    write(&out.join("kernel_report.rs"), text.as_bytes())
}
