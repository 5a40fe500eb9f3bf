//! Runs the C++ compiler, on what changed only: kernel files take seconds each.

use crate::kernels;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

/// One translation unit.
#[derive(Clone)]
pub enum Job {
    /// A C++ file of the emulator.
    Emulator(PathBuf),
    /// A `.cu` file.
    Kernels(PathBuf),
}

#[derive(Clone, Copy, PartialEq)]
enum Sanitizer {
    Address,
    Thread,
    Undefined,
}

pub struct Compiler {
    program: PathBuf,
    out: PathBuf,
    emulator: PathBuf,
    flags: Vec<String>,
    includes: Vec<String>,
    sanitizer: Option<Sanitizer>,
}

impl Compiler {
    pub fn new(out: &Path, emulator: &Path, include: &[&Path]) -> Self {
        let program = cc::Build::new()
            .cpp(true)
            .get_compiler()
            .path()
            .to_path_buf();
        let sanitizer = match std::env::var("VCUDA_SANITIZE").as_deref() {
            Err(_) | Ok("") => None,
            Ok("address") => Some(Sanitizer::Address),
            Ok("thread") => Some(Sanitizer::Thread),
            Ok("undefined") => Some(Sanitizer::Undefined),
            Ok(other) => panic!("VCUDA_SANITIZE={other}: address, thread or undefined"),
        };
        let mut flags: Vec<String> = [
            "-std=c++17",
            "-O3",
            "-fPIC",
            "-pthread",
            "-fvisibility=hidden",
        ]
        .iter()
        // As nvcc: multiply and add fuse, and a float may be read as part of a float4.
        .chain(&["-ffp-contract=fast", "-fno-strict-aliasing"])
        .map(|flag| flag.to_string())
        .collect();
        flags.extend(processor_flags());
        if sanitizer.is_some() {
            flags.extend(["-g1".into(), "-fno-omit-frame-pointer".into()]);
        }
        let folders = [emulator.to_path_buf(), emulator.join("include")];
        let includes = folders
            .iter()
            .map(PathBuf::as_path)
            .chain(include.iter().copied());
        let includes = includes
            .map(|folder| format!("-I{}", folder.display()))
            .collect();
        Self {
            program,
            out: out.into(),
            emulator: emulator.into(),
            flags,
            includes,
            sanitizer,
        }
    }

