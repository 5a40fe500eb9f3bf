//! The update rule.

use crate::support::*;
use alexnet_mp::device::{Device, Rule};
use alexnet_mp::network::op::Sgd;

for_each_device!(the_update_is_the_papers, elements_not_asked_for_stay);

const SGD: Sgd = Sgd {
    rate: 0.01,
    momentum: 0.9,
    decay: 0.0005,
};

fn the_update_is_the_papers<D: Device>(open: Open<D>) {
    let mut d = open();
    // fc7's matrix is the largest but fc6's; the others are odd.
    for n in [1, 17, 200_001, 2048 * 2048] {
        let (w, v, g) = (random(0, n), random(1, n), random(2, n));
        let (mut weights, mut momentum) = (filled(&mut d, &w), filled(&mut d, &v));
        let gradient = filled(&mut d, &g);
        let (mut w, mut v, g) = (wide(&w), wide(&v), wide(&g));
        let (rate, m, decay) = (
            f64::from(SGD.rate),
            f64::from(SGD.momentum),
            f64::from(SGD.decay),
        );
        for _ in 0..2 {
            d.update(
                &Rule::Now(&SGD),
                n,
                &mut weights,
                &mut momentum,
                &gradient,
                None,
            )
            .unwrap();
            for i in 0..n {
                v[i] = m * v[i] - decay * rate * w[i] - rate * g[i];
                w[i] += v[i];
            }
        }
        assert_close(n, &read(&mut d, &weights, n), &w, FORWARD);
        assert_close(n, &read(&mut d, &momentum, n), &v, FORWARD);
    }
}

fn elements_not_asked_for_stay<D: Device>(open: Open<D>) {
    let mut d = open();
    let ones = vec![1.0; 20];
    let (mut w, mut v, g) = (
        filled(&mut d, &ones),
        filled(&mut d, &ones),
        filled(&mut d, &ones),
    );
    d.update(&Rule::Now(&SGD), 18, &mut w, &mut v, &g, None)
        .unwrap();
    let w = read(&mut d, &w, 20);
    assert!(w[17] != 1.0 && w[18] == 1.0);
}
