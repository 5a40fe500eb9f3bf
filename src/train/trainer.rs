//! The training loop.

use super::clock::Clock;
use super::files::Files;
use super::validation::Evaluation;
use super::{RunFolder, Session, Signals, health};
use crate::checkpoint::{Checkpoint, Pending, State};
use crate::config::Config;
use crate::data::order::batches_per_epoch;
use crate::data::times::WaitWarning;
use crate::data::{Loader, LoaderOptions, Source};
use crate::device::Device;
use crate::engine::{Board, Dropping, Engine, Late, Rates, StepContext, Watchdog, Work};
use crate::error::{Error, Result, device, numeric};
use crate::network::params::Tensors;
use crate::optimizer::{self, Plateau};
use crate::report::messages;
use crate::report::progress::Progress;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub steps: u64,
    /// Passes over the training set that these come to.
    pub epochs: f64,
    /// Where it is.
    pub folder: PathBuf,
    /// Images of one update.
    pub batch: usize,
    pub time: Duration,
    pub classes: usize,
    /// The last evaluation.
    pub validation: Option<Evaluation>,
    /// Median over the logged steps.
    pub images_per_second: f64,
    pub pictures: Vec<PathBuf>,
    /// Why it ended early, if it did.
    pub stopped: Option<i32>,
}

/// A run under way.
pub struct Trainer<'a, D: Device> {
    pub(super) engine: &'a mut Engine<D>,
    pub(super) session: Session,
    pub(super) folder: RunFolder,
    pub(super) signals: Signals,
    pub(super) progress: Progress,
    pub(super) plateau: Plateau,
    /// Updates done, and to be done.
    pub(super) step: u64,
    pub(super) steps: u64,
    pub(super) pending: Pending,
    pub(super) clock: Clock,
    /// Training loss and error as they were logged last.
    pub(super) last_loss: f64,
    pub(super) last_top1_error: f64,
    pub(super) validation: Option<Evaluation>,
    /// The step of the last evaluation the schedule asked for.
    pub(super) evaluated: Option<u64>,
    pub(super) wait_warning: WaitWarning,
    /// Training images that were said to be skipped.
    pub(super) skipped: usize,
    /// Layers of columns whose dead ReLUs were warned of.
    pub(super) dead: BTreeSet<String>,
    /// How often the run went back to a checkpoint because of numbers that were not finite.
    pub(super) rollbacks: u32,
    /// The step it went back to last.
    pub(super) went_back_to: Option<u64>,
}

impl<'a, D: Device> Trainer<'a, D> {
    /// Prepares a run on an engine whose parameters are overwritten: by the state to resume from,
    /// or by the initial values.
    pub fn new(engine: &'a mut Engine<D>, mut session: Session, signals: Signals) -> Result<Self> {
        let resume = session.resume.take();
        let config = &session.config;
        let (parameters, momentum) = match &resume {
            Some(checkpoint) => (checkpoint.parameters.clone(), checkpoint.momentum.clone()),
            None => (
                Tensors::initial(&engine.plan().params, config.train.seed),
                Tensors::zeros(&engine.plan().params),
            ),
        };
        engine.set_parameters(&parameters)?;
        engine.set_momentum(&momentum)?;
        engine.set_mean(&session.statistics.mean)?;
        let state = resume.map(|c| c.state);
        if let Some(scale) = state.as_ref().and_then(|s| s.loss_scale) {
            engine.set_loss_scale(scale)?;
        }
        let step = state.as_ref().map_or(0, |s| s.step);
        let folder = RunFolder::open(&session.folder, config, state.as_ref().map(|s| s.step))?;
        // A large loss is judged over more than one batch, in `collect`.
        engine.set_check_loss(true);
        engine.set_check_exchange(session.check_exchange);
        let (board, files) = (engine.board(), folder.files().clone());
        engine.set_watchdog(Some(Watchdog::new(
            config.train.step_timeout,
            move |late| give_up(&board, &files, late),
        )));
        let steps = total_steps(config, session.data.train.len());
        Ok(Trainer {
            engine,
            folder,
            signals,
            progress: Progress::training(step, steps, session.quiet),
            plateau: state.as_ref().map_or_else(Plateau::default, |s| s.plateau),
            step,
            steps,
            pending: state.as_ref().map_or_else(Pending::default, |s| s.pending),
            clock: Clock::new(),
            last_loss: f64::NAN,
            last_top1_error: f64::NAN,
            validation: None,
            evaluated: state.as_ref().and_then(|s| s.evaluated),
            wait_warning: WaitWarning::default(),
            skipped: 0,
            dead: BTreeSet::new(),
            rollbacks: state.map_or(0, |s| s.rollbacks),
            went_back_to: None,
            session,
        })
    }

