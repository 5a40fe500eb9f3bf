//! What an image costs on its way to a device, by criterion: `cargo bench --bench loader`. Elements are images.
//! `alexnet-mp bench --loader` measures a set of one's own.

use alexnet_mp::batch::{Batch, pageable};
use alexnet_mp::config::Config;
use alexnet_mp::data::{Loader, LoaderOptions, Statistics, builtin, decode};
use alexnet_mp::device::Device;
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::random::{Key, Purpose};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

const WIDTH: usize = 500;
const HEIGHT: usize = 375;
/// Side of stored images, and of crops.
const SIDE: usize = 256;
const CROP: usize = 224;

/// A JPEG with as much detail as a photo has: waves of several lengths, and noise.
fn photo() -> Vec<u8> {
    let mut stream = Key::new(1, Purpose::Verify).stream(0, 0);
    let mut pixels = Vec::with_capacity(WIDTH * HEIGHT * 3);
    for row in 0..HEIGHT {
        for column in 0..WIDTH {
            let (y, x) = (row as f32, column as f32);
            for colour in 0..3 {
                let c = colour as f32;
                let waves = 50.0 * (x / 90.0 + c).sin() + 40.0 * (y / 23.0 + x / 31.0).cos();
                let detail = 15.0 * (x / 3.1 + y / 4.3 + c).sin() + stream.between(-12.0, 12.0);
                pixels.push((128.0 + waves + detail).clamp(0.0, 255.0) as u8);
            }
        }
    }
    let mut jpeg = vec![];
    jpeg_encoder::Encoder::new(&mut jpeg, 85)
        .encode(
            &pixels,
            WIDTH as u16,
            HEIGHT as u16,
            jpeg_encoder::ColorType::Rgb,
        )
        .unwrap();
    jpeg
}

fn decoding(criterion: &mut Criterion) {
    let jpeg = photo();
    let mut stored = vec![0; SIDE * SIDE * 3];
    let mut group =
        criterion.benchmark_group(format!("JPEG of {WIDTH}×{HEIGHT}, {} bytes", jpeg.len()));
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode", |b| b.iter(|| decode::decode(&jpeg).unwrap()));
    let pixels = decode::decode(&jpeg).unwrap();
    group.bench_function("resize and crop", |b| {
        b.iter(|| decode::square(&pixels, SIDE, &mut stored).unwrap());
    });
    group.finish();
}

/// Batches of the built-in set, read and cropped by one worker.
fn batches(criterion: &mut Criterion) {
    let config = Config::load("quickstart", &[]).unwrap();
    let side = config.data.side;
    let set = builtin::dataset(0, side, 1024, 8).unwrap();
    let options = LoaderOptions {
        batch: 128,
        seed: 0,
        workers: 1,
        queue: 2,
        first_step: 0,
        augment: config.augmentation(),
        shuffle_window: 0,
        share: Default::default(),
    };
    let statistics = Statistics::zero(side);
    let mut loader = Loader::train(set.train, &options, &statistics, &pageable()).unwrap();
    let mut group = criterion.benchmark_group("built-in set");
    group.throughput(Throughput::Elements(options.batch as u64));
    group.bench_function("batch of 128, one worker", |b| {
        b.iter(|| {
            let batch = loader.next_batch().unwrap().unwrap();
            loader.recycle(batch);
        });
    });
    group.finish();
}

/// From 8-bit crops to normalised f32, on one thread.
fn augmentation(criterion: &mut Criterion) {
    let images = 128;
    let mut device = CpuDevice::open(1).unwrap();
    let mut batch = Batch::with_capacity(images, CROP, &pageable());
    let mut stream = Key::new(2, Purpose::Verify).stream(0, 0);
    let stored: Vec<u8> = (0..SIDE * SIDE * 3)
        .map(|_| stream.below(256) as u8)
        .collect();
    let options = alexnet_mp::data::AugmentOptions::default();
    let statistics = Statistics::zero(SIDE);
    let augmenter = alexnet_mp::data::augment::Augmenter::new(&options, &statistics, 0).unwrap();
    for position in 0..images {
        let placed = augmenter.draw(0, position as u64);
        let of_image = CROP * CROP * 3;
        placed.copy(
            &stored,
            SIDE,
            CROP,
            &mut batch.pixels.bytes_mut()[position * of_image..][..of_image],
        );
        batch.draws.push(placed.draw);
        batch.labels.push(0);
    }
    let mut input = device.allocate_input(images, CROP).unwrap();
    let mean = device.allocate(SIDE * SIDE * 3).unwrap();
    let mut x = device.allocate(images * CROP * CROP * 3).unwrap();
    let mut group = criterion.benchmark_group(format!("{CROP}×{CROP} crops of {SIDE}×{SIDE}"));
    group.throughput(Throughput::Elements(images as u64));
    group.bench_function("upload and augment", |b| {
        b.iter(|| {
            device.upload_input(&batch, &mut input).unwrap();
            device.augment(images, &input, SIDE, &mean, &mut x).unwrap();
        });
    });
    group.finish();
}

criterion_group! {
    name = loader;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = decoding, batches, augmentation
}
criterion_main!(loader);
