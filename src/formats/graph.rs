//! The test-time network in one piece: whole tensors, columns as groups.

use crate::error::{Result, usage};
use crate::network::op::{Activation, Lrn, Pool, Shape, Window};
use crate::network::plan::{Plan, Stage, Step};

/// One layer of the one-piece network.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The plan's layer it belongs to.
    pub layer: String,
    pub op: Op,
}

/// What it computes, from the output of the node before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Index of the parameter; weights are the whole tensors.
    Conv {
        param: usize,
        groups: usize,
        window: Window,
        /// Zeros read beyond the right and the bottom edge, besides the padding.
        overhang: usize,
    },
    /// Of the flattened input, in the order (map, row, column).
    Linear {
        param: usize,
    },
    Activation(Activation),
    /// `alpha` multiplies the plain sum; the maps are split into `groups` that do not see each
    /// other.
    Lrn {
        rule: Lrn,
        groups: usize,
    },
    /// Within each map over a square of pixels.
    LocalNorm {
        size: usize,
        k: f32,
        alpha: f32,
        beta: f32,
    },
    /// Size and stride; ceiling rule, nothing padded.
    Pool {
        size: usize,
        stride: usize,
    },
    /// Dropout's factor at test time.
    Scale(f32),
}

/// The nodes of a plan in the order of computation.
///
/// # Errors
/// `Usage` where a layer cannot be written as one of them.
pub fn nodes(plan: &Plan) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for stage in &plan.stages {
        if let Stage::Compute { layer, steps } = stage {
            for op in ops(plan, layer, &steps[0])? {
                nodes.push(Node {
                    layer: layer.clone(),
                    op,
                });
            }
        }
    }
    Ok(nodes)
}

fn ops(plan: &Plan, layer: &str, step: &Step) -> Result<Vec<Op>> {
    let columns = plan.slots[step.output()].columns;
    let activated = |op: Op| {
        let then = step.activation().map(Op::Activation);
        std::iter::once(op).chain(then).collect::<Vec<_>>()
    };
    Ok(match step {
        Step::Conv { op, param, x, .. } => {
            let own = op.parts == 1 && *x != plan.input;
            activated(Op::Conv {
                param: *param,
                groups: if own { columns } else { 1 },
                window: op.window,
                overhang: overhang(layer, op.window, op.input)?,
            })
        }
        Step::Linear { op, param, x, .. } => {
            if op.parts == 1 && plan.slots[*x].columns > 1 {
                return Err(usage(format!(
                    "layers.{layer}: a fully connected layer that reads its own column alone cannot be exported"
                )));
            }
            activated(Op::Linear { param: *param })
        }
        Step::Activation { activation, .. } => vec![Op::Activation(*activation)],
        Step::Lrn { op, .. } => vec![lrn(op, columns)],
        Step::LocalNorm { op, .. } => vec![Op::LocalNorm {
            size: op.size,
            k: op.k,
            alpha: op.alpha,
            beta: op.beta,
        }],
        Step::Pool { op, .. } => vec![pool(op)],
        Step::LrnPool {
            lrn: l, pool: p, ..
        } => vec![lrn(l, columns), pool(p)],
        Step::Copy { .. } => vec![],
        Step::Dropout { op, .. } if op.test_scale() == 1.0 => vec![],
        Step::Dropout { op, .. } => vec![Op::Scale(op.test_scale())],
    })
}

fn lrn(op: &Lrn, columns: usize) -> Op {
    Op::Lrn {
        rule: *op,
        groups: if op.parts > 1 { 1 } else { columns },
    }
}

/// A window larger than its input sees all of it.
fn pool(op: &Pool) -> Op {
    Op::Pool {
        size: op.window.size.min(op.input.height).min(op.input.width),
        stride: op.window.stride,
    }
}

fn overhang(layer: &str, window: Window, input: Shape) -> Result<usize> {
    if input.height != input.width {
        return Err(usage(format!(
            "layers.{layer}: maps of {input} are not square"
        )));
    }
    let reach = (window.positions(input.width) - 1) * window.stride + window.size;
    Ok(reach.saturating_sub(input.width + 2 * window.pad))
}
