//! The update of one rank's parameters, and the loss scale it depends on.

use super::Rates;
use super::links::Links;
use super::rank::Rank;
use crate::device::loss_scale::{LossScale, STATE, USED};
use crate::device::{Device, Rule, Update};
use crate::error::Result;
use crate::network::op::Sgd;

/// The loss scale's state on a device, and room for another rank's.
pub(super) struct Scaling<B> {
    pub state: B,
    pub inbox: B,
}

impl<B> Scaling<B> {
    pub(super) fn new<D: Device<Buffer = B>>(device: &mut D) -> Result<Self> {
        let mut state = device.allocate(STATE)?;
        device.upload(&LossScale::default().state(), &mut state)?;
        Ok(Scaling {
            state,
            inbox: device.allocate(STATE)?,
        })
    }
}

impl<D: Device> Rank<D> {
    /// Where the loss is scaled: whether all gradients are finite, told to the other ranks.
    pub(super) fn check_gradients(&mut self, links: &Links<D>) -> Result<()> {
        let Some(scaling) = &mut self.scaling else {
            return Ok(());
        };
        for share in self.columns.iter().flat_map(|c| &c.shares).flatten() {
            for gradient in share.gradients.iter().flatten() {
                let elements = share.weight_elements;
                self.device
                    .loss_scale_check(elements, gradient, &mut scaling.state)?;
            }
            let (elements, gradient) = (share.bias_elements, &share.bias_gradient);
            self.device
                .loss_scale_check(elements, gradient, &mut scaling.state)?;
        }
        for mailbox in links.scales_from(self.columns[0].index) {
            self.device.send(&scaling.state, STATE, mailbox)?;
            self.sent += 4 * STATE as u64;
        }
        Ok(())
    }

    /// Updates every parameter from its gradient; weights updated with their gradient are done.
    pub(super) fn update(&mut self, links: &Links<D>, rates: &[Rates]) -> Result<()> {
        if let Some(scaling) = &mut self.scaling {
            for mailbox in links.scales_to(self.columns[0].index) {
                self.device.receive(mailbox, &mut scaling.inbox)?;
                self.device
                    .loss_scale_merge(&scaling.inbox, &mut scaling.state)?;
            }
        }
        let (later, scale) = (self.later.as_ref(), self.scaling.as_ref().map(|s| &s.state));
        let mut updates = Vec::new();
        for column in &mut self.columns {
            for (id, share) in column.shares.iter_mut().enumerate() {
                let Some(share) = share else { continue };
                let gradients = share.gradients.iter().flatten();
                let matrices = share.weights.iter_mut().zip(&mut share.momentum);
                updates.extend(
                    matrices
                        .zip(gradients)
                        .map(|((weights, momentum), gradient)| Update {
                            rule: rule(&rates[id].0, later, 2 * id),
                            elements: share.weight_elements,
                            weights,
                            momentum,
                            gradient,
                        }),
                );
                updates.push(Update {
                    rule: rule(&rates[id].1, later, 2 * id + 1),
                    elements: share.bias_elements,
                    weights: &mut share.bias,
                    momentum: &mut share.bias_momentum,
                    gradient: &share.bias_gradient,
                });
            }
        }
        self.device.update(&mut updates, scale)?;
        match &mut self.scaling {
            Some(scaling) => self.device.loss_scale_update(&mut scaling.state),
            None => Ok(()),
        }
    }

    /// The loss scale, and the factor that the last gradients have.
    pub(super) fn loss_scale(&mut self) -> Result<Option<(LossScale, f32)>> {
        let Some(scaling) = &self.scaling else {
            return Ok(None);
        };
        let mut state = [0.0; STATE];
        self.device.download(&scaling.state, &mut state)?;
        Ok(Some((LossScale::of_state(state), state[USED])))
    }

    pub(super) fn set_loss_scale(&mut self, scale: LossScale) -> Result<()> {
        match &mut self.scaling {
            Some(scaling) => self.device.upload(&scale.state(), &mut scaling.state),
            None => Ok(()),
        }
    }

    /// Puts the values that change from step to step where the device reads them when it runs.
    pub(super) fn write_later(&mut self, words: &[u32]) -> Result<()> {
        match &mut self.later {
            Some(later) => self.device.write_words(words, later),
            None => Ok(()),
        }
    }
}

/// First word of the update constants among the values that are read later, after the step.
const RATES: usize = 3;

/// The words of the values that change from step to step: the step's lower and upper half, one to fill up, and three
/// constants of each parameter's weights and bias.
pub(super) fn later_words(step: u64, rates: Option<&[Rates]>, words: &mut Vec<u32>) {
    words.clear();
    words.extend([step as u32, (step >> 32) as u32, 0]);
    for op in rates.into_iter().flatten().flat_map(|(w, b)| [w, b]) {
        words.extend([op.rate, op.momentum, op.decay].map(f32::to_bits));
    }
}

/// Words of a plan with so many parameters.
pub(super) fn later_size(params: usize) -> usize {
    RATES + 2 * 3 * params
}

/// The constants at `place`, read later if there is where from.
fn rule<'a, B>(now: &'a Sgd, later: Option<&'a B>, place: usize) -> Rule<'a, B> {
    match later {
        // The step takes the first place.
        Some(table) => Rule::Later {
            table,
            place: place + RATES / 3,
        },
        None => Rule::Now(now),
    }
}
