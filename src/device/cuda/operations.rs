//! The [`Device`] trait for GPUs: each operation is in the file of its name.

use super::buffer::Element;
use super::memory::pinned_allocator;
use super::{Buffer, CudaDevice, Graph, Input, Mailbox, Tally};
use crate::batch::{Batch, HostAllocator};
use crate::device::{
    Activated, ConvGradients, Device, Dropped, Link, Mask, Peak, Score, Sink, Update,
};
use crate::error::{Error, Result, device};
use crate::network::op::{Activation, Conv, Dropout, Linear, LocalNorm, Lrn, Pool};
use crate::precision::Precision;

impl Device for CudaDevice {
    type Buffer = Buffer;
    type Input = Input;
    type Mailbox = Mailbox;
    type Tally = Tally;
    type Graph = Graph;

    fn name(&self) -> String {
        self.home.name.clone()
    }

    /// The product and the update are two passes here as well; only the gradient's memory would be saved.
    fn fuses_linear_update(&self) -> bool {
        false
    }

    fn peak(&mut self) -> Result<Option<Peak>> {
        Ok(super::peak::nominal(self.home.ordinal))
    }

    fn allocate(&mut self, elements: usize) -> Result<Buffer> {
        Buffer::new(&self.home, elements, Element::F32)
    }

    fn allocate_maps(&mut self, elements: usize) -> Result<Buffer> {
        Buffer::new(&self.home, elements, Element::of_maps(self.precision))
    }

    fn allocate_weights(&mut self, elements: usize) -> Result<Buffer> {
        Buffer::with_copy(&self.home, elements, Element::of_maps(self.precision))
    }

    fn precision_for(&self, wanted: Precision) -> Result<Precision> {
        if wanted == Precision::F32 || self.kernels.tensor.is_some() {
            return Ok(wanted);
        }
        let (major, minor) = self.capability;
        tracing::warn!(
            "{}: compute capability {major}.{minor} lacks what {wanted} needs (8.0 has it): computing in f32",
            self.home.name
        );
        Ok(Precision::F32)
    }

    fn set_precision(&mut self, precision: Precision) -> Result<()> {
        self.precision = self.precision_for(precision)?;
        self.blas.set_precision(self.precision)
    }

    fn free_memory(&self) -> Option<(usize, usize)> {
        self.home.bind().ok()?;
        self.home.context.mem_get_info().ok()
    }

    fn taken(&self, bytes: usize) -> usize {
        super::memory::taken(bytes)
    }

    fn allocated_bytes(&self) -> usize {
        self.home.allocated()
    }

    fn host_allocator(&self) -> HostAllocator {
        pinned_allocator(&self.home)
    }

    fn upload(&mut self, source: &[f32], target: &mut Buffer) -> Result<()> {
        self.upload_numbers(source, target)
    }

    fn download(&mut self, source: &Buffer, target: &mut [f32]) -> Result<()> {
        self.download_numbers(source, target)
    }

    fn write_words(&mut self, words: &[u32], to: &mut Buffer) -> Result<()> {
        self.launch_set_words(words, to)
    }

    fn synchronize(&mut self) -> Result<()> {
        let streams = &self.home.streams;
        for stream in [
            &streams.compute,
            &streams.uploads,
            &streams.outgoing,
            &streams.incoming,
        ] {
            self.home.finish(stream)?;
        }
        Ok(())
    }

    fn allocate_input(&mut self, images: usize, crop: usize) -> Result<Input> {
        self.new_input(images, crop)
    }

    fn upload_input(&mut self, batch: &Batch, input: &mut Input) -> Result<()> {
        self.upload_batch(batch, input)
    }

    fn input_arrived(&mut self, input: &Input) -> Result<()> {
        self.wait_for_upload(input)
    }

    fn upload_labels(&mut self, labels: &[u32], input: &mut Input) -> Result<()> {
        self.upload_labels_alone(labels, input)
    }

