//! What a run tells and writes down on its way: logged steps, evaluations, warnings.

use super::health;
use super::trainer::{Trainer, steps_per_epoch};
use super::validation::{Evaluation, validate};
use crate::checkpoint::Pending;
use crate::data::{Loader, decode};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::optimizer;
use crate::report::metrics::{EvaluationRecord, StepRecord};

impl<D: Device> Trainer<'_, D> {
    /// The evaluation the schedule asks for at this step, unless it was made before an
    /// interruption.
    pub(super) fn evaluate_if_due(&mut self, loader: &mut Loader) -> Result<()> {
        if !self.due(self.session.config.train.evaluate_every) || self.evaluated == Some(self.step)
        {
            return Ok(());
        }
        let Some(found) = self.evaluate(loader)? else {
            return Ok(());
        };
        if self.plateau.best.is_none_or(|best| found.top1_error < best) {
            let parameters = self.engine.parameters()?;
            self.folder.files().save_best(parameters)?;
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

    pub(super) fn log(&mut self, loader: &Loader) -> Result<()> {
        self.collect()?;
        let record = self.training_record(loader);
        self.check_loss(record.loss)?;
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
            let list = self.folder.list_skipped(&self.session.data)?;
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
            let (classes, rate) = (config.network.classes, config.train.learning_rate);
            let text = health::plateau(self.step, self.last_loss, classes, rate);
            tracing::warn!("{text}");
        }
    }

    pub(super) fn evaluate(&mut self, loader: &mut Loader) -> Result<Option<Evaluation>> {
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
            extra: health::signs(self.engine, &mut self.dead)?,
        };
        self.progress.evaluation(&record);
        self.folder.record_evaluation(record, &training)?;
        self.validation = Some(found);
        Ok(Some(found))
    }
}
