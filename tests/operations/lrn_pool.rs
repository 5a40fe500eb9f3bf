//! Normalisation and pooling in one pass equal the two operations.

use crate::support::*;
use crate::{lrn, pool, reference};
use alexnet_mp::device::Device;
use alexnet_mp::network::op::{Activation, Lrn, Pool};

for_each_device!(
    forward_agrees_with_float64,
    the_gradient_is_that_of_the_two_operations,
    gradients_are_the_slopes_of_the_output,
    gradients_at_the_layers_sizes_agree_with_float64,
    every_image_of_a_smaller_batch_goes_back_too,
    going_back_may_include_the_activation_before,
);

fn cases() -> Vec<(Lrn, Pool)> {
    let shapes = [
        pool::op((48, 55, 55), (3, 2, 0)),
        pool::op((128, 27, 27), (3, 2, 0)),
        pool::op((16, 8, 6), (3, 2, 0)),
        pool::op((5, 6, 9), (3, 2, 0)),
        pool::op((32, 5, 5), (3, 2, 0)),
        pool::op((7, 5, 4), (2, 2, 0)),
        pool::op((1, 1, 1), (3, 2, 0)),
        pool::op((16, 7, 7), (3, 1, 1)),
    ];
    let mut cases: Vec<_> = shapes.map(|p| (lrn::strong(p.input, 1, 0), p)).into();
    cases.push((lrn::op(shapes[0].input, 1, 1), shapes[0]));
    cases.push((
        Lrn {
            size: 3,
            ..cases[2].0
        },
        cases[2].1,
    ));
    cases.push((
        Lrn {
            beta: 0.5,
            ..cases[2].0
        },
        cases[2].1,
    ));
    // The widest that are fused, an even number of maps, and windows that see the padding.
    for (size, maps, window) in [(16, 20, (4, 2, 0)), (4, 11, (3, 1, 1)), (5, 9, (3, 2, 1))] {
        let pool = pool::op((maps, 17, 16), window);
        let lrn = lrn::strong(pool.input, 1, 0);
        cases.push((Lrn { size, ..lrn }, pool));
    }
    let pool = pool::op((3, 17, 16), (15, 7, 0));
    cases.push((lrn::op(pool.input, 1, 0), pool));
    affordable(cases, |(_, pool)| 200 * pool.input.len())
}

/// As after a ReLU.
fn input(images: usize, pool: &Pool) -> Vec<f32> {
    let x = random(0, images * pool.input.len());
    x.iter().map(|x| (3.0 * x).max(0.0)).collect()
}

fn forward<D: Device>(d: &mut D, lrn: &Lrn, pool: &Pool, x: &D::Buffer) -> D::Buffer {
    let mut y = d.allocate(2 * pool.output.len()).unwrap();
    d.lrn_pool_forward(lrn, pool, 2, x, &mut y).unwrap();
    y
}

fn forward_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for (lrn, pool) in cases() {
        let x = input(2, &pool);
        let buffer = filled(&mut d, &x);
        let y = forward(&mut d, &lrn, &pool, &buffer);
        let image = |x: &[f32]| reference::pool(&pool, &reference::lrn(&lrn, &wide(x)));
        let expected: Vec<f64> = x.chunks(pool.input.len()).flat_map(image).collect();
        assert_close(
            (lrn, pool),
            &read(&mut d, &y, expected.len()),
            &expected,
            FORWARD,
        );
    }
}

fn the_gradient_is_that_of_the_two_operations<D: Device>(open: Open<D>) {
    let mut d = open();
    for (lrn, pool) in cases() {
        let (x, dy) = (input(2, &pool), random(1, 2 * pool.output.len()));
        let (x, dy) = (filled(&mut d, &x), filled(&mut d, &dy));
        let len = 2 * pool.input.len();
        let y = forward(&mut d, &lrn, &pool, &x);
        let mut dx = filled(&mut d, &vec![7.0; len]);
        d.lrn_pool_backward(&lrn, &pool, 2, &x, &y, &dy, &mut dx)
            .unwrap();
        let mut normalised = d.allocate(len).unwrap();
        d.lrn_forward(&lrn, 2, &[&x], &mut normalised).unwrap();
        let mut pooled = d.allocate(2 * pool.output.len()).unwrap();
        d.pool_forward(&pool, 2, &normalised, &mut pooled).unwrap();
        let mut between = d.allocate(len).unwrap();
        d.pool_backward(&pool, 2, &normalised, &pooled, &dy, &mut between)
            .unwrap();
        let mut apart = d.allocate(len).unwrap();
        d.lrn_backward(&lrn, 2, &[&x], &between, &mut [&mut apart])
            .unwrap();
        let apart = wide(&read(&mut d, &apart, len));
        assert_close((lrn, pool), &read(&mut d, &dx, len), &apart, 1e-6);
    }
}

