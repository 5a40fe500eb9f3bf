//! The learning rate of every parameter as a pure function of the epoch and the drops so far.

use crate::config::{ScheduleKind, Train};
use crate::engine::Rates;
use crate::network::op::Sgd;
use crate::network::params::Param;
use serde::{Deserialize, Serialize};

/// What a plateau schedule remembers between evaluations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// Drops so far.
    pub drops: u32,
    /// The lowest validation error so far, and the evaluations since without a lower one.
    pub best: Option<f64>,
    pub waited: u32,
}

impl Plateau {
    /// Takes note of a validation error; true where the learning rate falls because of it.
    pub fn observe(&mut self, train: &Train, error: f64) -> bool {
        if self.best.is_none_or(|best| error < best) {
            self.best = Some(error);
            self.waited = 0;
            return false;
        }
        self.waited += 1;
        let schedule = &train.schedule;
        let drop = schedule.kind == ScheduleKind::Plateau
            && self.waited >= schedule.patience.max(1)
            && self.drops < schedule.drops;
        if drop {
            self.drops += 1;
            self.waited = 0;
        }
        drop
    }
}

/// Drops of the learning rate by `epoch`.
pub fn drops(train: &Train, epoch: f64, plateau: &Plateau) -> u32 {
    match train.schedule.kind {
        ScheduleKind::Constant => 0,
        ScheduleKind::Epochs => train.schedule.at.iter().filter(|&&at| epoch >= at).count() as u32,
        ScheduleKind::Plateau => plateau.drops,
    }
}

/// The learning rate of weights at `epoch`, before the layers' own factors.
pub fn learning_rate(train: &Train, epoch: f64, plateau: &Plateau) -> f64 {
    train.learning_rate
        * train
            .schedule
            .factor
            .powi(drops(train, epoch, plateau) as i32)
}

/// Update constants of every parameter at `epoch`.
pub fn rates(train: &Train, params: &[Param], epoch: f64, plateau: &Plateau) -> Vec<Rates> {
    let weight_rate = learning_rate(train, epoch, plateau);
    let bias_rate = if train.schedule.biases {
        weight_rate
    } else {
        train.learning_rate
    };
    let sgd = |rate: f64, decay: f64| Sgd {
        rate: rate as f32,
        momentum: train.momentum,
        decay: (train.weight_decay * decay) as f32,
    };
    params
        .iter()
        .map(|param| {
            let layer = &param.layer;
            let weights = weight_rate * layer.rate * factor_at(&layer.rate_from, epoch);
            let bias = bias_rate * layer.bias_rate * factor_at(&layer.bias_rate_from, epoch);
            (sgd(weights, layer.decay), sgd(bias, layer.bias_decay))
        })
        .collect()
}

/// The last factor whose epoch has come; 1 before the first.
fn factor_at(changes: &[(f64, f64)], epoch: f64) -> f64 {
    changes
        .iter()
        .rev()
        .find(|(from, _)| epoch >= *from)
        .map_or(1.0, |(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_2012_log_drops_at_epochs_25_51_and_79() {
        let train = Config::load("source-145", &[]).unwrap().train;
        let at = |epoch| learning_rate(&train, epoch, &Plateau::default());
        for (epoch, rate) in [
            (0.0, 1e-2),
            (24.99, 1e-2),
            (25.0, 1e-3),
            (51.0, 1e-4),
            (79.0, 1e-5),
            (90.0, 1e-5),
        ] {
            assert!(
                (at(epoch) / rate - 1.0).abs() < 1e-12,
                "epoch {epoch}: {}",
                at(epoch)
            );
        }
    }

    #[test]
    fn the_2012_log_slows_conv1_at_67_and_freezes_it_at_72_while_biases_keep_their_rate() {
        let config = Config::load("source-145", &[]).unwrap();
        let params = config.plan().unwrap().params;
        let rates = |epoch| rates(&config.train, &params, epoch, &Plateau::default());
        assert!((rates(67.0)[0].0.rate - 1e-5).abs() < 1e-10);
        assert_eq!(rates(72.0)[0].0.rate, 0.0);
        assert!((rates(80.0)[1].1.rate - 0.02).abs() < 1e-7);
        assert_eq!(rates(0.0)[1].1.decay, 0.0);
    }

    #[test]
    fn a_plateau_drops_the_rate_three_times_at_most() {
        let train = Config::load("paper", &[]).unwrap().train;
        let mut plateau = Plateau::default();
        assert!(!plateau.observe(&train, 0.5));
        let dropped = (0..30).filter(|_| plateau.observe(&train, 0.5)).count();
        assert_eq!(dropped, 3);
        assert!((learning_rate(&train, 0.0, &plateau) / 1e-5 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_improvement_resets_the_patience() {
        let train = Config::load("paper", &[]).unwrap().train;
        let mut plateau = Plateau::default();
        for i in 0..20 {
            let error = if i % 3 == 2 {
                0.5 - f64::from(i) * 0.01
            } else {
                0.9
            };
            assert!(!plateau.observe(&train, error));
        }
    }
}
