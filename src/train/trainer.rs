//! The training loop.

use super::validation::{Evaluation, validate};
use super::{RunFolder, Session, Signals, Watchdog, health};
use crate::checkpoint::{Checkpoint, Pending, State};
use crate::config::Config;
use crate::data::order::batches_per_epoch;
use crate::data::times::WaitWarning;
use crate::data::{Loader, LoaderOptions, Source, decode};
use crate::device::Device;
use crate::engine::{Dropping, Engine, Rates, StepContext};
use crate::error::{Error, Result, numeric};
use crate::network::params::Tensors;
use crate::optimizer::{self, Plateau};
use crate::report::metrics::{EvaluationRecord, StepRecord};
use crate::report::progress::Progress;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub steps: u64,
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
    engine: &'a mut Engine<D>,
    session: Session,
    folder: RunFolder,
    signals: Signals,
    watchdog: Watchdog,
    progress: Progress,
    plateau: Plateau,
    /// Updates done, and to be done.
    step: u64,
    steps: u64,
    pending: Pending,
    clock: Clock,
    /// Training loss and error as they were logged last.
    last_loss: f64,
    last_top1_error: f64,
    validation: Option<Evaluation>,
    /// The step of the last evaluation the schedule asked for.
    evaluated: Option<u64>,
    wait_warning: WaitWarning,
    /// Training images that were said to be skipped.
    skipped: usize,
}

