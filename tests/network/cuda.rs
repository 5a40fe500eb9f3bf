//! The same checks on GPUs: real ones, or the virtual driver's. Small, for the virtual one is slow.

use crate::cases::Case;
use crate::checks::*;
use alexnet_mp::device::cuda::CudaDevice;
use vcuda::{Driver, Fibres, Options, Session, Streams};

/// A driver with enough GPUs, or none, said aloud.
pub fn session(options: &Options, gpus: &[usize]) -> Option<Session> {
    let session = vcuda::session(options);
    let enough = match session.driver() {
        Driver::Virtual => true,
        Driver::Real => (0..=gpus[gpus.len() - 1]).all(|gpu| CudaDevice::open(gpu).is_ok()),
        Driver::None => false,
    };
    if !enough {
        println!("skipped: not so many GPUs as {gpus:?}, and no virtual driver here");
    }
    enough.then_some(session)
}

fn equals_the_reference_on(gpus: &[usize], case: &Case, kind: Kind, options: &Options) {
    let Some(session) = session(options, gpus) else {
        return;
    };
    let open = |&gpu: &usize| CudaDevice::open(gpu).unwrap();
    equals_the_reference(case, kind, gpus.iter().map(open).collect());
    assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
}

#[test]
fn the_papers_network_on_one_gpu() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("paper", &[]);
        equals_the_reference_on(&[0], &case, Kind::Counter, &Options::default());
    });
}

/// More maps than a warp has room for beside its own: normalisation and pooling one after the other.
#[test]
fn a_normalisation_too_wide_for_one_pass_with_the_pool() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("paper", &["network.lrn.n=17", "network.lrn.alpha=0.01"]);
        equals_the_reference_on(&[0], &case, Kind::Off, &Options::default());
    });
}

#[test]
fn the_papers_network_on_two_gpus() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("paper", &[]);
        for streams in [Streams::Lazy, Streams::Random(3)] {
            let options = Options {
                streams: Some(streams),
                fibres: Some(Fibres::Descending),
                ..Options::default()
            };
            equals_the_reference_on(&[0, 1], &case, Kind::Given, &options);
        }
    });
}

#[test]
fn the_papers_network_on_one_gpu_named_twice() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("paper", &[]);
        equals_the_reference_on(&[0, 0], &case, Kind::Off, &Options::default());
    });
}

#[test]
fn the_papers_network_on_two_gpus_without_peer_access() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("paper", &[]);
        let options = Options {
            peer_access: Some(false),
            ..Options::default()
        };
        equals_the_reference_on(&[0, 1], &case, Kind::Counter, &options);
    });
}

#[test]
fn the_2012_sources_network_on_two_gpus() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("source-145", &[]);
        equals_the_reference_on(&[0, 1], &case, Kind::Counter, &Options::default());
        let case = Case::tiny("source-145", &["network.activation=tanh"]);
        equals_the_reference_on(&[0], &case, Kind::Given, &Options::default());
    });
}

#[test]
fn caffes_network_on_two_gpus() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("caffe", &["network.lrn.alpha=0.01"]);
        equals_the_reference_on(&[0, 1], &case, Kind::Counter, &Options::default());
    });
}

#[test]
fn one_column_of_the_2012_source() {
    vcuda::in_own_process(|| {
        let case = Case::tiny("source-145-half", &[]);
        equals_the_reference_on(&[0], &case, Kind::Counter, &Options::default());
    });
}

#[test]
fn what_crosses_between_gpus_is_what_the_plan_says() {
    vcuda::in_own_process(|| {
        let Some(_session) = session(&Options::default(), &[0, 1]) else {
            return;
        };
        let case = Case::tiny("paper", &[]);
        let gpus = (0..2).map(|gpu| CudaDevice::open(gpu).unwrap()).collect();
        let mut engine = engine(&case, gpus);
        let predicted = 2 * engine.plan().exchanged_bytes(case.images) as u64;
        step(&mut engine, &case, 0, alexnet_mp::engine::Dropping::Off);
        assert_eq!(engine.exchanged_bytes(), predicted);
    });
}
