//! Convolution, forward and backward.

use crate::reference;
use crate::support::*;
use alexnet_mp::device::{Activated, ConvGradients, Device};
use alexnet_mp::network::op::{Activation, Conv, Shape, Window};

for_each_device!(
    forward_agrees_with_float64,
    forward_of_a_later_image_does_not_depend_on_the_batch,
    the_data_gradient_agrees_with_float64,
    the_data_gradient_may_include_the_activation_before,
    the_weight_gradient_agrees_with_float64,
    the_weight_gradient_of_many_images_agrees_with_float64,
    gradients_are_the_slopes_of_the_output,
    tanh_follows_the_bias,
    a_nan_in_the_input_reaches_the_output,
);

pub fn op(
    input: (usize, usize, usize),
    parts: usize,
    maps: usize,
    window: (usize, usize, usize),
) -> Conv {
    let input = Shape::new(input.0, input.1, input.2);
    let window = Window::new(window.0, window.1, window.2);
    Conv {
        input,
        parts,
        output: window.output(input, maps),
        window,
        activation: Some(Activation::Relu),
    }
}

/// The five layers of one column.
pub fn the_five_layers() -> Vec<Conv> {
    vec![
        op((3, 224, 224), 1, 48, (11, 4, 0)),
        op((48, 27, 27), 1, 128, (5, 1, 2)),
        op((128, 13, 13), 2, 192, (3, 1, 1)),
        op((192, 13, 13), 1, 192, (3, 1, 1)),
        op((192, 13, 13), 1, 128, (3, 1, 1)),
    ]
}

/// Whether a network goes back through a layer to its input: nothing asks for the gradient of an image, and on a virtual GPU
/// that of the first layer takes longer than all others together.
pub fn goes_back(op: &Conv) -> bool {
    op.input != the_five_layers()[0].input
}

/// Shapes that nothing divides, and some that tiles do.
pub fn odd_shapes() -> Vec<Conv> {
    vec![
        op((1, 5, 5), 1, 1, (3, 1, 1)),
        op((5, 7, 9), 1, 5, (3, 2, 1)),
        op((3, 23, 18), 1, 17, (11, 4, 0)),
        op((4, 6, 5), 2, 24, (5, 1, 2)),
        op((16, 14, 11), 2, 32, (3, 1, 1)),
        op((16, 9, 10), 1, 48, (5, 1, 2)),
        op((32, 8, 5), 1, 16, (3, 1, 0)),
        op((16, 6, 6), 1, 16, (3, 1, 2)),
        op((2, 2, 2), 1, 3, (5, 3, 0)),
        op((7, 1, 1), 1, 20, (1, 1, 0)),
        op((2, 6, 7), 1, 18, (2, 1, 0)),
        op((3, 64, 64), 1, 12, (11, 4, 0)),
        op((64, 7, 6), 1, 64, (3, 2, 1)),
        op((3, 20, 16), 1, 16, (5, 4, 0)),
        op((1, 9, 12), 1, 56, (4, 4, 0)),
        op((8, 5, 6), 2, 136, (2, 1, 1)),
        op((3, 19, 23), 1, 16, (11, 4, 0)),
        op((3, 21, 18), 1, 16, (5, 4, 2)),
        op((4, 6, 5), 1, 24, (5, 1, 2)),
    ]
}

fn shapes() -> Vec<Conv> {
    let shapes = match watched_for_races() {
        true => odd_shapes(),
        false => [the_five_layers(), odd_shapes()].concat(),
    };
    affordable(shapes, |op| op.parts * op.depth() * op.output.len())
}

pub struct Operands {
    pub x: Vec<Vec<f32>>,
    pub weights: Vec<Vec<f32>>,
    pub bias: Vec<f32>,
    dy: Vec<f32>,
}

pub fn operands(op: &Conv, images: usize) -> Operands {
    let scale = 1.0 / (op.depth() as f32).sqrt();
    let weights = |p| {
        random(10 + p, op.depth() * op.output.maps)
            .iter()
            .map(|w| w * scale)
            .collect()
    };
    Operands {
        x: (0..op.parts as u32)
            .map(|p| random(p, images * op.input.len()))
            .collect(),
        weights: (0..op.parts as u32).map(weights).collect(),
        bias: random(20, op.output.maps),
        dy: random(21, images * op.output.len()),
    }
}

/// The reference before the activation.
pub fn expected(op: &Conv, o: &Operands, image: usize) -> Vec<f64> {
    let maps = op.output.maps;
    let mut y: Vec<f64> = (0..op.output.len())
        .map(|i| f64::from(o.bias[i % maps]))
        .collect();
    for part in 0..op.parts {
        let x = wide(&o.x[part][image * op.input.len()..][..op.input.len()]);
        for (y, s) in y
            .iter_mut()
            .zip(reference::conv(op, &x, &wide(&o.weights[part])))
        {
            *y += s;
        }
    }
    y
}

