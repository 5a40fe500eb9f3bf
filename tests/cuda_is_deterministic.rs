//! The same bits every time, whatever order threads and streams take, and no host wait between operations.
#![cfg(feature = "cuda")]

use alexnet_mp::batch::{Batch, Draw};
use alexnet_mp::device::cuda::CudaDevice;
use alexnet_mp::device::{ConvGradients, Device, Mask};
use alexnet_mp::network::op::*;
use alexnet_mp::random::{Key, Purpose};
use vcuda::{Driver, Fibres, Options, Session, Streams};

type Buffer = <CudaDevice as Device>::Buffer;
const IMAGES: usize = 5;
const CLASSES: usize = 11;

fn session(options: Options) -> Option<Session> {
    let session = vcuda::session(&options);
    (session.driver() != Driver::None).then_some(session)
}

fn random(elements: usize, lane: u32) -> Vec<f32> {
    let mut stream = Key::new(3, Purpose::Verify).stream(lane, 0);
    (0..elements).map(|_| stream.between(-1.0, 1.0)).collect()
}

/// The operations of a small network and the buffers between them.
struct Step {
    conv: Conv,
    lrn: Lrn,
    pool: Pool,
    linear: Linear,
    batch: Batch,
}

impl Step {
    fn new(gpu: &CudaDevice) -> Self {
        let (input, window, pooling) = (
            Shape::new(3, 20, 20),
            Window::new(5, 1, 2),
            Window::new(3, 2, 0),
        );
        let output = window.output(input, 36);
        let pooled = pooling.output(output, 36);
        let mut batch = Batch::with_capacity(IMAGES, 20, &gpu.host_allocator());
        for (i, byte) in batch.pixels.bytes_mut().iter_mut().enumerate() {
            *byte = (i * 37 % 251) as u8;
        }
        for image in 0..IMAGES as u32 {
            batch.draws.push(Draw {
                mirror: image % 2 == 1,
                shift: [0.5, -2.0, 1.0],
                ..Draw::plain(2, 1)
            });
            batch.labels.push(image * 3 % CLASSES as u32);
        }
        Step {
            conv: Conv {
                input,
                parts: 1,
                output,
                window,
                activation: Some(Activation::Relu),
            },
            lrn: Lrn {
                shape: output,
                parts: 1,
                column: 0,
                size: 5,
                k: 2.0,
                alpha: 1e-4,
                beta: 0.75,
            },
            pool: Pool {
                input: output,
                output: pooled,
                window: pooling,
                activated: None,
            },
            linear: Linear {
                input: pooled,
                parts: 1,
                outputs: CLASSES,
                activation: None,
            },
            batch,
        }
    }

