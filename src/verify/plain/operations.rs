//! The [`Device`] trait for the reference; what takes more than a few lines is in the file of its name.

use super::{Buffer, Input, Plain};
use super::{augment, dropout, maps, softmax, weighted};
use crate::batch::{Batch, HostAllocator, pageable};
use crate::device::rendezvous::Rendezvous;
use crate::device::{
    Activated, ConvGradients, Device, Dropped, Mask, Rule, Score, Sink, Update, unscaled,
};
use crate::error::Result;
use crate::network::op::{Activation, Conv, Dropout, Linear, LocalNorm, Lrn, Pool};

/// References to the elements of every part.
fn parts<'a>(all: &[&'a Buffer]) -> Vec<&'a [f32]> {
    all.iter().map(|part| &part[..]).collect()
}

impl Device for Plain {
    type Buffer = Buffer;
    type Input = Input;
    type Mailbox = Rendezvous<Buffer>;
    type Tally = Score;
    type Graph = std::convert::Infallible;

    fn name(&self) -> String {
        "plain float64 reference".into()
    }
    fn fuses_linear_update(&self) -> bool {
        false
    }
    fn allocate(&mut self, elements: usize) -> Result<Buffer> {
        self.bytes += 4 * elements;
        Ok(vec![0.0; elements])
    }
    fn allocated_bytes(&self) -> usize {
        self.bytes
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
    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }

    fn allocate_input(&mut self, _images: usize, crop: usize) -> Result<Input> {
        Ok(Input {
            crop,
            ..Input::default()
        })
    }
    fn upload_input(&mut self, batch: &Batch, input: &mut Input) -> Result<()> {
        *input = Input {
            pixels: batch.used_pixels().to_vec(),
            crop: batch.crop,
            draws: batch.draws.clone(),
            labels: batch.labels.clone(),
        };
        Ok(())
    }
    fn input_arrived(&mut self, _input: &Input) -> Result<()> {
        Ok(())
    }
    fn upload_labels(&mut self, labels: &[u32], input: &mut Input) -> Result<()> {
        input.labels = labels.to_vec();
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
        augment::augment(images, input, side, mean, x);
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
        weighted::conv_forward(op, images, &parts(x), &parts(weights), bias, y);
        Ok(())
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
        weighted::conv_data(op, images, dy, weights, dx);
        if let Some(Activated { activation, y }) = before {
            weighted::slope(Some(activation), y, dx);
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
        weighted::conv_weights(op, images, x, dy, to.accumulate, to.weights);
        match to.bias {
            Some(bias) => {
                let (rows, outputs) = (images * op.output.pixels(), op.output.maps);
                self.bias_backward(rows, outputs, dy, to.accumulate, bias)
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
        weighted::linear_forward(op, images, &parts(x), &parts(weights), bias, y);
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
        weighted::linear_data(op, images, dy, weights, dx);
        Ok(())
    }
    fn linear_backward_weights(
        &mut self,
        op: &Linear,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        sink: Sink<'_, Buffer>,
    ) -> Result<()> {
        match sink {
            Sink::Gradient { into, accumulate } => {
                weighted::linear_weights(op, images, x, dy, accumulate, into);
            }
            Sink::Update {
                weights,
                momentum,
                sgd,
            } => {
                let mut gradient = vec![0.0; op.depth() * op.outputs];
                weighted::linear_weights(op, images, x, dy, false, &mut gradient);
                let rule = Rule::Now(&sgd);
                let update = Update {
                    rule,
                    elements: gradient.len(),
                    weights,
                    momentum,
                    gradient: &gradient,
                };
                self.update(&mut [update], None)?;
            }
        }
        Ok(())
    }
    fn bias_backward(
        &mut self,
        rows: usize,
        outputs: usize,
        dy: &Buffer,
        accumulate: bool,
        gradient: &mut Buffer,
    ) -> Result<()> {
        let mut sums = vec![0.0; outputs];
        for row in dy[..rows * outputs].chunks_exact(outputs) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, d)| *s += f64::from(*d));
        }
        weighted::store(&sums, accumulate, gradient);
        Ok(())
    }

