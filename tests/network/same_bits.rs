//! The result depends on neither how many devices and threads there are nor on how a batch is
//! cut; what crosses between devices is what the plan says.

use crate::cases::Case;
use crate::checks::*;
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::engine::{Dropping, Engine, StepContext};
use alexnet_mp::network::params::Tensors;

fn devices(threads: &[usize]) -> Vec<CpuDevice> {
    let open = |&n: &usize| CpuDevice::open(n).unwrap();
    threads.iter().map(open).collect()
}

fn counter(step: u32) -> Dropping {
    Dropping::Counter {
        step: u64::from(step),
    }
}

/// Bits of parameters and momentum after three updates.
fn bits(case: &Case, threads: &[usize]) -> Vec<(String, Vec<u32>)> {
    let mut engine = engine(case, devices(threads));
    for number in 0..3 {
        step(&mut engine, case, number, counter(number));
    }
    let tensors = [engine.parameters().unwrap(), engine.momentum().unwrap()];
    tensors
        .into_iter()
        .flat_map(|t| t.0)
        .map(|t| (t.name, t.values.iter().map(|v| v.to_bits()).collect()))
        .collect()
}

#[test]
fn devices_and_threads_do_not_change_a_bit() {
    for preset in ["paper", "source-145", "caffe"] {
        let case = Case::small(preset, &[]);
        let one = bits(&case, &[1]);
        for threads in [&[2][..], &[3], &[1, 1], &[2, 2], &[1, 3]] {
            for (expected, found) in one.iter().zip(bits(&case, threads)) {
                assert!(
                    *expected == found,
                    "{preset}, threads {threads:?}: {}",
                    found.0
                );
            }
        }
    }
}

#[test]
fn what_crosses_is_what_the_plan_says() {
    for preset in ["paper", "source-145", "caffe"] {
        let case = Case::small(preset, &[]);
        let mut two = engine(&case, devices(&[1, 1]));
        let predicted = 2 * two.plan().exchanged_bytes(case.images) as u64;
        assert!(predicted > 0);
        for number in 0..3 {
            step(&mut two, &case, number, counter(number));
            assert_eq!(
                two.exchanged_bytes(),
                u64::from(number + 1) * predicted,
                "{preset}"
            );
        }
        let mut one = engine(&case, devices(&[2]));
        step(&mut one, &case, 0, counter(0));
        assert_eq!(one.exchanged_bytes(), 0, "{preset}");
    }
}

/// Parameters after three updates of the case's batches, each cut into `parts`.
fn accumulated(case: &Case, parts: usize, threads: &[usize]) -> Tensors {
    let mut config = case.config.clone();
    let part = case.images / parts;
    config.train.batch = part;
    let plan = config.plan().unwrap();
    let mut engine = Engine::new(plan, devices(threads), config.data.side, 0, true).unwrap();
    engine.set_parameters(&case.parameters).unwrap();
    let rates = update_rates(case);
    for number in 0..3 {
        let (images, labels) = case.batch(number);
        let one = images.len() / case.images;
        for p in 0..parts {
            let range = p * part..(p + 1) * part;
            let pixels = &images[range.start * one..range.end * one];
            engine.load_images(pixels, &labels[range]).unwrap();
            let context = StepContext {
                dropping: counter(number),
                first_image: p * part,
                whole_batch: case.images,
                accumulate: p > 0,
                update: (p + 1 == parts).then_some(&rates[..]),
            };
            engine.train_step(&context).unwrap();
        }
    }
    engine.parameters().unwrap()
}

/// Other than rounding, which the drawing of the same dropout masks is part of.
#[test]
fn a_batch_in_two_or_four_parts_is_the_same_update() {
    let size = [
        "network.width=0.1",
        "network.image=64",
        "train.learning_rate=0.001",
    ];
    let case = Case::new("paper", &size, &[], 8);
    let whole = crate::reference::wide(&accumulated(&case, 1, &[1, 1]));
    for parts in [2, 4] {
        for tensor in accumulated(&case, parts, &[1, 1]).0 {
            let error = relative_error(&tensor.values, &whole[&tensor.name]);
            assert!(error < 1e-6, "{parts} parts: {error:e} of {}", tensor.name);
        }
    }
}
