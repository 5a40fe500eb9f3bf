//! Max pooling.

use crate::reference;
use crate::support::*;
use alexnet_mp::device::Device;
use alexnet_mp::network::op::{Activation, Pool, Shape, Window};

for_each_device!(
    forward_takes_the_largest_pixel_inside,
    gradients_go_to_the_largest_pixel,
    ties_go_to_the_first_maximum,
    going_back_may_include_the_activation_before,
);

pub fn op(shape: (usize, usize, usize), window: (usize, usize, usize)) -> Pool {
    let input = Shape::new(shape.0, shape.1, shape.2);
    let window = Window::new(window.0, window.1, window.2);
    Pool {
        input,
        output: window.output(input, input.maps),
        window,
        activated: None,
    }
}

fn cases() -> Vec<Pool> {
    let cases = [
        op((48, 55, 55), (3, 2, 0)),
        op((128, 27, 27), (3, 2, 0)),
        op((128, 13, 13), (3, 2, 0)),
        op((5, 6, 9), (3, 2, 0)),
        op((16, 8, 8), (3, 2, 0)),
        op((48, 7, 6), (2, 2, 0)),
        op((1, 1, 1), (3, 2, 0)),
        op((17, 5, 8), (3, 2, 1)),
        op((3, 9, 7), (5, 3, 2)),
        op((2, 3, 3), (2, 3, 0)),
    ];
    affordable(cases, |op| 200 * op.input.len())
}

/// Backward of one image, given its own forward result.
fn backward<D: Device>(d: &mut D, op: &Pool, images: usize, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (x, dy) = (filled(d, x), filled(d, dy));
    let mut y = d.allocate(images * op.output.len()).unwrap();
    d.pool_forward(op, images, &x, &mut y).unwrap();
    let mut dx = filled(d, &vec![7.0; images * op.input.len()]);
    d.pool_backward(op, images, &x, &y, &dy, &mut dx).unwrap();
    read(d, &dx, images * op.input.len())
}

fn forward_takes_the_largest_pixel_inside<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases() {
        // Negative numbers too, which a zero outside the image would beat.
        let x: Vec<f32> = random(0, 2 * op.input.len())
            .iter()
            .map(|x| x - 0.9)
            .collect();
        let buffer = filled(&mut d, &x);
        let mut y = d.allocate(2 * op.output.len()).unwrap();
        d.pool_forward(&op, 2, &buffer, &mut y).unwrap();
        let images = x.chunks(op.input.len());
        let expected: Vec<f64> = images
            .flat_map(|x| reference::pool(&op, &wide(x)))
            .collect();
        assert_close(op, &read(&mut d, &y, expected.len()), &expected, 0.0);
    }
}

fn gradients_go_to_the_largest_pixel<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases() {
        let (x, dy) = (
            random(0, 2 * op.input.len()),
            random(1, 2 * op.output.len()),
        );
        let dx = backward(&mut d, &op, 2, &x, &dy);
        let images = x.chunks(op.input.len()).zip(dy.chunks(op.output.len()));
        let image = |(x, dy): (&[f32], &[f32])| reference::pool_backward(&op, &wide(x), &wide(dy));
        let expected: Vec<f64> = images.flat_map(image).collect();
        assert_close(op, &dx, &expected, GRADIENT);
    }
}

fn going_back_may_include_the_activation_before<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases().into_iter().filter(|op| op.input.len() < 1000) {
        for activation in [Activation::Relu, Activation::Tanh] {
            let op = Pool {
                activated: Some(activation),
                ..op
            };
            let (z, dy) = (wide(&random(0, op.input.len())), random(1, op.output.len()));
            let dx = backward(&mut d, &op, 1, &narrow(&activate(activation, &z)), &dy);
            let value = |z: &[f64]| reference::pool(&op, &activate(activation, z));
            let slopes = differences(value, &z, &wide(&dy));
            assert_close(op, &dx, &slopes, GRADIENT);
        }
    }
}

fn ties_go_to_the_first_maximum<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases() {
        // Few different numbers, so that most windows have ties; many zeros, as after a ReLU.
        let x: Vec<f32> = random(0, op.input.len())
            .iter()
            .map(|x| (2.0 * x).round().max(0.0))
            .collect();
        let dy = random(1, op.output.len());
        let dx = backward(&mut d, &op, 1, &x, &dy);
        let expected = reference::pool_backward(&op, &wide(&x), &wide(&dy));
        assert_close(op, &dx, &expected, GRADIENT);
    }
}
