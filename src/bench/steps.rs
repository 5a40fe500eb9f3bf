//! Training steps and inference.

use crate::config::Config;
use crate::device::Device;
use crate::engine::{Dropping, Engine, StepContext};
use crate::error::{Result, numeric};
use crate::measure::median;
use crate::network::params::Tensors;
use crate::optimizer::{Plateau, rates};
use crate::precision::Precision;
use crate::random::{Key, Purpose};
use std::time::{Duration, Instant};

/// How many steps are timed.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many, or a few more where they are short.
    Steps(usize),
    /// As many as fit in this time, but at least three.
    Within(Duration),
}

/// A lap holds so many steps that it takes at least this long: devices that compute while the
/// host goes on are only waited for at its end, as in training.
const LAP: Duration = Duration::from_millis(50);
const LEAST_LAPS: usize = 3;
const MOST_LAPS: usize = 200;

/// What was measured.
#[derive(Clone, Debug)]
pub struct StepTimes {
    /// Seconds of a step, lap by lap, in order.
    pub laps: Vec<f64>,
    pub steps_per_lap: usize,
    pub devices: Vec<String>,
    pub exchanged_bytes_per_step: u64,
    pub allocated_bytes: Vec<usize>,
    /// What was computed in, and whether steps were launched as graphs.
    pub precision: Precision,
    pub graphs: bool,
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The test-time network's forward pass, not training.
    pub inference: bool,
    /// Training steps as graphs, where devices can.
    pub graphs: bool,
}

impl StepTimes {
    /// Median seconds of a step.
    pub fn median(&self) -> f64 {
        median(&self.laps)
    }

    /// The fastest and the slowest lap's seconds of a step.
    pub fn spread(&self) -> (f64, f64) {
        let least = self.laps.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.laps.iter().copied().fold(0.0, f64::max))
    }
}

/// Times training steps, or the test-time network's forward pass, on one batch of random images
/// that stays on the devices. Gives the devices back.
///
/// # Errors
/// Those of the configuration and the devices; `Numeric` where the loss is not finite after the laps.
pub fn steps<D: Device>(
    config: &Config,
    devices: Vec<D>,
    work: Work,
    pace: Pace,
) -> Result<(StepTimes, Vec<D>)> {
    let plan = config.plan()?;
    let (params, shape) = (plan.params.clone(), plan.slots[plan.input].shape);
    let (batch, classes) = (plan.batch, plan.classes);
    let mut engine = Engine::new(plan, devices, config.data.side, config.train.seed, false)?;
    engine.set_graphs(work.graphs)?;
    engine.set_parameters(&Tensors::initial(&params, config.train.seed))?;
    load(&mut engine, batch, shape.len(), classes)?;
    let rates = rates(&config.train, &params, 0.0, &Plateau::default());
    let mut number = 0;
    let mut step = |engine: &mut Engine<D>| -> Result<()> {
        number += 1;
        if work.inference {
            return engine.test_step();
        }
        engine.train_step(&StepContext {
            dropping: Dropping::Counter { step: number },
            first_image: 0,
            whole_batch: batch,
            accumulate: false,
            update: Some(&rates),
        })
    };
    // The first step also allocates, after which buffers count as new; messages swap buffers, so that two graphs are
    // captured, each the second time its buffers come by: in steps 4 and 5. Those after are launched as a whole, and the
    // last one's time decides on the laps.
    let mut warm = 0.0;
    for _ in 0..if engine.has_graphs() { 7 } else { 2 } {
        let start = Instant::now();
        step(&mut engine)?;
        engine.synchronize()?;
        warm = start.elapsed().as_secs_f64();
    }
    let before = engine.exchanged_bytes();
    let steps_per_lap = ((LAP.as_secs_f64() / warm.max(1e-9)).ceil() as usize).max(1);
    let mut lap = || -> Result<f64> {
        let start = Instant::now();
        for _ in 0..steps_per_lap {
            step(&mut engine)?;
        }
        engine.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / steps_per_lap as f64)
    };
    let laps = run_laps(&mut lap, steps_per_lap, pace)?;
    check_loss(&mut engine)?;
    let counted = (laps.len() * steps_per_lap) as u64;
    let times = StepTimes {
        steps_per_lap,
        precision: engine.plan().precision,
        graphs: engine.has_graphs() && !work.inference,
        devices: engine.device_names(),
        exchanged_bytes_per_step: (engine.exchanged_bytes() - before) / counted,
        allocated_bytes: engine.allocated_bytes(),
        laps,
    };
    Ok((times, engine.into_devices()))
}

/// Refuses a measurement of a network that has diverged: in f16 its updates are skipped, which takes less time.
fn check_loss<D: Device>(engine: &mut Engine<D>) -> Result<()> {
    match engine.take_score()?.loss.is_finite() {
        true => Ok(()),
        false => Err(numeric(
            "the loss of the timed steps is not finite: the network diverged, and its speed means nothing; take a smaller \
             --set train.learning_rate",
        )),
    }
}

fn run_laps(
    lap: &mut impl FnMut() -> Result<f64>,
    steps_per_lap: usize,
    pace: Pace,
) -> Result<Vec<f64>> {
    let (start, mut laps) = (Instant::now(), Vec::new());
    let more = |laps: &[f64]| match pace {
        // Where steps are so short that several make a lap, a few more cost nothing, and the
        // median is one of several laps.
        Pace::Steps(steps) => {
            laps.len() * steps_per_lap < steps || (steps_per_lap > 1 && laps.len() < LEAST_LAPS)
        }
        Pace::Within(time) => {
            laps.len() < LEAST_LAPS || (start.elapsed() < time && laps.len() < MOST_LAPS)
        }
    };
    while laps.is_empty() || more(&laps) {
        laps.push(lap()?);
    }
    Ok(laps)
}

/// Random images, and labels, drawn from counters.
fn load<D: Device>(
    engine: &mut Engine<D>,
    batch: usize,
    elements: usize,
    classes: usize,
) -> Result<()> {
    let mut stream = Key::new(0, Purpose::Verify).stream(400, 0);
    let images: Vec<f32> = (0..batch * elements)
        .map(|_| stream.between(-128.0, 128.0))
        .collect();
    let labels: Vec<u32> = (0..batch).map(|_| stream.below(classes as u32)).collect();
    engine.load_images(&images, &labels)
}
