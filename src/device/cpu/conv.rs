//! Convolution: which method each shape takes.

use super::direct::{self, Direct};
use super::team::Team;
use crate::error::Result;
use crate::network::op::Conv;
use std::collections::HashMap;
use std::sync::Arc;

/// What was worked out about the convolutions met so far.
#[derive(Default)]
pub struct Plans(HashMap<Conv, Arc<Direct>>);

impl Plans {
    fn plan(&mut self, op: &Conv) -> Arc<Direct> {
        let plan = self.0.entry(*op);
        plan.or_insert_with(|| Arc::new(Direct::new(op))).clone()
    }

    /// `y = activation(Σ_parts conv(x_part, weights_part) + bias)`.
    #[allow(clippy::too_many_arguments)]
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
        direct::forward(team, op, &self.plan(op), images, x, weights, bias, y)
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
        direct::backward_data(team, op, &self.plan(op), images, dy, weights, dx)
    }

    /// Gradient of one part's weights.
    #[allow(clippy::too_many_arguments)]
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
        direct::backward_weights(
            team,
            op,
            &self.plan(op),
            images,
            x,
            dy,
            accumulate,
            gradient,
        )
    }
}
