//! The network in one piece: its table read anew, without a plan. A layer that reads its own
//! column's maps is a layer in two groups, and that is all it knows of columns.

use crate::layers::{Maps, Window, local_norm, lrn, pool, softmax_loss};
use alexnet_mp::config::Config;
use alexnet_mp::network::layer::{LrnScope, On, Reads, Then};
use alexnet_mp::network::op::Activation;
use alexnet_mp::network::params::Tensors;
use std::collections::BTreeMap;

/// Tensors by name, in float64.
pub type Values = BTreeMap<String, Vec<f64>>;

/// The dropout of a pass: masks per dropout layer `[images, units]`, or the test-time network.
pub type Masks<'a> = Option<&'a [Vec<f32>]>;

/// One operation, with the layer it belongs to.
enum Operation {
    /// A convolution; also a fully connected layer, as one over a single pixel.
    Weighted {
        name: String,
        window: Window,
    },
    Flatten,
    /// `columns` hold what it works on.
    Then {
        then: Then,
        columns: usize,
    },
    Dropout {
        number: usize,
    },
}

/// The network with its parameters and momentum.
pub struct Reference {
    config: Config,
    operations: Vec<Operation>,
    pub parameters: Values,
    pub momentum: Values,
}

/// What a pass over a batch gives.
pub struct Pass {
    pub logits: Vec<f64>,
    pub loss: f64,
    pub gradients: Values,
}

/// Tensors in float64.
pub fn wide(tensors: &Tensors) -> Values {
    let wide = |x: &Vec<f32>| x.iter().map(|&v| f64::from(v)).collect();
    tensors
        .0
        .iter()
        .map(|t| (t.name.clone(), wide(&t.values)))
        .collect()
}

impl Reference {
    pub fn new(config: &Config, parameters: &Tensors) -> Self {
        let parameters = wide(parameters);
        let zeros = |(name, values): (&String, &Vec<f64>)| (name.clone(), vec![0.0; values.len()]);
        Reference {
            operations: operations(config),
            config: config.clone(),
            momentum: parameters.iter().map(zeros).collect(),
            parameters,
        }
    }

    fn parameter(&self, layer: &str, kind: &str) -> &[f64] {
        &self.parameters[&format!("{layer}.{kind}")]
    }

    /// The values after every operation; the first are the images, the last the logits.
    fn forward(&self, images: &Maps, masks: Masks) -> Vec<Maps> {
        let mut values = vec![images.clone()];
        for operation in &self.operations {
            let x = values.last().expect("the images come first");
            let y = match operation {
                Operation::Weighted { name, window } => window.forward(
                    x,
                    self.parameter(name, "weight"),
                    self.parameter(name, "bias"),
                ),
                Operation::Flatten => x.flat(),
                Operation::Dropout { number } => times(x, &self.factors(x, *number, masks)),
                Operation::Then { then, columns } => self.follow(*then, *columns, x),
            };
            values.push(y);
        }
        values
    }

    fn follow(&self, then: Then, columns: usize, x: &Maps) -> Maps {
        let network = &self.config.network;
        match then {
            Then::Activation => {
                let values = x.values.iter().map(|&v| match network.activation {
                    Activation::Relu => v.max(0.0),
                    Activation::Tanh => v.tanh(),
                });
                Maps::new(x.images, x.maps, x.side, values.collect())
            }
            Then::Lrn => lrn(
                x,
                network.lrn.n,
                self.lrn_groups(columns),
                self.lrn_constants(),
                None,
            ),
            Then::LocalNorm => local_norm(
                x,
                network.local_norm.size,
                self.local_norm_constants(),
                None,
            ),
            Then::Pool => pool(x, network.pool.size, network.pool.stride).0,
            Then::Dropout => unreachable!("an operation of its own"),
        }
    }

    /// Loss and all gradients of a batch.
    pub fn pass(&self, images: &Maps, labels: &[u32], masks: Masks) -> Pass {
        let values = self.forward(images, masks);
        let logits = values.last().expect("at least the images");
        let (loss, mut dy) = softmax_loss(logits, labels);
        let mut gradients = Values::new();
        for (i, operation) in self.operations.iter().enumerate().rev() {
            let (x, y) = (&values[i], &values[i + 1]);
            dy = match operation {
                Operation::Weighted { name, window } => {
                    let (dx, dw, db) = window.backward(x, self.parameter(name, "weight"), &dy);
                    gradients.insert(format!("{name}.weight"), dw);
                    gradients.insert(format!("{name}.bias"), db);
                    dx
                }
                Operation::Flatten => Maps {
                    values: dy.values,
                    ..x.clone()
                },
                Operation::Dropout { number } => times(&dy, &self.factors(x, *number, masks)),
                Operation::Then { then, columns } => {
                    self.follow_backward(*then, *columns, x, y, &dy)
                }
            };
        }
        Pass {
            logits: logits.values.clone(),
            loss,
            gradients,
        }
    }