    fn activation_forward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        for y in &mut y[..elements] {
            *y = weighted::activate(Some(activation), f64::from(*y)) as f32;
        }
        Ok(())
    }
    fn activation_backward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &Buffer,
        dy: &mut Buffer,
    ) -> Result<()> {
        weighted::slope(Some(activation), &y[..elements], dy);
        Ok(())
    }
    fn lrn_forward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        y: &mut Buffer,
    ) -> Result<()> {
        maps::lrn_forward(op, images, &parts(x), y);
        Ok(())
    }
    fn lrn_backward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        dy: &Buffer,
        dx: &mut [&mut Buffer],
    ) -> Result<()> {
        let dy: Vec<f64> = dy.iter().map(|&d| f64::from(d)).collect();
        let all = maps::lrn_backward(op, images, &parts(x), &dy);
        for (part, values) in dx.iter_mut().zip(all) {
            part[..values.len()].copy_from_slice(&values);
        }
        Ok(())
    }
    fn local_norm_forward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        maps::local_norm_forward(op, images, x, y);
        Ok(())
    }
    fn local_norm_backward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        maps::local_norm_backward(op, images, x, dy, dx);
        Ok(())
    }
    fn pool_forward(&mut self, op: &Pool, images: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        maps::pool_forward(op, images, &x, y);
        Ok(())
    }
    fn pool_backward(
        &mut self,
        op: &Pool,
        images: usize,
        input: &Buffer,
        _y: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let x: Vec<f64> = input.iter().map(|&x| f64::from(x)).collect();
        for (dx, d) in dx.iter_mut().zip(maps::pool_backward(op, images, &x, dy)) {
            *dx = d as f32;
        }
        weighted::slope(op.activated, input, dx);
        Ok(())
    }
    fn lrn_pool_forward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let normalised = maps::normalised(lrn, images, &[x]);
        maps::pool_forward(pool, images, &normalised, y);
        Ok(())
    }
    fn lrn_pool_backward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Buffer,
        _y: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let normalised = maps::normalised(lrn, images, &[x]);
        let between = maps::pool_backward(pool, images, &normalised, dy);
        let all = maps::lrn_backward(lrn, images, &[x], &between);
        dx[..all[0].len()].copy_from_slice(&all[0]);
        weighted::slope(pool.activated, x, dx);
        Ok(())
    }
    fn dropout_forward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        dropout::apply(op, mask, &mut y[..images * op.units]);
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
        let dy = &mut dy[..images * op.units];
        dropout::apply(op, mask, dy);
        if let Some(Activated { activation, y }) = before {
            let undropped: Vec<f32> = y.iter().map(|y| y / op.training_scale()).collect();
            weighted::slope(Some(activation), &undropped, dy);
        }
        Ok(())
    }
    fn scale(&mut self, elements: usize, factor: f32, y: &mut Buffer) -> Result<()> {
        y[..elements].iter_mut().for_each(|y| *y *= factor);
        Ok(())
    }
    fn copy(&mut self, elements: usize, from: &Buffer, into: &mut Buffer) -> Result<()> {
        into[..elements].copy_from_slice(&from[..elements]);
        Ok(())
    }
    fn add(&mut self, elements: usize, from: &Buffer, into: &mut Buffer) -> Result<()> {
        let pairs = into[..elements].iter_mut().zip(from);
        pairs.for_each(|(into, from)| *into += from);
        Ok(())
    }

    fn softmax_forward(
        &mut self,
        classes: usize,
        images: usize,
        logits: &Buffer,
        probabilities: &mut Buffer,
    ) -> Result<()> {
        softmax::forward(classes, images, logits, probabilities);
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
        softmax::score(classes, images, logits, &input.labels, tally);
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
        softmax::backward(classes, probabilities, &input.labels, scale, dlogits);
        Ok(())
    }
    fn allocate_tally(&mut self) -> Result<Score> {
        Ok(Score::default())
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
            let [rate, keep, decay] = [op.rate, op.momentum, op.decay].map(f64::from);
            let weights = update.weights[..update.elements].iter_mut();
            for ((w, v), g) in weights.zip(&mut *update.momentum).zip(update.gradient) {
                let wide = f64::from(*w);
                let step = keep * f64::from(*v) - decay * rate * wide - rate * f64::from(*g);
                (*v, *w) = (step as f32, (wide + step) as f32);
            }
        }
        Ok(())
    }

    fn mailbox(_: &mut Self, receiver: &mut Self, elements: usize) -> Result<Self::Mailbox> {
        Ok(Rendezvous::new(receiver.allocate(elements)?))
    }
    fn send(&mut self, from: &Buffer, elements: usize, to: &Self::Mailbox) -> Result<()> {
        to.put(|slot| {
            *slot = from[..elements].to_vec();
            Ok(())
        })
    }
    fn receive(&mut self, from: &Self::Mailbox, inbox: &mut Buffer) -> Result<()> {
        from.take(|slot| {
            inbox[..slot.len()].copy_from_slice(slot);
            Ok(())
        })
    }
    fn abandon(mailbox: &Self::Mailbox) {
        mailbox.abandon();
    }
}