    fn augment(
        &mut self,
        images: usize,
        input: &Input,
        side: usize,
        mean: &Buffer,
        x: &mut Buffer,
    ) -> Result<()> {
        self.launch_augment(images, input, side, mean, x)
    }

    fn conv_forward(
        &mut self,
        op: &Conv,
        images: usize,
        x: &[&Buffer],
        weights: &[&Buffer],
        bias: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch_conv_forward(op, images, x, weights, bias, y)
    }

    fn conv_backward_data(
        &mut self,
        op: &Conv,
        images: usize,
        dy: &Buffer,
        weights: &Buffer,
        before: Option<Activated<'_, Buffer>>,
        dx: &mut Buffer,
    ) -> Result<()> {
        self.launch_conv_backward_data(op, images, dy, weights, before, dx)
    }

    fn conv_backward_weights(
        &mut self,
        op: &Conv,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        to: ConvGradients<'_, Buffer>,
    ) -> Result<()> {
        self.launch_conv_backward_weights(op, images, x, dy, to)
    }

    fn linear_forward(
        &mut self,
        op: &Linear,
        images: usize,
        x: &[&Buffer],
        weights: &[&Buffer],
        bias: &Buffer,
        dropped: Option<Dropped<'_, Buffer>>,
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch_linear_forward(op, images, x, weights, bias, dropped, y)
    }

    fn linear_backward_data(
        &mut self,
        op: &Linear,
        images: usize,
        dy: &Buffer,
        weights: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        self.launch_linear_backward_data(op, images, dy, weights, dx)
    }

    fn linear_backward_weights(
        &mut self,
        op: &Linear,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        sink: Sink<'_, Buffer>,
    ) -> Result<()> {
        self.launch_linear_backward_weights(op, images, x, dy, sink)
    }

    fn bias_backward(
        &mut self,
        rows: usize,
        outputs: usize,
        dy: &Buffer,
        accumulate: bool,
        gradient: &mut Buffer,
    ) -> Result<()> {
        self.launch_bias_backward(rows, outputs, dy, accumulate, gradient)
    }

