//! An npy file: refused, or as many elements as its shape says.
#![no_main]

use alexnet_mp::formats::npy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((shape, values)) = npy::parse::<f32>(bytes) {
        assert_eq!(shape.iter().product::<u64>(), values.len() as u64);
        assert!(4 * values.len() <= bytes.len());
    }
    if let Ok((shape, values)) = npy::parse::<i64>(bytes) {
        assert_eq!(shape.iter().product::<u64>(), values.len() as u64);
        assert!(8 * values.len() <= bytes.len());
    }
});
