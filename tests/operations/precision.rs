//! Every operation of a training step in every precision, against the plain float64 device on the
//! same operands.
#![cfg(feature = "cuda")]

use crate::support::on_gpus;
use alexnet_mp::precision::Precision;
use alexnet_mp::verify::{self, Options};

#[test]
fn every_operation_agrees_with_float64_in_16_bits_and_tf32() {
    vcuda::in_own_process(every_operation_agrees);
}

fn every_operation_agrees() {
    on_gpus(|open| {
        for precision in [Precision::Bf16, Precision::F16, Precision::Tf32] {
            let options = Options {
                quick: true,
                precision,
            };
            let mut failures = vec![];
            verify::operations(&mut open(), &options, &mut |check| {
                if !check.passed {
                    failures.push(check.line());
                }
            })
            .unwrap();
            assert!(failures.is_empty(), "{precision}: {failures:#?}");
        }
    });
}
