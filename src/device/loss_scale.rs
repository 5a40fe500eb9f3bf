//! Dynamic loss scaling (Micikevicius et al., *Mixed Precision Training*, ICLR 2018), for f16: the
//! loss is multiplied by a scale so that small gradients do not vanish; a step with a gradient
//! that is not finite is skipped and halves the scale, many steps without one double it.
//!
//! The state stays on the device, so that no step waits for the host: four f32 in a buffer.

use serde::{Deserialize, Serialize};

/// Numbers of the state: the scale, the scale of the last gradients, the updates since it
/// changed, and whether a gradient of this step was not finite.
pub const STATE: usize = 4;
/// Place of the last one.
pub const OVERFLOW: usize = 3;
/// Place of the scale of the last gradients.
pub const USED: usize = 1;

/// What a run resumes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    pub scale: f32,
    /// Updates since the scale changed.
    pub steps: f32,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale {
            scale: 65_536.0,
            steps: 0.0,
        }
    }
}

impl LossScale {
    /// As it stands on a device, between two steps.
    pub fn state(self) -> [f32; STATE] {
        [self.scale, self.scale, self.steps, 0.0]
    }

    pub fn of_state(state: [f32; STATE]) -> Self {
        LossScale {
            scale: state[0],
            steps: state[2],
        }
    }
}
