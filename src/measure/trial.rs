//! One operation on one device.

use super::cases::{Case, Kind};
use super::median;
use super::operands::{Fill, Store, numbers};
use crate::batch::{Batch, Draw};
use crate::device::{Activated, ConvGradients, Device, Dropped, Mask, Rule, Sink, Update};
use crate::error::Result;
use crate::network::op::Sgd;
use crate::precision::Precision;
use crate::random::{Key, Purpose};
use std::time::{Duration, Instant};

/// What an operation wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// "dx", "gradient".
    pub name: &'static str,
    pub values: Vec<f32>,
}

/// The constants of the updates that are tried.
const SGD: Sgd = Sgd {
    rate: 0.01,
    momentum: 0.9,
    decay: 0.0005,
};

/// An operation with its operands on a device, the same numbers on every device.
pub struct Trial<'a, D: Device> {
    case: &'a Case,
    images: usize,
    reads: Vec<D::Buffer>,
    writes: Vec<D::Buffer>,
    input: Option<D::Input>,
    tally: Option<D::Tally>,
}

impl<'a, D: Device> Trial<'a, D> {
    /// Puts the operands on `device`.
    ///
    /// The device computes in `precision`; another one that computes in f32 gets the same numbers
    /// by naming the same precision.
    pub fn new(
        device: &mut D,
        case: &'a Case,
        images: usize,
        precision: Precision,
    ) -> Result<Self> {
        let operands = case.operands(images);
        let mut upload = |all: &[super::operands::Operand], first: u32| {
            let one = |(i, operand): (usize, &super::operands::Operand)| {
                let mut buffer = match operand.store {
                    Store::Maps => device.allocate_maps(operand.elements)?,
                    Store::Weights => device.allocate_weights(operand.elements)?,
                    Store::F32 => device.allocate(operand.elements)?,
                };
                let mut values = numbers(operand, first + i as u32);
                if operand.store != Store::F32 {
                    values.iter_mut().for_each(|v| *v = precision.round(*v));
                }
                match operand.matrix {
                    Some([rows, columns]) => {
                        device.upload_matrix(rows, columns, &values, &mut buffer)?
                    }
                    None => device.upload(&values, &mut buffer)?,
                }
                Ok(buffer)
            };
            all.iter().enumerate().map(one).collect::<Result<Vec<_>>>()
        };
        let (reads, writes) = (upload(&operands.reads, 1)?, upload(&operands.writes, 101)?);
        let mut trial = Trial {
            case,
            images,
            reads,
            writes,
            input: None,
            tally: None,
        };
        trial.prepare_input(device)?;
        if operands.reads.iter().any(|o| o.fill == Fill::Forward) {
            trial.run_forward(device)?;
        }
        Ok(trial)
    }