    /// Trains to the end, or until a signal; saves in either case.
    pub fn run(mut self) -> Result<Outcome> {
        let started = Instant::now();
        let (conv1, stopped) = loop {
            match self.train_and_save() {
                Ok(done) => break done,
                Err(Error::Numeric(text)) if self.may_go_back() => self.go_back(&text)?,
                Err(error) => return Err(self.ended_by(error)),
            }
        };
        self.folder.files().finish()?;
        let pictures = self
            .folder
            .draw(&conv1, self.step, self.engine.plan().columns)?;
        let epochs = self.epoch();
        self.progress.finish();
        Ok(Outcome {
            steps: self.step,
            epochs,
            folder: self.session.folder.clone(),
            batch: self.session.config.train.batch * self.session.config.train.accumulate,
            time: started.elapsed(),
            classes: self.session.config.network.classes,
            validation: self.validation,
            images_per_second: self.clock.median_rate(),
            pictures,
            stopped,
        })
    }

    /// Trains to the end, or until a signal, and saves: the parameters that are drawn, and the
    /// signal.
    fn train_and_save(&mut self) -> Result<(Tensors, Option<i32>)> {
        let stopped = match self.train() {
            Ok(()) => None,
            Err(Error::Interrupted(signal)) => Some(signal),
            Err(error) => return Err(error),
        };
        Ok((self.save()?, stopped))
    }

    /// The error that ends a run, with what the user needs to go on; what was handed over to be
    /// written is on the disk afterwards.
    fn ended_by(&mut self, error: Error) -> Error {
        let files = self.folder.files();
        // The error that came first is the one to tell; this one is about a full disk, at most.
        let unsaved = files.finish().err();
        let unsaved = unsaved.map_or_else(String::new, |error| format!("{error}; "));
        let step = self.engine.board().step();
        match error {
            Error::Device(text) => {
                device(format!("step {step}: {text}; {unsaved}{}", files.go_on()))
            }
            Error::Numeric(text) => {
                let (kept, remedy) = (files.kept(), self.remedy());
                numeric(format!("{text}; {unsaved}{kept}; {remedy}"))
            }
            error => error,
        }
    }

    /// Trains to the end; `Interrupted` by a signal, between two steps or in an evaluation.
    fn train(&mut self) -> Result<()> {
        let mut loader = self.open_loader()?;
        self.evaluate_if_due(&mut loader)?;
        while self.step < self.steps {
            self.update(&mut loader)?;
            self.signals.nothing_to_save(false);
            if self.step == 1 {
                self.collect()?;
                let loss = self.pending.loss / self.pending.images.max(1) as f64;
                health::first_loss(loss, self.session.config.network.classes);
            }
            if self
                .step
                .is_multiple_of(self.session.config.train.log_every)
                || self.step == self.steps
            {
                self.log(&loader)?;
            }
            self.folder.files().check()?;
            if let Some(interrupted) = self.signals.stop() {
                return Err(interrupted);
            }
            self.evaluate_if_due(&mut loader)?;
            if self.due(self.session.config.train.checkpoint_every) && self.step < self.steps {
                self.save()?;
            }
        }
        if self.evaluated != Some(self.step) {
            // Beyond the schedule, so it must leave no trace in what a longer run would do.
            self.evaluate(&mut loader)?;
        }
        Ok(())
    }

    /// Whether something done every so many steps (0: each epoch) is due.
    pub(super) fn due(&self, every: u64) -> bool {
        let config = &self.session.config;
        let every = if every > 0 {
            every
        } else {
            steps_per_epoch(config, self.session.data.train.len())
        };
        self.step > 0 && self.step.is_multiple_of(every)
    }

    fn open_loader(&self) -> Result<Loader> {
        let config = &self.session.config;
        let options = LoaderOptions {
            batch: config.train.batch,
            seed: config.train.seed,
            workers: config.workers(),
            queue: config.data.queue,
            first_step: self.step * config.train.accumulate as u64,
            augment: config.augmentation(),
            shuffle_window: config.data.shuffle_window,
            share: Default::default(),
        };
        Loader::train(
            self.session.data.train.clone(),
            &options,
            &self.session.statistics,
            &self.engine.host_allocator(),
        )
    }

