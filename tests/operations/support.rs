//! What the tests share: random numbers, buffers with contents, comparison.

use alexnet_mp::device::Device;
use alexnet_mp::network::op::Activation;
use alexnet_mp::random::{Key, Purpose};

/// Makes a `#[test]` of each function for every device there is.
macro_rules! for_each_device {
    ($($test:ident),* $(,)?) => {
        mod cpu {
            $(#[test]
            fn $test() {
                super::$test(&|| alexnet_mp::device::cpu::CpuDevice::open(2).unwrap());
            })*
        }
        mod cpu_portable {
            use alexnet_mp::device::cpu::{CpuDevice, Isa};
            $(#[test]
            fn $test() {
                super::$test(&|| CpuDevice::open_with(1, Isa::Portable).unwrap());
            })*
        }
        #[cfg(target_arch = "x86_64")]
        mod cpu_avx2 {
            use alexnet_mp::device::cpu::{CpuDevice, Isa};
            $(#[test]
            fn $test() {
                if Isa::Avx2.available() {
                    super::$test(&|| CpuDevice::open_with(1, Isa::Avx2).unwrap());
                }
            })*
        }
        #[cfg(feature = "cuda")]
        mod cuda {
            $(#[test]
            fn $test() {
                vcuda::in_own_process(|| crate::support::on_gpus(|open| super::$test(open)));
            })*
        }
    };
}
pub(crate) use for_each_device;

/// Runs a test on GPU 0: a real one, or a virtual one in each order its threads may take. A
/// sanitizer (`tests/vcuda/sanitize.sh`) needs no more than one order to see a race.
#[cfg(feature = "cuda")]
pub fn on_gpus(test: impl Fn(Open<alexnet_mp::device::cuda::CudaDevice>)) {
    use vcuda::{Driver, Fibres, Options, Streams};
    for (fibres, streams) in
        Fibres::ALL
            .into_iter()
            .zip([Streams::Eager, Streams::Lazy, Streams::Random(7)])
    {
        let options = Options {
            fibres: Some(fibres),
            streams: Some(streams),
            ..Options::default()
        };
        let session = vcuda::session(&options);
        if session.driver() == Driver::None {
            println!("skipped: there is no GPU, and the virtual one cannot be built here");
            return;
        }
        test(&|| alexnet_mp::device::cuda::CudaDevice::open(0).unwrap());
        assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
        if session.driver() == Driver::Real || sanitized() {
            return;
        }
    }
}

/// Runs a test's body in a process that asks for products by wgmma; on a real GPU, where whoever started the tests did.
#[cfg(feature = "cuda")]
pub fn by_wgmma(body: fn()) {
    const VARIABLE: &str = "ALEXNET_MP_WGMMA";
    vcuda::in_own_process_with(&[(VARIABLE, "1")], || match std::env::var(VARIABLE) {
        Ok(_) => body(),
        Err(_) => println!("skipped: set {VARIABLE}=1, where compute capability 9.0 is"),
    });
}

/// Whether the virtual driver is one that a sanitizer watches.
#[cfg(feature = "cuda")]
fn sanitized() -> bool {
    std::env::var_os("VCUDA_SANITIZED").is_some()
}

/// Whether it is ThreadSanitizer, under which every access to memory takes tens of times as long:
/// the same code of a kernel is then run at small shapes only.
pub fn watched_for_races() -> bool {
    std::env::var("VCUDA_SANITIZED").as_deref() == Ok("thread")
}

/// The cases whose `work`, in multiply-adds or elements, the tool at hand gets through: all, but under Miri, which
/// interprets and takes a thousand times as long, and under ThreadSanitizer.
pub fn affordable<T>(cases: impl IntoIterator<Item = T>, work: impl Fn(&T) -> usize) -> Vec<T> {
    let most = match () {
        () if cfg!(miri) => 100_000,
        () if watched_for_races() => 21_000_000,
        () => usize::MAX,
    };
    cases
        .into_iter()
        .filter(|case| work(case) <= most)
        .collect()
}

/// Runs a test on GPU 0: a real one, or a virtual one in one order.
#[cfg(feature = "cuda")]
pub fn on_first_gpu(test: impl Fn(Open<alexnet_mp::device::cuda::CudaDevice>)) {
    let session = vcuda::session(&vcuda::Options::default());
    if session.driver() == vcuda::Driver::None {
        println!("skipped: there is no GPU, and the virtual one cannot be built here");
        return;
    }
    test(&|| alexnet_mp::device::cuda::CudaDevice::open(0).unwrap());
    assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
}

