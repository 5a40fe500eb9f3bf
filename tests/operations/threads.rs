//! The CPU device gives the same bits with one, two and three threads.

use crate::support::*;
use crate::{lrn, pool};
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::device::{ConvGradients, Device, Mask, Sink};
use alexnet_mp::network::op::*;
use alexnet_mp::random::{Key, Purpose};

/// Runs `results` on one, two and three threads and compares the bits.
fn assert_same(results: impl Fn(&mut CpuDevice) -> Vec<f32>) {
    let bits = |threads: usize| -> Vec<u32> {
        let mut device = CpuDevice::open(threads).unwrap();
        results(&mut device).iter().map(|x| x.to_bits()).collect()
    };
    let one = bits(1);
    assert!(one == bits(2), "two threads differ");
    assert!(one == bits(3), "three threads differ");
}

#[test]
fn convolutions_do_not_depend_on_the_threads() {
    let shapes = [
        (Shape::new(3, 40, 40), 1, 48, Window::new(11, 4, 0)),
        (Shape::new(16, 27, 27), 1, 32, Window::new(5, 1, 2)),
        (Shape::new(32, 13, 13), 2, 48, Window::new(3, 1, 1)),
        (Shape::new(5, 9, 9), 1, 21, Window::new(3, 2, 1)),
    ];
    for (input, parts, maps, window) in shapes {
        let output = window.output(input, maps);
        let activation = Some(Activation::Relu);
        let op = Conv {
            input,
            parts,
            output,
            window,
            activation,
        };
        assert_same(|d| conv_results(d, &op, 19));
    }
}

fn conv_results(d: &mut CpuDevice, op: &Conv, images: usize) -> Vec<f32> {
    let maps = op.output.maps;
    let x = filled(d, &random(0, images * op.input.len()));
    let weights = filled_matrix(d, op.depth(), maps, &random(1, op.depth() * maps));
    let (bias, dy) = (
        filled(d, &random(2, maps)),
        filled(d, &random(3, images * op.output.len())),
    );
    let mut y = d.allocate(images * op.output.len()).unwrap();
    let (xs, ws) = (vec![&x; op.parts], vec![&weights; op.parts]);
    d.conv_forward(op, images, &xs, &ws, &bias, &mut y).unwrap();
    let mut results = read(d, &y, images * op.output.len());
    let mut dx = d.allocate(images * op.input.len()).unwrap();
    d.conv_backward_data(op, images, &dy, &weights, None, &mut dx)
        .unwrap();
    results.extend(read(d, &dx, images * op.input.len()));
    let mut dw = d.allocate(op.depth() * maps).unwrap();
    let mut db = d.allocate(maps).unwrap();
    let to = ConvGradients {
        weights: &mut dw,
        bias: Some(&mut db),
        accumulate: false,
    };
    d.conv_backward_weights(op, images, &x, &dy, to).unwrap();
    results.extend(read(d, &dw, op.depth() * maps));
    results.extend(read(d, &db, maps));
    results
}

#[test]
fn fully_connected_layers_do_not_depend_on_the_threads() {
    for (depth, outputs, images) in [(700, 1000, 33), (1024, 512, 16), (9, 5, 1)] {
        let input = Shape::flat(depth);
        let op = Linear {
            input,
            parts: 1,
            outputs,
            activation: None,
        };
        assert_same(|d| linear_results(d, &op, images));
    }
}

fn linear_results(d: &mut CpuDevice, op: &Linear, images: usize) -> Vec<f32> {
    let (depth, outputs) = (op.depth(), op.outputs);
    let x = filled(d, &random(0, images * depth));
    let mut weights = filled_matrix(d, depth, outputs, &random(1, depth * outputs));
    let (bias, dy) = (
        filled(d, &random(2, outputs)),
        filled(d, &random(3, images * outputs)),
    );
    let mut y = d.allocate(images * outputs).unwrap();
    d.linear_forward(op, images, &[&x], &[&weights], &bias, None, &mut y)
        .unwrap();
    let mut dx = d.allocate(images * depth).unwrap();
    d.linear_backward_data(op, images, &dy, &weights, &mut dx)
        .unwrap();
    let mut momentum = d.allocate(depth * outputs).unwrap();
    let sgd = Sgd {
        rate: 0.1,
        momentum: 0.9,
        decay: 0.1,
    };
    let sink = Sink::Update {
        weights: &mut weights,
        momentum: &mut momentum,
        sgd,
    };
    d.linear_backward_weights(op, images, &x, &dy, sink)
        .unwrap();
    let mut results = read(d, &y, images * outputs);
    results.extend(read(d, &dx, images * depth));
    results.extend(read(d, &weights, depth * outputs));
    results
}

#[test]
fn normalisation_and_pooling_do_not_depend_on_the_threads() {
    let pool = pool::op((16, 13, 13), (3, 2, 0));
    let lrn = lrn::strong(pool.input, 1, 0);
    assert_same(|d| {
        let (input, output) = (9 * pool.input.len(), 9 * pool.output.len());
        let (x, dy) = (filled(d, &random(0, input)), filled(d, &random(1, output)));
        let (mut y, mut dx) = (d.allocate(output).unwrap(), d.allocate(input).unwrap());
        d.lrn_pool_forward(&lrn, &pool, 9, &x, &mut y).unwrap();
        d.lrn_pool_backward(&lrn, &pool, 9, &x, &y, &dy, &mut dx)
            .unwrap();
        let mut results = read(d, &y, output);
        results.extend(read(d, &dx, input));
        d.pool_forward(&pool, 9, &x, &mut y).unwrap();
        d.pool_backward(&pool, 9, &x, &y, &dy, &mut dx).unwrap();
        results.extend(read(d, &dx, input));
        d.lrn_backward(&lrn, 9, &[&x], &x, &mut [&mut dx]).unwrap();
        results.extend(read(d, &dx, input));
        results
    });
}

#[test]
fn dropout_and_softmax_do_not_depend_on_the_threads() {
    let op = Dropout {
        units: 101,
        first_unit: 0,
        all_units: 101,
        rate: 0.5,
        rescale: false,
    };
    let key = Key::new(1, Purpose::Dropout);
    let mask = Mask::Counter {
        key,
        lane: 6,
        step: 3,
        first_image: 2,
    };
    assert_same(|d| {
        let mut y = filled(d, &random(0, 9 * 101));
        d.dropout_forward(&op, 9, &mask, &mut y).unwrap();
        let mut p = d.allocate(9 * 101).unwrap();
        d.softmax_forward(101, 9, &y, &mut p).unwrap();
        read(d, &p, 9 * 101)
    });
}
