//! Batches of 8-bit crops on their way to the GPU, uploaded while the step before still computes.

use super::CudaDevice;
use super::event::Event;
use super::geometry::Pointer;
use super::memory::{Home, Memory, Pinned};
use crate::batch::{Batch, Draw, HostMemory};
use crate::error::{Result, device};
use cudarc::driver::result;
use std::sync::Arc;

/// `kernels/augment.cu`'s form of a [`Draw`].
#[derive(Clone, Copy)]
#[repr(C)]
struct PackedDraw {
    top: u16,
    left: u16,
    mirror: u32,
    shift: [f32; 3],
    gain: f32,
}

impl PackedDraw {
    const BYTES: usize = size_of::<PackedDraw>();

    fn bytes(draw: &Draw) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..2].copy_from_slice(&draw.top.to_le_bytes());
        bytes[2..4].copy_from_slice(&draw.left.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::from(draw.mirror).to_le_bytes());
        let [red, green, blue] = draw.shift;
        for (word, value) in bytes[8..]
            .chunks_exact_mut(4)
            .zip([red, green, blue, draw.gain])
        {
            word.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

/// Room on the GPU for one batch, and in pinned memory for its draws and labels on their way.
pub struct Input {
    pixels: Memory,
    draws: Memory,
    labels: Memory,
    staged_draws: Pinned,
    staged_labels: Pinned,
    images: usize,
    crop: usize,
    /// The last upload has read its batch and the staged memory.
    arrived: Arc<Event>,
    /// The last operation that read this input is done.
    used: Arc<Event>,
}

impl Input {
    /// Side of the crops, in pixels.
    pub fn crop(&self) -> usize {
        self.crop
    }

    /// Checks that there is room for `images` here, on this GPU.
    fn check(&self, home: &Home, images: usize) -> Result<()> {
        if images > self.images {
            return Err(device(format!(
                "{}: {images} images in an input for {}",
                home.name, self.images
            )));
        }
        if self.pixels.home.context.cu_ctx() != home.context.cu_ctx() {
            return Err(device(format!(
                "{}: an operation was given an input of another GPU",
                home.name
            )));
        }
        Ok(())
    }
}

/// Where an operation reads an input.
pub struct InputPlaces {
    pub pixels: Pointer,
    pub draws: Pointer,
    pub labels: Pointer,
}

impl CudaDevice {
    pub(super) fn new_input(&mut self, images: usize, crop: usize) -> Result<Input> {
        Ok(Input {
            pixels: Memory::new(&self.home, images * crop * crop * 3)?,
            draws: Memory::new(&self.home, images * PackedDraw::BYTES)?,
            labels: Memory::new(&self.home, images * 4)?,
            staged_draws: Pinned::new(&self.home, images * PackedDraw::BYTES)?,
            staged_labels: Pinned::new(&self.home, images * 4)?,
            images,
            crop,
            arrived: self.event()?,
            used: self.event()?,
        })
    }

    pub(super) fn upload_batch(&mut self, batch: &Batch, input: &mut Input) -> Result<()> {
        input.check(&self.home, batch.len())?;
        if batch.crop != input.crop || batch.draws.len() != batch.len() {
            return Err(device(format!(
                "{}: a batch of {} images, {} draws and crops of {} pixels for an input with crops of {}",
                self.home.name,
                batch.len(),
                batch.draws.len(),
                batch.crop,
                input.crop
            )));
        }
        self.wait_for_upload(input)?;
        let staged = input
            .staged_draws
            .bytes_mut()
            .chunks_exact_mut(PackedDraw::BYTES);
        for (to, draw) in staged.zip(&batch.draws) {
            to.copy_from_slice(&PackedDraw::bytes(draw));
        }
        stage_labels(&batch.labels, input);
        self.wait(&self.home.streams.uploads, &input.used)?;
        self.to_gpu(&input.pixels, batch.used_pixels())?;
        self.to_gpu(
            &input.draws,
            &input.staged_draws.bytes()[..batch.len() * PackedDraw::BYTES],
        )?;
        self.to_gpu(
            &input.labels,
            &input.staged_labels.bytes()[..batch.len() * 4],
        )?;
        self.record(&input.arrived, &self.home.streams.uploads)
    }

    pub(super) fn upload_labels_alone(&mut self, labels: &[u32], input: &mut Input) -> Result<()> {
        input.check(&self.home, labels.len())?;
        self.wait_for_upload(input)?;
        stage_labels(labels, input);
        self.wait(&self.home.streams.uploads, &input.used)?;
        self.to_gpu(
            &input.labels,
            &input.staged_labels.bytes()[..labels.len() * 4],
        )?;
        self.record(&input.arrived, &self.home.streams.uploads)
    }

    pub(super) fn wait_for_upload(&mut self, input: &Input) -> Result<()> {
        input.arrived.finish(&self.home)
    }

    /// Copies to the GPU on the upload stream; `from` must stay until `arrived`, as [`Device::upload_input`] says.
    ///
    /// [`Device::upload_input`]: crate::device::Device::upload_input
    fn to_gpu(&self, to: &Memory, from: &[u8]) -> Result<()> {
        self.home.bind()?;
        // SAFETY: the caller checked that `from` fits; who fills it again waits for `arrived` first.
        let copied = unsafe {
            result::memcpy_htod_async(to.pointer().0, from, self.home.streams.uploads.cu_stream())
        };
        self.home.check("uploading input", copied)
    }

    /// Where an operation on `images` images reads `input`, once it has arrived. [`done_with`](Self::done_with) ends it.
    pub(super) fn input_places(&self, input: &Input, images: usize) -> Result<InputPlaces> {
        input.check(&self.home, images)?;
        self.wait(&self.home.streams.compute, &input.arrived)?;
        Ok(InputPlaces {
            pixels: input.pixels.pointer(),
            draws: input.draws.pointer(),
            labels: input.labels.pointer(),
        })
    }

    /// Makes what is issued to the compute stream later wait for the upload of `input`.
    pub(super) fn wait_on_gpu(&self, input: &Input) -> Result<()> {
        self.wait(&self.home.streams.compute, &input.arrived)
    }

    /// Lets the next upload into `input` wait for the operations issued so far.
    pub(super) fn done_with(&self, input: &Input) -> Result<()> {
        self.record(&input.used, &self.home.streams.compute)
    }
}

fn stage_labels(labels: &[u32], input: &mut Input) {
    for (to, label) in input
        .staged_labels
        .bytes_mut()
        .chunks_exact_mut(4)
        .zip(labels)
    {
        to.copy_from_slice(&label.to_le_bytes());
    }
}
