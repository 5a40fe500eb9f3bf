//! Exact sums over the bytes of images, as loops that become vector instructions.

/// Images whose bytes' sums surely fit into 32 bits.
const RECENT: u64 = (u32::MAX / 255) as u64;

/// The sum over images of each byte. Those of the last images are kept in 32 bits, which halves the memory that adding an
/// image goes through.
#[derive(Clone, Debug)]
pub struct ByteSums {
    /// Of all images before the recent ones; empty while there are none.
    before: Vec<u64>,
    recent: Vec<u32>,
    /// Images in `recent`.
    images: u64,
}

impl ByteSums {
    /// Sums over no images of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        ByteSums::of(0, vec![0; bytes])
    }

    /// The sums over so many images.
    pub fn of(images: u64, sums: Vec<u32>) -> Self {
        ByteSums {
            before: vec![],
            recent: sums,
            images,
        }
    }

    /// Adds an image.
    pub fn add(&mut self, image: &[u8]) {
        debug_assert_eq!(image.len(), self.recent.len());
        if self.images >= RECENT {
            self.settle();
        }
        for (sum, &x) in self.recent.iter_mut().zip(image) {
            *sum += u32::from(x);
        }
        self.images += 1;
    }

    /// Adds the sums over other images.
    pub fn merge(&mut self, other: &ByteSums) {
        self.settle();
        for (sum, x) in self.before.iter_mut().zip(other.iter()) {
            *sum += x;
        }
    }

    /// The sums, in the order of the bytes.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let before = self.before.iter().copied().chain(std::iter::repeat(0));
        let recent = self.recent.iter().copied().map(u64::from);
        recent.zip(before).map(|(a, b)| a + b)
    }

    /// Puts the recent sums to those before.
    fn settle(&mut self) {
        self.before = self.iter().collect();
        self.recent.fill(0);
        self.images = 0;
    }
}

impl PartialEq for ByteSums {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ByteSums {}

/// Elements whose products are summed side by side: whole pixels, and a loop too long to be unrolled instead of made of
/// vectors.
const ROW: usize = 3 * 512;

/// Sums of the products of every byte of an image with the one `ahead` of it, by the first one's colour.
pub fn products(image: &[u8], ahead: usize) -> [u64; 3] {
    let mut by_colour = [0; 3];
    let pairs = image[..image.len() - ahead].chunks(ROW * 65_536);
    for (first, second) in pairs.zip(image[ahead..].chunks(ROW * 65_536)) {
        // 255² · 65,536 still fits into 32 bits.
        let mut sums = [0u32; ROW];
        for (first, second) in first.chunks(ROW).zip(second.chunks(ROW)) {
            for ((sum, a), b) in sums.iter_mut().zip(first).zip(second) {
                *sum += u32::from(u16::from(*a) * u16::from(*b));
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            by_colour[i % 3] += u64::from(sum);
        }
    }
    by_colour
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_32_bits_are_exact() {
        let nearly = vec![u32::MAX, 5];
        let mut sums = ByteSums::of(RECENT, nearly.clone());
        sums.add(&[255, 2]);
        sums.add(&[1, 0]);
        sums.merge(&ByteSums::of(RECENT, nearly.clone()));
        let expected = [2 * u64::from(nearly[0]) + 256, 12];
        assert!(sums.iter().eq(expected));
    }

    #[test]
    fn products_are_of_the_bytes_as_far_apart_as_said() {
        let image: Vec<u8> = (0..3 * 4001).map(|i| (i * i + 7 * i) as u8).collect();
        for ahead in 0..3 {
            let mut expected = [0; 3];
            for i in 0..image.len() - ahead {
                expected[i % 3] += u64::from(image[i]) * u64::from(image[i + ahead]);
            }
            assert_eq!(products(&image, ahead), expected);
        }
    }
}
