//! Time of every operation of one column of the paper's network on one CPU thread:
//! `cargo bench --bench kernels [-- NAME…]`, the names being starts of lines' names. `BATCH` sets
//! the images (128), `SECONDS` the time for each line (0.7).
//!
//! One thread is timed by its own processor time, so that other programs disturb less.
//! GFLOP/s count the multiply-adds of the definition, whatever the method.

use alexnet_mp::device::cpu::{Buffer, CpuDevice};
use alexnet_mp::device::{Device, Mask, Sink};
use alexnet_mp::network::op::*;
use alexnet_mp::random::{Key, Purpose};
use std::time::Instant;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let value = std::env::var(name).ok().and_then(|v| v.parse().ok());
    value.unwrap_or(default)
}

/// Seconds of processor time of this thread (of the wall clock with several threads).
fn clock(start: Instant) -> f64 {
    #[cfg(target_os = "linux")]
    if setting("THREADS", 1) == 1 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a place for the answer.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        return time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
    }
    start.elapsed().as_secs_f64()
}

struct Bench {
    device: CpuDevice,
    images: usize,
    names: Vec<String>,
    step: f64,
}

impl Bench {
    fn wanted(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| name.starts_with(n))
    }

    fn buffer(&mut self, elements: usize) -> Buffer {
        let mut stream = Key::new(1, Purpose::Verify).stream(elements as u32, 0);
        let x: Vec<f32> = (0..elements).map(|_| stream.between(-0.1, 0.1)).collect();
        let mut buffer = self.device.allocate(elements).unwrap();
        self.device.upload(&x, &mut buffer).unwrap();
        buffer
    }

    /// Prints the median time of `f`; `work` is its multiply-adds, or elements where `rate` is
    /// "Gelem/s".
    fn line(&mut self, name: &str, work: usize, rate: &str, mut f: impl FnMut(&mut CpuDevice)) {
        if !self.wanted(name) {
            return;
        }
        f(&mut self.device);
        let seconds = setting("SECONDS", 0.7);
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < 3 || start.elapsed().as_secs_f64() < seconds {
            let t = clock(start);
            f(&mut self.device);
            times.push(clock(start) - t);
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        self.step += median;
        let operations = if rate == "GFLOP/s" { 2.0 } else { 1.0 } * work as f64;
        println!(
            "{name:<22} {:8.2} ms  {:7.2} {rate}  (best {:.2} ms)",
            median * 1e3,
            operations / median / 1e9,
            times[0] * 1e3
        );
    }

    fn conv(&mut self, name: &str, maps: usize, side: usize, parts: usize, out: usize, w: Window) {
        if !["forward", "data", "weights", "bias"]
            .iter()
            .any(|s| self.wanted(&format!("{name} {s}")))
        {
            return;
        }
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
        self.line(&format!("{name} forward"), parts * work, "GFLOP/s", |d| {
            d.conv_forward(&op, images, &xs, &ws, &bias, &mut y)
                .unwrap();
        });
        let mut dx = self.buffer(images * input.len());
        for part in (0..parts).filter(|_| w.stride == 1) {
            self.line(&format!("{name} data {part}"), work, "GFLOP/s", |d| {
                d.conv_backward_data(&op, images, &dy, ws[part], &mut dx)
                    .unwrap();
            });
        }
        let mut dw = self.buffer(op.depth() * out);
        for (part, x) in xs.iter().enumerate() {
            self.line(&format!("{name} weights {part}"), work, "GFLOP/s", |d| {
                d.conv_backward_weights(&op, images, x, &dy, false, &mut dw)
                    .unwrap();
            });
        }
        let rows = images * output.pixels();
        let mut db = self.buffer(out);
        self.line(&format!("{name} bias"), rows * out, "Gelem/s", |d| {
            d.bias_backward(rows, out, &dy, false, &mut db).unwrap();
        });
        let mut dy = dy;
        self.line(&format!("{name} relu"), rows * out, "Gelem/s", |d| {
            d.activation_backward(Activation::Relu, rows * out, &y, &mut dy)
                .unwrap();
        });
    }

    fn linear(&mut self, name: &str, input: Shape, outputs: usize) {
        if !["forward", "data", "weights"]
            .iter()
            .any(|s| self.wanted(&format!("{name} {s}")))
        {
            return;
        }
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
        self.line(&format!("{name} forward"), 2 * work, "GFLOP/s", |d| {
            let ws: Vec<_> = weights.iter().collect();
            d.linear_forward(&op, images, &xs, &ws, &bias, &mut y)
                .unwrap();
        });
        let sgd = Sgd {
            rate: 1e-9,
            momentum: 0.9,
            decay: 5e-4,
        };
        for part in 0..2 {
            let weights = &mut weights[part];
            self.line(&format!("{name} data {part}"), work, "GFLOP/s", |d| {
                d.linear_backward_data(&op, images, &dy, weights, &mut dx)
                    .unwrap();
            });
            let momentum = &mut momentum;
            self.line(&format!("{name} weights {part}"), work, "GFLOP/s", |d| {
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
        if !self.wanted(&format!("{name} forward")) && !self.wanted(&format!("{name} backward")) {
            return;
        }
        let mut x = self.buffer(images * input.len());
        self.device
            .activation_forward(Activation::Relu, images * input.len(), &mut x)
            .unwrap();
        let (mut y, dy) = (
            self.buffer(images * pool.output.len()),
            self.buffer(images * pool.output.len()),
        );
        let work = images * input.len();
        self.line(&format!("{name} forward"), work, "Gelem/s", |d| {
            if normalise {
                d.lrn_pool_forward(&lrn, &pool, images, &x, &mut y).unwrap();
            } else {
                d.pool_forward(&pool, images, &x, &mut y).unwrap();
            }
        });
        let mut dx = self.buffer(work);
        self.line(&format!("{name} backward"), work, "Gelem/s", |d| {
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
        self.line("dropout forward", images * op.units, "Gelem/s", |d| {
            d.dropout_forward(&op, images, &mask, &mut y).unwrap();
        });
    }
}

fn main() {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let device = CpuDevice::open(setting("THREADS", 1)).unwrap();
    let mut bench = Bench {
        device,
        images: setting("BATCH", 128),
        names,
        step: 0.0,
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
    println!(
        "sum {:.0} ms; {:.1} images/s if every column does this at once",
        bench.step * 1e3,
        bench.images as f64 / bench.step
    );
}
