//! The update rule.

use crate::support::*;
use alexnet_mp::device::{Device, Rule, Update};
use alexnet_mp::network::op::Sgd;

for_each_device!(
    the_update_is_the_papers,
    arrays_updated_at_once_are_those_updated_one_by_one,
    elements_not_asked_for_stay,
);

const SGD: Sgd = Sgd {
    rate: 0.01,
    momentum: 0.9,
    decay: 0.0005,
};

/// Weights, momentum, gradient.
type Arrays<B> = [B; 3];

fn arrays<D: Device>(d: &mut D, stream: u32, n: usize) -> Arrays<D::Buffer> {
    [0, 1, 2].map(|kind| filled(d, &random(3 * stream + kind, n)))
}

fn update<'a, B>(rule: Rule<'a, B>, elements: usize, of: &'a mut Arrays<B>) -> Update<'a, B> {
    let [weights, momentum, gradient] = of;
    Update {
        rule,
        elements,
        weights,
        momentum,
        gradient,
    }
}

fn the_update_is_the_papers<D: Device>(open: Open<D>) {
    let mut d = open();
    // fc7's matrix is the largest but fc6's; the others are odd.
    for n in affordable([1, 17, 200_001, 2048 * 2048], |&n| 100 * n) {
        let mut all = arrays(&mut d, 0, n);
        let [mut w, mut v, g] = [0, 1, 2].map(|kind| wide(&random(kind, n)));
        let (rate, m, decay) = (
            f64::from(SGD.rate),
            f64::from(SGD.momentum),
            f64::from(SGD.decay),
        );
        for _ in 0..2 {
            d.update(&mut [update(Rule::Now(&SGD), n, &mut all)], None)
                .unwrap();
            for i in 0..n {
                v[i] = m * v[i] - decay * rate * w[i] - rate * g[i];
                w[i] += v[i];
            }
        }
        assert_close(n, &read(&mut d, &all[0], n), &w, FORWARD);
        assert_close(n, &read(&mut d, &all[1], n), &v, FORWARD);
    }
}

fn arrays_updated_at_once_are_those_updated_one_by_one<D: Device>(open: Open<D>) {
    let mut d = open();
    // More than a GPU takes by one launch, of sizes on both sides of what a block takes, rules of their own.
    let of = |i: usize| {
        let rate = 0.01 * (1 + i % 3) as f32;
        ([1, 3, 2047, 2048, 2049, 5000][i % 6], Sgd { rate, ..SGD })
    };
    let count = 40;
    let make = |d: &mut D| -> Vec<_> { (0..count).map(|i| arrays(d, i as u32, of(i).0)).collect() };
    let (mut together, mut apart) = (make(&mut d), make(&mut d));
    let rules: Vec<Sgd> = (0..count).map(|i| of(i).1).collect();
    let all = together.iter_mut().zip(&rules).enumerate();
    let mut updates: Vec<_> = all
        .map(|(i, (arrays, sgd))| update(Rule::Now(sgd), of(i).0, arrays))
        .collect();
    d.update(&mut updates, None).unwrap();
    for (i, (one, sgd)) in apart.iter_mut().zip(&rules).enumerate() {
        d.update(&mut [update(Rule::Now(sgd), of(i).0, one)], None)
            .unwrap();
        for kind in [0, 1] {
            let n = of(i).0;
            let (a, b) = (
                read(&mut d, &together[i][kind], n),
                read(&mut d, &one[kind], n),
            );
            assert_eq!(a, b, "array {i}");
        }
    }
}

fn elements_not_asked_for_stay<D: Device>(open: Open<D>) {
    let mut d = open();
    let mut all = [0; 3].map(|_| filled(&mut d, &[1.0; 20]));
    d.update(&mut [update(Rule::Now(&SGD), 18, &mut all)], None)
        .unwrap();
    let w = read(&mut d, &all[0], 20);
    assert!(w[17] != 1.0 && w[18] == 1.0);
}
