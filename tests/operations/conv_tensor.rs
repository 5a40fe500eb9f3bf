//! Convolution on tensor cores in every precision that has them. Operands are numbers that all
//! types hold exactly, so that what is compared is the sum, and the rounding of what is stored.
#![cfg(feature = "cuda")]

use crate::conv::{goes_back, odd_shapes, the_five_layers};
use crate::reference;
use crate::support::*;
use alexnet_mp::device::cuda::CudaDevice;
use alexnet_mp::device::{Activated, ConvGradients, Device};
use alexnet_mp::network::op::{Activation, Conv};
use alexnet_mp::precision::Precision;

const PRECISIONS: [Precision; 3] = [Precision::Bf16, Precision::F16, Precision::Tf32];

/// A convolution, its operands, and what float64 makes of them.
pub struct Case {
    op: Conv,
    images: usize,
    x: Vec<Vec<f32>>,
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f64>,
    dx: Vec<Vec<f64>>,
    dw: Vec<Vec<f64>>,
}

/// Multiples of `scale`/64 in −scale..scale.
fn coarse(stream: u32, elements: usize, scale: f32) -> Vec<f32> {
    let rounded = |x: &f32| (x * 64.0).round() / 64.0 * scale;
    random(stream, elements).iter().map(rounded).collect()
}