    fn activation_forward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch_activation_forward(activation, elements, y)
    }

    fn activation_backward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &Buffer,
        dy: &mut Buffer,
    ) -> Result<()> {
        self.launch_activation_backward(activation, elements, y, dy)
    }

    fn lrn_forward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch_lrn_forward(op, images, x, y)
    }

    fn lrn_backward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        dy: &Buffer,
        dx: &mut [&mut Buffer],
    ) -> Result<()> {
        self.launch_lrn_backward(op, images, x, dy, dx)
    }

    fn local_norm_forward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch_local_norm_forward(op, images, x, y)
    }

    fn local_norm_backward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        self.launch_local_norm_backward(op, images, x, dy, dx)
    }

    fn pool_forward(&mut self, op: &Pool, images: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.launch_pool_forward(op, images, x, y)
    }

    fn pool_backward(
        &mut self,
        op: &Pool,
        images: usize,
        x: &Buffer,
        y: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        self.launch_pool_backward(op, images, x, y, dy, dx)
    }

    fn lrn_pool_forward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch_lrn_pool_forward(lrn, pool, images, x, y)
    }

    fn lrn_pool_backward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Buffer,
        y: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        self.launch_lrn_pool_backward(lrn, pool, images, [x, y, dy], dx)
    }

    fn dropout_forward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch_dropout_forward(op, images, mask, y)
    }

    fn dropout_backward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Buffer>,
        before: Option<Activated<'_, Buffer>>,
        dy: &mut Buffer,
    ) -> Result<()> {
        self.launch_dropout_backward(op, images, mask, before, dy)
    }

    fn scale(&mut self, elements: usize, factor: f32, y: &mut Buffer) -> Result<()> {
        self.launch_scale(elements, factor, y)
    }

    fn copy(&mut self, elements: usize, from: &Buffer, into: &mut Buffer) -> Result<()> {
        self.copy_elements(elements, from, into)
    }

    fn add(&mut self, elements: usize, from: &Buffer, into: &mut Buffer) -> Result<()> {
        self.launch_add(elements, from, into)
    }

    fn softmax_forward(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Buffer,
        probabilities: &mut Buffer,
    ) -> Result<()> {
        self.launch_softmax_forward(classes, images, logits, probabilities)
    }

    fn score(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Buffer,
        input: &Input,
        tally: &mut Tally,
    ) -> Result<()> {
        self.launch_score(classes, images, logits, input, tally)
    }

    fn softmax_backward(
        &mut self,
        classes: usize,
        images: usize,
        probabilities: &Buffer,
        input: &Input,
        scale: (f32, Option<&Buffer>),
        dlogits: &mut Buffer,
    ) -> Result<()> {
        self.launch_softmax_backward([classes, images], probabilities, input, scale, dlogits)
    }

    fn allocate_tally(&mut self) -> Result<Tally> {
        self.new_tally()
    }

    fn take_tally(&mut self, tally: &mut Tally) -> Result<Score> {
        self.read_tally(tally)
    }

    fn update(
        &mut self,
        updates: &mut [Update<'_, Buffer>],
        loss_scale: Option<&Buffer>,
    ) -> Result<()> {
        self.launch_sgd(updates, loss_scale)
    }

    fn loss_scale_check(
        &mut self,
        elements: usize,
        gradient: &Buffer,
        state: &mut Buffer,
    ) -> Result<()> {
        self.launch_loss_scale_check(elements, gradient, state)
    }

    fn loss_scale_merge(&mut self, other: &Buffer, state: &mut Buffer) -> Result<()> {
        self.launch_loss_scale_merge(other, state)
    }

    fn loss_scale_update(&mut self, state: &mut Buffer) -> Result<()> {
        self.launch_loss_scale_update(state)
    }

    fn link(first: &mut Self, second: &mut Self) -> Result<Option<Link>> {
        let found = super::peer::prove(first, second)?;
        let corrupt = found.is_corrupt();
        Ok(Some(Link {
            direct: found.direct,
            reason: found.reason,
            corrupt,
            bandwidth: found.bandwidth,
        }))
    }

    fn mailbox(sender: &mut Self, receiver: &mut Self, elements: usize) -> Result<Mailbox> {
        let element = Element::of_maps(receiver.precision);
        Mailbox::new(sender, receiver, elements, element)
    }

    fn mailbox_f32(sender: &mut Self, receiver: &mut Self, elements: usize) -> Result<Mailbox> {
        Mailbox::new(sender, receiver, elements, Element::F32)
    }

    fn send(&mut self, from: &Buffer, elements: usize, to: &Mailbox) -> Result<()> {
        self.send_message(from, elements, to)
    }

    fn receive(&mut self, from: &Mailbox, inbox: &mut Buffer) -> Result<()> {
        if from.is_for(self) {
            return self.receive_message(from, inbox);
        }
        Err(device(format!(
            "{}: received from another device's mailbox",
            self.home.name
        )))
    }

    fn captures(&self) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn begin_capture(devices: &mut [&mut Self]) -> Result<()> {
        super::graph::begin(devices)
    }

    fn end_capture(devices: &mut [&mut Self]) -> Result<Graph> {
        super::graph::end(devices)
    }

    fn launch_graph(
        graph: &Graph,
        first: (&mut Self, &Input),
        second: Option<(&mut Self, &Input)>,
    ) -> Result<Option<Error>> {
        graph.launch(first, second)
    }

    fn swap_message(mailbox: &Mailbox, inbox: &mut Buffer) -> Result<()> {
        mailbox.swap(inbox)
    }

    fn abandon(mailbox: &Mailbox) {
        mailbox.abandon();
    }
}
