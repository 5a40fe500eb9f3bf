//! Softmax, loss and error counts; `kernels/softmax.cu`.

use super::geometry::{Divider, int};
use super::memory::{Memory, Pinned};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice, Input};
use crate::batch::HostMemory;
use crate::device::Score;
use crate::error::{Result, device};
use cudarc::driver::result;

/// Threads of a block, as in the kernels.
const THREADS: u32 = 128;
/// Bytes of the kernels' `Tally` and `ImageScore`.
const TALLY: usize = 24;
const IMAGE_SCORE: usize = 12;

/// Sums of loss and errors on the GPU, and the pinned memory they are read through.
pub struct Tally {
    sums: Memory,
    host: Pinned,
}

impl CudaDevice {
    pub(super) fn launch_softmax_forward(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Buffer,
        probabilities: &mut Buffer,
    ) -> Result<()> {
        int(images * classes)?;
        self.expect_f32(&[logits, probabilities])?;
        let logits = self.input(logits, images * classes)?;
        let (probabilities, classes) =
            (self.output(probabilities, images * classes)?, int(classes)?);
        let grid = Grid {
            blocks: [images, 1, 1],
            threads: THREADS,
        };
        // SAFETY: both buffers were checked to hold a row for each image.
        unsafe {
            self.launch(
                &self.kernels.softmax_forward,
                grid,
                arguments![logits, probabilities, classes],
            )
        }
    }

    pub(super) fn launch_softmax_backward(
        &mut self,
        [classes, images]: [usize; 2],
        probabilities: &Buffer,
        input: &Input,
        (scale, loss_scale): (f32, Option<&Buffer>),
        dlogits: &mut Buffer,
    ) -> Result<()> {
        let elements = images * classes;
        self.expect_f32(&[probabilities])?;
        let (element, loss_scale) = (dlogits.element(), self.loss_scale(loss_scale)?);
        let (p, d) = (
            self.input(probabilities, elements)?,
            self.output(dlogits, elements)?,
        );
        let (count, divider) = (int(elements)?, Divider::new(classes)?);
        let labels = self.input_places(input, images)?.labels;
        // SAFETY: the buffers were checked to hold `elements`, the input a label for each image.
        unsafe {
            self.launch(
                self.kernels.softmax_backward.of(element),
                Grid::for_each(elements),
                arguments![p, labels, d, count, scale, loss_scale, divider],
            )
        }?;
        self.done_with(input)
    }

    pub(super) fn launch_score(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Buffer,
        input: &Input,
        tally: &mut Tally,
    ) -> Result<()> {
        if tally.sums.home.context.cu_ctx() != self.home.context.cu_ctx() {
            return Err(device(format!(
                "{}: a score was given another GPU's tally",
                self.home.name
            )));
        }
        int(images * classes)?;
        self.expect_f32(&[logits])?;
        let logits = self.input(logits, images * classes)?;
        let scores = self.workspace(images * IMAGE_SCORE)?;
        let (classes, count, sums) = (int(classes)?, int(images)?, tally.sums.pointer());
        let labels = self.input_places(input, images)?.labels;
        let grid = |blocks| Grid {
            blocks: [blocks, 1, 1],
            threads: THREADS,
        };
        // SAFETY: the buffers were checked to hold a row or a label for each image, the work space a score.
        unsafe {
            self.launch(
                &self.kernels.score_images,
                grid(images),
                arguments![logits, labels, scores, classes],
            )?;
            self.launch(
                &self.kernels.score_add,
                grid(1),
                arguments![scores, sums, count],
            )
        }?;
        self.done_with(input)
    }

    pub(super) fn new_tally(&mut self) -> Result<Tally> {
        Ok(Tally {
            sums: Memory::new(&self.home, TALLY)?,
            host: Pinned::new(&self.home, TALLY)?,
        })
    }

    pub(super) fn read_tally(&mut self, tally: &mut Tally) -> Result<Score> {
        self.home.bind()?;
        let (sums, stream) = (
            tally.sums.pointer().0,
            self.home.streams.compute.cu_stream(),
        );
        // SAFETY: both sides hold the tally; the host reads it after the wait below.
        let read = unsafe {
            result::memcpy_dtoh_async(tally.host.bytes_mut(), sums, stream)
                .and_then(|()| result::memset_d8_async(sums, 0, TALLY, stream))
        };
        self.home.check("reading the loss", read)?;
        self.finish()?;
        let words: Vec<[u8; 8]> = tally
            .host
            .bytes()
            .chunks_exact(8)
            .filter_map(|w| w.try_into().ok())
            .collect();
        match words[..] {
            [loss, top1, top5] => Ok(Score {
                loss: f64::from_le_bytes(loss),
                top1_errors: u64::from_le_bytes(top1),
                top5_errors: u64::from_le_bytes(top5),
            }),
            _ => Err(device("a tally of the wrong size")),
        }
    }
}
