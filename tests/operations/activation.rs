//! Non-linearities, scaling and adding.

use crate::support::*;
use alexnet_mp::device::Device;
use alexnet_mp::network::op::Activation;

for_each_device!(
    forward_agrees_with_float64,
    gradients_are_the_slopes_of_the_output,
    gradients_at_the_layers_sizes_agree_with_float64,
    scaling_and_adding_touch_only_the_elements_asked_for,
);

/// One element, numbers that no vector length divides, and conv1's maps of two images.
const ELEMENTS: [usize; 4] = [1, 1003, 100_003, 2 * 48 * 55 * 55];

fn forward_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for activation in [Activation::Relu, Activation::Tanh] {
        for n in affordable(ELEMENTS, |&n| 100 * n) {
            let x = random(0, n);
            let mut y = filled(&mut d, &x);
            d.activation_forward(activation, n, &mut y).unwrap();
            let expected = activate(activation, &wide(&x));
            assert_close(activation, &read(&mut d, &y, n), &expected, FORWARD);
        }
    }
}

fn gradients_are_the_slopes_of_the_output<D: Device>(open: Open<D>) {
    let mut d = open();
    for activation in [Activation::Relu, Activation::Tanh] {
        let n = 77;
        let (x, dy) = (random(0, n), random(1, n));
        let mut y = filled(&mut d, &x);
        d.activation_forward(activation, n, &mut y).unwrap();
        let mut dx = filled(&mut d, &dy);
        d.activation_backward(activation, n, &y, &mut dx).unwrap();
        let slopes = differences(|x| activate(activation, x), &wide(&x), &wide(&dy));
        assert_close(activation, &read(&mut d, &dx, n), &slopes, GRADIENT);
    }
}

fn gradients_at_the_layers_sizes_agree_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for activation in [Activation::Relu, Activation::Tanh] {
        for n in affordable(ELEMENTS, |&n| 100 * n) {
            let (x, dy) = (random(0, n), random(1, n));
            let mut y = filled(&mut d, &x);
            d.activation_forward(activation, n, &mut y).unwrap();
            let mut dx = filled(&mut d, &dy);
            d.activation_backward(activation, n, &y, &mut dx).unwrap();
            let slope = |x: f64| match activation {
                Activation::Relu => f64::from(u8::from(x > 0.0)),
                Activation::Tanh => 1.0 - x.tanh().powi(2),
            };
            let pairs = wide(&x).into_iter().zip(wide(&dy));
            let expected: Vec<f64> = pairs.map(|(x, dy)| slope(x) * dy).collect();
            assert_close((activation, n), &read(&mut d, &dx, n), &expected, GRADIENT);
        }
    }
}

fn scaling_and_adding_touch_only_the_elements_asked_for<D: Device>(open: Open<D>) {
    let mut d = open();
    for n in affordable(ELEMENTS, |&n| 100 * n) {
        let (a, b) = (random(0, n + 1), random(1, n + 1));
        let (mut y, from) = (filled(&mut d, &a), filled(&mut d, &b));
        d.scale(n, 0.5, &mut y).unwrap();
        d.add(n, &from, &mut y).unwrap();
        let y = read(&mut d, &y, n + 1);
        assert!((0..n).all(|i| y[i] == a[i] * 0.5 + b[i]));
        assert_eq!(y[n], a[n]);
    }
}
