//! The operations of a plan, one case each.

use super::operands::{Operands, operands};
use crate::network::op::{Activation, Conv, Dropout, Linear, LocalNorm, Lrn, Pool, Shape};
use crate::network::plan::{Plan, Stage, Step};
use crate::precision::Precision;

/// When in a training step an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Forward,
    Backward,
    Update,
}

/// An operation of a device with its constants. Numbers of elements are of one image, but where
/// something else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    ConvForward(Conv),
    /// Through the activation before, where there is one.
    ConvData {
        op: Conv,
        before: Option<Activation>,
    },
    /// With the gradient of the bias or without.
    ConvWeights {
        op: Conv,
        bias: bool,
        accumulate: bool,
    },
    /// With dropout of the outputs or without.
    LinearForward {
        op: Linear,
        dropped: Option<Dropout>,
    },
    LinearData(Linear),
    LinearWeights {
        op: Linear,
        accumulate: bool,
    },
    LinearUpdate(Linear),
    Bias {
        pixels: usize,
        outputs: usize,
        accumulate: bool,
    },
    ActivationForward(Activation, usize),
    ActivationBackward(Activation, usize),
    LrnForward(Lrn),
    LrnBackward(Lrn),
    LocalNormForward(LocalNorm),
    LocalNormBackward(LocalNorm),
    PoolForward(Pool),
    PoolBackward(Pool),
    LrnPoolForward(Lrn, Pool),
    LrnPoolBackward(Lrn, Pool),
    DropoutForward {
        op: Dropout,
        given: bool,
    },
    /// Through the activation before, where there is one.
    DropoutBackward {
        op: Dropout,
        given: bool,
        before: Option<Activation>,
    },
    Scale(usize),
    Copy(usize),
    Add(usize),
    SoftmaxForward(usize),
    Score(usize),
    SoftmaxBackward(usize),
    /// Of so many parameters.
    Sgd(usize),
    Augment {
        crop: usize,
        side: usize,
    },
    /// A weight matrix up and down again.
    Matrix {
        rows: usize,
        columns: usize,
    },
}

/// An operation and its place in the network.
#[derive(Clone, Debug)]
pub struct Case {
    /// "conv1"; empty where it belongs to no layer.
    pub layer: String,
    pub kind: Kind,
    pub pass: Pass,
    /// How often a training step runs it (once for each part of its layer's input).
    pub times: usize,
}

impl Case {
    /// An operation on its own.
    pub fn alone(kind: Kind) -> Self {
        Case {
            layer: String::new(),
            kind,
            pass: Pass::Forward,
            times: 1,
        }
    }