    /// One training step; `issued` is called when all of it is issued. Gradients, weights and loss.
    fn run(&self, gpu: &mut CudaDevice, issued: impl FnOnce()) -> Vec<f32> {
        let (inside, outside) = (
            IMAGES * self.conv.output.len(),
            IMAGES * self.pool.output.len(),
        );
        let matrix = self.linear.depth() * CLASSES;
        let mut filled = |lane, elements| -> Buffer {
            let mut buffer = gpu.allocate(elements).unwrap();
            gpu.upload(&random(elements, lane), &mut buffer).unwrap();
            buffer
        };
        let (mut w1, b1) = (filled(1, self.conv.depth() * 36), filled(2, 36));
        let (w2, b2) = (filled(3, matrix), filled(4, CLASSES));
        let mean = filled(5, 24 * 24 * 3);
        let mut empty = |elements| -> Buffer { gpu.allocate(elements).unwrap() };
        let (mut x, mut y1, mut y2) = (
            empty(IMAGES * self.conv.input.len()),
            empty(inside),
            empty(outside),
        );
        let (mut d1, mut d2, mut g2) = (empty(inside), empty(outside), empty(matrix));
        let (mut logits, mut p, mut v) = (empty(55), empty(55), empty(self.conv.depth() * 36));
        let (mut dx, mut g1, mut gb) =
            (empty(x_len(self)), empty(self.conv.depth() * 36), empty(36));
        let mut input = gpu.allocate_input(IMAGES, 20).unwrap();
        let mut tally = gpu.allocate_tally().unwrap();
        // The first use of the work space makes room for it, which waits.
        let gradients = ConvGradients {
            weights: &mut g1,
            bias: Some(&mut gb),
            accumulate: false,
        };
        gpu.conv_backward_weights(&self.conv, IMAGES, &x, &y1, gradients)
            .unwrap();
        gpu.lrn_pool_forward(&self.lrn, &self.pool, IMAGES, &y1, &mut y2)
            .unwrap();
        gpu.lrn_pool_backward(&self.lrn, &self.pool, IMAGES, &y1, &y2, &d2, &mut d1)
            .unwrap();
        gpu.synchronize().unwrap();
        vcuda::reset_counters();

        gpu.upload_input(&self.batch, &mut input).unwrap();
        gpu.augment(IMAGES, &input, 24, &mean, &mut x).unwrap();
        gpu.conv_forward(&self.conv, IMAGES, &[&x], &[&w1], &b1, &mut y1)
            .unwrap();
        gpu.lrn_pool_forward(&self.lrn, &self.pool, IMAGES, &y1, &mut y2)
            .unwrap();
        let units = self.pool.output.len();
        let dropout = Dropout {
            units,
            first_unit: 0,
            all_units: units,
            rate: 0.5,
            rescale: true,
        };
        let mask = Mask::Counter {
            key: Key::new(1, Purpose::Dropout),
            lane: 0,
            step: 9,
            first_image: 0,
        };
        gpu.dropout_forward(&dropout, IMAGES, &mask, &mut y2)
            .unwrap();
        let linear = &self.linear;
        gpu.linear_forward(linear, IMAGES, &[&y2], &[&w2], &b2, None, &mut logits)
            .unwrap();
        gpu.softmax_forward(CLASSES, IMAGES, &logits, &mut p)
            .unwrap();
        gpu.score(CLASSES, IMAGES, &logits, &input, &mut tally)
            .unwrap();
        gpu.softmax_backward(CLASSES, IMAGES, &p, &input, (0.2, None), &mut logits)
            .unwrap();
        let sink = alexnet_mp::device::Sink::Gradient {
            into: &mut g2,
            accumulate: false,
        };
        gpu.linear_backward_weights(linear, IMAGES, &y2, &logits, sink)
            .unwrap();
        gpu.linear_backward_data(linear, IMAGES, &logits, &w2, &mut d2)
            .unwrap();
        gpu.dropout_backward(&dropout, IMAGES, &mask, None, &mut d2)
            .unwrap();
        gpu.lrn_pool_backward(&self.lrn, &self.pool, IMAGES, &y1, &y2, &d2, &mut d1)
            .unwrap();
        gpu.activation_backward(Activation::Relu, inside, &y1, &mut d1)
            .unwrap();
        let gradients = ConvGradients {
            weights: &mut g1,
            bias: Some(&mut gb),
            accumulate: false,
        };
        gpu.conv_backward_weights(&self.conv, IMAGES, &x, &d1, gradients)
            .unwrap();
        gpu.conv_backward_data(&self.conv, IMAGES, &d1, &w1, None, &mut dx)
            .unwrap();
        let sgd = Sgd {
            rate: 0.01,
            momentum: 0.9,
            decay: 5e-4,
        };
        let update = alexnet_mp::device::Update {
            rule: alexnet_mp::device::Rule::Now(&sgd),
            elements: self.conv.depth() * 36,
            weights: &mut w1,
            momentum: &mut v,
            gradient: &g1,
        };
        gpu.update(&mut [update], None).unwrap();
        issued();

        let score = gpu.take_tally(&mut tally).unwrap();
        let mut results = vec![
            score.loss as f32,
            score.top1_errors as f32,
            score.top5_errors as f32,
        ];
        for (buffer, elements) in [
            (&g1, self.conv.depth() * 36),
            (&gb, 36),
            (&g2, matrix),
            (&w1, self.conv.depth() * 36),
            (&dx, x_len(self)),
        ] {
            let mut values = vec![0.0; elements];
            gpu.download(buffer, &mut values).unwrap();
            results.extend(values);
        }
        results
    }
}

fn x_len(step: &Step) -> usize {
    IMAGES * step.conv.input.len()
}

fn bits(results: &[f32]) -> Vec<u32> {
    results.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_step_gives_the_same_bits_in_any_order() {
    let mut first: Option<Vec<u32>> = None;
    let streams = [
        Streams::Eager,
        Streams::Lazy,
        Streams::Random(1),
        Streams::Random(2),
    ];
    for (turn, streams) in streams.into_iter().enumerate() {
        let options = Options {
            streams: Some(streams),
            fibres: Some(Fibres::ALL[turn % 3]),
            ..Options::default()
        };
        let Some(session) = session(options) else {
            return;
        };
        let mut gpu = CudaDevice::open(0).unwrap();
        let results = Step::new(&gpu).run(&mut gpu, || {});
        assert!(results.iter().all(|x| x.is_finite()));
        assert!(results[3..].iter().any(|x| *x != 0.0));
        let now = bits(&results);
        assert!(
            *first.get_or_insert(now.clone()) == now,
            "{streams:?} gives other bits"
        );
        drop(gpu);
        assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
    }
}

/// Lazy streams run nothing until the host waits, so that a kernel that ran betrays a wait.
#[test]
fn the_host_waits_for_nothing_within_a_step() {
    let Some(session) = session(Options {
        streams: Some(Streams::Lazy),
        ..Options::default()
    }) else {
        return;
    };
    if !session.is_virtual() {
        return;
    }
    let mut gpu = CudaDevice::open(0).unwrap();
    Step::new(&gpu).run(&mut gpu, || {
        let counters = session.counters();
        assert_eq!((counters.launches, counters.host_synchronisations), (0, 0));
    });
}
