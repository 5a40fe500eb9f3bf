//! What a device is: a place with memory that can run the network's operations.
//!
//! `cpu` and `cuda` implement [`Device`], one file per operation, under the stem the operation's
//! kernel file has. A device knows operations ([`crate::network::op`]) and buffers, not layers.
//!
//! Conventions: buffers are in the layout of [`op`](crate::network::op) (images outermost, maps
//! innermost) and at least as large as an operation needs. They hold f32, but for maps and their
//! gradients, which a device may hold in 16 bits ([`Precision`]); [`Device::allocate_maps`] makes
//! those. `images` is the number of images in use, at most the batch the device was opened for.
//! Operations are ordered as issued; they may run later, so an error can surface at a later call.

mod arguments;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod loss_scale;
pub mod rendezvous;

use crate::batch::{Batch, HostAllocator};
use crate::error::{Error, Result, device, usage};
use crate::network::op::{Activation, Conv, Dropout, Linear, LocalNorm, Lrn, Pool};
use crate::precision::Precision;
pub use arguments::{
    Activated, ConvGradients, Dropped, Link, Mask, Peak, Rule, Score, Sink, Update,
};

/// Memory and operations of one device. Sizes are in elements, not bytes.
pub trait Device: Send + Sized {
    /// Device memory of numbers.
    type Buffer: Send;
    /// Device memory for a batch's 8-bit crops, draws and labels.
    type Input: Send;
    /// A one-way channel from one device to another, with the memory messages arrive in.
    type Mailbox: Send + Sync;
    /// Sums of loss and errors on the device.
    type Tally: Send;
    /// Operations captured to be launched as a whole.
    type Graph: Send;

    /// "CPU, 1 thread", "GPU 0, NVIDIA H200": as messages name it.
    fn name(&self) -> String;

    /// Whether [`Sink::Update`] saves memory traffic here (else the engine gives gradients room).
    fn fuses_linear_update(&self) -> bool;

    /// What it can do at most, where that can be told.
    fn peak(&mut self) -> Result<Option<Peak>> {
        Ok(None)
    }

    /// What the device would compute in if it were asked to in `wanted`: that, or f32 with a
    /// warning where it lacks the units.
    ///
    /// # Errors
    /// `Usage` where a device of this kind never does.
    fn precision_for(&self, wanted: Precision) -> Result<Precision> {
        match wanted {
            Precision::F32 => Ok(wanted),
            _ => Err(usage(format!(
                "--precision {wanted} (train.precision): {} computes in f32 only; take GPUs, or f32",
                self.name()
            ))),
        }
    }
    /// Makes the device compute in a precision that it has; for buffers allocated from here on.
    fn set_precision(&mut self, precision: Precision) -> Result<()> {
        self.precision_for(precision).map(drop)
    }

    /// Bytes of its memory that are free, and in all, where it has memory of its own.
    fn free_memory(&self) -> Option<(usize, usize)> {
        None
    }

