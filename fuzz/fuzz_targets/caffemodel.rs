//! Caffe's weights and mean images: read whole or refused, never a panic.
#![no_main]

use alexnet_mp::config::Config;
use alexnet_mp::formats::{caffe_mean, from_caffe};
use alexnet_mp::network::plan::Plan;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let small = ["network.width=0.005", "network.image=48", "data.side=48", "network.classes=10"];
    let config = Config::load("paper", &small.map(String::from)).unwrap();
    config.plan().unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    match from_caffe(bytes).and_then(|weights| weights.tensors(&PLAN)) {
        Ok(tensors) => tensors.check(&PLAN.params).unwrap(),
        Err(error) => assert_eq!(error.exit_code(), 4),
    }
    match caffe_mean(bytes) {
        Ok(found) => assert_eq!(found.mean.len(), 3 * found.side * found.side),
        Err(error) => assert_eq!(error.exit_code(), 3),
    }
});
