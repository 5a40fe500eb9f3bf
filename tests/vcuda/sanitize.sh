#!/bin/sh
# Runs tests on the virtual CUDA driver built with a sanitizer of the C++ compiler:
#
#   tests/vcuda/sanitize.sh address|thread|undefined [arguments of cargo test]
#
# Without arguments: the self-test, which plants a mistake of each kind and expects its report. Only the C++ half is
# rebuilt, under target/sanitize-KIND; the test binaries are the ordinary ones, with the library preloaded.
set -eu
kind=${1:?address, thread or undefined}
shift
cd "$(dirname "$0")/../.."
preload=$(VCUDA_SANITIZE=$kind cargo run --quiet --release --package vcuda --target-dir "target/sanitize-$kind")
[ $# -gt 0 ] || set -- --test vcuda_sanitizers

export VCUDA_SANITIZED="$kind"
# Rust's own allocations at exit are no leaks of ours.
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=0"
# Only the kernels are instrumented: how Rust's threads hand memory to each other cannot be seen.
export TSAN_OPTIONS="ignore_noninstrumented_modules=1:halt_on_error=1"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="env $preload"
exec cargo test --release "$@"
