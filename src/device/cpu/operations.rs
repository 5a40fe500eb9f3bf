//! The [`Device`] trait for CPUs: each operation is in the file of its name.

use super::team::Shared;
use super::{Buffer, CpuDevice, Input};
use super::{
    activation, augment, dropout, exchange, linear, local_norm, lrn, lrn_pool, matrix, peak, pool,
    sgd, softmax,
};
use crate::batch::{Batch, HostAllocator, pageable};
use crate::device::rendezvous::Rendezvous;
use crate::device::{
    Activated, ConvGradients, Device, Dropped, Mask, Peak, Rule, Score, Sink, Update, unscaled,
};
use crate::error::Result;
use crate::network::op::{Activation, Conv, Dropout, Linear, LocalNorm, Lrn, Pool};

/// The elements of the parts of an operand, of which there are one or two.
fn slices<'a>(parts: &[&'a Buffer]) -> [&'a [f32]; 2] {
    [parts[0], parts[parts.len() - 1]]
}

impl Device for CpuDevice {
    type Buffer = Buffer;
    type Input = Input;
    type Mailbox = Rendezvous<Buffer>;
    type Tally = Score;
    type Graph = std::convert::Infallible;

    fn name(&self) -> String {
        format!(
            "CPU, {} thread{}",
            self.team.threads(),
            if self.team.threads() == 1 { "" } else { "s" }
        )
    }

    fn fuses_linear_update(&self) -> bool {
        true
    }

    fn peak(&mut self) -> Result<Option<Peak>> {
        peak::measure(&mut self.team).map(Some)
    }

    fn allocate(&mut self, elements: usize) -> Result<Buffer> {
        let buffer = Buffer::new(elements)?;
        self.bytes += buffer.bytes();
        Ok(buffer)
    }

    fn allocated_bytes(&self) -> usize {
        self.bytes + self.team.bytes()
    }

    fn host_allocator(&self) -> HostAllocator {
        pageable()
    }

    fn upload(&mut self, source: &[f32], target: &mut Buffer) -> Result<()> {
        target[..source.len()].copy_from_slice(source);
        Ok(())
    }

    fn download(&mut self, source: &Buffer, target: &mut [f32]) -> Result<()> {
        target.copy_from_slice(&source[..target.len()]);
        Ok(())
    }

    fn upload_matrix(
        &mut self,
        rows: usize,
        columns: usize,
        source: &[f32],
        target: &mut Buffer,
    ) -> Result<()> {
        matrix::pack(rows, columns, source, target);
        Ok(())
    }

    fn download_matrix(
        &mut self,
        rows: usize,
        columns: usize,
        source: &Buffer,
        target: &mut [f32],
    ) -> Result<()> {
        matrix::unpack(rows, columns, source, target);
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }

    fn allocate_input(&mut self, images: usize, crop: usize) -> Result<Input> {
        let input = Input::new(images, crop);
        self.bytes += input.bytes();
        Ok(input)
    }

    fn upload_input(&mut self, batch: &Batch, input: &mut Input) -> Result<()> {
        input.fill(batch);
        Ok(())
    }

    fn input_arrived(&mut self, _input: &Input) -> Result<()> {
        Ok(())
    }

    fn upload_labels(&mut self, labels: &[u32], input: &mut Input) -> Result<()> {
        input.set_labels(labels);
        Ok(())
    }

    fn augment(
        &mut self,
        images: usize,
        input: &Input,
        side: usize,
        mean: &Buffer,
        x: &mut Buffer,
    ) -> Result<()> {
        let elements = images * input.image_len();
        augment::augment(&self.team.workers, input, side, mean, &mut x[..elements]);
        Ok(())
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
        let (x, weights) = (&slices(x)[..x.len()], &slices(weights)[..weights.len()]);
        self.conv
            .forward(&mut self.team, op, images, x, weights, bias, y)
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
        self.conv
            .backward_data(&mut self.team, op, images, dy, weights, dx)?;
        if let Some(Activated { activation, y }) = before {
            let dx = &mut dx[..images * op.input.len()];
            activation::backward(&self.team.workers, activation, y, dx);
        }
        Ok(())
    }

    fn conv_backward_weights(
        &mut self,
        op: &Conv,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        to: ConvGradients<'_, Buffer>,
    ) -> Result<()> {
        let (team, accumulate) = (&mut self.team, to.accumulate);
        self.conv
            .backward_weights(team, op, images, x, dy, accumulate, to.weights)?;
        match to.bias {
            Some(bias) => {
                let (rows, outputs) = (images * op.output.pixels(), op.output.maps);
                linear::bias_backward(team, rows, outputs, dy, accumulate, bias)
            }
            None => Ok(()),
        }
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
        let (x, weights) = (&slices(x)[..x.len()], &slices(weights)[..weights.len()]);
        linear::forward(&mut self.team, op, images, x, weights, bias, y)?;
        match dropped {
            Some(Dropped { op, mask }) => self.dropout_forward(op, images, &mask, y),
            None => Ok(()),
        }
    }

    fn linear_backward_data(
        &mut self,
        op: &Linear,
        images: usize,
        dy: &Buffer,
        weights: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        linear::backward_data(&mut self.team, op, images, dy, weights, dx)
    }

    fn linear_backward_weights(
        &mut self,
        op: &Linear,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        sink: Sink<'_, Buffer>,
    ) -> Result<()> {
        linear::backward_weights(&mut self.team, op, images, x, dy, sink)
    }