    /// The name of the method of [`crate::device::Device`].
    pub fn operation(&self) -> &'static str {
        match self.kind {
            Kind::ConvForward(_) => "conv_forward",
            Kind::ConvData { .. } => "conv_backward_data",
            Kind::ConvWeights { .. } => "conv_backward_weights",
            Kind::LinearForward { .. } => "linear_forward",
            Kind::LinearData(_) => "linear_backward_data",
            Kind::LinearWeights { .. } => "linear_backward_weights",
            Kind::LinearUpdate(_) => "linear_backward_weights, update",
            Kind::Bias { .. } => "bias_backward",
            Kind::ActivationForward(..) => "activation_forward",
            Kind::ActivationBackward(..) => "activation_backward",
            Kind::LrnForward(_) => "lrn_forward",
            Kind::LrnBackward(_) => "lrn_backward",
            Kind::LocalNormForward(_) => "local_norm_forward",
            Kind::LocalNormBackward(_) => "local_norm_backward",
            Kind::PoolForward(_) => "pool_forward",
            Kind::PoolBackward(_) => "pool_backward",
            Kind::LrnPoolForward(..) => "lrn_pool_forward",
            Kind::LrnPoolBackward(..) => "lrn_pool_backward",
            Kind::DropoutForward { .. } => "dropout_forward",
            Kind::DropoutBackward { .. } => "dropout_backward",
            Kind::Scale(_) => "scale",
            Kind::Copy(_) => "copy",
            Kind::Add(_) => "add",
            Kind::SoftmaxForward(_) => "softmax_forward",
            Kind::Score(_) => "score",
            Kind::SoftmaxBackward(_) => "softmax_backward",
            Kind::Sgd(_) => "update",
            Kind::Augment { .. } => "augment",
            Kind::Matrix { .. } => "upload_matrix, download_matrix",
        }
    }

    /// Sizes for the reader: "48×27×27 → 128×27×27, 5×5".
    pub fn shape(&self) -> String {
        match self.kind {
            Kind::ConvForward(op) | Kind::ConvData { op, .. } | Kind::ConvWeights { op, .. } => {
                let w = op.window;
                let parts = if op.parts > 1 { "2 × " } else { "" };
                format!("{parts}{} → {}, {}×{}", op.input, op.output, w.size, w.size)
            }
            Kind::LinearForward { op, .. }
            | Kind::LinearData(op)
            | Kind::LinearWeights { op, .. }
            | Kind::LinearUpdate(op) => {
                let parts = if op.parts > 1 { "2 × " } else { "" };
                format!("{parts}{} → {}", op.depth(), op.outputs)
            }
            Kind::LrnForward(op) | Kind::LrnBackward(op) => {
                format!("{}{}", if op.parts > 1 { "2 × " } else { "" }, op.shape)
            }
            Kind::LocalNormForward(op) | Kind::LocalNormBackward(op) => op.shape.to_string(),
            Kind::PoolForward(op)
            | Kind::PoolBackward(op)
            | Kind::LrnPoolForward(_, op)
            | Kind::LrnPoolBackward(_, op) => format!("{} → {}", op.input, op.output),
            Kind::Bias {
                pixels, outputs, ..
            } => format!("{pixels}×{outputs}"),
            Kind::DropoutForward { op, .. } | Kind::DropoutBackward { op, .. } => {
                format!("{} of {}", op.units, op.all_units)
            }
            Kind::Augment { crop, side } => format!("{crop}×{crop} of {side}×{side}"),
            Kind::Matrix { rows, columns } => format!("{rows}×{columns}"),
            Kind::ActivationForward(_, n)
            | Kind::ActivationBackward(_, n)
            | Kind::Scale(n)
            | Kind::Copy(n)
            | Kind::Add(n)
            | Kind::SoftmaxForward(n)
            | Kind::Score(n)
            | Kind::SoftmaxBackward(n)
            | Kind::Sgd(n) => n.to_string(),
        }
    }

    /// Multiplications and additions of the definition for so many images; 0 where memory decides.
    pub fn flops(&self, images: usize) -> f64 {
        let multiply_adds = match self.kind {
            Kind::ConvForward(op) => op.multiply_adds(),
            Kind::ConvData { op, .. } | Kind::ConvWeights { op, .. } => {
                op.multiply_adds() / op.parts
            }
            Kind::LinearForward { op, .. } => op.multiply_adds(),
            Kind::LinearData(op) | Kind::LinearWeights { op, .. } | Kind::LinearUpdate(op) => {
                op.multiply_adds() / op.parts
            }
            _ => 0,
        };
        2.0 * multiply_adds as f64 * images as f64
    }

    /// Bytes that it reads and writes at least.
    pub fn bytes(&self, images: usize, precision: Precision) -> f64 {
        self.operands(images).bytes(precision) as f64
    }

    /// What it reads and writes.
    pub fn operands(&self, images: usize) -> Operands {
        operands(&self.kind, images)
    }
}

/// Every operation that a training step of one column runs, the last column's where they differ;
/// updates as a device runs them that does (`fused`) or does not fold them into the gradient.
pub fn of_plan(plan: &Plan, fused: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for stage in &plan.stages {
        let Stage::Compute { layer, steps } = stage else {
            continue;
        };
        let Some(step) = steps.last() else { continue };
        let mut add = |pass, times, kind| {
            cases.push(Case {
                layer: layer.clone(),
                kind,
                pass,
                times,
            });
        };
        of_step(plan, step, fused, &mut add);
    }
    let layer = || plan.params.last().map_or(String::new(), |p| p.name.clone());
    for (pass, kind) in [
        (Pass::Forward, Kind::SoftmaxForward(plan.classes)),
        (Pass::Forward, Kind::Score(plan.classes)),
        (Pass::Backward, Kind::SoftmaxBackward(plan.classes)),
    ] {
        cases.push(Case {
            layer: layer(),
            kind,
            pass,
            times: 1,
        });
    }
    cases
}

