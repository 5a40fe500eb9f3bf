//! The state of dynamic loss scaling, and what it does to gradients and updates.
#![cfg(feature = "cuda")]

use crate::support::*;
use alexnet_mp::device::loss_scale::{OVERFLOW, STATE};
use alexnet_mp::device::{Device, Rule, Update};
use alexnet_mp::network::op::Sgd;

fn state<D: Device>(d: &mut D, scale: f32, steps: f32) -> D::Buffer {
    filled(d, &[scale, 0.0, steps, 0.0])
}

#[test]
fn one_number_that_is_not_finite_among_many_is_an_overflow() {
    on_gpus(|open| {
        let mut d = open();
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (elements, place) in [(1, 0), (1027, 1026), (5000, 2500)] {
                let mut values = random(1, elements);
                let mut s = state(&mut d, 8.0, 0.0);
                let finite = filled(&mut d, &values);
                d.loss_scale_check(elements, &finite, &mut s).unwrap();
                assert_eq!(read(&mut d, &s, STATE)[OVERFLOW], 0.0);
                values[place] = wrong;
                let not = filled(&mut d, &values);
                d.loss_scale_check(elements, &not, &mut s).unwrap();
                assert_eq!(read(&mut d, &s, STATE)[OVERFLOW], 1.0);
            }
        }
    });
}

#[test]
fn the_scale_halves_after_an_overflow_and_doubles_after_2000_updates() {
    on_gpus(|open| {
        let mut d = open();
        let mut next = |scale, steps, overflow: f32| {
            let mut s = state(&mut d, scale, steps);
            let other = filled(&mut d, &[1.0, 1.0, 1.0, overflow]);
            d.loss_scale_merge(&other, &mut s).unwrap();
            d.loss_scale_update(&mut s).unwrap();
            read(&mut d, &s, STATE)
        };
        assert_eq!(next(64.0, 5.0, 0.0), [64.0, 64.0, 6.0, 0.0]);
        assert_eq!(next(64.0, 5.0, 1.0), [32.0, 64.0, 0.0, 0.0]);
        assert_eq!(next(1.0, 5.0, 1.0), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(next(64.0, 1999.0, 0.0), [128.0, 64.0, 0.0, 0.0]);
        let most = 2f32.powi(24);
        assert_eq!(next(most, 1999.0, 0.0), [most, most, 0.0, 0.0]);
    });
}

#[test]
fn an_update_takes_the_scale_out_of_the_gradient_and_does_nothing_after_an_overflow() {
    let op = Sgd {
        rate: 0.1,
        momentum: 0.9,
        decay: 0.01,
    };
    on_gpus(|open| {
        let mut d = open();
        let n = 1001;
        let (w, v, g) = (random(1, n), random(2, n), random(3, n));
        let scaled: Vec<f32> = g.iter().map(|g| g * 1024.0).collect();
        let mut update = |gradient: &[f32], scale: Option<[f32; STATE]>, table: bool| {
            let (mut weights, mut momentum) = (filled(&mut d, &w), filled(&mut d, &v));
            let gradient = filled(&mut d, gradient);
            let scale = scale.map(|s| filled(&mut d, &s));
            let constants = [9.0, 9.0, 9.0, op.rate, op.momentum, op.decay];
            let constants = filled(&mut d, &constants);
            let rule = match table {
                true => Rule::Later {
                    table: &constants,
                    place: 1,
                },
                false => Rule::Now(&op),
            };
            let update = Update {
                rule,
                elements: n,
                weights: &mut weights,
                momentum: &mut momentum,
                gradient: &gradient,
            };
            d.update(&mut [update], scale.as_ref()).unwrap();
            (read(&mut d, &weights, n), read(&mut d, &momentum, n))
        };
        let expected = update(&g, None, false);
        assert_eq!(update(&g, None, true), expected);
        assert_eq!(
            update(&scaled, Some([1024.0, 0.0, 0.0, 0.0]), false),
            expected
        );
        let skipped = update(&scaled, Some([1024.0, 0.0, 0.0, 1.0]), false);
        assert_eq!(skipped, (w.clone(), v.clone()));
    });
}
