//! Normalisation within each map, over a square of pixels.

use crate::reference;
use crate::support::*;
use alexnet_mp::device::Device;
use alexnet_mp::network::op::{LocalNorm, Shape};

for_each_device!(
    forward_agrees_with_float64,
    gradients_are_the_slopes_of_the_output,
    gradients_at_the_layers_sizes_agree_with_float64,
);

fn op(shape: Shape, size: usize) -> LocalNorm {
    LocalNorm {
        shape,
        size,
        k: 1.0,
        alpha: 0.05,
        beta: 0.75,
    }
}

fn cases() -> Vec<LocalNorm> {
    let cases = [
        LocalNorm {
            alpha: 0.001 / 25.0,
            ..op(Shape::new(128, 27, 27), 5)
        },
        op(Shape::new(128, 13, 13), 5),
        op(Shape::new(5, 6, 7), 5),
        op(Shape::new(3, 4, 6), 4),
        op(Shape::new(1, 1, 1), 5),
        LocalNorm {
            beta: 0.5,
            ..op(Shape::new(2, 7, 3), 3)
        },
    ];
    affordable(cases, |op| 500 * op.shape.len())
}

fn forward_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases() {
        let x = random(0, 2 * op.shape.len());
        let buffer = filled(&mut d, &x);
        let mut y = d.allocate(x.len()).unwrap();
        d.local_norm_forward(&op, 2, &buffer, &mut y).unwrap();
        let images = x.chunks(op.shape.len());
        let expected: Vec<f64> = images
            .flat_map(|x| reference::local_norm(&op, &wide(x)))
            .collect();
        assert_close(op, &read(&mut d, &y, x.len()), &expected, FORWARD);
    }
}

fn gradients_are_the_slopes_of_the_output<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases().into_iter().filter(|op| op.shape.len() < 1000) {
        let (x, dy) = (random(0, 2 * op.shape.len()), random(1, 2 * op.shape.len()));
        let buffers = (filled(&mut d, &x), filled(&mut d, &dy));
        let mut dx = d.allocate(x.len()).unwrap();
        d.local_norm_backward(&op, 2, &buffers.0, &buffers.1, &mut dx)
            .unwrap();
        let images = x.chunks(op.shape.len()).zip(dy.chunks(op.shape.len()));
        let slopes = images.flat_map(|(x, dy)| {
            differences(|x| reference::local_norm(&op, x), &wide(x), &wide(dy))
        });
        let slopes: Vec<f64> = slopes.collect();
        assert_close(op, &read(&mut d, &dx, x.len()), &slopes, GRADIENT);
    }
}

fn gradients_at_the_layers_sizes_agree_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases() {
        let (x, dy) = (random(0, op.shape.len()), random(1, op.shape.len()));
        let buffers = (filled(&mut d, &x), filled(&mut d, &dy));
        let mut dx = d.allocate(x.len()).unwrap();
        d.local_norm_backward(&op, 1, &buffers.0, &buffers.1, &mut dx)
            .unwrap();
        let expected = reference::local_norm_backward(&op, &wide(&x), &wide(&dy));
        assert_close(op, &read(&mut d, &dx, x.len()), &expected, GRADIENT);
    }
}
