//! Before it has learned anything a network knows nothing: its loss is ln(classes).

use alexnet_mp::config::{Config, PRESETS};
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::engine::{Dropping, Engine, StepContext};
use alexnet_mp::network::params::Tensors;
use alexnet_mp::optimizer::rates;
use alexnet_mp::random::{Key, Purpose};

/// The loss of a new network, in units of ln(classes), over images whose pixels have the spread
/// that photographs have about their mean (about 60), labelled by every class in turn.
fn initial_loss(preset: &str, seed: u64, images: usize, training: bool) -> f64 {
    let mut config = Config::load(preset, &[]).unwrap();
    config.train.batch = images;
    let plan = config.plan().unwrap();
    let parameters = Tensors::initial(&plan.params, seed);
    let rates = rates(&config.train, &plan.params, 0.0, &Default::default());
    let devices = vec![CpuDevice::open(2).unwrap()];
    let mut engine = Engine::new(plan, devices, config.data.side, seed, false).unwrap();
    engine.set_parameters(&parameters).unwrap();
    let side = config.network.image;
    let mut stream = Key::new(3, Purpose::Verify).stream(0, 0);
    let mut pixel = || stream.between(-104.0, 104.0);
    let pixels: Vec<f32> = (0..images * 3 * side * side).map(|_| pixel()).collect();
    engine.load_images(&pixels, &vec![0; images]).unwrap();
    if training {
        let context = StepContext {
            dropping: Dropping::Counter { step: 0 },
            first_image: 0,
            whole_batch: images,
            accumulate: false,
            update: Some(&rates),
        };
        engine.train_step(&context).unwrap();
    } else {
        engine.test_step().unwrap();
    }
    let probabilities = engine.probabilities().unwrap();
    let sum: f64 = probabilities.iter().map(|&p| -f64::from(p).ln()).sum();
    let loss = sum / probabilities.len() as f64 / (config.network.classes as f64).ln();
    println!("{preset}, seed {seed}, training {training}: ln(classes) · {loss:.4}");
    loss
}

#[test]
fn every_preset_as_shipped_begins_at_ln_classes() {
    for (preset, _) in PRESETS {
        let loss = initial_loss(preset, 0, 2, false);
        assert!((loss - 1.0).abs() < 0.02, "{preset}: {loss}");
    }
}

#[test]
fn the_quickstart_begins_there_in_training_too_whatever_the_seed() {
    for seed in 0..4 {
        for training in [false, true] {
            let loss = initial_loss("quickstart", seed, 8, training);
            assert!((loss - 1.0).abs() < 0.02, "seed {seed}: {loss}");
        }
    }
}

/// In training twice as many of fc7's units count as at test time (dropout is not rescaled), and
/// with the paper's σ = 0.01 and biases of 1 that moves the logits by 0.6: 3 % of ln 1000.
#[test]
fn the_papers_network_begins_near_it_in_training() {
    let loss = initial_loss("paper", 0, 2, true);
    assert!((loss - 1.0).abs() < 0.04, "{loss}");
}
