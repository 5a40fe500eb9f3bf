//! Counter-based randomness: every number is a pure function of (seed, purpose, index, element),
//! so nothing depends on how many devices, threads or workers ask, nor in which order.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy
//! as 1, 2, 3", SC 2011). `kernels/philox.cuh` is its twin on the GPU.

use rand::TryRng;
use std::convert::Infallible;

/// What a stream of random numbers is for; streams of different purposes never coincide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    Weights = 1,
    Dropout = 2,
    Shuffle = 3,
    Crop = 4,
    Colour = 5,
    BuiltinTrain = 6,
    BuiltinVal = 7,
    Verify = 8,
}

/// The key of all streams of one seed and purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub [u32; 2]);

impl Key {
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        // splitmix64's finaliser, so that near seeds and purposes give unrelated keys.
        let mut z = seed ^ (u64::from(purpose as u32) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Key([z as u32, (z >> 32) as u32])
    }

    /// The four words of counter (`block`, `lane`, `index`).
    pub fn words(self, block: u32, lane: u32, index: u64) -> [u32; 4] {
        philox4x32_10([block, lane, index as u32, (index >> 32) as u32], self.0)
    }

    /// Word number `element` of stream (`lane`, `index`): the form the GPU kernels use.
    pub fn word(self, element: u32, lane: u32, index: u64) -> u32 {
        self.words(element / 4, lane, index)[(element % 4) as usize]
    }

    /// A sequential reader of stream (`lane`, `index`), for use with `rand`.
    pub fn stream(self, lane: u32, index: u64) -> Stream {
        Stream {
            key: self,
            lane,
            index,
            block: 0,
            words: [0; 4],
            used: 4,
        }
    }
}

fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [
            key[0].wrapping_add(0x9e37_79b9),
            key[1].wrapping_add(0xbb67_ae85),
        ];
    }
    counter
}

/// Reads one stream word by word; a generator for the `rand` crate.
#[derive(Clone, Debug)]
pub struct Stream {
    key: Key,
    lane: u32,
    index: u64,
    block: u32,
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// The next 32 random bits.
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            self.words = self.key.words(self.block, self.lane, self.index);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.word() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n`, by multiplication (bias below n/2³²).
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(n)) >> 32) as u32
    }

    /// Normal with mean 0 and standard deviation 1 (Box–Muller, in float64).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * ((f64::from(self.word()) + 0.5) / 4_294_967_296.0).ln()).sqrt();
        let angle = std::f64::consts::TAU * (f64::from(self.word()) / 4_294_967_296.0);
        (radius * angle.cos()) as f32
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from(self.word()) | u64::from(self.word()) << 32)
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        for chunk in target.chunks_mut(4) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the reference implementation (Random123's `kat_vectors`).
    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_stream_reads_the_words_in_order() {
        let key = Key::new(7, Purpose::Crop);
        let mut stream = key.stream(3, 9);
        for element in 0..11 {
            assert_eq!(stream.word(), key.word(element, 3, 9));
        }
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_deviation_one() {
        let mut stream = Key::new(1, Purpose::Weights).stream(0, 0);
        let n = 200_000;
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for _ in 0..n {
            let x = f64::from(stream.normal());
            sum += x;
            squares += x * x;
        }
        // Five standard errors.
        assert!((sum / n as f64).abs() < 5.0 / (n as f64).sqrt());
        assert!((squares / n as f64 - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
    }
}
