//! Fully connected layers, forward, backward and with the update built in.

use crate::reference;
use crate::support::*;
use alexnet_mp::device::{Device, Dropped, Mask, Sink};
use alexnet_mp::network::op::{Activation, Dropout, Linear, Sgd, Shape};
use alexnet_mp::random::{Key, Purpose};

for_each_device!(
    forward_agrees_with_float64,
    the_data_gradient_agrees_with_float64,
    the_weight_gradient_agrees_with_float64,
    the_fused_update_is_the_gradient_and_then_the_update,
    gradients_are_the_slopes_of_the_output,
    the_bias_gradient_is_the_sum_over_the_rows,
    matrices_come_back_as_they_went,
);

fn op(input: Shape, parts: usize, outputs: usize) -> Linear {
    Linear {
        input,
        parts,
        outputs,
        activation: Some(Activation::Relu),
    }
}

/// fc6, fc7 and fc8 of one column, and shapes nothing divides.
fn shapes() -> Vec<(Linear, usize)> {
    let shapes = [
        (op(Shape::new(128, 6, 6), 2, 2048), 2),
        (op(Shape::flat(2048), 2, 2048), 1),
        (op(Shape::flat(2048), 2, 1000), 5),
        (op(Shape::flat(1), 1, 1), 1),
        (op(Shape::flat(5), 2, 10), 3),
        (op(Shape::new(3, 5, 7), 1, 33), 17),
        (op(Shape::flat(300), 1, 48), 20),
        (op(Shape::flat(32), 2, 16), 128),
    ];
    affordable(shapes, |(op, images)| {
        op.parts * op.depth() * op.outputs * images
    })
}

struct Operands {
    x: Vec<Vec<f32>>,
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
    dy: Vec<f32>,
}

fn operands(op: &Linear, images: usize) -> Operands {
    let scale = 1.0 / (op.depth() as f32).sqrt();
    let weights = |p| {
        random(10 + p, op.depth() * op.outputs)
            .iter()
            .map(|w| w * scale)
            .collect()
    };
    Operands {
        x: (0..op.parts as u32)
            .map(|p| random(p, images * op.depth()))
            .collect(),
        weights: (0..op.parts as u32).map(weights).collect(),
        bias: random(20, op.outputs),
        dy: random(21, images * op.outputs),
    }
}

/// Gradient of a part's weights.
fn expected_gradient(op: &Linear, x: &[f32], dy: &[f32]) -> Vec<f64> {
    let mut gradient = vec![0.0; op.depth() * op.outputs];
    for (x, dy) in x.chunks(op.depth()).zip(dy.chunks(op.outputs)) {
        for (x, row) in x.iter().zip(gradient.chunks_exact_mut(op.outputs)) {
            for (g, dy) in row.iter_mut().zip(dy) {
                *g += f64::from(*x) * f64::from(*dy);
            }
        }
    }
    gradient
}

/// Gradient of a part's input.
fn expected_data(op: &Linear, weights: &[f32], dy: &[f32]) -> Vec<f64> {
    let product = |w: &[f32], dy: &[f32]| -> f64 {
        w.iter()
            .zip(dy)
            .map(|(w, d)| f64::from(*w) * f64::from(*d))
            .sum()
    };
    let image = |dy| weights.chunks(op.outputs).map(move |w| product(w, dy));
    dy.chunks(op.outputs).flat_map(image).collect()
}

fn forward_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for (op, images) in shapes() {
        let o = operands(&op, images);
        let x: Vec<_> = o.x.iter().map(|x| filled(&mut d, x)).collect();
        let matrix = |w: &Vec<f32>| filled_matrix(&mut d, op.depth(), op.outputs, w);
        let weights: Vec<_> = o.weights.iter().map(matrix).collect();
        let bias = filled(&mut d, &o.bias);
        let mut sums: Vec<f64> = (0..images).flat_map(|_| wide(&o.bias)).collect();
        for (x, w) in o.x.iter().zip(&o.weights) {
            let w = wide(w);
            let y = x
                .chunks(op.depth())
                .flat_map(|x| reference::linear(op.outputs, &wide(x), &w));
            sums.iter_mut().zip(y).for_each(|(s, y)| *s += y);
        }
        for activation in [None, Some(Activation::Relu), Some(Activation::Tanh)] {
            let op = Linear { activation, ..op };
            let mut y = d.allocate(images * op.outputs).unwrap();
            let (x, weights) = (all(&x), all(&weights));
            d.linear_forward(&op, images, &x, &weights, &bias, None, &mut y)
                .unwrap();
            let expected = sums.iter().map(|&s| match activation {
                None => s,
                Some(Activation::Relu) => s.max(0.0),
                Some(Activation::Tanh) => s.tanh(),
            });
            let expected: Vec<f64> = expected.collect();
            assert_close(op, &read(&mut d, &y, expected.len()), &expected, FORWARD);
            includes_dropout(&mut d, &op, images, (&x, &weights, &bias), &expected);
        }
    }
}

