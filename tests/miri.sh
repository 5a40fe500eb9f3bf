#!/bin/sh
# Runs the operations' tests on the CPU under Miri, which finds what breaks Rust's rules for pointers and threads:
#
#   tests/miri.sh [arguments of the test binary]
#
# Without arguments: the portable kernels (Miri knows no vector instructions) on one thread, at the shapes Miri gets
# through; the order of threads is loom's and ThreadSanitizer's matter, and rayon's queues break rules of their own.
# Takes half an hour. Needs `rustup toolchain install nightly -c miri,rust-src`; builds under target/miri.
set -eu
cd "$(dirname "$0")/.."
# Left out is what an interpreter does not get through: differences of every element, many images, whole batches.
[ $# -gt 0 ] || set -- ::cpu_portable:: --skip slopes --skip going_back --skip many --skip later_image \
    --skip bias_gradient --skip arrays_updated --skip rate_of --skip augment
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
exec cargo +nightly miri test --no-default-features --target-dir target/miri --test operations -- "$@"