fn forward<D: Device>(d: &mut D, op: &Conv, images: usize, o: &Operands) -> Vec<f32> {
    let x: Vec<_> = o.x.iter().map(|x| filled(d, x)).collect();
    let matrix = |w: &Vec<f32>| filled_matrix(d, op.depth(), op.output.maps, w);
    let weights: Vec<_> = o.weights.iter().map(matrix).collect();
    let bias = filled(d, &o.bias);
    let mut y = d.allocate(images * op.output.len()).unwrap();
    d.conv_forward(op, images, &all(&x), &all(&weights), &bias, &mut y)
        .unwrap();
    read(d, &y, images * op.output.len())
}

fn forward_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in shapes() {
        for activation in [Some(Activation::Relu), None] {
            let op = Conv { activation, ..op };
            let images = if op.input.width > 100 { 1 } else { 2 };
            let o = operands(&op, images);
            let y = forward(&mut d, &op, images, &o);
            let mut all: Vec<f64> = (0..images).flat_map(|i| expected(&op, &o, i)).collect();
            if activation.is_some() {
                all.iter_mut().for_each(|y| *y = y.max(0.0));
            }
            assert_close(op, &y, &all, FORWARD);
        }
    }
}

fn forward_of_a_later_image_does_not_depend_on_the_batch<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in [
        op((16, 13, 13), 1, 32, (3, 1, 1)),
        op((3, 23, 18), 1, 17, (11, 4, 0)),
    ] {
        let o = operands(&op, 7);
        let y = forward(&mut d, &op, 7, &o);
        for image in 0..7 {
            let alone = Operands {
                x: vec![o.x[0][image * op.input.len()..][..op.input.len()].to_vec()],
                ..operands(&op, 1)
            };
            let alone = forward(&mut d, &op, 1, &alone);
            assert_close(
                (op, image),
                &y[image * op.output.len()..][..op.output.len()],
                &wide(&alone),
                1e-6,
            );
        }
    }
}

fn the_data_gradient_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in shapes().into_iter().filter(goes_back) {
        let images = 3;
        let o = operands(&op, images);
        let dy = filled(&mut d, &o.dy);
        for part in 0..op.parts {
            let weights = filled_matrix(&mut d, op.depth(), op.output.maps, &o.weights[part]);
            let mut dx = filled(&mut d, &vec![7.0; images * op.input.len()]);
            d.conv_backward_data(&op, images, &dy, &weights, None, &mut dx)
                .unwrap();
            let dx = read(&mut d, &dx, images * op.input.len());
            let weights = wide(&o.weights[part]);
            let image = |dy: &[f32]| reference::conv_data(&op, &wide(dy), &weights);
            let expected: Vec<f64> = o.dy.chunks(op.output.len()).flat_map(image).collect();
            assert_close(op, &dx, &expected, GRADIENT);
        }
    }
}

fn the_data_gradient_may_include_the_activation_before<D: Device>(open: Open<D>) {
    let mut d = open();
    for (op, activation) in odd_shapes()
        .into_iter()
        .flat_map(|op| [Activation::Relu, Activation::Tanh].map(|a| (op, a)))
    {
        let o = operands(&op, 2);
        let (z, weights) = (wide(&o.x[0]), wide(&o.weights[0]));
        let y = narrow(&activate(activation, &z));
        let image = |dy: &[f32]| reference::conv_data(&op, &wide(dy), &weights);
        let dx = o.dy.chunks(op.output.len()).flat_map(image);
        let slope = |z: &f64| match activation {
            Activation::Relu => f64::from(*z > 0.0),
            Activation::Tanh => z.cosh().powi(-2),
        };
        let expected: Vec<f64> = dx.zip(&z).map(|(dx, z)| dx * slope(z)).collect();
        let weights = filled_matrix(&mut d, op.depth(), op.output.maps, &o.weights[0]);
        let (dy, y) = (filled(&mut d, &o.dy), filled(&mut d, &y));
        let mut dx = filled(&mut d, &vec![7.0; z.len()]);
        let before = Some(Activated { activation, y: &y });
        d.conv_backward_data(&op, 2, &dy, &weights, before, &mut dx)
            .unwrap();
        let dx = read(&mut d, &dx, z.len());
        assert_close((op, activation), &dx, &expected, GRADIENT);
    }
}