    pub(super) fn epoch(&self) -> f64 {
        epoch(&self.session.config, &*self.session.data.train, self.step)
    }

    fn rates(&self) -> Vec<Rates> {
        optimizer::rates(
            &self.session.config.train,
            &self.engine.plan().params,
            self.epoch(),
            &self.plateau,
        )
    }

    /// One update: `accumulate` batches forward and backward, then the parameters.
    fn update(&mut self, loader: &mut Loader) -> Result<()> {
        let (batch, accumulate) = (
            self.session.config.train.batch,
            self.session.config.train.accumulate,
        );
        let rates = self.rates();
        for part in 0..accumulate {
            let images = loader
                .next_batch()?
                .ok_or_else(|| crate::error::data("the loader ended"))?;
            let context = StepContext {
                dropping: Dropping::Counter { step: self.step },
                first_image: part * batch,
                whole_batch: accumulate * batch,
                accumulate: part > 0,
                update: (part + 1 == accumulate).then_some(&rates[..]),
            };
            self.clock.images += images.len() as u64;
            self.pending.images += images.len() as u64;
            if let Some(used) = self.engine.load(images)? {
                loader.recycle(used);
            }
            match self.engine.train_step(&context) {
                Err(Error::Numeric(found)) => return Err(self.diagnose(&found)),
                result => result?,
            }
        }
        self.step += 1;
        Ok(())
    }

    /// Adds the devices' sums to those not yet logged.
    ///
    /// # Errors
    /// `Numeric` where loss or parameters are not finite.
    pub(super) fn collect(&mut self) -> Result<()> {
        let score = self.engine.take_score()?;
        self.pending.loss += score.loss;
        self.pending.top1_errors += score.top1_errors;
        if !self.pending.loss.is_finite() {
            return Err(self.diagnose(&format!("loss {}", self.pending.loss)));
        }
        self.check_parameters()
    }

    /// Has a checkpoint written; gives the parameters that are drawn.
    pub(super) fn save(&mut self) -> Result<Tensors> {
        self.collect()?;
        let (parameters, momentum) = (self.engine.parameters()?, self.engine.momentum()?);
        let drawn = parameters.get("conv1.weight").cloned();
        self.folder.save(Checkpoint {
            parameters,
            momentum,
            state: State {
                step: self.step,
                plateau: self.plateau,
                evaluated: self.evaluated,
                config: self.session.config.to_toml(),
                data: self.session.data_name.clone(),
                classes: self.session.data.train.classes().to_vec(),
                pending: self.pending,
                loss_scale: self.engine.loss_scale()?,
                rollbacks: self.rollbacks,
            },
        })?;
        Ok(Tensors(drawn.into_iter().collect()))
    }
}

/// Ends the process because a device hangs. What is being saved is still written.
fn give_up(board: &Board, files: &Files, late: Late) {
    let doing = match late.work {
        Work::Step | Work::Wait => "",
        Work::Evaluation => " in an evaluation",
        Work::Copy => " while parameters were copied",
    };
    // That a device hangs is to be told, whatever became of the checkpoint.
    let _ = files.finish_within(Duration::from_secs(10));
    messages::error(&format!(
        "step {}: no answer from {}{doing} for {:.0} s, taken to hang (train.step_timeout); {}",
        board.step(),
        board.stuck(),
        late.limit,
        files.go_on()
    ));
    // Without the libraries' own clean-up, which waits for the device or meets the threads that still use it.
    signal_hook::low_level::exit(i32::from(device("").exit_code()))
}

/// Updates of one epoch.
pub fn steps_per_epoch(config: &Config, images: usize) -> u64 {
    batches_per_epoch(images, config.train.batch * config.train.accumulate) as u64
}

/// Updates of the whole run.
fn total_steps(config: &Config, images: usize) -> u64 {
    if config.train.steps > 0 {
        config.train.steps
    } else {
        config.train.epochs * steps_per_epoch(config, images)
    }
}

/// Passes over the training set after so many updates.
fn epoch(config: &Config, train: &dyn Source, step: u64) -> f64 {
    (step * (config.train.batch * config.train.accumulate) as u64) as f64
        / train.len().max(1) as f64
}