impl Case {
    pub fn new(op: Conv, images: usize) -> Self {
        let (matrix, maps) = (op.depth() * op.output.maps, op.output.maps);
        // A power of two near 1/√depth.
        let scale = (-((op.depth() as f32).log2() / 2.0).round()).exp2();
        let parts = 0..op.parts as u32;
        let x: Vec<_> = parts
            .clone()
            .map(|p| coarse(p, images * op.input.len(), 1.0))
            .collect();
        let weights: Vec<_> = parts.map(|p| coarse(10 + p, matrix, scale)).collect();
        let (bias, dy) = (
            coarse(20, maps, 1.0),
            coarse(21, images * op.output.len(), 1.0),
        );
        let mut case = Case {
            y: (0..images * op.output.len())
                .map(|i| f64::from(bias[i % maps]))
                .collect(),
            dx: vec![],
            dw: vec![],
            op,
            images,
            x,
            weights,
            bias,
            dy,
        };
        for part in 0..op.parts {
            let weights = wide(&case.weights[part]);
            let mut dw = vec![0.0; matrix];
            let mut dx = vec![];
            for image in 0..images {
                let x = wide(&case.x[part][image * op.input.len()..][..op.input.len()]);
                let dy = wide(&case.dy[image * op.output.len()..][..op.output.len()]);
                let y = &mut case.y[image * op.output.len()..][..op.output.len()];
                for (y, sum) in y.iter_mut().zip(reference::conv(&op, &x, &weights)) {
                    *y += sum;
                }
                if goes_back(&op) {
                    dx.extend(reference::conv_data(&op, &dy, &weights));
                }
                reference::add_conv_weights(&op, &x, &dy, &mut dw);
            }
            case.dx.push(dx);
            case.dw.push(dw);
        }
        if op.activation == Some(Activation::Relu) {
            case.y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        case
    }

    pub fn check(&self, d: &mut CudaDevice, precision: Precision) {
        let (op, n) = (&self.op, self.images);
        d.set_precision(precision).unwrap();
        // Every stored number is off by half a unit in the last place at most.
        let rounding = match precision.map_bytes() {
            2 => precision.rounding(),
            _ => 0.0,
        };
        let x: Vec<_> = self.x.iter().map(|x| filled_maps(d, x)).collect();
        let matrix = |w: &Vec<f32>| {
            let mut buffer = d.allocate_weights(w.len()).unwrap();
            d.upload_matrix(op.depth(), op.output.maps, w, &mut buffer)
                .unwrap();
            buffer
        };
        let weights: Vec<_> = self.weights.iter().map(matrix).collect();
        let (bias, dy) = (filled(d, &self.bias), filled_maps(d, &self.dy));
        let mut y = filled_maps(d, &vec![7.0; self.y.len()]);
        d.conv_forward(op, n, &all(&x), &all(&weights), &bias, &mut y)
            .unwrap();
        let found = read(d, &y, self.y.len());
        assert_close((precision, "y", op), &found, &self.y, FORWARD + rounding);
        for part in 0..op.parts {
            let all = &self.dx[part];
            let positive = all.iter().zip(&self.x[part]);
            let positive: Vec<f64> = positive
                .map(|(dx, x)| if *x > 0.0 { *dx } else { 0.0 })
                .collect();
            // The input taken for the output of a ReLU, which is told from its sign.
            let relu = Activated {
                activation: Activation::Relu,
                y: &x[part],
            };
            let both = [(None, all), (Some(relu), &positive)];
            // AlexNet's own layers take the virtual GPU seconds each.
            let ways = if n > 1 { 2 } else { 1 };
            let back = if goes_back(op) { ways } else { 0 };
            for (before, expected) in both.into_iter().take(back) {
                let what = (precision, "dx", op, before.is_some());
                let mut dx = filled_maps(d, &vec![7.0; all.len()]);
                d.conv_backward_data(op, n, &dy, &weights[part], before, &mut dx)
                    .unwrap();
                let found = read(d, &dx, all.len());
                assert_close(what, &found, expected, GRADIENT + rounding);
            }

            let (rows, columns) = (op.depth(), op.output.maps);
            let mut dw = filled(d, &vec![0.5; rows * columns]);
            let mut db = filled(d, &vec![0.5; columns]);
            for (accumulate, shift) in [(true, 0.5), (false, 0.0)].into_iter().take(ways) {
                let to = ConvGradients {
                    weights: &mut dw,
                    bias: (part == 0).then_some(&mut db),
                    accumulate,
                };
                d.conv_backward_weights(op, n, &x[part], &dy, to).unwrap();
                // Gradients are f32 in every precision.
                let expected: Vec<f64> = self.dw[part].iter().map(|g| g + shift).collect();
                let found = read_matrix(d, &dw, rows, columns);
                assert_close((precision, "dw", op), &found, &expected, GRADIENT);
                if part == 0 {
                    let expected = reference::bias(columns, &self.dy);
                    let expected: Vec<f64> = expected.iter().map(|g| g + shift).collect();
                    let found = read(d, &db, columns);
                    assert_close((precision, "db", op), &found, &expected, GRADIENT);
                }
            }
        }
    }
}

#[test]
fn odd_shapes_agree_with_float64_in_every_precision() {
    vcuda::in_own_process(odd_shapes_agree);
}

fn odd_shapes_agree() {
    let images = if watched_for_races() { 1 } else { 3 };
    let mut cases: Vec<Case> = odd_shapes()
        .into_iter()
        .map(|op| Case::new(op, images))
        .collect();
    // More pixels than one block sums up.
    for op in [odd_shapes()[3], odd_shapes()[4]] {
        cases.push(Case::new(op, if watched_for_races() { 12 } else { 40 }));
    }
    on_gpus(|open| {
        let mut d = open();
        for case in &cases {
            PRECISIONS.iter().for_each(|&p| case.check(&mut d, p));
        }
    });
}

#[test]
fn alexnets_layers_agree_with_float64_in_every_precision() {
    vcuda::in_own_process(alexnets_layers_agree);
}

fn alexnets_layers_agree() {
    let cases: Vec<Case> = the_five_layers()
        .into_iter()
        .map(|op| Case::new(op, 1))
        .collect();
    on_first_gpu(|open| {
        let mut d = open();
        for case in &cases {
            PRECISIONS.iter().for_each(|&p| case.check(&mut d, p));
        }
    });
}

#[test]
fn tf32_rounds_operands_to_ten_bits_and_no_fewer() {
    let op = odd_shapes()[8];
    let mut case = Case::new(op, 1);
    // One operand of full precision: the sums are off by its rounding, and by more than f32's.
    let (x, w) = (random(1, op.input.len()), wide(&case.weights[0]));
    case.y = reference::conv(&op, &wide(&x), &w);
    on_first_gpu(|open| {
        let mut d = open();
        d.set_precision(Precision::Tf32).unwrap();
        let (x, bias) = (
            filled(&mut d, &x),
            filled(&mut d, &vec![0.0; op.output.maps]),
        );
        let weights = filled_matrix(&mut d, op.depth(), op.output.maps, &case.weights[0]);
        let mut y = d.allocate(op.output.len()).unwrap();
        let linear = Conv {
            activation: None,
            ..op
        };
        d.conv_forward(&linear, 1, &[&x], &[&weights], &bias, &mut y)
            .unwrap();
        let error = relative_error(&read(&mut d, &y, op.output.len()), &case.y);
        let rounding = Precision::Tf32.rounding();
        assert!(error < rounding && error > rounding / 20.0, "{error}");
    });
}
