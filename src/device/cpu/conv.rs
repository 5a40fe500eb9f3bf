//! Convolution: which method each shape takes.

use super::activation::tanh;
use super::direct::{self, Direct};
use super::team::Team;
use super::winograd::Winograd;
use crate::error::Result;
use crate::network::op::{Activation, Conv};
use std::collections::HashMap;
use std::sync::Arc;

/// What was worked out about one convolution.
struct Plan {
    direct: Direct,
    forward: Option<Winograd>,
    backward: Option<Winograd>,
}

/// What was worked out about the convolutions met so far.
#[derive(Default)]
pub struct Plans(HashMap<Conv, Arc<Plan>>);

impl Plans {
    fn plan(&mut self, op: &Conv) -> Arc<Plan> {
        let new = || Plan {
            direct: Direct::new(op),
            forward: Winograd::new(op),
            backward: Winograd::backward(op),
        };
        self.0.entry(*op).or_insert_with(|| Arc::new(new())).clone()
    }

    /// `y = activation(Σ_parts conv(x_part, weights_part) + bias)`.
    pub fn forward(
        &mut self,
        team: &mut Team,
        op: &Conv,
        images: usize,
        x: &[&[f32]],
        weights: &[&[f32]],
        bias: &[f32],
        y: &mut [f32],
    ) -> Result<()> {
        let plan = self.plan(op);
        match &plan.forward {
            Some(w) => w.forward(team, op, images, x, weights, bias, y)?,
            None => direct::forward(team, op, &plan.direct, images, x, weights, bias, y)?,
        }
        if op.activation == Some(Activation::Tanh) {
            let y = &mut y[..images * op.output.len()];
            team.workers.chunks(y, op.output.len(), |_, y, _| tanh(y));
        }
        Ok(())
    }

    /// Gradient of one part's input.
    pub fn backward_data(
        &mut self,
        team: &mut Team,
        op: &Conv,
        images: usize,
        dy: &[f32],
        weights: &[f32],
        dx: &mut [f32],
    ) -> Result<()> {
        let plan = self.plan(op);
        match &plan.backward {
            Some(w) => w.backward_data(team, op, images, dy, weights, dx),
            None => direct::backward_data(team, op, &plan.direct, images, dy, weights, dx),
        }
    }

    /// Gradient of one part's weights.
    pub fn backward_weights(
        &mut self,
        team: &mut Team,
        op: &Conv,
        images: usize,
        x: &[f32],
        dy: &[f32],
        accumulate: bool,
        gradient: &mut [f32],
    ) -> Result<()> {
        let plan = self.plan(op);
        match &plan.forward {
            Some(w) => w.backward_weights(team, op, images, x, dy, accumulate, gradient),
            None => {
                let direct = &plan.direct;
                direct::backward_weights(team, op, direct, images, x, dy, accumulate, gradient)
            }
        }
    }
}
