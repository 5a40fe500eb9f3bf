//! A batch as it travels from the loader to the devices: 8-bit crops, and what was drawn for them.

/// Host memory a loader fills: ordinary, or pinned by a GPU driver so that uploads can overlap.
pub trait HostMemory: Send + Sync {
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl HostMemory for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// Allocates host memory of so many bytes; a device may offer pinned memory through this.
pub type HostAllocator = std::sync::Arc<dyn Fn(usize) -> Box<dyn HostMemory> + Send + Sync>;

/// Ordinary host memory.
pub fn pageable() -> HostAllocator {
    std::sync::Arc::new(|bytes| Box::new(vec![0u8; bytes]) as Box<dyn HostMemory>)
}

/// What was drawn for one use of one image. A device computes, for pixel (y, x) and colour c of
/// the crop, `value = (crop[y][x][c] − mean[top + y][left + x][c] + shift[c]) · gain`, and writes
/// it to column `x`, or to the mirrored column `width − 1 − x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Place of the mean image's window, normally the crop's own; in pixels of the stored image.
    pub top: u16,
    pub left: u16,
    pub mirror: bool,
    /// Colour noise added to red, green and blue, on the 0–255 scale.
    pub shift: [f32; 3],
    /// Factor of the sum: 1, or 1/1.1 where the 2012 source's noise rule is asked for.
    pub gain: f32,
}

impl Draw {
    /// No mirror, no noise.
    pub const fn plain(top: u16, left: u16) -> Self {
        Draw {
            top,
            left,
            mirror: false,
            shift: [0.0; 3],
            gain: 1.0,
        }
    }
}

/// Images of one step: pixels `[image][crop row][crop column][red, green, blue]`.
pub struct Batch {
    pub pixels: Box<dyn HostMemory>,
    /// Side of the square crops, in pixels.
    pub crop: usize,
    /// One per image.
    pub draws: Vec<Draw>,
    /// Class of each image.
    pub labels: Vec<u32>,
}

impl Batch {
    /// An empty batch with room for `images` crops.
    pub fn with_capacity(images: usize, crop: usize, allocate: &HostAllocator) -> Self {
        Batch {
            pixels: allocate(images * crop * crop * 3),
            crop,
            draws: Vec::with_capacity(images),
            labels: Vec::with_capacity(images),
        }
    }

    /// Images it holds.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one crop.
    pub fn crop_bytes(&self) -> usize {
        self.crop * self.crop * 3
    }

    /// The pixels of the images it holds.
    pub fn used_pixels(&self) -> &[u8] {
        &self.pixels.bytes()[..self.len() * self.crop_bytes()]
    }

    /// Forgets its images and keeps the memory, to be filled again.
    pub fn clear(&mut self) {
        self.draws.clear();
        self.labels.clear();
    }
}
