#!/bin/sh
# Runs tests with AddressSanitizer in the Rust code, which is where the CPU kernels' `unsafe` is:
#
#   tests/sanitize.sh [arguments of cargo test]
#
# Without arguments: every operation against float64. Builds under target/sanitize; the virtual GPUs stay away
# (tests/vcuda/sanitize.sh is theirs).
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- --test operations
export VCUDA_ABSENT=1
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
# What threads of a pool hold when the process ends is no leak of ours.
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
exec cargo test --release --no-default-features --target x86_64-unknown-linux-gnu --target-dir target/sanitize "$@"
