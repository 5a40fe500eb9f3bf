//! JPEG and PNG files: decoded and scaled, or refused with a reason.
#![no_main]

use alexnet_mp::data::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Larger frames are refused before they are decoded; up to there they only cost time.
    match decode::decode(bytes) {
        Ok(image) => {
            assert_eq!(image.rgb.len(), image.width * image.height * 3);
            let mut pixels = [0; 32 * 32 * 3];
            let _ = decode::square(&image, 32, &mut pixels);
        }
        Err(reason) => assert!(!reason.contains(char::is_control), "{reason:?}"),
    }
});
