//! Before it has learned anything a network knows nothing: its loss is ln(classes).

use alexnet_mp::config::{Config, PRESETS};
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::engine::{Dropping, Engine, StepContext};
use alexnet_mp::network::params::Tensors;
use alexnet_mp::random::{Key, Purpose};

const IMAGES: usize = 8;

/// Pixels of the spread that photographs have about their mean (about 60).
fn pixels(side: usize) -> Vec<f32> {
    let mut stream = Key::new(3, Purpose::Verify).stream(0, 0);
    (0..IMAGES * 3 * side * side)
        .map(|_| stream.between(-104.0, 104.0))
        .collect()
}

#[test]
fn every_preset_as_shipped_begins_at_ln_classes() {
    for (name, _) in PRESETS {
        for seed in [0, 1] {
            let mut config = Config::load(name, &[]).unwrap();
            config.train.batch = IMAGES;
            let plan = config.plan().unwrap();
            let parameters = Tensors::initial(&plan.params, seed);
            let devices = vec![CpuDevice::open(2).unwrap()];
            let mut engine = Engine::new(plan, devices, config.data.side, seed, false).unwrap();
            engine.set_parameters(&parameters).unwrap();
            let classes = config.network.classes;
            // Spread over the classes, so that no class's own chance matters.
            let labels: Vec<u32> = (0..IMAGES).map(|i| (i * classes / IMAGES) as u32).collect();
            engine
                .load_images(&pixels(config.network.image), &labels)
                .unwrap();
            let expected = (classes as f64).ln();
            let rates = alexnet_mp::optimizer::rates(
                &config.train,
                &engine.plan().params,
                0.0,
                &Default::default(),
            );
            for dropping in [Dropping::Off, Dropping::Counter { step: 0 }] {
                if dropping == Dropping::Off {
                    engine.test_step().unwrap();
                } else {
                    let context = StepContext {
                        dropping,
                        first_image: 0,
                        whole_batch: IMAGES,
                        accumulate: false,
                        update: Some(&rates),
                    };
                    engine.train_step(&context).unwrap();
                }
                let loss = engine.take_score().unwrap().loss / IMAGES as f64;
                let off = loss / expected - 1.0;
                println!(
                    "{name}, seed {seed}, {dropping:?}: {loss:.4}, {:+.2} %",
                    100.0 * off
                );
                assert!(
                    off.abs() < 0.02,
                    "{name}, seed {seed}, {dropping:?}: {loss} for {expected}"
                );
            }
        }
    }
}
