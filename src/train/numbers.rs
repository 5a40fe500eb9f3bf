//! Numbers that are not finite, and losses that explode: found, explained, and gone back from.

use super::Trainer;
use crate::checkpoint::{Checkpoint, Pending};
use crate::config::OnNan;
use crate::device::Device;
use crate::error::{Error, Result, numeric};
use crate::network::params::Tensors;
use crate::optimizer::{self, Plateau};

/// How often a run goes back, at most.
const ROLLBACKS: u32 = 3;

impl<D: Device> Trainer<'_, D> {
    /// Looks at the sums of all parameters and their momentum.
    ///
    /// # Errors
    /// `Numeric`, naming the first tensor that is not finite.
    pub(super) fn check_parameters(&mut self) -> Result<()> {
        match self.engine.first_bad_parameter()? {
            None => Ok(()),
            Some(_) => Err(self.diagnose("the loss is still finite")),
        }
    }

    /// Judges the mean loss between two logs. One batch's alone, which a checkpoint between them
    /// would show, may be large and mean nothing.
    ///
    /// # Errors
    /// `Numeric` where it is an explosion: ten times what guessing gives.
    pub(super) fn check_loss(&mut self, mean: f64) -> Result<()> {
        let chance = (self.session.config.network.classes as f64).ln().max(1.0);
        if mean > 10.0 * chance {
            return Err(self.diagnose(&format!("loss {mean:.4}")));
        }
        Ok(())
    }

    /// The error of what was found in the step under way: with the first tensor that is not
    /// finite, the learning rate, and what is usual.
    pub(super) fn diagnose(&mut self, found: &str) -> Error {
        let config = &self.session.config;
        let rate = optimizer::learning_rate(&config.train, self.epoch(), &self.plateau);
        let usual = (config.network.classes as f64).ln();
        let step = self.engine.board().step();
        let place = self
            .culprit()
            .unwrap_or_else(|error| format!("the devices could not be asked for more ({error})"));
        numeric(format!(
            "step {step}: {found} (ln(classes) is {usual:.3}), learning rate {rate}; {place}"
        ))
    }

    fn culprit(&mut self) -> Result<String> {
        if let Some(place) = self.engine.first_bad_parameter()? {
            return Ok(format!("the first tensor that is not finite is {place}"));
        }
        if let Some(place) = self.engine.first_bad_maps()? {
            return Ok(format!(
                "all parameters are finite, the first tensor that is not is {place}"
            ));
        }
        let largest = self.engine.largest_of_maps()?;
        Ok(largest.map_or_else(
            || "no numbers were computed".into(),
            |(value, place)| {
                format!("all numbers are finite, the largest is {value:.3e} in {place}")
            },
        ))
    }

    /// What helps after such an error. A run that goes on keeps its configuration, so it would come
    /// to the same end.
    pub(super) fn remedy(&self) -> String {
        let train = &self.session.config.train;
        // As f32 it is shown without the last digits of the division.
        let rate = (train.learning_rate / 10.0) as f32;
        let new = format!("start a new run with --set train.learning_rate={rate}");
        match train.on_nan {
            OnNan::Stop => format!(
                "--resume keeps the learning rate: {new}, or with --set train.on_nan=rollback"
            ),
            OnNan::Rollback => format!(
                "going back {} times did not help, nor will --resume: {new}",
                self.rollbacks
            ),
        }
    }

    /// Whether the configuration asks to go back, and it has not been done too often.
    pub(super) fn may_go_back(&self) -> bool {
        self.session.config.train.on_nan == OnNan::Rollback && self.rollbacks < ROLLBACKS
    }

    /// Goes back to the newest checkpoint with the learning rate halved; to one before where the
    /// run came from that one and saved none since, for the damage may be in it already; to the
    /// start where there is none.
    pub(super) fn go_back(&mut self, why: &str) -> Result<()> {
        let files = self.folder.files();
        files.finish()?;
        let bound = match self.went_back_to {
            Some(step) if files.saved().is_none_or(|saved| saved <= step) => step,
            _ => u64::MAX,
        };
        let checkpoint = files.go_back(bound)?;
        self.rollbacks += 1;
        self.session.config.train.learning_rate /= 2.0;
        self.engine.unload()?;
        self.engine.reopen()?;
        self.restore(checkpoint)?;
        self.folder.go_back(self.step, &self.session.config)?;
        self.went_back_to = Some(self.step);
        tracing::warn!(
            "{why}; going back to step {} with the learning rate halved to {} (rollback {} of {ROLLBACKS})",
            self.step,
            self.session.config.train.learning_rate,
            self.rollbacks
        );
        // The newest state now: an interrupted run goes on from it, with the halved rate.
        self.save().map(drop)
    }

    /// Makes a checkpoint's state, or the initial one, that of the run.
    fn restore(&mut self, checkpoint: Option<Checkpoint>) -> Result<()> {
        let params = &self.engine.plan().params;
        let (parameters, momentum, state) = match checkpoint {
            Some(c) => (c.parameters, c.momentum, Some(c.state)),
            None => {
                let seed = self.session.config.train.seed;
                let initial = Tensors::initial(params, seed);
                (initial, Tensors::zeros(params), None)
            }
        };
        self.engine.set_parameters(&parameters)?;
        self.engine.set_momentum(&momentum)?;
        let scale = state.as_ref().and_then(|s| s.loss_scale);
        self.engine.set_loss_scale(scale.unwrap_or_default())?;
        self.step = state.as_ref().map_or(0, |s| s.step);
        self.pending = state.as_ref().map_or_else(Pending::default, |s| s.pending);
        self.plateau = state.as_ref().map_or_else(Plateau::default, |s| s.plateau);
        self.evaluated = state.and_then(|s| s.evaluated);
        (self.last_loss, self.last_top1_error) = (f64::NAN, f64::NAN);
        self.clock.restart(std::time::Duration::ZERO);
        Ok(())
    }
}