    /// Compiles every file, several at a time, and returns the objects.
    pub fn compile(&self, jobs: Vec<Job>) -> Vec<PathBuf> {
        let objects: Vec<PathBuf> = jobs.iter().map(|job| self.object_of(job)).collect();
        let waiting = Mutex::new(jobs.into_iter().zip(objects.clone()));
        let workers = std::env::var("NUM_JOBS")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(1);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().unwrap().next();
                        let Some((job, object)) = next else { return };
                        self.compile_one(&job, &object);
                    }
                });
            }
        });
        objects
    }

    /// Links a library that answers to `soname` when a program asks the loader for that.
    pub fn link(
        &self,
        name: &str,
        soname: &str,
        objects: &[PathBuf],
        script: Option<&Path>,
    ) -> PathBuf {
        let library = self.out.join(name);
        let mut command = Command::new(&self.program);
        command
            .args(["-shared", "-pthread", "-Wl,-Bsymbolic"])
            .arg(format!("-Wl,-soname,{soname}"));
        command.args(self.sanitizer_flag());
        if let Some(script) = script {
            command.arg(format!("-Wl,-T,{}", script.display()));
        }
        run(command.arg("-o").arg(&library).args(objects).arg("-ldl"));
        library
    }

    /// What must be in LD_PRELOAD before a sanitized library; empty where nothing must.
    pub fn sanitizer_runtime(&self) -> String {
        let name = match self.sanitizer {
            Some(Sanitizer::Address) => "libasan.so",
            Some(Sanitizer::Thread) => "libtsan.so",
            Some(Sanitizer::Undefined) | None => return String::new(),
        };
        let output = Command::new(&self.program)
            .arg(format!("-print-file-name={name}"))
            .output();
        String::from_utf8(output.expect("the C++ compiler runs").stdout)
            .unwrap()
            .trim()
            .to_string()
    }

    fn object_of(&self, job: &Job) -> PathBuf {
        let (Job::Emulator(source) | Job::Kernels(source)) = job;
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let stem = source.file_stem().unwrap().to_string_lossy();
        self.out
            .join(format!("{stem}-{:08x}.o", hasher.finish() as u32))
    }

    fn compile_one(&self, job: &Job, object: &Path) {
        let dependencies = object.with_extension("d");
        let flags = self.flags_of(job);
        let stamp = object.with_extension("flags");
        if is_fresh(object, &dependencies)
            && fs::read_to_string(&stamp).is_ok_and(|old| old == flags.join(" "))
        {
            return;
        }
        let _ = fs::remove_file(object);
        let source = match job {
            Job::Emulator(source) => source.clone(),
            Job::Kernels(source) => self.translate(source, object),
        };
        let mut command = Command::new(&self.program);
        command
            .args(&flags)
            .arg("-c")
            .arg(&source)
            .arg("-o")
            .arg(object);
        if matches!(job, Job::Emulator(_)) {
            command.arg("-MMD").arg("-MF").arg(&dependencies);
        }
        run(&mut command);
        fs::write(stamp, flags.join(" ")).unwrap();
    }

    /// Preprocesses a `.cu` file and makes C++ of it.
    fn translate(&self, source: &Path, object: &Path) -> PathBuf {
        let wrapper = object.with_extension("wrapper.cpp");
        fs::write(&wrapper, kernels::wrapper(source)).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(self.flags_of(&Job::Kernels(source.into())))
            .arg("-E")
            .arg(&wrapper);
        command
            .arg("-include")
            .arg(self.emulator.join("cuda_shim.h"));
        command
            .arg("-MD")
            .arg("-MF")
            .arg(object.with_extension("d"));
        let translated = object.with_extension("cpp");
        fs::write(&translated, kernels::translate(&run(&mut command))).unwrap();
        translated
    }

    fn flags_of(&self, job: &Job) -> Vec<String> {
        let mut flags = self.flags.clone();
        flags.extend(self.includes.iter().cloned());
        match job {
            Job::Emulator(_) => {
                flags.extend(["-Wall".into(), "-Wextra".into()]);
                match self.sanitizer {
                    // What switches the threads must itself stay unseen by ThreadSanitizer.
                    Some(Sanitizer::Thread) => flags.push("-DSIMT_TSAN".into()),
                    _ => flags.extend(self.sanitizer_flag()),
                }
            }
            Job::Kernels(_) => {
                // One section per variable, so that the linker can gather the shared ones.
                flags.extend(["-w".into(), "-fdata-sections".into()]);
                flags.extend(self.sanitizer_flag());
            }
        }
        flags
    }

    fn sanitizer_flag(&self) -> Option<String> {
        self.sanitizer.map(|sanitizer| match sanitizer {
            Sanitizer::Address => "-fsanitize=address".into(),
            Sanitizer::Thread => "-fsanitize=thread".into(),
            Sanitizer::Undefined => "-fsanitize=undefined".into(),
        })
    }
}

/// nvcc fuses multiply-adds, so the host does too where it can.
fn processor_flags() -> Vec<String> {
    let mut flags = vec![];
    #[cfg(target_arch = "x86_64")]
    for (present, flag) in [
        (is_x86_feature_detected!("avx2"), "-mavx2"),
        (is_x86_feature_detected!("fma"), "-mfma"),
        (is_x86_feature_detected!("f16c"), "-mf16c"),
    ] {
        if present {
            flags.push(flag.to_string());
        }
    }
    flags
}

/// Whether nothing that the object was made from is younger than it.
fn is_fresh(object: &Path, dependencies: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let (Some(built), Ok(list)) = (modified(object), fs::read_to_string(dependencies)) else {
        return false;
    };
    let sources = list.replace("\\\n", " ");
    let Some((_, sources)) = sources.split_once(':') else {
        return false;
    };
    let is_old = |time: SystemTime| time <= built;
    sources
        .split_whitespace()
        // The wrapper is written anew each time; what it includes counts.
        .filter(|path| !path.ends_with(".wrapper.cpp"))
        .all(|path| modified(Path::new(path)).is_some_and(is_old))
}

/// Runs a command to its success and returns what it printed.
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{messages}");
    for line in messages.lines() {
        println!("cargo:warning={line}");
    }
    String::from_utf8(output.stdout).expect("the compiler prints UTF-8")
}
