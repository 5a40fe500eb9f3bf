//! Weight files in safetensors, and the names of other programs: read whole or refused as weights
//! (exit code 4), never a panic.
#![no_main]

use alexnet_mp::checkpoint;
use alexnet_mp::config::Config;
use alexnet_mp::formats::renamed;
use alexnet_mp::network::plan::Plan;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let small = ["network.width=0.005", "network.image=48", "data.side=48", "network.classes=10"];
    let config = Config::load("paper", &small.map(String::from)).unwrap();
    config.plan().unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("alexnet-mp-fuzz-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let contents = match checkpoint::read(&path) {
        Ok(contents) => contents,
        Err(error) => return assert_eq!(error.exit_code(), 4),
    };
    for tensor in &contents.tensors.0 {
        assert_eq!(tensor.values.len(), tensor.shape.iter().product::<usize>());
        assert!(tensor.values.iter().all(|v| v.is_finite()));
    }
    match renamed(contents.tensors, &PLAN.params) {
        Ok(tensors) => tensors.check(&PLAN.params).unwrap(),
        Err(error) => assert_eq!(error.exit_code(), 4),
    }
});