fn gradients_are_the_slopes_of_the_output<D: Device>(open: Open<D>) {
    let mut d = open();
    for (lrn, pool) in cases().into_iter().filter(|(l, _)| l.shape.len() < 1000) {
        // Without ties, where the maximum has no slope.
        let (x, dy) = (
            random(0, 2 * pool.input.len()),
            random(1, 2 * pool.output.len()),
        );
        let buffers = (filled(&mut d, &x), filled(&mut d, &dy));
        let y = forward(&mut d, &lrn, &pool, &buffers.0);
        let mut dx = d.allocate(x.len()).unwrap();
        d.lrn_pool_backward(&lrn, &pool, 2, &buffers.0, &y, &buffers.1, &mut dx)
            .unwrap();
        let value = |x: &[f64]| reference::pool(&pool, &reference::lrn(&lrn, x));
        let images = x.chunks(pool.input.len()).zip(dy.chunks(pool.output.len()));
        let slopes = images.flat_map(|(x, dy)| differences(value, &wide(x), &wide(dy)));
        let slopes: Vec<f64> = slopes.collect();
        assert_close((lrn, pool), &read(&mut d, &dx, x.len()), &slopes, GRADIENT);
    }
}

fn going_back_may_include_the_activation_before<D: Device>(open: Open<D>) {
    let mut d = open();
    for (lrn, pool) in cases().into_iter().filter(|(l, _)| l.shape.len() < 1000) {
        for activation in [Activation::Relu, Activation::Tanh] {
            let pool = Pool {
                activated: Some(activation),
                ..pool
            };
            let z = wide(&random(0, 2 * pool.input.len()));
            let x = filled(&mut d, &narrow(&activate(activation, &z)));
            let dy = random(1, 2 * pool.output.len());
            let y = forward(&mut d, &lrn, &pool, &x);
            let gradient = filled(&mut d, &dy);
            let mut dx = d.allocate(z.len()).unwrap();
            d.lrn_pool_backward(&lrn, &pool, 2, &x, &y, &gradient, &mut dx)
                .unwrap();
            let value =
                |z: &[f64]| reference::pool(&pool, &reference::lrn(&lrn, &activate(activation, z)));
            let images = z.chunks(pool.input.len()).zip(dy.chunks(pool.output.len()));
            let slopes = images.flat_map(|(z, dy)| differences(value, z, &wide(dy)));
            let slopes: Vec<f64> = slopes.collect();
            assert_close((lrn, pool), &read(&mut d, &dx, z.len()), &slopes, GRADIENT);
        }
    }
}

fn gradients_at_the_layers_sizes_agree_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for (lrn, pool) in cases() {
        // So weak that the normalised value still rises with the value: where it turns, at v² = 2k/alpha of a lone map,
        // float64 and f32 see different maxima.
        let alpha = lrn.alpha.min(0.05);
        let lrn = Lrn { alpha, ..lrn };
        let (x, dy) = (input(2, &pool), random(1, 2 * pool.output.len()));
        let buffers = (filled(&mut d, &x), filled(&mut d, &dy));
        let y = forward(&mut d, &lrn, &pool, &buffers.0);
        let mut dx = d.allocate(x.len()).unwrap();
        d.lrn_pool_backward(&lrn, &pool, 2, &buffers.0, &y, &buffers.1, &mut dx)
            .unwrap();
        let image = |(x, dy): (&[f32], &[f32])| {
            let x = wide(x);
            let between = reference::pool_backward(&pool, &reference::lrn(&lrn, &x), &wide(dy));
            reference::lrn_backward(&lrn, &x, &between)
        };
        let images = x.chunks(pool.input.len()).zip(dy.chunks(pool.output.len()));
        let expected: Vec<f64> = images.flat_map(image).collect();
        assert_close(
            (lrn, pool),
            &read(&mut d, &dx, x.len()),
            &expected,
            GRADIENT,
        );
    }
}

/// A batch of two, then one of a single image in the same buffers: what the first left behind is not taken for its own.
fn every_image_of_a_smaller_batch_goes_back_too<D: Device>(open: Open<D>) {
    let mut d = open();
    let (lrn, pool) = cases()[2];
    let (inputs, outputs) = (pool.input.len(), pool.output.len());
    let (two, one) = (input(2, &pool), random(5, inputs));
    let dy = random(1, 2 * outputs);
    let (mut y, mut dx) = (
        d.allocate(2 * outputs).unwrap(),
        d.allocate(2 * inputs).unwrap(),
    );
    let gradient = filled(&mut d, &dy);
    for (images, x) in [(2, &two), (1, &one)] {
        let x = filled(&mut d, x);
        d.lrn_pool_forward(&lrn, &pool, images, &x, &mut y).unwrap();
        d.lrn_pool_backward(&lrn, &pool, images, &x, &y, &gradient, &mut dx)
            .unwrap();
    }
    let x = wide(&one);
    let between = reference::pool_backward(&pool, &reference::lrn(&lrn, &x), &wide(&dy[..outputs]));
    let expected = reference::lrn_backward(&lrn, &x, &between);
    assert_close((lrn, pool), &read(&mut d, &dx, inputs), &expected, GRADIENT);
}
