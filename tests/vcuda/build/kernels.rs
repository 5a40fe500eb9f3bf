//! Turns a preprocessed `.cu` file into C++ for the host compiler, with an entry for each kernel.

use std::fmt::Write;
use std::path::Path;

// What `__global__` and `__launch_bounds__` become in the preprocessor (emu/shim/language.h).
const GLOBAL: &str = "SIMT_GLOBAL";
const BOUNDS: &str = "SIMT_BOUNDS";

/// What is given to the preprocessor. The namespace keeps two files' helpers of one name apart, as
/// two modules would.
pub fn wrapper(source: &Path) -> String {
    format!("namespace {{\n#include \"{}\"\n", source.display())
}

/// The translation unit: the text itself, then the table entries of its kernels.
pub fn translate(preprocessed: &str) -> String {
    let mut unit = unroll_pragmas(&without_qualifiers(preprocessed));
    for kernel in find(preprocessed) {
        let Kernel { name, bounds } = kernel;
        let bounds = bounds.unwrap_or("0");
        write!(
            unit,
            "const simt::Kernel simt_kernel_{name} = {{\"{name}\", simt::Signature<{name}>::entry, \
             simt::Signature<{name}>::count, simt::Signature<{name}>::sizes, simt::Signature<{name}>::pointers, \
             simt::first_bound({bounds})}};\n\
             __attribute__((section(\"simt_kernels\"), used)) \
             const simt::Kernel* const simt_entry_{name} = &simt_kernel_{name};\n"
        )
        .unwrap();
    }
    unit + "}\n"
}

#[derive(Debug, PartialEq)]
struct Kernel<'a> {
    name: &'a str,
    bounds: Option<&'a str>,
}

/// The kernels that a text defines or declares, templates left out: nobody can look those up by
/// name.
fn find(text: &str) -> Vec<Kernel<'_>> {
    let mut found: Vec<Kernel> = vec![];
    for (at, _) in text.match_indices(GLOBAL) {
        if text[..at].trim_end().ends_with('>') {
            continue;
        }
        let mut rest = text[at + GLOBAL.len()..].trim_start();
        let mut bounds = None;
        loop {
            if let Some(after) = rest.strip_prefix(BOUNDS) {
                let (inside, after) = parenthesised(after);
                bounds = Some(inside);
                rest = after.trim_start();
            } else if let Some(after) = rest.strip_prefix('#') {
                rest = after
                    .split_once('\n')
                    .map_or("", |(_, next)| next)
                    .trim_start(); // a line marker
            } else if let Some(after) = rest.strip_prefix("void") {
                rest = after.trim_start();
            } else {
                break;
            }
        }
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let name = &rest[..end];
        if !name.is_empty() && found.iter().all(|kernel| kernel.name != name) {
            found.push(Kernel { name, bounds });
        }
    }
    found
}

/// Splits "(inside) after".
fn parenthesised(text: &str) -> (&str, &str) {
    let open = text.find('(').expect("__launch_bounds__ takes arguments");
    let mut depth = 0;
    for (at, c) in text.char_indices().skip(open) {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&text[open + 1..at], &text[at + 1..]);
        }
    }
    panic!("__launch_bounds__ is not closed");
}

fn without_qualifiers(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BOUNDS) {
        clean.push_str(&rest[..at]);
        rest = parenthesised(&rest[at + BOUNDS.len()..]).1;
    }
    clean.push_str(rest);
    clean.replace(GLOBAL, "")
}

/// nvcc's hint in GCC's words. A loop it does not unroll would keep a thread's accumulators in
/// memory.
fn unroll_pragmas(text: &str) -> String {
    const WHOLE: &str = "16";
    let translate = |line: &str| -> String {
        let Some(argument) = line.trim().strip_prefix("#pragma unroll") else {
            return line.to_string();
        };
        let argument = argument.trim().trim_matches(['(', ')']);
        let is_number = !argument.is_empty() && argument.bytes().all(|b| b.is_ascii_digit());
        format!(
            "#pragma GCC unroll {}",
            if is_number { argument } else { WHOLE }
        )
    };
    text.lines().map(|line| translate(line) + "\n").collect()
}
