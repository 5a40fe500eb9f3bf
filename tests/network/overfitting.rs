//! A network that can learn learns eight images by heart.

use alexnet_mp::config::Config;
use alexnet_mp::data::{Loader, LoaderOptions, builtin};
use alexnet_mp::device::Device;
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::engine::{Dropping, Engine, StepContext};
use alexnet_mp::network::params::Tensors;
use alexnet_mp::optimizer::rates;

const IMAGES: usize = 8;

fn learns_eight_images<D: Device>(preset: &str, more: &[&str], devices: Vec<D>) {
    // Lower rates than the presets': the same eight images again and again push all one way, and
    // at the full rate too many ReLUs die.
    let common = [
        "train.batch=8",
        "network.width=0.25",
        "network.image=64",
        "data.side=72",
        "train.learning_rate=0.005",
    ];
    let overrides: Vec<String> = common.iter().chain(more).map(ToString::to_string).collect();
    let config = Config::load(preset, &overrides).unwrap();
    let plan = config.plan().unwrap();
    let rates = rates(&config.train, &plan.params, 0.0, &Default::default());
    let mut set = builtin::dataset(0, config.data.side, 64, 8).unwrap();
    let statistics = set.statistics(None, 2).unwrap();
    let parameters = Tensors::initial(&plan.params, 0);
    let mut engine = Engine::new(plan, devices, config.data.side, 0, false).unwrap();
    engine.set_parameters(&parameters).unwrap();
    engine.set_mean(&statistics.mean).unwrap();
    let options = LoaderOptions {
        batch: IMAGES,
        seed: 0,
        workers: 1,
        queue: 2,
        first_step: 0,
        augment: config.augmentation(),
    };
    let allocate = engine.host_allocator();
    let mut loader = Loader::train(set.train.clone(), &options, &statistics, &allocate).unwrap();
    engine.load(loader.next_batch().unwrap().unwrap()).unwrap();
    for step in 0..600 {
        let context = StepContext {
            dropping: Dropping::Counter { step },
            first_image: 0,
            whole_batch: IMAGES,
            accumulate: false,
            update: Some(&rates),
        };
        engine.train_step(&context).unwrap();
        if step % 20 == 19 {
            engine.take_score().unwrap();
            engine.test_step().unwrap();
            let score = engine.take_score().unwrap();
            if score.top1_errors == 0 && score.loss / (IMAGES as f64) < 0.2 {
                println!("{preset}: all eight after {} steps", step + 1);
                return;
            }
        }
    }
    panic!("{preset}: eight images are not learned by heart in 600 steps");
}

#[test]
fn the_quickstart_network_on_two_devices() {
    let devices = (0..2).map(|_| CpuDevice::open(1).unwrap()).collect();
    learns_eight_images("quickstart", &[], devices);
}

#[test]
fn the_2012_sources_network_on_one_device() {
    let devices = vec![CpuDevice::open(2).unwrap()];
    let more = ["network.classes=10", "network.init=fan-in"];
    learns_eight_images("source-145", &more, devices);
}
