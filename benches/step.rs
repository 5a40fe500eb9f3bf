//! Training steps and inference on CPU devices, one per column, by criterion: `cargo bench --bench step`.
//! `alexnet-mp bench` measures the same on any device.

use alexnet_mp::config::Config;
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::engine::{Dropping, Engine, StepContext};
use alexnet_mp::network::params::Tensors;
use alexnet_mp::optimizer::{Plateau, rates};
use alexnet_mp::random::{Key, Purpose};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::time::Duration;

/// An engine of this preset with random images loaded.
fn engine(config: &Config) -> Engine<CpuDevice> {
    let plan = config.plan().unwrap();
    let (params, shape) = (plan.params.clone(), plan.slots[plan.input].shape);
    let (batch, classes) = (plan.batch, plan.classes as u32);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let devices = (0..plan.columns).map(|_| CpuDevice::open((threads / plan.columns).max(1)));
    let devices = devices.collect::<Result<_, _>>().unwrap();
    let mut engine = Engine::new(plan, devices, config.data.side, 0, false).unwrap();
    let initial = Tensors::initial(&params, config.train.seed);
    engine.set_parameters(&initial).unwrap();
    let mut stream = Key::new(0, Purpose::Verify).stream(400, 0);
    let images: Vec<f32> = (0..batch * shape.len())
        .map(|_| stream.between(-128.0, 128.0))
        .collect();
    let labels: Vec<u32> = (0..batch).map(|_| stream.below(classes)).collect();
    engine.load_images(&images, &labels).unwrap();
    engine
}

fn steps(criterion: &mut Criterion) {
    for (preset, batch) in [("quickstart", 128), ("paper", 32)] {
        let config = Config::load(preset, &[format!("train.batch={batch}")]).unwrap();
        let mut engine = engine(&config);
        let params = engine.plan().params.clone();
        let rates = rates(&config.train, &params, 0.0, &Plateau::default());
        let mut group = criterion.benchmark_group(format!("{preset}, batch {batch}"));
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Elements(batch));
        group.bench_function("training", |b| {
            let mut step = 0;
            b.iter(|| {
                step += 1;
                engine
                    .train_step(&StepContext {
                        dropping: Dropping::Counter { step },
                        first_image: 0,
                        whole_batch: batch as usize,
                        accumulate: false,
                        update: Some(&rates),
                    })
                    .unwrap();
            });
        });
        group.bench_function("inference", |b| b.iter(|| engine.test_step().unwrap()));
        group.finish();
    }
}

criterion_group! {
    name = step;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = steps
}
criterion_main!(step);