fn of_step(plan: &Plan, step: &Step, fused: bool, add: &mut impl FnMut(Pass, usize, Kind)) {
    use Pass::{Backward, Forward};
    let output = &plan.slots[step.output()];
    let elements = output.shape.len();
    if let Some(activation) = step.activation().filter(|_| !output.sloped) {
        add(Backward, 1, Kind::ActivationBackward(activation, elements));
    }
    match *step {
        Step::Conv { op, x, before, .. } => {
            add(Forward, 1, Kind::ConvForward(op));
            if x != plan.input {
                add(Backward, op.parts, Kind::ConvData { op, before });
            }
            let weights = |bias| Kind::ConvWeights {
                op,
                bias,
                accumulate: false,
            };
            add(Backward, 1, weights(true));
            if op.parts > 1 {
                add(Backward, op.parts - 1, weights(false));
            }
            let parameters = op.depth() * op.output.maps;
            add(Pass::Update, op.parts, Kind::Sgd(parameters));
        }
        Step::Linear { op, dropped, .. } => {
            let dropped = dropped.map(|(dropout, _)| dropout);
            add(Forward, 1, Kind::LinearForward { op, dropped });
            add(Backward, op.parts, Kind::LinearData(op));
            add(Backward, 1, bias(Shape::flat(op.outputs)));
            if fused {
                add(Backward, op.parts, Kind::LinearUpdate(op));
            } else {
                let accumulate = false;
                add(Backward, op.parts, Kind::LinearWeights { op, accumulate });
                add(Pass::Update, op.parts, Kind::Sgd(op.depth() * op.outputs));
            }
        }
        Step::Activation { activation, .. } => {
            add(Forward, 1, Kind::ActivationForward(activation, elements));
        }
        Step::Lrn { op, .. } => {
            add(Forward, 1, Kind::LrnForward(op));
            add(Backward, 1, Kind::LrnBackward(op));
        }
        Step::LocalNorm { op, .. } => {
            add(Forward, 1, Kind::LocalNormForward(op));
            add(Backward, 1, Kind::LocalNormBackward(op));
        }
        Step::Pool { op, .. } => {
            add(Forward, 1, Kind::PoolForward(op));
            add(Backward, 1, Kind::PoolBackward(op));
        }
        Step::LrnPool { lrn, pool, .. } => {
            add(Forward, 1, Kind::LrnPoolForward(lrn, pool));
            add(Backward, 1, Kind::LrnPoolBackward(lrn, pool));
        }
        Step::Copy { .. } => {
            add(Forward, 1, Kind::Copy(elements));
            add(Backward, 1, Kind::Copy(elements));
        }
        Step::Dropout {
            op,
            before,
            included,
            ..
        } => {
            let given = false;
            if !included {
                add(Forward, 1, Kind::DropoutForward { op, given });
            }
            add(Backward, 1, Kind::DropoutBackward { op, given, before });
        }
    }
}

fn bias(output: Shape) -> Kind {
    Kind::Bias {
        pixels: output.pixels(),
        outputs: output.maps,
        accumulate: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_operations_of_a_column_are_half_the_networks_work() {
        let plan = Config::load("paper", &[]).unwrap().plan().unwrap();
        let cases = of_plan(&plan, true);
        let flops = |layer: &str, pass| -> f64 {
            let of = |c: &&Case| c.layer == layer && c.pass == pass;
            cases
                .iter()
                .filter(of)
                .map(|c| c.flops(1) * c.times as f64)
                .sum()
        };
        for param in &plan.params {
            let whole = 2.0 * param.multiply_adds() as f64 / param.columns as f64;
            assert_eq!(flops(&param.name, Pass::Forward), whole);
            let gradients = if param.name == "conv1" { 1.0 } else { 2.0 };
            assert_eq!(flops(&param.name, Pass::Backward), gradients * whole);
        }
    }

    #[test]
    fn bytes_count_every_operand_once() {
        let case = Case::alone(Kind::Add(10));
        // Two read, one written.
        assert_eq!(case.bytes(3, Precision::F32), (3 * 30 * 4) as f64);
        assert_eq!(case.bytes(3, Precision::Bf16), (3 * 30 * 2) as f64);
    }
}