/// The layer with dropout of its outputs included: `expected` with what the definition of the mask drops, or a given mask.
fn includes_dropout<D: Device>(
    d: &mut D,
    op: &Linear,
    images: usize,
    (x, weights, bias): (&[&D::Buffer], &[&D::Buffer], &D::Buffer),
    expected: &[f64],
) {
    let units = op.outputs;
    let dropout = Dropout {
        units,
        first_unit: units,
        all_units: 2 * units,
        rate: 0.3,
        rescale: true,
    };
    let (key, lane, step, first_image) = (Key::new(5, Purpose::Dropout), 1, 1 << 33, 2);
    let threshold = f64::from(dropout.rate) * 2f64.powi(32);
    let is_kept = |i: usize| {
        let element = (first_image + i / units) * 2 * units + units + i % units;
        f64::from(key.word(element as u32, lane, step)) >= threshold
    };
    let kept: Vec<f32> = (0..images * units)
        .map(|i| f32::from(u8::from(is_kept(i))))
        .collect();
    let factor = 1.0 / (1.0 - f64::from(dropout.rate));
    let expected: Vec<f64> = expected
        .iter()
        .zip(&kept)
        .map(|(y, &kept)| y * f64::from(kept) * factor)
        .collect();
    let given = filled(d, &kept);
    let counted = Mask::Counter {
        key,
        lane,
        step,
        first_image,
    };
    for mask in [counted, Mask::Given(&given)] {
        let mut y = filled(d, &vec![7.0; images * units]);
        let dropped = Some(Dropped { op: &dropout, mask });
        d.linear_forward(op, images, x, weights, bias, dropped, &mut y)
            .unwrap();
        let found = read(d, &y, expected.len());
        assert_close((op, "dropped"), &found, &expected, FORWARD);
    }
}

fn the_data_gradient_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for (op, images) in shapes() {
        let o = operands(&op, images);
        let dy = filled(&mut d, &o.dy);
        let weights = filled_matrix(&mut d, op.depth(), op.outputs, &o.weights[0]);
        let mut dx = filled(&mut d, &vec![7.0; images * op.depth()]);
        d.linear_backward_data(&op, images, &dy, &weights, &mut dx)
            .unwrap();
        let expected = expected_data(&op, &o.weights[0], &o.dy);
        assert_close(op, &read(&mut d, &dx, expected.len()), &expected, GRADIENT);
    }
}

fn the_weight_gradient_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for (op, images) in shapes() {
        let o = operands(&op, images);
        let (rows, columns) = (op.depth(), op.outputs);
        let (x, dy) = (filled(&mut d, &o.x[0]), filled(&mut d, &o.dy));
        let mut into = filled_matrix(&mut d, rows, columns, &vec![0.5; rows * columns]);
        let mut expected = expected_gradient(&op, &o.x[0], &o.dy);
        let sink = Sink::Gradient {
            into: &mut into,
            accumulate: false,
        };
        d.linear_backward_weights(&op, images, &x, &dy, sink)
            .unwrap();
        assert_close(
            op,
            &read_matrix(&mut d, &into, rows, columns),
            &expected,
            GRADIENT,
        );
        let sink = Sink::Gradient {
            into: &mut into,
            accumulate: true,
        };
        d.linear_backward_weights(&op, images, &x, &dy, sink)
            .unwrap();
        expected.iter_mut().for_each(|g| *g *= 2.0);
        assert_close(
            (op, "added"),
            &read_matrix(&mut d, &into, rows, columns),
            &expected,
            GRADIENT,
        );
    }
}