    fn follow_backward(&self, then: Then, columns: usize, x: &Maps, y: &Maps, dy: &Maps) -> Maps {
        let network = &self.config.network;
        match then {
            Then::Activation => {
                let slope = |(x, y): (&f64, &f64)| match network.activation {
                    Activation::Relu => f64::from(u8::from(*x > 0.0)),
                    Activation::Tanh => 1.0 - y * y,
                };
                times(
                    dy,
                    &x.values
                        .iter()
                        .zip(&y.values)
                        .map(slope)
                        .collect::<Vec<_>>(),
                )
            }
            Then::Lrn => lrn(
                x,
                network.lrn.n,
                self.lrn_groups(columns),
                self.lrn_constants(),
                Some(dy),
            ),
            Then::LocalNorm => local_norm(
                x,
                network.local_norm.size,
                self.local_norm_constants(),
                Some(dy),
            ),
            Then::Pool => {
                let (_, places) = pool(x, network.pool.size, network.pool.stride);
                let mut dx = Maps::zeros(x.images, x.maps, x.side);
                for (place, d) in places.iter().zip(&dy.values) {
                    dx.values[*place] += d;
                }
                dx
            }
            Then::Dropout => unreachable!("an operation of its own"),
        }
    }

    /// What dropout layer `number` multiplies every unit by.
    fn factors(&self, x: &Maps, number: usize, masks: Masks) -> Vec<f64> {
        let rule = &self.config.network.dropout;
        let keep = 1.0 - f64::from(rule.rate);
        match (masks, rule.rescale) {
            (None, false) => vec![keep; x.values.len()],
            (None, true) => vec![1.0; x.values.len()],
            (Some(masks), rescale) => {
                let factor = if rescale { 1.0 / keep } else { 1.0 };
                masks[number]
                    .iter()
                    .map(|&m| f64::from(m) * factor)
                    .collect()
            }
        }
    }

    fn lrn_groups(&self, columns: usize) -> usize {
        match self.config.network.lrn.scope {
            LrnScope::Column => columns,
            LrnScope::All => 1,
        }
    }

    fn lrn_constants(&self) -> [f64; 3] {
        let rule = &self.config.network.lrn;
        let divisor = if rule.divide_by_n { rule.n as f64 } else { 1.0 };
        [
            f64::from(rule.k),
            f64::from(rule.alpha) / divisor,
            f64::from(rule.beta),
        ]
    }

    fn local_norm_constants(&self) -> [f64; 3] {
        let rule = &self.config.network.local_norm;
        [rule.k, rule.alpha, rule.beta].map(f64::from)
    }

    /// `v ← 0.9·v − decay·ε·w − ε·∂L/∂w; w ← w + v`, with the layers' own factors at epoch 0.
    pub fn update(&mut self, gradients: &Values) {
        let train = &self.config.train;
        for (name, weights) in &mut self.parameters {
            let (layer, kind) = name.split_once('.').expect("layer.kind");
            let layer = &self.config.layers[layer];
            let (rate, decay) = match kind {
                "weight" => (layer.rate, layer.decay),
                _ => (layer.bias_rate, layer.bias_decay),
            };
            let (rate, decay) = (train.learning_rate * rate, train.weight_decay * decay);
            let momentum = self.momentum.get_mut(name).expect("one per parameter");
            for ((w, v), g) in weights.iter_mut().zip(momentum).zip(&gradients[name]) {
                *v = f64::from(train.momentum) * *v - decay * rate * *w - rate * g;
                *w += *v;
            }
        }
    }
}

fn times(x: &Maps, factors: &[f64]) -> Maps {
    assert_eq!(x.values.len(), factors.len());
    let values = x.values.iter().zip(factors).map(|(a, b)| a * b).collect();
    Maps::new(x.images, x.maps, x.side, values)
}

/// The operations in the order of the table.
fn operations(config: &Config) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut number = 0;
    for (name, layer) in &config.layers {
        let columns = match layer.on {
            On::Each => config.network.columns,
            On::First => 1,
        };
        let groups = match layer.reads {
            Reads::Own => columns,
            Reads::Image | Reads::All => 1,
        };
        let (size, stride, pad) = match layer.kernel {
            0 => (1, 1, 0),
            size => (size, layer.stride, layer.pad),
        };
        if layer.kernel == 0 {
            operations.push(Operation::Flatten);
        }
        let window = Window {
            size,
            stride,
            pad,
            groups,
        };
        operations.push(Operation::Weighted {
            name: name.clone(),
            window,
        });
        for &then in &layer.then {
            operations.push(if then == Then::Dropout {
                number += 1;
                Operation::Dropout { number: number - 1 }
            } else {
                Operation::Then { then, columns }
            });
        }
    }
    operations
}
