//! Normalisation over neighbouring maps, over one column's maps and over both columns'.

use crate::reference;
use crate::support::*;
use alexnet_mp::device::Device;
use alexnet_mp::network::op::{Lrn, Shape};

for_each_device!(
    forward_agrees_with_float64,
    gradients_are_the_slopes_of_the_output,
    gradients_at_the_layers_sizes_agree_with_float64,
);

pub fn op(shape: Shape, parts: usize, column: usize) -> Lrn {
    Lrn {
        shape,
        parts,
        column,
        size: 5,
        k: 2.0,
        alpha: 1e-4,
        beta: 0.75,
    }
}

/// The paper's constants hardly normalise numbers below 1, so most tests use stronger ones.
pub fn strong(shape: Shape, parts: usize, column: usize) -> Lrn {
    Lrn {
        alpha: 0.3,
        k: 1.0,
        ..op(shape, parts, column)
    }
}

fn cases() -> Vec<Lrn> {
    let cases = [
        op(Shape::new(48, 55, 55), 1, 0),
        strong(Shape::new(48, 55, 55), 1, 1),
        strong(Shape::new(128, 27, 27), 1, 0),
        strong(Shape::new(48, 13, 13), 2, 0),
        strong(Shape::new(48, 13, 13), 2, 1),
        strong(Shape::new(1, 3, 4), 1, 0),
        strong(Shape::new(5, 3, 4), 2, 1),
        strong(Shape::new(2, 3, 4), 2, 0),
        Lrn {
            size: 4,
            ..strong(Shape::new(7, 2, 3), 1, 0)
        },
        Lrn {
            size: 4,
            ..strong(Shape::new(7, 2, 3), 2, 1)
        },
        Lrn {
            size: 9,
            beta: 0.6,
            ..strong(Shape::new(6, 2, 3), 2, 0)
        },
        Lrn {
            size: 1,
            beta: 1.0,
            ..strong(Shape::new(6, 2, 3), 1, 0)
        },
    ];
    affordable(cases, |op| 100 * op.parts * op.shape.len())
}

/// The parts of image `image`, one after the other.
fn image(op: &Lrn, x: &[Vec<f32>], image: usize) -> Vec<f64> {
    let len = op.shape.len();
    x.iter()
        .flat_map(|x| wide(&x[image * len..][..len]))
        .collect()
}

fn inputs(op: &Lrn, images: usize) -> Vec<Vec<f32>> {
    let part = |p| {
        random(p, images * op.shape.len())
            .iter()
            .map(|x| 3.0 * x)
            .collect()
    };
    (0..op.parts as u32).map(part).collect()
}

fn forward_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases() {
        let x = inputs(&op, 2);
        let buffers: Vec<_> = x.iter().map(|x| filled(&mut d, x)).collect();
        let mut y = d.allocate(2 * op.shape.len()).unwrap();
        d.lrn_forward(&op, 2, &all(&buffers), &mut y).unwrap();
        let expected: Vec<f64> = (0..2)
            .flat_map(|i| reference::lrn(&op, &image(&op, &x, i)))
            .collect();
        assert_close(op, &read(&mut d, &y, expected.len()), &expected, FORWARD);
    }
}

/// Gradients of all parts of one image, one after the other.
fn backward<D: Device>(d: &mut D, op: &Lrn, x: &[Vec<f32>], dy: &[f32]) -> Vec<f32> {
    let len = op.shape.len();
    let buffers: Vec<_> = x.iter().map(|x| filled(d, x)).collect();
    let dy = filled(d, dy);
    let mut dx: Vec<_> = x.iter().map(|_| filled(d, &vec![7.0; len])).collect();
    let mut targets: Vec<_> = dx.iter_mut().collect();
    d.lrn_backward(op, 1, &all(&buffers), &dy, &mut targets)
        .unwrap();
    dx.iter().flat_map(|dx| read(d, dx, len)).collect()
}

fn gradients_are_the_slopes_of_the_output<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases().into_iter().filter(|op| op.shape.len() < 200) {
        let (x, dy) = (inputs(&op, 1), random(9, op.shape.len()));
        let dx = backward(&mut d, &op, &x, &dy);
        let slopes = differences(|x| reference::lrn(&op, x), &image(&op, &x, 0), &wide(&dy));
        assert_close(op, &dx, &slopes, GRADIENT);
    }
}

fn gradients_at_the_layers_sizes_agree_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for op in cases() {
        let (x, dy) = (inputs(&op, 1), random(9, op.shape.len()));
        let dx = backward(&mut d, &op, &x, &dy);
        let expected = reference::lrn_backward(&op, &image(&op, &x, 0), &wide(&dy));
        assert_close(op, &dx, &expected, GRADIENT);
    }
}