    fn bias_backward(
        &mut self,
        rows: usize,
        outputs: usize,
        dy: &Buffer,
        accumulate: bool,
        gradient: &mut Buffer,
    ) -> Result<()> {
        linear::bias_backward(&mut self.team, rows, outputs, dy, accumulate, gradient)
    }

    fn activation_forward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        activation::forward(&self.team.workers, activation, &mut y[..elements]);
        Ok(())
    }

    fn activation_backward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &Buffer,
        dy: &mut Buffer,
    ) -> Result<()> {
        activation::backward(&self.team.workers, activation, y, &mut dy[..elements]);
        Ok(())
    }

    fn lrn_forward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        y: &mut Buffer,
    ) -> Result<()> {
        lrn::forward(&mut self.team, op, images, &slices(x)[..x.len()], y)
    }

    fn lrn_backward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        dy: &Buffer,
        dx: &mut [&mut Buffer],
    ) -> Result<()> {
        let x = &slices(x)[..op.parts];
        match dx {
            [one] => lrn::backward(&mut self.team, op, images, x, dy, &[Shared::new(one)]),
            [own, other] => {
                let dx = [Shared::new(own), Shared::new(other)];
                lrn::backward(&mut self.team, op, images, x, dy, &dx)
            }
            _ => unreachable!("one part or two"),
        }
    }

    fn local_norm_forward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        local_norm::forward(&mut self.team, op, images, x, y)
    }

    fn local_norm_backward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        local_norm::backward(&mut self.team, op, images, x, dy, dx)
    }

    fn pool_forward(&mut self, op: &Pool, images: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        pool::forward(&mut self.team, op, images, x, y)
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
        pool::backward(&mut self.team, op, images, x, y, dy, dx)
    }

    fn lrn_pool_forward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        lrn_pool::forward(&mut self.team, lrn, pool, images, x, y)
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
        lrn_pool::backward(&mut self.team, lrn, pool, images, x, y, dy, dx)
    }

    fn dropout_forward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        dropout::forward(&mut self.team, op, images, mask, y);
        Ok(())
    }

    fn dropout_backward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Buffer>,
        before: Option<Activated<'_, Buffer>>,
        dy: &mut Buffer,
    ) -> Result<()> {
        dropout::backward(&mut self.team, op, images, mask, before, dy);
        Ok(())
    }

    fn scale(&mut self, elements: usize, factor: f32, y: &mut Buffer) -> Result<()> {
        activation::scale(&self.team.workers, factor, &mut y[..elements]);
        Ok(())
    }

    fn copy(&mut self, elements: usize, from: &Buffer, into: &mut Buffer) -> Result<()> {
        into[..elements].copy_from_slice(&from[..elements]);
        Ok(())
    }

    fn add(&mut self, elements: usize, from: &Buffer, into: &mut Buffer) -> Result<()> {
        activation::add(&self.team.workers, from, &mut into[..elements]);
        Ok(())
    }

    fn softmax_forward(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Buffer,
        probabilities: &mut Buffer,
    ) -> Result<()> {
        let probabilities = &mut probabilities[..images * classes];
        softmax::forward(&self.team.workers, classes, logits, probabilities);
        Ok(())
    }

    fn score(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Buffer,
        input: &Input,
        tally: &mut Score,
    ) -> Result<()> {
        softmax::score(classes, &logits[..images * classes], &input.labels, tally);
        Ok(())
    }

    fn softmax_backward(
        &mut self,
        classes: usize,
        images: usize,
        probabilities: &Buffer,
        input: &Input,
        (scale, loss_scale): (f32, Option<&Buffer>),
        dlogits: &mut Buffer,
    ) -> Result<()> {
        if loss_scale.is_some() {
            return Err(unscaled(self));
        }
        let dlogits = &mut dlogits[..images * classes];
        let labels = &input.labels;
        softmax::backward(
            &self.team.workers,
            classes,
            probabilities,
            labels,
            scale,
            dlogits,
        );
        Ok(())
    }

    fn allocate_tally(&mut self) -> Result<Score> {
        Ok(Score::default())
    }

    fn peek_tally(&self, tally: &Score) -> Option<Score> {
        Some(*tally)
    }

    fn take_tally(&mut self, tally: &mut Score) -> Result<Score> {
        Ok(std::mem::take(tally))
    }

    fn update(
        &mut self,
        updates: &mut [Update<'_, Buffer>],
        loss_scale: Option<&Buffer>,
    ) -> Result<()> {
        for update in updates {
            let (Rule::Now(op), None) = (&update.rule, loss_scale) else {
                return Err(unscaled(self));
            };
            let weights = &mut update.weights[..update.elements];
            let momentum = &mut update.momentum[..update.elements];
            sgd::sgd(&self.team.workers, op, weights, momentum, update.gradient);
        }
        Ok(())
    }

    fn mailbox(
        _sender: &mut Self,
        receiver: &mut Self,
        elements: usize,
    ) -> Result<Rendezvous<Buffer>> {
        Ok(Rendezvous::new(receiver.allocate(elements)?))
    }

    fn send(&mut self, from: &Buffer, elements: usize, to: &Rendezvous<Buffer>) -> Result<()> {
        exchange::send(from, elements, to)
    }

    fn receive(&mut self, from: &Rendezvous<Buffer>, inbox: &mut Buffer) -> Result<()> {
        exchange::receive(from, inbox)
    }

    fn abandon(mailbox: &Rendezvous<Buffer>) {
        mailbox.abandon();
    }
}