    fn prepare_input(&mut self, device: &mut D) -> Result<()> {
        match self.case.kind {
            Kind::Augment { crop, side } => {
                let batch = crops(device, self.images, crop, side);
                let mut input = device.allocate_input(self.images, crop)?;
                device.upload_input(&batch, &mut input)?;
                device.input_arrived(&input)?;
                self.input = Some(input);
            }
            Kind::Score(classes) | Kind::SoftmaxBackward(classes) => {
                let label = |i: usize| (i * 389 % classes) as u32;
                let labels: Vec<u32> = (0..self.images).map(label).collect();
                let mut input = device.allocate_input(self.images, 1)?;
                device.upload_labels(&labels, &mut input)?;
                self.input = Some(input);
                self.tally = Some(device.allocate_tally()?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes the output that a pool's gradient is told from.
    fn run_forward(&mut self, device: &mut D) -> Result<()> {
        let [x, y, ..] = &mut self.reads[..] else {
            unreachable!("a pool reads x and y")
        };
        match &self.case.kind {
            Kind::PoolBackward(op) => device.pool_forward(op, self.images, x, y),
            Kind::LrnPoolBackward(lrn, pool) => {
                device.lrn_pool_forward(lrn, pool, self.images, x, y)
            }
            _ => unreachable!("only pools are told from their output"),
        }
    }

    /// Issues the operation once.
    pub fn run(&mut self, device: &mut D) -> Result<()> {
        let n = self.images;
        let reads: Vec<&D::Buffer> = self.reads.iter().collect();
        match &self.case.kind {
            Kind::ConvForward(_) | Kind::ConvData { .. } | Kind::ConvWeights { .. } => {
                run_conv(device, &self.case.kind, n, &reads, &mut self.writes)
            }
            Kind::LinearForward { .. }
            | Kind::LinearData(_)
            | Kind::LinearWeights { .. }
            | Kind::LinearUpdate(_) => {
                run_linear(device, &self.case.kind, n, &reads, &mut self.writes)
            }
            Kind::Score(classes) => {
                let (Some(input), Some(tally)) = (&self.input, &mut self.tally) else {
                    unreachable!("prepared")
                };
                device.score(*classes, n, reads[0], input, tally)
            }
            Kind::SoftmaxBackward(classes) => {
                let input = self.input.as_ref().expect("prepared");
                let dlogits = &mut self.writes[0];
                let scale = (1.0 / n as f32, None);
                device.softmax_backward(*classes, n, reads[0], input, scale, dlogits)
            }
            Kind::Augment { side, .. } => {
                let input = self.input.as_ref().expect("prepared");
                device.augment(n, input, *side, reads[0], &mut self.writes[0])
            }
            Kind::Matrix { rows, columns } => {
                let mut values = vec![0.0; rows * columns];
                device.download_matrix(*rows, *columns, &self.writes[0], &mut values)?;
                device.upload_matrix(*rows, *columns, &values, &mut self.writes[0])
            }
            kind => run_maps(device, kind, n, &reads, &mut self.writes),
        }
    }

    /// Reads what the operation wrote.
    pub fn outputs(&mut self, device: &mut D) -> Result<Vec<Output>> {
        let mut outputs = Vec::new();
        let operands = self.case.operands(self.images);
        for (operand, buffer) in operands.writes.iter().zip(&self.writes) {
            let mut values = vec![0.0; operand.elements];
            match operand.matrix {
                Some([rows, columns]) => {
                    device.download_matrix(rows, columns, buffer, &mut values)?
                }
                None => device.download(buffer, &mut values)?,
            }
            outputs.push(Output {
                name: operand.name,
                values,
            });
        }
        if let (Kind::Score(_), Some(tally)) = (&self.case.kind, &mut self.tally) {
            let score = device.take_tally(tally)?;
            let values = [
                score.loss,
                score.top1_errors as f64,
                score.top5_errors as f64,
            ];
            outputs.push(Output {
                name: "loss and errors",
                values: values.map(|v| v as f32).to_vec(),
            });
        }
        Ok(outputs)
    }

    /// Median seconds of one run: after one to warm up, at least `least` laps of one or many runs, then more until
    /// `budget` is used up.
    ///
    /// Runs follow each other without a wait, on the same operands: what an operation changes in place or adds to drifts
    /// away from what it was, in 16 bits perhaps to infinity. No value is looked at, and GPUs are no slower for them.
    pub fn time(&mut self, device: &mut D, budget: Duration, least: usize) -> Result<f64> {
        self.lap(device, 1)?;
        timed(budget.as_secs_f64(), least, |runs| self.lap(device, runs))
    }

    /// Seconds of so many runs and the wait for them.
    fn lap(&mut self, device: &mut D, runs: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..runs {
            self.run(device)?;
        }
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// A lap takes so many seconds, or a run does by itself: a wait for a GPU takes some 10 µs, as long as many operations.
const LAP: f64 = 2e-3;
/// Runs of a lap, and laps, at most.
const MOST_RUNS: usize = 4096;
const MOST_LAPS: usize = 1000;

/// Median seconds of one run, `lap` giving the seconds of so many of them: their number is doubled until a lap is long
/// enough, or as long as the whole budget.
fn timed(budget: f64, least: usize, mut lap: impl FnMut(usize) -> Result<f64>) -> Result<f64> {
    let mut runs = 1;
    let mut seconds = lap(runs)?;
    let mut used = seconds;
    while seconds < LAP.min(budget) && runs < MOST_RUNS {
        runs *= 2;
        seconds = lap(runs)?;
        used += seconds;
    }
    let mut laps = vec![seconds / runs as f64];
    while laps.len() < least || (used < budget && laps.len() < MOST_LAPS) {
        seconds = lap(runs)?;
        used += seconds;
        laps.push(seconds / runs as f64);
    }
    Ok(median(&laps))
}

/// Crops of random pixels, drawn in every way there is.
fn crops<D: Device>(device: &D, images: usize, crop: usize, side: usize) -> Batch {
    let mut batch = Batch::with_capacity(images, crop, &device.host_allocator());
    let mut stream = Key::new(2012, Purpose::Verify).stream(200, 0);
    for pixels in batch.pixels.bytes_mut().chunks_mut(4) {
        pixels.copy_from_slice(&stream.word().to_le_bytes()[..pixels.len()]);
    }
    for image in 0..images {
        let place = (side - crop) as u32 + 1;
        batch.draws.push(Draw {
            top: stream.below(place) as u16,
            left: stream.below(place) as u16,
            mirror: image % 2 == 1,
            shift: std::array::from_fn(|_| stream.between(-20.0, 20.0)),
            gain: if image % 3 == 2 { 1.0 / 1.1 } else { 1.0 },
        });
        batch.labels.push(image as u32);
    }
    batch
}

fn run_conv<D: Device>(
    device: &mut D,
    kind: &Kind,
    n: usize,
    reads: &[&D::Buffer],
    writes: &mut [D::Buffer],
) -> Result<()> {
    let (out, others) = writes.split_first_mut().expect("every operation writes");
    match kind {
        Kind::ConvForward(op) => {
            let (x, rest) = reads.split_at(op.parts);
            let (weights, bias) = rest.split_at(op.parts);
            device.conv_forward(op, n, x, weights, bias[0], out)
        }
        Kind::ConvData { op, before } => {
            let before = before.map(|activation| Activated {
                activation,
                y: reads[2],
            });
            device.conv_backward_data(op, n, reads[0], reads[1], before, out)
        }
        Kind::ConvWeights { op, accumulate, .. } => {
            let to = ConvGradients {
                weights: out,
                bias: others.first_mut(),
                accumulate: *accumulate,
            };
            device.conv_backward_weights(op, n, reads[0], reads[1], to)
        }
        _ => unreachable!("not a convolution"),
    }
}

fn run_linear<D: Device>(
    device: &mut D,
    kind: &Kind,
    n: usize,
    reads: &[&D::Buffer],
    writes: &mut [D::Buffer],
) -> Result<()> {
    match kind {
        Kind::LinearForward { op, dropped } => {
            let (x, rest) = reads.split_at(op.parts);
            let (weights, bias) = rest.split_at(op.parts);
            let dropped = dropped.as_ref().map(|op| Dropped {
                op,
                mask: mask(reads, false),
            });
            device.linear_forward(op, n, x, weights, bias[0], dropped, &mut writes[0])
        }
        Kind::LinearData(op) => {
            device.linear_backward_data(op, n, reads[0], reads[1], &mut writes[0])
        }
        Kind::LinearWeights { op, accumulate } => {
            let sink = Sink::Gradient {
                into: &mut writes[0],
                accumulate: *accumulate,
            };
            device.linear_backward_weights(op, n, reads[0], reads[1], sink)
        }
        Kind::LinearUpdate(op) => {
            let [weights, momentum] = writes else {
                unreachable!("an update writes two")
            };
            let sink = Sink::Update {
                weights,
                momentum,
                sgd: SGD,
            };
            device.linear_backward_weights(op, n, reads[0], reads[1], sink)
        }
        _ => unreachable!("not a fully connected layer"),
    }
}

fn run_maps<D: Device>(
    device: &mut D,
    kind: &Kind,
    n: usize,
    reads: &[&D::Buffer],
    writes: &mut [D::Buffer],
) -> Result<()> {
    match kind {
        Kind::LrnForward(op) => device.lrn_forward(op, n, reads, &mut writes[0]),
        Kind::LrnBackward(op) => {
            let (x, dy) = reads.split_at(op.parts);
            let mut dx: Vec<&mut D::Buffer> = writes.iter_mut().collect();
            device.lrn_backward(op, n, x, dy[0], &mut dx)
        }
        Kind::LocalNormForward(op) => device.local_norm_forward(op, n, reads[0], &mut writes[0]),
        Kind::LocalNormBackward(op) => {
            device.local_norm_backward(op, n, reads[0], reads[1], &mut writes[0])
        }
        Kind::PoolForward(op) => device.pool_forward(op, n, reads[0], &mut writes[0]),
        Kind::PoolBackward(op) => {
            device.pool_backward(op, n, reads[0], reads[1], reads[2], &mut writes[0])
        }
        Kind::LrnPoolForward(lrn, pool) => {
            device.lrn_pool_forward(lrn, pool, n, reads[0], &mut writes[0])
        }
        Kind::LrnPoolBackward(lrn, pool) => {
            let dx = &mut writes[0];
            device.lrn_pool_backward(lrn, pool, n, reads[0], reads[1], reads[2], dx)
        }
        kind => run_elements(device, kind, n, reads, writes),
    }
}

fn run_elements<D: Device>(
    device: &mut D,
    kind: &Kind,
    n: usize,
    reads: &[&D::Buffer],
    writes: &mut [D::Buffer],
) -> Result<()> {
    let (first, rest) = writes.split_first_mut().expect("every operation writes");
    match *kind {
        Kind::Bias {
            pixels,
            outputs,
            accumulate,
        } => device.bias_backward(n * pixels, outputs, reads[0], accumulate, first),
        Kind::ActivationForward(activation, len) => {
            device.activation_forward(activation, n * len, first)
        }
        Kind::ActivationBackward(activation, len) => {
            device.activation_backward(activation, n * len, reads[0], first)
        }
        Kind::DropoutForward { op, given } => {
            device.dropout_forward(&op, n, &mask(reads, given), first)
        }
        Kind::DropoutBackward { op, given, before } => {
            let y = reads.last().copied();
            let before = before.zip(y);
            let before = before.map(|(activation, y)| Activated { activation, y });
            device.dropout_backward(&op, n, &mask(reads, given), before, first)
        }
        // So near 1 that a hundred thousand repetitions leave no number too small to be normal.
        Kind::Scale(len) => device.scale(n * len, -0.9999, first),
        Kind::Copy(len) => device.copy(n * len, reads[0], first),
        Kind::Add(len) => device.add(n * len, reads[0], first),
        Kind::SoftmaxForward(classes) => device.softmax_forward(classes, n, reads[0], first),
        Kind::Sgd(len) => {
            let update = Update {
                rule: Rule::Now(&SGD),
                elements: len,
                weights: first,
                momentum: &mut rest[0],
                gradient: reads[0],
            };
            device.update(&mut [update], None)
        }
        _ => unreachable!("run elsewhere"),
    }
}

/// The mask that is read first where it is given, else a drawn one.
fn mask<'a, B>(reads: &[&'a B], given: bool) -> Mask<'a, B> {
    match given {
        true => Mask::Given(reads[0]),
        false => Mask::Counter {
            key: Key::new(2012, Purpose::Dropout),
            lane: 1,
            step: 7,
            first_image: 3,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device whose operations take `run` seconds, and the wait for any number of them `wait`; the laps it was asked for.
    fn measured(run: f64, wait: f64, budget: f64, least: usize) -> (f64, Vec<usize>) {
        let mut laps = vec![];
        let seconds = timed(budget, least, |runs| {
            laps.push(runs);
            Ok(run * runs as f64 + wait)
        });
        (seconds.unwrap(), laps)
    }

    #[test]
    fn the_wait_for_a_short_operation_is_not_taken_for_its_time() {
        let (seconds, laps) = measured(20e-6, 15e-6, 0.1, 2);
        assert!((seconds / 20e-6 - 1.0).abs() < 0.01, "{seconds}");
        assert!(laps.len() < 60, "{laps:?}");
    }

    #[test]
    fn a_long_operation_is_run_once_a_lap_and_no_lap_is_wasted() {
        assert_eq!(measured(0.03, 15e-6, 0.1, 2).1, [1; 4]);
        assert_eq!(measured(3.0, 15e-6, 0.1, 2).1, [1; 2]);
    }

    #[test]
    fn a_small_budget_is_kept() {
        let (_, laps) = measured(100e-6, 0.0, 1e-3, 1);
        assert_eq!(laps, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn an_operation_that_takes_no_time_comes_to_an_end() {
        let (seconds, laps) = measured(0.0, 0.0, 0.1, 2);
        assert_eq!((seconds, laps.len()), (0.0, 13 + MOST_LAPS - 1));
    }
}