fn weight_gradient<D: Device>(d: &mut D, op: &Conv, images: usize) {
    let o = operands(op, images);
    let (rows, columns) = (op.depth(), op.output.maps);
    let (x, dy) = (filled(d, &o.x[0]), filled(d, &o.dy));
    let mut sum = vec![0.0; rows * columns];
    for (x, dy) in o.x[0]
        .chunks(op.input.len())
        .zip(o.dy.chunks(op.output.len()))
    {
        reference::add_conv_weights(op, &wide(x), &wide(dy), &mut sum);
    }
    let bias_sum = reference::bias(columns, &o.dy);
    let mut weights = filled_matrix(d, rows, columns, &vec![0.5; rows * columns]);
    let mut bias = filled(d, &vec![0.5; columns]);
    for (accumulate, shift) in [(true, 0.5), (false, 0.0)] {
        let to = ConvGradients {
            weights: &mut weights,
            bias: Some(&mut bias),
            accumulate,
        };
        d.conv_backward_weights(op, images, &x, &dy, to).unwrap();
        let of_weights: Vec<f64> = sum.iter().map(|g| g + shift).collect();
        let of_bias: Vec<f64> = bias_sum.iter().map(|g| g + shift).collect();
        let found = read_matrix(d, &weights, rows, columns);
        assert_close((op, accumulate), &found, &of_weights, GRADIENT);
        let found = read(d, &bias, columns);
        assert_close((op, accumulate, "bias"), &found, &of_bias, GRADIENT);
    }
    let to = ConvGradients {
        weights: &mut weights,
        bias: None,
        accumulate: false,
    };
    d.conv_backward_weights(op, images, &x, &dy, to).unwrap();
    let found = read_matrix(d, &weights, rows, columns);
    assert_close((op, "weights alone"), &found, &sum, GRADIENT);
}

fn the_weight_gradient_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in shapes() {
        weight_gradient(&mut d, &op, if op.input.width > 100 { 1 } else { 3 });
    }
}

fn the_weight_gradient_of_many_images_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    weight_gradient(&mut d, &op((16, 13, 13), 1, 16, (3, 1, 1)), 65);
    weight_gradient(&mut d, &op((16, 9, 9), 1, 16, (5, 1, 2)), 65);
    weight_gradient(&mut d, &op((3, 12, 12), 1, 5, (3, 2, 0)), 21);
}

fn gradients_are_the_slopes_of_the_output<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in [
        op((2, 5, 4), 1, 3, (3, 2, 1)),
        op((16, 5, 5), 1, 16, (3, 1, 1)),
    ] {
        let o = operands(&op, 1);
        let (x64, w64, dy64) = (wide(&o.x[0]), wide(&o.weights[0]), wide(&o.dy));
        let (x, dy) = (filled(&mut d, &o.x[0]), filled(&mut d, &o.dy));
        let (rows, columns) = (op.depth(), op.output.maps);
        let weights = filled_matrix(&mut d, rows, columns, &o.weights[0]);
        let mut dx = d.allocate(op.input.len()).unwrap();
        d.conv_backward_data(&op, 1, &dy, &weights, None, &mut dx)
            .unwrap();
        let slopes = differences(|x| reference::conv(&op, x, &w64), &x64, &dy64);
        assert_close(op, &read(&mut d, &dx, op.input.len()), &slopes, GRADIENT);
        let mut dw = d.allocate(rows * columns).unwrap();
        let to = ConvGradients {
            weights: &mut dw,
            bias: None,
            accumulate: false,
        };
        d.conv_backward_weights(&op, 1, &x, &dy, to).unwrap();
        let slopes = differences(|w| reference::conv(&op, &x64, w), &w64, &dy64);
        assert_close(
            op,
            &read_matrix(&mut d, &dw, rows, columns),
            &slopes,
            GRADIENT,
        );
    }
}

fn tanh_follows_the_bias<D: Device>(open: Open<D>) {
    let mut d = open();
    for maps in [16, 5] {
        let op = Conv {
            activation: Some(Activation::Tanh),
            ..op((16, 4, 4), 1, maps, (3, 1, 1))
        };
        let o = operands(&op, 1);
        let y = forward(&mut d, &op, 1, &o);
        let expected: Vec<f64> = expected(&op, &o, 0).iter().map(|y| y.tanh()).collect();
        assert_close(op, &y, &expected, FORWARD);
    }
}

fn a_nan_in_the_input_reaches_the_output<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in [
        op((16, 6, 6), 1, 32, (3, 1, 1)),
        op((3, 15, 12), 1, 17, (11, 4, 0)),
    ] {
        let mut o = operands(&op, 2);
        o.x[0][op.input.len() + 40] = f32::NAN;
        let y = forward(&mut d, &op, 2, &o);
        assert!(y[op.output.len()..].iter().any(|y| y.is_nan()));
    }
}
