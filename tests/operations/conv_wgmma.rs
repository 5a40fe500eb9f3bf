//! Convolution by wgmma, against float64: as in `conv_tensor.rs`, for the shapes that it serves.
#![cfg(feature = "cuda")]

use crate::conv::{op, the_five_layers};
use crate::conv_tensor::Case;
use crate::support::*;
use alexnet_mp::network::op::Conv;
use alexnet_mp::precision::Precision;

const PRECISIONS: [Precision; 2] = [Precision::Bf16, Precision::F16];

/// Outputs that fill tiles, and with them depths, pixels and maps that do not.
fn shapes() -> Vec<Conv> {
    vec![
        op((8, 7, 9), 1, 128, (3, 1, 1)),
        op((48, 6, 5), 1, 128, (5, 1, 2)),
        op((16, 9, 7), 2, 192, (3, 1, 1)),
        op((192, 5, 4), 1, 128, (3, 2, 1)),
        op((128, 5, 6), 2, 192, (2, 1, 0)),
        op((96, 4, 4), 1, 384, (1, 1, 0)),
        op((144, 3, 3), 1, 24, (3, 1, 1)),
    ]
}

fn check(cases: &[Case]) {
    on_gpus(|open| {
        let mut d = open();
        for case in cases {
            for precision in PRECISIONS {
                let before = vcuda::counters().wgmma;
                case.check(&mut d, precision);
                let virtual_gpu = vcuda::install_default() == vcuda::Driver::Virtual;
                assert!(
                    !virtual_gpu || vcuda::counters().wgmma > before,
                    "{precision:?}"
                );
            }
        }
    });
}

#[test]
fn shapes_that_fill_tiles_agree_with_float64() {
    by_wgmma(|| {
        let mut cases: Vec<Case> = shapes().into_iter().map(|op| Case::new(op, 1)).collect();
        if !watched_for_races() {
            // More pixels than one block sums up, and than one tile has rows.
            cases.extend([1, 2, 3].map(|i| Case::new(shapes()[i], 40)));
        }
        check(&cases);
    });
}

#[test]
fn alexnets_layers_agree_with_float64() {
    by_wgmma(|| {
        let layers = the_five_layers().into_iter().skip(1);
        check(&layers.map(|op| Case::new(op, 1)).collect::<Vec<_>>());
    });
}