    /// Zero-filled memory.
    fn allocate(&mut self, elements: usize) -> Result<Self::Buffer>;
    /// The same for maps and their gradients, in the type that the device's precision holds them in.
    fn allocate_maps(&mut self, elements: usize) -> Result<Self::Buffer> {
        self.allocate(elements)
    }
    /// The same for weights: f32, and a copy as operands of products where those are of another type.
    fn allocate_weights(&mut self, elements: usize) -> Result<Self::Buffer> {
        self.allocate(elements)
    }
    /// Bytes allocated on this device by now, work space included.
    fn allocated_bytes(&self) -> usize;
    /// Bytes of its memory that a buffer of so many takes.
    fn taken(&self, bytes: usize) -> usize {
        bytes
    }
    /// Memory for host-side batches that this device uploads fastest from.
    fn host_allocator(&self) -> HostAllocator;
    /// Copies `source` to the start of `target`; done when it returns.
    fn upload(&mut self, source: &[f32], target: &mut Self::Buffer) -> Result<()>;
    /// Copies the start of `source`; waits for everything issued before.
    fn download(&mut self, source: &Self::Buffer, target: &mut [f32]) -> Result<()>;
    /// As [`upload`](Device::upload) and [`download`](Device::download), for a weight matrix of
    /// `rows` × `columns` in row order; a device may store it as its kernels like it. So every
    /// weight matrix, of convolutions too, its momentum and its gradient go this way.
    fn upload_matrix(
        &mut self,
        rows: usize,
        columns: usize,
        source: &[f32],
        target: &mut Self::Buffer,
    ) -> Result<()> {
        debug_assert_eq!(rows * columns, source.len());
        self.upload(source, target)
    }
    /// See [`upload_matrix`](Device::upload_matrix).
    fn download_matrix(
        &mut self,
        rows: usize,
        columns: usize,
        source: &Self::Buffer,
        target: &mut [f32],
    ) -> Result<()> {
        debug_assert_eq!(rows * columns, target.len());
        self.download(source, target)
    }
    /// Writes words to the start of `to` without waiting, ordered with the operations.
    fn write_words(&mut self, words: &[u32], to: &mut Self::Buffer) -> Result<()> {
        let values: Vec<f32> = words.iter().map(|&word| f32::from_bits(word)).collect();
        self.upload(&values, to)
    }
    /// Waits until everything issued is done.
    fn synchronize(&mut self) -> Result<()>;

    // Input.

    /// Room for batches of `images` crops of `crop` × `crop` pixels.
    fn allocate_input(&mut self, images: usize, crop: usize) -> Result<Self::Input>;
    /// Copies a batch to the device; may still be reading `batch` when it returns, until
    /// [`input_arrived`](Device::input_arrived).
    fn upload_input(&mut self, batch: &Batch, input: &mut Self::Input) -> Result<()>;
    /// Waits until the last `upload_input` into `input` has read its batch.
    fn input_arrived(&mut self, input: &Self::Input) -> Result<()>;
    /// Labels alone, for images uploaded as f32.
    fn upload_labels(&mut self, labels: &[u32], input: &mut Self::Input) -> Result<()>;
    /// Makes the network's input from 8-bit crops as [`crate::batch::Draw`] says. `mean` is the
    /// mean image of `side` × `side` pixels, `[row][column][colour]`.
    fn augment(
        &mut self,
        images: usize,
        input: &Self::Input,
        side: usize,
        mean: &Self::Buffer,
        x: &mut Self::Buffer,
    ) -> Result<()>;

    // Convolution. `x` and `weights` are one buffer per part.

