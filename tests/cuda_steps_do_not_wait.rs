//! The host issues whole steps to its GPUs and waits for nothing meanwhile, so that the GPUs work at the same time and
//! the next batch uploads while they do. Told from what the virtual driver counts; a real one counts nothing.
#![cfg(feature = "cuda")]

use alexnet_mp::batch::{Batch, Draw};
use alexnet_mp::config::Config;
use alexnet_mp::device::cuda::CudaDevice;
use alexnet_mp::engine::{Dropping, Engine, Rates, StepContext};
use alexnet_mp::network::params::Tensors;
use alexnet_mp::optimizer::{Plateau, rates};
use vcuda::{Options, Session, Streams};

const IMAGES: usize = 2;
/// GPUs of the two columns, and whether they have peer access.
const PLACES: [(&[usize], bool); 4] = [
    (&[0], true),
    (&[0, 0], true),
    (&[0, 1], true),
    (&[0, 1], false),
];

/// Streams that run nothing until the host waits: what has run betrays a wait.
fn lazy(peer_access: bool) -> Option<Session> {
    let session = vcuda::session(&Options {
        streams: Some(Streams::Lazy),
        peer_access: Some(peer_access),
        ..Options::default()
    });
    session.is_virtual().then_some(session)
}

/// A small network after its first step, in which work space is allocated.
struct Run {
    engine: Engine<CudaDevice>,
    rates: Vec<Rates>,
    step: u64,
    /// Batches to load in turn: a loader recycles its pinned memory.
    spare: Vec<Batch>,
}

impl Run {
    fn start(gpus: &[usize]) -> Self {
        let small = ["network.width=0.04", "network.image=64", "data.side=70"];
        let config = Config::load(
            "paper",
            &[
                small.map(String::from).to_vec(),
                vec![format!("train.batch={IMAGES}")],
            ]
            .concat(),
        )
        .unwrap();
        let plan = config.plan().unwrap();
        let params = plan.params.clone();
        let devices = gpus.iter().map(|&gpu| CudaDevice::open(gpu).unwrap());
        let mut engine = Engine::new(plan, devices.collect(), 70, 1, false).unwrap();
        engine
            .set_parameters(&Tensors::initial(&params, 1))
            .unwrap();
        let mut run = Run {
            engine,
            rates: rates(&config.train, &params, 0.0, &Plateau::default()),
            step: 0,
            spare: vec![],
        };
        run.spare = (0..3).map(|_| batch(&run.engine)).collect();
        run.load();
        run.step();
        run.engine.take_score().unwrap();
        run.engine.synchronize().unwrap();
        vcuda::reset_counters();
        run
    }

    /// Starts the upload of a batch.
    fn load(&mut self) {
        let batch = self
            .spare
            .pop()
            .expect("one comes back for each but the first");
        let retired = self.engine.load(batch).unwrap();
        self.spare.extend(retired);
    }

    fn step(&mut self) {
        self.engine
            .train_step(&StepContext {
                dropping: Dropping::Counter { step: self.step },
                first_image: 0,
                whole_batch: IMAGES,
                accumulate: false,
                update: Some(&self.rates),
            })
            .unwrap();
        self.step += 1;
    }
}

/// A batch in pinned memory.
fn batch(engine: &Engine<CudaDevice>) -> Batch {
    let crop = engine.plan().image;
    let mut batch = Batch::with_capacity(IMAGES, crop, &engine.host_allocator());
    for (i, byte) in batch.pixels.bytes_mut().iter_mut().enumerate() {
        *byte = (i * 37 % 251) as u8;
    }
    for image in 0..IMAGES as u32 {
        batch.draws.push(Draw::plain(2, 1));
        batch.labels.push(image);
    }
    batch
}

