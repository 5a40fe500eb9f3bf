//! Every operation of one column of the paper's network on CPU threads, by criterion:
//! `cargo bench --bench kernels [-- NAME]`. `BATCH` sets the images (32), `THREADS` the threads (1).
//!
//! Elements are multiply-adds of the definition (half the operations), whatever the method; of
//! steps without weights, elements of the input.

use alexnet_mp::device::cpu::{Buffer, CpuDevice};
use alexnet_mp::device::{ConvGradients, Device, Mask, Sink};
use alexnet_mp::network::op::*;
use alexnet_mp::random::{Key, Purpose};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::time::Duration;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let value = std::env::var(name).ok().and_then(|v| v.parse().ok());
    value.unwrap_or(default)
}

struct Bench<'a> {
    criterion: &'a mut Criterion,
    device: CpuDevice,
    images: usize,
}

impl Bench<'_> {
    fn buffer(&mut self, elements: usize) -> Buffer {
        let mut stream = Key::new(1, Purpose::Verify).stream(elements as u32, 0);
        let x: Vec<f32> = (0..elements).map(|_| stream.between(-0.1, 0.1)).collect();
        let mut buffer = self.device.allocate(elements).unwrap();
        self.device.upload(&x, &mut buffer).unwrap();
        buffer
    }

    /// Times `f` as `layer/what`.
    fn line(&mut self, layer: &str, what: &str, work: usize, mut f: impl FnMut(&mut CpuDevice)) {
        let mut group = self.criterion.benchmark_group(layer);
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Elements(work as u64));
        let device = &mut self.device;
        group.bench_function(what, |b| b.iter(|| f(device)));
        group.finish();
    }

    fn conv(&mut self, name: &str, maps: usize, side: usize, parts: usize, out: usize, w: Window) {
        let images = self.images;
        let input = Shape::new(maps, side, side);
        let output = w.output(input, out);
        let activation = Some(Activation::Relu);
        let op = Conv {
            input,
            parts,
            output,
            window: w,
            activation,
        };
        let work = images * op.multiply_adds() / parts;
        let x: Vec<_> = (0..parts)
            .map(|_| self.buffer(images * input.len()))
            .collect();
        let weights: Vec<_> = (0..parts).map(|_| self.buffer(op.depth() * out)).collect();
        let (bias, dy) = (self.buffer(out), self.buffer(images * output.len()));
        let mut y = self.buffer(images * output.len());
        let (xs, ws): (Vec<_>, Vec<_>) = (x.iter().collect(), weights.iter().collect());
        self.line(name, "forward", parts * work, |d| {
            d.conv_forward(&op, images, &xs, &ws, &bias, &mut y)
                .unwrap();
        });
        let mut dx = self.buffer(images * input.len());
        for part in (0..parts).filter(|_| w.stride == 1) {
            self.line(name, &format!("data {part}"), work, |d| {
                d.conv_backward_data(&op, images, &dy, ws[part], None, &mut dx)
                    .unwrap();
            });
        }
        let mut dw = self.buffer(op.depth() * out);
        let mut db = self.buffer(out);
        for (part, x) in xs.iter().enumerate() {
            let what = ["weights 0, bias", "weights 1"][part];
            self.line(name, what, work, |d| {
                let to = ConvGradients {
                    weights: &mut dw,
                    bias: (part == 0).then_some(&mut db),
                    accumulate: false,
                };
                d.conv_backward_weights(&op, images, x, &dy, to).unwrap();
            });
        }
        let rows = images * output.pixels();
        let mut dy = dy;
        self.line(name, "relu", rows * out, |d| {
            d.activation_backward(Activation::Relu, rows * out, &y, &mut dy)
                .unwrap();
        });
    }

    fn linear(&mut self, name: &str, input: Shape, outputs: usize) {
        let images = self.images;
        let op = Linear {
            input,
            parts: 2,
            outputs,
            activation: Some(Activation::Relu),
        };
        let (work, size) = (images * op.depth() * outputs, op.depth() * outputs);
        let x: Vec<_> = (0..2).map(|_| self.buffer(images * op.depth())).collect();
        let mut weights: Vec<_> = (0..2).map(|_| self.buffer(size)).collect();
        let mut momentum = self.buffer(size);
        let (bias, dy) = (self.buffer(outputs), self.buffer(images * outputs));
        let (mut y, mut dx) = (
            self.buffer(images * outputs),
            self.buffer(images * op.depth()),
        );
        let xs: Vec<_> = x.iter().collect();
        self.line(name, "forward", 2 * work, |d| {
            let ws: Vec<_> = weights.iter().collect();
            d.linear_forward(&op, images, &xs, &ws, &bias, None, &mut y)
                .unwrap();
        });
        let sgd = Sgd {
            rate: 1e-9,
            momentum: 0.9,
            decay: 5e-4,
        };
        for part in 0..2 {
            let weights = &mut weights[part];
            self.line(name, &format!("data {part}"), work, |d| {
                d.linear_backward_data(&op, images, &dy, weights, &mut dx)
                    .unwrap();
            });
            let momentum = &mut momentum;
            self.line(name, &format!("weights {part}"), work, |d| {
                let sink = Sink::Update {
                    weights,
                    momentum,
                    sgd,
                };
                d.linear_backward_weights(&op, images, xs[part], &dy, sink)
                    .unwrap();
            });
        }
    }

    fn pool(&mut self, name: &str, maps: usize, side: usize, normalise: bool) {
        let images = self.images;
        let input = Shape::new(maps, side, side);
        let window = Window::new(3, 2, 0);
        let pool = Pool {
            input,
            output: window.output(input, maps),
            window,
            activated: None,
        };
        let lrn = Lrn {
            shape: input,
            parts: 1,
            column: 0,
            size: 5,
            k: 2.0,
            alpha: 1e-4,
            beta: 0.75,
        };
        let mut x = self.buffer(images * input.len());
        self.device
            .activation_forward(Activation::Relu, images * input.len(), &mut x)
            .unwrap();
        let (mut y, dy) = (
            self.buffer(images * pool.output.len()),
            self.buffer(images * pool.output.len()),
        );
        let work = images * input.len();
        self.line(name, "forward", work, |d| {
            if normalise {
                d.lrn_pool_forward(&lrn, &pool, images, &x, &mut y).unwrap();
            } else {
                d.pool_forward(&pool, images, &x, &mut y).unwrap();
            }
        });
        let mut dx = self.buffer(work);
        self.line(name, "backward", work, |d| {
            if normalise {
                d.lrn_pool_backward(&lrn, &pool, images, &x, &y, &dy, &mut dx)
                    .unwrap();
            } else {
                d.pool_backward(&pool, images, &x, &y, &dy, &mut dx)
                    .unwrap();
            }
        });
    }

    fn dropout(&mut self) {
        let images = self.images;
        let op = Dropout {
            units: 2048,
            first_unit: 0,
            all_units: 4096,
            rate: 0.5,
            rescale: false,
        };
        let mut y = self.buffer(images * op.units);
        let key = Key::new(1, Purpose::Dropout);
        let mask = Mask::Counter {
            key,
            lane: 6,
            step: 0,
            first_image: 0,
        };
        self.line("dropout", "forward", images * op.units, |d| {
            d.dropout_forward(&op, images, &mask, &mut y).unwrap();
        });
    }
}

fn all(criterion: &mut Criterion) {
    let mut bench = Bench {
        criterion,
        device: CpuDevice::open(setting("THREADS", 1)).unwrap(),
        images: setting("BATCH", 32),
    };
    bench.conv("conv1", 3, 224, 1, 48, Window::new(11, 4, 0));
    bench.pool("lrn-pool1", 48, 55, true);
    bench.conv("conv2", 48, 27, 1, 128, Window::new(5, 1, 2));
    bench.pool("lrn-pool2", 128, 27, true);
    bench.conv("conv3", 128, 13, 2, 192, Window::new(3, 1, 1));
    bench.conv("conv4", 192, 13, 1, 192, Window::new(3, 1, 1));
    bench.conv("conv5", 192, 13, 1, 128, Window::new(3, 1, 1));
    bench.pool("pool5", 128, 13, false);
    bench.linear("fc6", Shape::new(128, 6, 6), 2048);
    bench.linear("fc7", Shape::flat(2048), 2048);
    bench.linear("fc8", Shape::flat(2048), 1000);
    bench.dropout();
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = all
}
criterion_main!(kernels);
