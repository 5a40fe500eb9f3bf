//! Steps launched as graphs against the same steps issued one operation at a time.

use crate::cases::Case;
use crate::checks::{engine, update_rates};
use crate::cuda::session;
use alexnet_mp::device::cuda::CudaDevice;
use alexnet_mp::engine::{Dropping, Engine, StepContext};
use alexnet_mp::network::params::Tensors;
use vcuda::{Driver, Options, Session, Streams};

/// What some updates came to: loss by loss, parameters, momentum, bytes exchanged.
struct Outcome {
    losses: Vec<f64>,
    parameters: Tensors,
    momentum: Tensors,
    exchanged: u64,
}

impl Outcome {
    /// Without a million numbers where it is not.
    fn assert_is(&self, found: &Outcome, what: &str) {
        assert_eq!(found.losses, self.losses, "{what}");
        assert_eq!(found.exchanged, self.exchanged, "{what}");
        assert!(found.parameters == self.parameters, "parameters, {what}");
        assert!(found.momentum == self.momentum, "momentum, {what}");
    }
}

/// Updates with another learning rate and other masks each time; an evaluation and a step without
/// an update among them.
fn train(engine: &mut Engine<CudaDevice>, case: &Case) -> Outcome {
    let mut losses = vec![];
    for step in 0..10 {
        let (images, labels) = case.batch(step % 3);
        engine.load_images(&images, &labels).unwrap();
        let mut rates = update_rates(case);
        for (weights, bias) in &mut rates {
            weights.rate *= 1.0 + step as f32;
            bias.rate /= 1.0 + step as f32;
        }
        let context = StepContext {
            dropping: Dropping::Counter {
                step: u64::from(step) + (1 << 33),
            },
            first_image: 0,
            whole_batch: case.images,
            accumulate: false,
            update: (step != 6).then_some(&rates[..]),
        };
        engine.train_step(&context).unwrap();
        if step == 4 {
            engine.test_step().unwrap();
        }
        losses.push(engine.take_score().unwrap().loss);
    }
    Outcome {
        losses,
        parameters: engine.parameters().unwrap(),
        momentum: engine.momentum().unwrap(),
        exchanged: engine.exchanged_bytes(),
    }
}

/// Trains one operation at a time, and as engines do by themselves: to the same bits, in any case.
/// Gives the session, its counters those of the second run, and the second engine.
fn compared(
    options: &Options,
    gpus: &[usize],
    precision: &str,
) -> Option<(Session, Engine<CudaDevice>)> {
    let session = session(options, gpus)?;
    let case = Case::tiny("paper", &[&format!("train.precision={precision}")]);
    let open = || -> Engine<CudaDevice> {
        let devices = gpus.iter().map(|&g| CudaDevice::open(g).unwrap());
        engine(&case, devices.collect())
    };
    let mut one_by_one = open();
    one_by_one.set_graphs(false).unwrap();
    assert!(!one_by_one.has_graphs());
    let expected = train(&mut one_by_one, &case);
    vcuda::reset_counters();
    let mut engine = open();
    assert!(engine.has_graphs());
    let found = train(&mut engine, &case);
    assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
    expected.assert_is(&found, &format!("{gpus:?} {precision} {options:?}"));
    Some((session, engine))
}

fn graphs_change_no_bit(gpus: &[usize], precision: &str, streams: Streams, peer_access: bool) {
    let options = Options {
        streams: Some(streams),
        peer_access: Some(peer_access),
        ..Options::default()
    };
    let Some((session, _)) = compared(&options, gpus, precision) else {
        return;
    };
    if session.driver() == Driver::Virtual {
        assert!(session.counters().graph_launches >= 3, "{gpus:?}");
    }
}

#[test]
fn graphs_of_one_gpu_change_no_bit() {
    graphs_change_no_bit(&[0], "f32", Streams::Eager, true);
    graphs_change_no_bit(&[0], "f16", Streams::Random(2), true);
}

#[test]
fn graphs_of_two_gpus_change_no_bit() {
    graphs_change_no_bit(&[0, 1], "f32", Streams::Lazy, true);
    graphs_change_no_bit(&[0, 1], "f16", Streams::Random(5), true);
}

#[test]
fn graphs_of_one_gpu_named_twice_and_of_gpus_without_peer_access_change_no_bit() {
    graphs_change_no_bit(&[0, 0], "bf16", Streams::Random(8), true);
    graphs_change_no_bit(&[0, 1], "bf16", Streams::Random(9), false);
}

#[test]
fn where_a_driver_captures_no_copies_steps_go_on_one_operation_at_a_time() {
    for (gpus, streams) in [([0, 1], Streams::Lazy), ([0, 0], Streams::Random(3))] {
        let options = Options {
            streams: Some(streams),
            capture_copies: Some(false),
            ..Options::default()
        };
        let Some((session, engine)) = compared(&options, &gpus, "f16") else {
            return;
        };
        if session.driver() == Driver::Virtual {
            assert!(!engine.has_graphs());
        }
    }
}

#[test]
fn where_a_driver_launches_no_graphs_steps_go_on_one_operation_at_a_time() {
    for (gpus, streams) in [
        (&[0][..], Streams::Eager),
        (&[0, 1], Streams::Lazy),
        (&[0, 0], Streams::Random(3)),
    ] {
        let options = Options {
            streams: Some(streams),
            launch_graphs: Some(false),
            ..Options::default()
        };
        let Some((session, engine)) = compared(&options, gpus, "f16") else {
            return;
        };
        if session.driver() == Driver::Virtual {
            assert!(!engine.has_graphs());
            assert_eq!(session.counters().graph_launches, 0);
        }
    }
}

/// Four updates, the third of them under options of its own: in that one the step is captured. Whether graphs are still
/// in use.
fn four_updates(case: &Case, gpus: &[usize], third: &Options) -> (Tensors, bool) {
    let devices = gpus.iter().map(|&g| CudaDevice::open(g).unwrap());
    let mut engine = engine(case, devices.collect());
    let rates = update_rates(case);
    let (images, labels) = case.batch(0);
    for step in 0..4 {
        engine.load_images(&images, &labels).unwrap();
        if step == 2 {
            vcuda::set(third);
        }
        let context = StepContext {
            dropping: Dropping::Counter { step },
            first_image: 0,
            whole_batch: case.images,
            accumulate: false,
            update: Some(&rates),
        };
        engine.train_step(&context).unwrap();
        vcuda::set(&Options {
            refuse_at: Some(0),
            ..Options::default()
        });
    }
    (engine.parameters().unwrap(), engine.has_graphs())
}

/// Wherever in the step: no tensor stays where a refused operation left it.
#[test]
fn a_capture_that_is_refused_at_any_operation_leaves_an_engine_that_trains() {
    vcuda::in_own_process(|| {
        let Some(session) = session(&Options::default(), &[0]) else {
            return;
        };
        if session.driver() != Driver::Virtual {
            return;
        }
        let case = Case::tiny("paper", &[]);
        let (expected, graphs) = four_updates(&case, &[0], &Options::default());
        assert!(graphs);
        // The first launch of a step writes the step's number, and is in no graph.
        for refused in (2..).step_by(3) {
            let options = Options {
                refuse_at: Some(refused),
                ..Options::default()
            };
            let (found, graphs) = four_updates(&case, &[0], &options);
            assert!(found == expected, "launch {refused}");
            if graphs {
                assert!(refused > 50, "a step has more launches than {refused}");
                break;
            }
        }
    });
}