/// Opens a device for a test.
pub type Open<'a, D> = &'a dyn Fn() -> D;

/// Relative L2 errors that are allowed against float64.
pub const FORWARD: f64 = 1e-5;
pub const GRADIENT: f64 = 3e-5;

/// Uniform numbers in −1..1, the same for the same `stream`.
pub fn random(stream: u32, elements: usize) -> Vec<f32> {
    let mut stream = Key::new(1, Purpose::Verify).stream(stream, 0);
    (0..elements).map(|_| stream.between(-1.0, 1.0)).collect()
}

/// The same numbers in float64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// A buffer that holds `x`.
pub fn filled<D: Device>(d: &mut D, x: &[f32]) -> D::Buffer {
    let mut buffer = d.allocate(x.len()).unwrap();
    d.upload(x, &mut buffer).unwrap();
    buffer
}

/// A buffer of maps that holds `x`, in the type that the device's precision has for them.
pub fn filled_maps<D: Device>(d: &mut D, x: &[f32]) -> D::Buffer {
    let mut buffer = d.allocate_maps(x.len()).unwrap();
    d.upload(x, &mut buffer).unwrap();
    buffer
}

/// A buffer that holds a weight matrix.
pub fn filled_matrix<D: Device>(d: &mut D, rows: usize, columns: usize, x: &[f32]) -> D::Buffer {
    let mut buffer = d.allocate(x.len()).unwrap();
    d.upload_matrix(rows, columns, x, &mut buffer).unwrap();
    buffer
}

/// The first elements of a buffer.
pub fn read<D: Device>(d: &mut D, buffer: &D::Buffer, elements: usize) -> Vec<f32> {
    let mut x = vec![0.0; elements];
    d.download(buffer, &mut x).unwrap();
    x
}

/// A weight matrix of a buffer.
pub fn read_matrix<D: Device>(
    d: &mut D,
    buffer: &D::Buffer,
    rows: usize,
    columns: usize,
) -> Vec<f32> {
    let mut x = vec![0.0; rows * columns];
    d.download_matrix(rows, columns, buffer, &mut x).unwrap();
    x
}

/// References to all parts.
pub fn all<T>(parts: &[T]) -> Vec<&T> {
    parts.iter().collect()
}

/// ‖actual − expected‖ / ‖expected‖.
pub fn relative_error(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let pairs = actual.iter().zip(expected);
    let difference: f64 = pairs.map(|(a, e)| (f64::from(*a) - e).powi(2)).sum();
    let norm: f64 = expected.iter().map(|e| e * e).sum();
    if norm == 0.0 {
        difference.sqrt()
    } else {
        (difference / norm).sqrt()
    }
}

/// Fails where the relative L2 error is above `tolerance` or not a number.
#[track_caller]
pub fn assert_close(what: impl std::fmt::Debug, actual: &[f32], expected: &[f64], tolerance: f64) {
    let error = relative_error(actual, expected);
    if std::env::var_os("SHOW_ERRORS").is_some() {
        println!("{error:.1e} {what:?}");
    }
    assert!(error <= tolerance, "relative error {error:e} of {what:?}");
}

/// The same numbers in f32.
pub fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// The activation of every number.
pub fn activate(activation: Activation, z: &[f64]) -> Vec<f64> {
    let of = |&z: &f64| match activation {
        Activation::Relu => z.max(0.0),
        Activation::Tanh => z.tanh(),
    };
    z.iter().map(of).collect()
}

/// The gradient of Σ dy·f(x) by central differences.
pub fn differences(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let value = |x: &[f64]| -> f64 { f(x).iter().zip(dy).map(|(y, d)| y * d).sum() };
    let (mut x, elements) = (x.to_vec(), x.len());
    // So small that hardly any maximum changes its place within it.
    let step = 1e-7;
    let mut slope = |i: usize| {
        let middle = x[i];
        x[i] = middle + step;
        let above = value(&x);
        x[i] = middle - step;
        let below = value(&x);
        x[i] = middle;
        (above - below) / (2.0 * step)
    };
    (0..elements).map(&mut slope).collect()
}