#[test]
fn every_gpu_has_a_whole_step_before_the_host_waits_for_anything() {
    for (gpus, peer_access) in PLACES {
        let Some(session) = lazy(peer_access) else {
            return;
        };
        let mut run = Run::start(gpus);
        run.step();
        let counters = session.counters();
        assert_eq!(
            (counters.host_synchronisations, counters.unready_queries),
            (0, 0),
            "{gpus:?}"
        );
        assert_eq!(
            (counters.launches, counters.allocations),
            (0, 0),
            "{gpus:?}"
        );
        for &gpu in gpus {
            assert!(
                session.queued(gpu) > 50,
                "{gpus:?}: {}",
                session.queued(gpu)
            );
        }
        // And the counters would have told of a wait.
        run.engine.take_score().unwrap();
        run.engine.synchronize().unwrap();
        let counters = session.counters();
        assert!(counters.unready_queries > 0 && counters.launches > 50);
        assert_eq!((session.queued(0), session.queued(1)), (0, 0));
        assert_eq!(counters.faults, 0, "{:?}", session.last_fault());
    }
}

/// Three batches later the host has waited for no more than the step before the one before.
#[test]
fn a_batch_uploads_while_the_step_before_it_computes() {
    for (gpus, peer_access) in [PLACES[0], PLACES[2]] {
        let Some(session) = lazy(peer_access) else {
            return;
        };
        let mut run = Run::start(gpus);
        run.load();
        run.step();
        run.engine.synchronize().unwrap();
        let of_a_step = session.counters().launches;
        vcuda::reset_counters();
        let rounds = 4;
        for _ in 0..rounds {
            run.load();
            run.step();
        }
        run.load();
        let counters = session.counters();
        assert!(of_a_step > 50);
        // The last two steps have not even begun; with uploads in the computing stream all would be done.
        assert!(
            counters.launches <= (rounds - 2) * of_a_step,
            "{gpus:?}: {} launches have run, {of_a_step} are a step",
            counters.launches
        );
        assert_eq!(counters.host_synchronisations, 0, "{gpus:?}");
        run.engine.synchronize().unwrap();
    }
}

#[test]
fn a_batch_crosses_once_to_every_gpu() {
    for (gpus, peer_access) in [PLACES[0], PLACES[2]] {
        let Some(session) = lazy(peer_access) else {
            return;
        };
        let mut run = Run::start(gpus);
        run.load();
        run.engine.unload().unwrap();
        run.engine.synchronize().unwrap();
        let crop = run.engine.plan().image;
        // 8-bit pixels; a draw of 24 bytes and a label for each image.
        let batch = IMAGES * (crop * crop * 3 + 24 + 4);
        assert_eq!(
            session.counters().host_to_device_bytes,
            (gpus.len() * batch) as u64,
            "{gpus:?}"
        );
    }
}

/// Counted by the driver, not by the engine.
#[test]
fn the_bytes_that_cross_between_gpus_are_those_of_the_plan() {
    let mut others = None;
    for (gpus, peer_access) in PLACES {
        let Some(session) = lazy(peer_access) else {
            return;
        };
        let mut run = Run::start(gpus);
        run.step();
        run.engine.synchronize().unwrap();
        let counters = session.counters();
        let one_way = run.engine.plan().exchanged_bytes(IMAGES) as u64;
        let planned = if gpus.len() > 1 { 2 * one_way } else { 0 };
        let (direct, staged) = if peer_access {
            (planned, 0)
        } else {
            (0, planned)
        };
        let (between, within) = (counters.peer_bytes, counters.device_to_device_bytes);
        // Copies that no exchange asks for are the same everywhere; one GPU named twice exchanges within itself.
        let others = *others.get_or_insert(within);
        assert_eq!(between + within, direct + others, "{gpus:?}");
        assert!(between == direct || gpus == [0, 0], "{gpus:?}: {between}");
        assert_eq!(counters.device_to_host_bytes, staged, "{gpus:?}");
        assert_eq!(counters.host_to_device_bytes, staged, "{gpus:?}");
    }
}