    /// `y = activation(Σ_parts conv(x_part, weights_part) + bias)`.
    fn conv_forward(
        &mut self,
        op: &Conv,
        images: usize,
        x: &[&Self::Buffer],
        weights: &[&Self::Buffer],
        bias: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// Gradient of one part's input; `dy` is the gradient before the activation. Where that input is `before`'s output,
    /// what is written is the gradient before that activation.
    fn conv_backward_data(
        &mut self,
        op: &Conv,
        images: usize,
        dy: &Self::Buffer,
        weights: &Self::Buffer,
        before: Option<Activated<'_, Self::Buffer>>,
        dx: &mut Self::Buffer,
    ) -> Result<()>;
    /// Gradient of one part's weights, and of the bias where it is asked for, summed over the images.
    fn conv_backward_weights(
        &mut self,
        op: &Conv,
        images: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        to: ConvGradients<'_, Self::Buffer>,
    ) -> Result<()>;

    // Fully connected.

    /// `y = activation(Σ_parts x_part · weights_part + bias)`, then dropout where it is given.
    #[allow(clippy::too_many_arguments)]
    fn linear_forward(
        &mut self,
        op: &Linear,
        images: usize,
        x: &[&Self::Buffer],
        weights: &[&Self::Buffer],
        bias: &Self::Buffer,
        dropped: Option<Dropped<'_, Self::Buffer>>,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// Gradient of one part's input.
    fn linear_backward_data(
        &mut self,
        op: &Linear,
        images: usize,
        dy: &Self::Buffer,
        weights: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;
    /// Gradient of one part's weights, summed over the images, into `sink`.
    fn linear_backward_weights(
        &mut self,
        op: &Linear,
        images: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        sink: Sink<'_, Self::Buffer>,
    ) -> Result<()>;
    /// Gradient of a bias: sums `dy` of `rows` × `outputs` over the rows (images × pixels).
    fn bias_backward(
        &mut self,
        rows: usize,
        outputs: usize,
        dy: &Self::Buffer,
        accumulate: bool,
        gradient: &mut Self::Buffer,
    ) -> Result<()>;

    // Element-wise and per-map operations.

    /// `y = activation(y)` in place.
    fn activation_forward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// `dy = dy · activation'`, in place, the derivative told from the output `y`.
    fn activation_backward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &Self::Buffer,
        dy: &mut Self::Buffer,
    ) -> Result<()>;
    /// See [`Lrn`]; `x` is one buffer per part, own column first.
    fn lrn_forward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Self::Buffer],
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// Gradients of every part of the input, `dx` in the order of `x`.
    fn lrn_backward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Self::Buffer],
        dy: &Self::Buffer,
        dx: &mut [&mut Self::Buffer],
    ) -> Result<()>;
    /// See [`LocalNorm`].
    fn local_norm_forward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    fn local_norm_backward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;
    /// See [`Pool`].
    fn pool_forward(
        &mut self,
        op: &Pool,
        images: usize,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    fn pool_backward(
        &mut self,
        op: &Pool,
        images: usize,
        x: &Self::Buffer,
        y: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;
    /// LRN over the column's own maps, then max pooling, in one pass: the normalised maps are
    /// not kept. Only with `lrn.parts == 1`.
    fn lrn_pool_forward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    #[allow(clippy::too_many_arguments)] // two operations and five operands
    fn lrn_pool_backward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Self::Buffer,
        y: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;
    /// Zeroes dropped units of `y` in place and scales the kept ones by `op.training_scale()`.
    fn dropout_forward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Self::Buffer>,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// `dy = dy · mask · op.training_scale()` in place; where what was dropped is `before`'s output, its derivative
    /// follows. `before.y` is that output as dropout left it.
    fn dropout_backward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Self::Buffer>,
        before: Option<Activated<'_, Self::Buffer>>,
        dy: &mut Self::Buffer,
    ) -> Result<()>;
    /// `y = factor · y` in place.
    fn scale(&mut self, elements: usize, factor: f32, y: &mut Self::Buffer) -> Result<()>;
    /// `into = from`.
    fn copy(&mut self, elements: usize, from: &Self::Buffer, into: &mut Self::Buffer)
    -> Result<()>;
    /// `into = into + from`.
    fn add(&mut self, elements: usize, from: &Self::Buffer, into: &mut Self::Buffer) -> Result<()>;

    // Loss.

    /// Softmax over `classes` logits an image.
    fn softmax_forward(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Self::Buffer,
        probabilities: &mut Self::Buffer,
    ) -> Result<()>;
    /// Multinomial logistic loss and error counts of the probabilities, added to `tally`. Ties
    /// rank the lower class first.
    fn score(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Self::Buffer,
        input: &Self::Input,
        tally: &mut Self::Tally,
    ) -> Result<()>;
    /// `dlogits = (probabilities − one-hot(label)) · scale`; `scale` is a factor, and a [`loss_scale`] state whose
    /// scale multiplies it.
    fn softmax_backward(
        &mut self,
        classes: usize,
        images: usize,
        probabilities: &Self::Buffer,
        input: &Self::Input,
        scale: (f32, Option<&Self::Buffer>),
        dlogits: &mut Self::Buffer,
    ) -> Result<()>;
    fn allocate_tally(&mut self) -> Result<Self::Tally>;
    /// The sums so far, where they can be read without waiting for anything.
    fn peek_tally(&self, tally: &Self::Tally) -> Option<Score> {
        let _ = tally;
        None
    }
    /// Reads the sums, waits for everything issued before, and sets them to zero.
    fn take_tally(&mut self, tally: &mut Self::Tally) -> Result<Score>;

    // Update.

    /// See [`Sgd`]; gradients are scaled as the [`loss_scale`] state says; nothing changes where that says overflow.
    fn update(
        &mut self,
        updates: &mut [Update<'_, Self::Buffer>],
        loss_scale: Option<&Self::Buffer>,
    ) -> Result<()>;
    /// Notes in the state whether a gradient is not finite.
    fn loss_scale_check(
        &mut self,
        elements: usize,
        gradient: &Self::Buffer,
        state: &mut Self::Buffer,
    ) -> Result<()> {
        let _ = (elements, gradient, state);
        Err(unscaled(self))
    }
    /// Notes in the state whether another device's notes an overflow.
    fn loss_scale_merge(&mut self, other: &Self::Buffer, state: &mut Self::Buffer) -> Result<()> {
        let _ = (other, state);
        Err(unscaled(self))
    }
    /// Ends an update: the next step's scale.
    fn loss_scale_update(&mut self, state: &mut Self::Buffer) -> Result<()> {
        let _ = state;
        Err(unscaled(self))
    }

    // Exchange.

    /// How messages travel between two devices, where there is a choice.
    fn link(first: &mut Self, second: &mut Self) -> Result<Option<Link>> {
        let _ = (first, second);
        Ok(None)
    }
    /// A channel from `sender` to `receiver` for messages of `elements` of maps.
    fn mailbox(sender: &mut Self, receiver: &mut Self, elements: usize) -> Result<Self::Mailbox>;
    /// The same for messages that are f32 in every precision.
    fn mailbox_f32(
        sender: &mut Self,
        receiver: &mut Self,
        elements: usize,
    ) -> Result<Self::Mailbox> {
        Self::mailbox(sender, receiver, elements)
    }
    /// Sends the start of `from`. Waits while the receiver has not yet taken the last message.
    fn send(&mut self, from: &Self::Buffer, elements: usize, to: &Self::Mailbox) -> Result<()>;
    /// Takes the next message into `inbox` (of the mailbox's size), waiting for it to be sent. The
    /// bytes may still be on their way: what reads them waits for them.
    fn receive(&mut self, from: &Self::Mailbox, inbox: &mut Self::Buffer) -> Result<()>;
    // Graphs. Without them, `captures` says so and the others are not called.

    /// Whether operations can be captured as a graph.
    fn captures(&self) -> bool {
        false
    }
    /// Grows whenever memory moves that captured operations may use beside their operands.
    fn generation(&self) -> u64 {
        0
    }
    /// From here on, operations of these devices are captured and not run. One thread issues them
    /// all, a message's `send` before its `receive`; no operation waits for the host.
    fn begin_capture(devices: &mut [&mut Self]) -> Result<()> {
        devices.iter().try_for_each(|d| Err(no_graphs(*d)))
    }
    /// Ends the capture.
    fn end_capture(devices: &mut [&mut Self]) -> Result<Self::Graph> {
        Err(no_graphs(devices[0]))
    }
    /// Launches a graph of one or two devices, each with the input it uses. The reason where the
    /// devices refuse: then none of it has run, and they are as they were.
    fn launch_graph(
        graph: &Self::Graph,
        first: (&mut Self, &Self::Input),
        second: Option<(&mut Self, &Self::Input)>,
    ) -> Result<Option<Error>> {
        let _ = (graph, second);
        Err(no_graphs(first.0))
    }
    /// What sending and receiving a message does to buffers on the host's side: `inbox` and the
    /// mailbox's memory change places. Once for each message of a graph that is launched again.
    fn swap_message(mailbox: &Self::Mailbox, inbox: &mut Self::Buffer) -> Result<()> {
        let _ = (mailbox, inbox);
        Ok(())
    }
    /// Makes the waits at this mailbox, now and later, return an error: its other end failed.
    fn abandon(mailbox: &Self::Mailbox);
}

/// The error of a device that scales no loss and reads no constants from its memory.
pub(crate) fn unscaled<D: Device>(d: &D) -> Error {
    device(format!("{}: knows no loss scale", d.name()))
}

fn no_graphs<D: Device>(d: &D) -> Error {
    device(format!("{}: captures no graphs", d.name()))
}