/// Time and images since the last log and in all; monotonic.
struct Clock {
    logged: Instant,
    logged_wait: Duration,
    images: u64,
    /// What the last lap came to.
    last: (f64, f64),
    /// Images a second of every lap.
    laps: Vec<f64>,
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
        let steps = total_steps(config, session.data.train.len());
        Ok(Trainer {
            engine,
            folder,
            signals,
            watchdog: Watchdog::new(config.train.step_timeout),
            progress: Progress::training(step, steps, session.quiet),
            plateau: state.as_ref().map_or_else(Plateau::default, |s| s.plateau),
            step,
            steps,
            pending: state.as_ref().map_or_else(Pending::default, |s| s.pending),
            clock: Clock::new(),
            last_loss: f64::NAN,
            last_top1_error: f64::NAN,
            validation: None,
            evaluated: state.and_then(|s| s.evaluated),
            wait_warning: WaitWarning::default(),
            skipped: 0,
            session,
        })
    }

    /// Trains to the end, or until a signal; saves in either case.
    pub fn run(mut self) -> Result<Outcome> {
        let started = Instant::now();
        let stopped = match self.train() {
            Ok(()) => None,
            Err(Error::Interrupted(signal)) => Some(signal),
            Err(error) => return Err(error),
        };
        let parameters = self.save()?;
        let pictures = self
            .folder
            .draw(&parameters, self.step, self.engine.plan().columns)?;
        self.progress.finish();
        Ok(Outcome {
            steps: self.step,
            batch: self.session.config.train.batch * self.session.config.train.accumulate,
            time: started.elapsed(),
            classes: self.session.config.network.classes,
            validation: self.validation,
            images_per_second: self.clock.median_rate(),
            pictures,
            stopped,
        })
    }

    /// Trains to the end; `Interrupted` by a signal, between two steps or in an evaluation.
    fn train(&mut self) -> Result<()> {
        let mut loader = self.open_loader()?;
        self.evaluate_if_due(&mut loader)?;
        while self.step < self.steps {
            self.update(&mut loader)?;
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
    fn due(&self, every: u64) -> bool {
        let config = &self.session.config;
        let every = if every > 0 {
            every
        } else {
            steps_per_epoch(config, self.session.data.train.len())
        };
        self.step > 0 && self.step.is_multiple_of(every)
    }

    /// The evaluation the schedule asks for at this step, unless it was made before an
    /// interruption.
    fn evaluate_if_due(&mut self, loader: &mut Loader) -> Result<()> {
        if !self.due(self.session.config.train.evaluate_every) || self.evaluated == Some(self.step)
        {
            return Ok(());
        }
        let Some(found) = self.evaluate(loader)? else {
            return Ok(());
        };
        if self.plateau.best.is_none_or(|best| found.top1_error < best) {
            let parameters = self.engine.parameters()?;
            self.folder.save_best(&parameters)?;
        }
        if self
            .plateau
            .observe(&self.session.config.train, found.top1_error)
        {
            tracing::info!(
                "validation stopped improving: learning rate now {}",
                optimizer::learning_rate(&self.session.config.train, self.epoch(), &self.plateau)
            );
        }
        self.evaluated = Some(self.step);
        Ok(())
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

    fn epoch(&self) -> f64 {
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
            let (engine, step) = (&mut *self.engine, self.step);
            let used = self.watchdog.watch(
                || format!("step {}", step + 1),
                || -> Result<_> {
                    let used = engine.load(images)?;
                    engine.train_step(&context)?;
                    Ok(used)
                },
            )?;
            if let Some(used) = used {
                loader.recycle(used);
            }
        }
        self.step += 1;
        Ok(())
    }

    /// Adds the devices' sums to those not yet logged.
    fn collect(&mut self) -> Result<()> {
        let (engine, step) = (&mut *self.engine, self.step);
        let score = self
            .watchdog
            .watch(|| format!("step {step}"), || engine.take_score())?;
        self.pending.loss += score.loss;
        self.pending.top1_errors += score.top1_errors;
        let explosion = 10.0 * (self.session.config.network.classes as f64).ln().max(1.0);
        let loss = self.pending.loss / self.pending.images.max(1) as f64;
        if loss.is_finite() && loss <= explosion {
            return Ok(());
        }
        Err(self.explain(loss))
    }

    /// The error of a loss that is not finite or exploded.
    fn explain(&mut self, loss: f64) -> Error {
        let rate =
            optimizer::learning_rate(&self.session.config.train, self.epoch(), &self.plateau);
        let culprit = self.engine.parameters().ok().and_then(|tensors| {
            tensors
                .0
                .iter()
                .find(|t| t.values.iter().any(|v| !v.is_finite()))
                .map(|t| t.name.clone())
        });
        let culprit = culprit.map_or_else(
            || "all parameters are still finite".into(),
            |name| format!("first tensor that is not finite: {name}"),
        );
        let ln = (self.session.config.network.classes as f64).ln();
        numeric(format!(
            "loss {loss} by step {} (ln(classes) is {ln:.3}), learning rate {rate}; {culprit}; the last checkpoint is kept; try a smaller train.learning_rate",
            self.step
        ))
    }

    fn log(&mut self, loader: &Loader) -> Result<()> {
        self.collect()?;
        let record = self.training_record(loader);
        let workers = self.session.config.workers();
        let (share, stage) = (record.data_wait, loader.slowest_stage());
        if let Some(warning) = self.wait_warning.after_lap(share, stage, workers) {
            tracing::warn!("{warning}");
        }
        (self.last_loss, self.last_top1_error) = (record.loss, record.top1_error);
        self.clock.lap(loader.waited());
        self.pending = Pending::default();
        self.progress.step(&record);
        self.folder.record_step(record)?;
        self.warn_of_plateau();
        Ok(())
    }

    /// The training since the last log; what was logged last where there has been none since.
    fn training_record(&self, loader: &Loader) -> StepRecord {
        let pending = &self.pending;
        let images = pending.images as f64;
        let (loss, top1_error) = if pending.images > 0 {
            (pending.loss / images, pending.top1_errors as f64 / images)
        } else {
            (self.last_loss, self.last_top1_error)
        };
        let (images_per_second, data_wait) = self.clock.rates(loader.waited());
        let train = &self.session.config.train;
        StepRecord {
            step: self.step,
            epoch: self.epoch(),
            loss,
            top1_error,
            learning_rate: optimizer::learning_rate(train, self.epoch(), &self.plateau),
            images_per_second,
            data_wait,
            extra: Default::default(),
        }
    }

    /// Lists the training images that could not be used and says how many, if it is more than
    /// before.
    fn say_skipped(&mut self) -> Result<()> {
        let train = &self.session.data.train;
        let skipped = train.skipped().count();
        if skipped > self.skipped {
            self.skipped = skipped;
            let list = self.folder.list_skipped(&**train)?;
            tracing::warn!(
                "{skipped} of {} training images could not be read and were replaced; {} names them and says why",
                train.len(),
                decode::escape(list.as_os_str())
            );
        }
        Ok(())
    }

    /// A loss still at chance after an epoch has known causes. Epochs of few steps say nothing:
    /// it takes some 200 until the last layers have learned to use the first.
    fn warn_of_plateau(&self) {
        let config = &self.session.config;
        let epoch = steps_per_epoch(config, self.session.data.train.len());
        let due = epoch.max(health::PLATEAU.min(self.steps));
        let chance = (config.network.classes as f64).ln();
        let just_past = self.step >= due && self.step < due + config.train.log_every;
        if just_past && config.network.classes > 1 && self.last_loss > 0.99 * chance {
            tracing::warn!(
                "after {} steps the loss is still {:.3}, about ln(classes): likely causes are the learning rate ({}), the initial biases, σ at this width (network.init = \"fan-in\" scales it), or unshuffled data",
                self.step,
                self.last_loss,
                config.train.learning_rate
            );
        }
    }

    fn evaluate(&mut self, loader: &mut Loader) -> Result<Option<Evaluation>> {
        self.say_skipped()?;
        let Some(source) = self.session.data.val.clone() else {
            return Ok(None);
        };
        self.collect()?;
        if let Some(used) = self.engine.unload()? {
            loader.recycle(used);
        }
        let training = self.training_record(loader);
        self.progress.set_title("validating");
        let signals = self.signals.clone();
        let found = validate(self.engine, &self.session.config, source, |_| {
            signals.stop().map_or(Ok(()), Err)
        });
        self.progress.set_title("training");
        self.clock.restart(loader.waited());
        if let Err(Error::Interrupted(_)) = found {
            // Half an evaluation is none, and no part of the training's score.
            self.engine.unload()?;
            self.engine.take_score()?;
        }
        let found = found?;
        let record = EvaluationRecord {
            step: self.step,
            epoch: self.epoch(),
            val_top1_error: found.top1_error,
            val_top5_error: found.top5_error,
            val_loss: found.loss,
            extra: health::signs(self.engine)?,
        };
        self.progress.evaluation(&record);
        self.folder.record_evaluation(record, &training)?;
        self.validation = Some(found);
        Ok(Some(found))
    }

    /// Writes a checkpoint; gives the parameters it holds.
    fn save(&mut self) -> Result<Tensors> {
        self.collect()?;
        let (parameters, momentum) = (self.engine.parameters()?, self.engine.momentum()?);
        if !parameters.is_finite() || !momentum.is_finite() {
            // The loss is the one before the last update: it may not show this yet.
            return Err(self.explain(self.last_loss));
        }
        let checkpoint = Checkpoint {
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
            },
        };
        self.folder.save(&checkpoint)?;
        Ok(checkpoint.parameters)
    }
}

impl Clock {
    fn new() -> Self {
        Clock {
            logged: Instant::now(),
            logged_wait: Duration::ZERO,
            images: 0,
            last: (0.0, 0.0),
            laps: vec![],
        }
    }

    /// Images a second and the share of time waited since the last lap; those of the last lap
    /// where no image has come since.
    fn rates(&self, waited: Duration) -> (f64, f64) {
        if self.images == 0 {
            return self.last;
        }
        let seconds = self.logged.elapsed().as_secs_f64().max(1e-9);
        let wait = waited.saturating_sub(self.logged_wait).as_secs_f64();
        (self.images as f64 / seconds, (wait / seconds).min(1.0))
    }

    /// Ends a lap.
    fn lap(&mut self, waited: Duration) {
        self.last = self.rates(waited);
        self.laps.push(self.last.0);
        self.restart(waited);
    }

    fn median_rate(&self) -> f64 {
        let mut rates = self.laps.clone();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    }

    /// Starts a lap anew, after something that is not training.
    fn restart(&mut self, waited: Duration) {
        self.logged = Instant::now();
        self.logged_wait = waited;
        self.images = 0;
    }
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