fn the_fused_update_is_the_gradient_and_then_the_update<D: Device>(open: Open<D>) {
    let mut d = open();
    let sgd = Sgd {
        rate: 0.1,
        momentum: 0.9,
        decay: 0.05,
    };
    for (op, images) in shapes() {
        let o = operands(&op, images);
        let (rows, columns) = (op.depth(), op.outputs);
        let before = random(30, rows * columns);
        let (x, dy) = (filled(&mut d, &o.x[0]), filled(&mut d, &o.dy));
        let mut weights = filled_matrix(&mut d, rows, columns, &o.weights[0]);
        let mut momentum = filled_matrix(&mut d, rows, columns, &before);
        let sink = Sink::Update {
            weights: &mut weights,
            momentum: &mut momentum,
            sgd,
        };
        d.linear_backward_weights(&op, images, &x, &dy, sink)
            .unwrap();
        let gradient = expected_gradient(&op, &o.x[0], &o.dy);
        let v: Vec<f64> = (0..gradient.len())
            .map(|i| {
                let (v, w) = (f64::from(before[i]), f64::from(o.weights[0][i]));
                f64::from(sgd.momentum) * v
                    - f64::from(sgd.decay) * f64::from(sgd.rate) * w
                    - f64::from(sgd.rate) * gradient[i]
            })
            .collect();
        let w: Vec<f64> = v
            .iter()
            .zip(&o.weights[0])
            .map(|(v, w)| v + f64::from(*w))
            .collect();
        assert_close(
            op,
            &read_matrix(&mut d, &momentum, rows, columns),
            &v,
            GRADIENT,
        );
        assert_close(
            op,
            &read_matrix(&mut d, &weights, rows, columns),
            &w,
            GRADIENT,
        );
    }
}

fn gradients_are_the_slopes_of_the_output<D: Device>(open: Open<D>) {
    let mut d = open();
    let op = op(Shape::new(3, 2, 2), 1, 19);
    let o = operands(&op, 1);
    let (x64, w64, dy64) = (wide(&o.x[0]), wide(&o.weights[0]), wide(&o.dy));
    let (x, dy) = (filled(&mut d, &o.x[0]), filled(&mut d, &o.dy));
    let weights = filled_matrix(&mut d, op.depth(), op.outputs, &o.weights[0]);
    let mut dx = d.allocate(op.depth()).unwrap();
    d.linear_backward_data(&op, 1, &dy, &weights, &mut dx)
        .unwrap();
    let slopes = differences(|x| reference::linear(op.outputs, x, &w64), &x64, &dy64);
    assert_close("dx", &read(&mut d, &dx, op.depth()), &slopes, GRADIENT);
    let mut into = d.allocate(op.depth() * op.outputs).unwrap();
    let sink = Sink::Gradient {
        into: &mut into,
        accumulate: false,
    };
    d.linear_backward_weights(&op, 1, &x, &dy, sink).unwrap();
    let slopes = differences(|w| reference::linear(op.outputs, &x64, w), &w64, &dy64);
    assert_close(
        "dw",
        &read_matrix(&mut d, &into, op.depth(), op.outputs),
        &slopes,
        GRADIENT,
    );
}

fn the_bias_gradient_is_the_sum_over_the_rows<D: Device>(open: Open<D>) {
    let mut d = open();
    for (rows, outputs) in [
        (1, 1),
        (3, 5),
        (1025, 48),
        (6050, 48),
        (128, 1000),
        (300, 17),
    ] {
        // A mean, so that the sum does not vanish against its terms.
        let dy: Vec<f32> = random(1, rows * outputs).iter().map(|x| x + 0.5).collect();
        let mut expected = reference::bias(outputs, &dy);
        let dy = filled(&mut d, &dy);
        let mut gradient = filled(&mut d, &vec![3.0; outputs]);
        d.bias_backward(rows, outputs, &dy, false, &mut gradient)
            .unwrap();
        assert_close(
            (rows, outputs),
            &read(&mut d, &gradient, outputs),
            &expected,
            GRADIENT,
        );
        d.bias_backward(rows, outputs, &dy, true, &mut gradient)
            .unwrap();
        expected.iter_mut().for_each(|g| *g *= 2.0);
        assert_close(
            (rows, outputs),
            &read(&mut d, &gradient, outputs),
            &expected,
            GRADIENT,
        );
    }
}

fn matrices_come_back_as_they_went<D: Device>(open: Open<D>) {
    let mut d = open();
    for (rows, columns) in [(1, 1), (7, 16), (5, 17), (3, 1000)] {
        let matrix = random(0, rows * columns);
        let buffer = filled_matrix(&mut d, rows, columns, &matrix);
        assert_eq!(read_matrix(&mut d, &buffer, rows, columns), matrix);
    }
}
