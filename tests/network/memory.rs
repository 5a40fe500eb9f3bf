//! What an engine says it needs of memory, before it allocates any, is what it takes.

use crate::cases::Case;
use crate::checks::step;
use alexnet_mp::device::Device;
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::engine::{Dropping, Engine};

/// Bytes that the padding of each buffer, the loss scale and values read later may take beside what is told.
fn slack(images: usize) -> usize {
    16384 + 256 * images
}

fn is_as_told<D: Device>(case: &Case, devices: Vec<D>, keep: bool) {
    let config = &case.config;
    let plan = config.plan().unwrap();
    let (count, side) = (devices.len(), config.data.side);
    let what = (&case.name, count, config.train.precision, keep);
    let told = Engine::needed(&plan, &devices, side, keep);
    let before: Vec<usize> = devices.iter().map(Device::allocated_bytes).collect();
    let mut engine = Engine::new(plan, devices, side, 0, keep).unwrap();
    let taken = |engine: &Engine<D>| -> Vec<usize> {
        let after = engine.allocated_bytes();
        after.iter().zip(&before).map(|(a, b)| a - b).collect()
    };
    for (taken, told) in taken(&engine).iter().zip(&told) {
        let off = taken.abs_diff(told.buffers);
        assert!(off <= slack(case.images), "{what:?}: {taken} of {told:?}");
    }
    engine.set_parameters(&case.parameters).unwrap();
    for _ in 0..2 {
        step(&mut engine, case, 0, Dropping::Counter { step: 0 });
    }
    for (taken, told) in taken(&engine).iter().zip(&told) {
        let most = told.buffers + told.work + slack(case.images);
        assert!(*taken <= most, "{what:?}: {taken} of {told:?}");
    }
}

#[test]
fn on_cpus_buffers_are_as_large_as_told() {
    for (preset, devices) in [
        ("paper", 1),
        ("paper", 2),
        ("source-145", 2),
        ("source-145-half", 1),
    ] {
        for (images, keep) in [(1, true), (6, true), (6, false)] {
            let case = Case::new(preset, crate::cases::TINY, &[], images);
            let open = |_| CpuDevice::open(1).unwrap();
            is_as_told(&case, (0..devices).map(open).collect(), keep);
        }
    }
}

#[cfg(feature = "cuda")]
#[test]
fn on_gpus_they_are_in_every_precision() {
    use alexnet_mp::device::cuda::CudaDevice;
    use alexnet_mp::precision::Precision;
    for precision in Precision::ALL {
        for (preset, gpus) in [
            ("paper", &[0][..]),
            ("paper", &[0, 1]),
            ("source-145", &[0, 1]),
        ] {
            let options = vcuda::Options::default();
            let Some(_session) = crate::cuda::session(&options, gpus) else {
                return;
            };
            let precision = format!("train.precision={precision}");
            let case = Case::new(preset, crate::cases::TINY, &[&precision], 3);
            let open = |&gpu: &usize| CudaDevice::open(gpu).unwrap();
            is_as_told(&case, gpus.iter().map(open).collect(), true);
        }
    }
}
