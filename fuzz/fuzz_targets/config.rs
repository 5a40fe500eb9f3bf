//! A configuration: refused in one line, or valid, writable and the same when read again. Text of
//! one line that holds a `=` is taken for a `--set` of the quickstart's configuration.
#![no_main]

use alexnet_mp::config::{Config, PRESETS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let config = if text.contains('\n') {
        Config::from_toml(text)
    } else {
        Config::from_toml_with(PRESETS[0].1, &[text.to_string()])
    };
    match config {
        Ok(config) => {
            assert!(config.plan().is_ok());
            // Compared as text: a NaN is not equal to itself.
            let written = config.to_toml();
            assert_eq!(Config::from_toml(&written).unwrap().to_toml(), written);
        }
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
        }
    }
});
