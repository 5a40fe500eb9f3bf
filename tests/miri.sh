#!/bin/sh
# Runs the operations' tests on the CPU under Miri, which finds what breaks Rust's rules for pointers and threads:
#
#   tests/miri.sh [arguments of the test binary]
#
# Without arguments: every operation, on two threads, the portable kernels (Miri knows no vector instructions), at the
# shapes Miri gets through. Needs a nightly toolchain: `rustup toolchain install nightly -c miri,rust-src`. Builds under
# target/miri.
set -eu
cd "$(dirname "$0")/.."
# Too many steps for an interpreter: differences of every element, many images, statistics of many draws.
[ $# -gt 0 ] || set -- ::cpu:: --skip slopes --skip many --skip later_image --skip rate_of --skip same_bits \
    --skip matrices --skip bias_gradient
# Threads of a pool that outlive the test are no leak of ours.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks ${MIRIFLAGS:-}"
exec cargo +nightly miri test --no-default-features --target-dir target/miri --test operations -- "$@"
