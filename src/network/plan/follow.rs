//! What follows a layer's weighted sum: activations, normalisations, pools, dropout.

use super::derive::Builder;
use super::{SlotId, Stage, Step};
use crate::error::Result;
use crate::network::layer::{LrnScope, Then};
use crate::network::op::{Activation, Dropout, LocalNorm, Lrn, Pool, Shape, Window};

impl Builder<'_> {
    /// What follows the weighted sum, LRN and the pool after it fused into one step.
    pub(super) fn tail(
        &mut self,
        name: &str,
        then: &[Then],
        mut y: SlotId,
        columns: usize,
    ) -> Result<SlotId> {
        let mut i = 0;
        while i < then.len() {
            let fuse = then[i] == Then::Lrn
                && then.get(i + 1) == Some(&Then::Pool)
                && self.lrn_parts(y) == 1
                && Lrn::fuses(self.network.lrn.n, self.network.pool.size);
            y = if fuse {
                self.lrn_pool(name, y, columns)?
            } else {
                self.follow(name, then[i], y, columns)?
            };
            i += if fuse { 2 } else { 1 };
        }
        Ok(y)
    }

    fn follow(&mut self, name: &str, then: Then, mut x: SlotId, columns: usize) -> Result<SlotId> {
        let shape = self.slots[x].shape;
        if self.destroys(then, x) {
            x = self.copy(name, x, columns);
        }
        let layer = name.to_string();
        let (y, steps) = match then {
            Then::Activation => (
                x,
                vec![
                    Step::Activation {
                        activation: self.network.activation,
                        y: x
                    };
                    columns
                ],
            ),
            Then::Dropout => (x, self.dropout(shape, x, columns)),
            Then::Lrn => {
                let parts = self.lrn_parts(x);
                if parts > 1 {
                    self.exchange(x, columns);
                }
                let y = self.slot(format!("{name}.lrn"), shape, columns);
                (
                    y,
                    (0..columns)
                        .map(|c| Step::Lrn {
                            op: self.lrn(shape, parts, c),
                            x,
                            y,
                        })
                        .collect(),
                )
            }
            Then::LocalNorm => {
                let rule = self.network.local_norm;
                let op = LocalNorm {
                    shape,
                    size: rule.size,
                    k: rule.k,
                    alpha: rule.alpha,
                    beta: rule.beta,
                };
                let y = self.slot(format!("{name}.local_norm"), shape, columns);
                (y, vec![Step::LocalNorm { op, x, y }; columns])
            }
            Then::Pool => {
                let op = self.pool(x)?;
                let y = self.slot(format!("{name}.pool"), op.output, columns);
                (y, vec![Step::Pool { op, x, y }; columns])
            }
        };
        self.stages.push(Stage::Compute { layer, steps });
        Ok(y)
    }

    /// Whether `then` in place on slot `x` overwrites what an earlier step on it reads going back.
    fn destroys(&self, then: Then, x: SlotId) -> bool {
        let made = self.stages.iter().rev().filter_map(|stage| match stage {
            Stage::Compute { steps, .. } if steps[0].output() == x => Some(&steps[0]),
            _ => None,
        });
        let mut made = made.peekable();
        if then == Then::Dropout {
            // Going back, it includes the derivative of the activation right before it.
            made.next_if(|last| last.activation().is_some());
        }
        matches!(then, Then::Activation | Then::Dropout) && made.any(Step::reads_output_back)
    }

    fn copy(&mut self, name: &str, x: SlotId, columns: usize) -> SlotId {
        let y = self.slot(format!("{name}.copy"), self.slots[x].shape, columns);
        self.stages.push(Stage::Compute {
            layer: name.into(),
            steps: vec![Step::Copy { x, y }; columns],
        });
        y
    }

    fn lrn_pool(&mut self, name: &str, x: SlotId, columns: usize) -> Result<SlotId> {
        let shape = self.slots[x].shape;
        let pool = self.pool(x)?;
        let y = self.slot(format!("{name}.pool"), pool.output, columns);
        let steps = (0..columns)
            .map(|c| Step::LrnPool {
                lrn: self.lrn(shape, 1, c),
                pool,
                x,
                y,
            })
            .collect();
        self.stages.push(Stage::Compute {
            layer: name.into(),
            steps,
        });
        Ok(y)
    }

    /// Columns whose maps a normalisation of slot `x` sees.
    fn lrn_parts(&self, x: SlotId) -> usize {
        match self.network.lrn.scope {
            LrnScope::All => self.slots[x].columns,
            LrnScope::Column => 1,
        }
    }

    fn lrn(&self, shape: Shape, parts: usize, column: usize) -> Lrn {
        let rule = &self.network.lrn;
        Lrn {
            shape,
            parts,
            column,
            size: rule.n,
            k: rule.k,
            alpha: self.network.lrn_alpha(),
            beta: rule.beta,
        }
    }

    /// The pool of slot `x`.
    fn pool(&mut self, x: SlotId) -> Result<Pool> {
        let input = self.slots[x].shape;
        let rule = self.network.pool;
        let window = Window::new(rule.size, rule.stride, 0);
        Ok(Pool {
            input,
            output: window.output(input, input.maps),
            window,
            activated: self.take_back(x),
        })
    }

    /// Lets the activation that slot `x` is the output of go back with what comes next, the slot's only reader.
    pub(super) fn take_back(&mut self, x: SlotId) -> Option<Activation> {
        let activation = match self.stages.last() {
            Some(Stage::Compute { steps, .. }) if steps[0].output() == x => steps[0].activation(),
            _ => None,
        };
        self.slots[x].sloped |= activation.is_some();
        activation
    }

    fn dropout(&mut self, shape: Shape, y: SlotId, columns: usize) -> Vec<Step> {
        let lane = self.dropouts;
        self.dropouts += 1;
        let before = self.take_back(y);
        let rule = self.network.dropout;
        let units = shape.len();
        let op = |c| Dropout {
            units,
            first_unit: c * units,
            all_units: columns * units,
            rate: rule.rate,
            rescale: rule.rescale,
        };
        let included = self.include(y, |c| (op(c), lane));
        let step = |c| Step::Dropout {
            op: op(c),
            lane,
            y,
            before,
            included,
        };
        (0..columns).map(step).collect()
    }

    /// Lets a fully connected layer, if slot `y` is just what it gave, include each column's dropout; tells whether it does.
    fn include(&mut self, y: SlotId, of_column: impl Fn(usize) -> (Dropout, u32)) -> bool {
        let Some(Stage::Compute { steps, .. }) = self.stages.last_mut() else {
            return false;
        };
        for (column, step) in steps.iter_mut().enumerate() {
            match step {
                Step::Linear {
                    y: made, dropped, ..
                } if *made == y => {
                    *dropped = Some(of_column(column));
                }
                _ => return false,
            }
        }
        true
    }
}

/// The operations of a layer with an activation that follows a pool put before it. Maximum and a
/// monotone function commute, in the gradient too, and a pool's output then stays what it wrote.
pub(super) fn activation_before_pool(then: &[Then]) -> Vec<Then> {
    let mut ordered = then.to_vec();
    for i in 1..ordered.len() {
        if ordered[i - 1..=i] == [Then::Pool, Then::Activation] {
            ordered.swap(i - 1, i);
        }
    }
    ordered
}
