//! Whole tensors in and out of an engine: parameters, momentum, gradients, masks, activations.

use super::rank::{Rank, Share};
use super::{Engine, Work};
use crate::device::Device;
use crate::error::{Result, usage};
use crate::network::op::Shape;
use crate::network::params::{Param, Tensor, Tensors};
use crate::network::plan::{Plan, SlotId};

/// Which tensors of a parameter are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Values,
    Momentum,
    Gradients,
}

impl<D: Device> Engine<D> {
    /// Sets weights and biases.
    ///
    /// # Errors
    /// `Checkpoint` where a tensor is missing or has another shape than the plan's.
    pub fn set_parameters(&mut self, tensors: &Tensors) -> Result<()> {
        self.set(Kind::Values, tensors)
    }

    /// Sets the momentum of weights and biases.
    pub fn set_momentum(&mut self, tensors: &Tensors) -> Result<()> {
        self.set(Kind::Momentum, tensors)
    }

    /// Weights and biases as whole tensors.
    pub fn parameters(&mut self) -> Result<Tensors> {
        self.get(Kind::Values)
    }

    /// Momentum as whole tensors, named like the parameters.
    pub fn momentum(&mut self) -> Result<Tensors> {
        self.get(Kind::Momentum)
    }

    /// Gradients of the last step without weight decay, named like the parameters. Only where the
    /// engine keeps gradients.
    pub fn gradients(&mut self) -> Result<Tensors> {
        let mut gradients = self.get(Kind::Gradients)?;
        if let Some((_, factor)) = self.ranks[0].loss_scale()? {
            for tensor in &mut gradients.0 {
                tensor.values.iter_mut().for_each(|v| *v /= factor);
            }
        }
        Ok(gradients)
    }

    /// Sets the masks that [`super::Dropping::Given`] uses: per dropout layer
    /// `[images, all units]`, column 0's units first, 0 dropped, 1 kept.
    pub fn set_masks(&mut self, masks: &[Vec<f32>]) -> Result<()> {
        for rank in &mut self.ranks {
            for column in &mut rank.columns {
                for (lane, whole) in masks.iter().enumerate() {
                    let own = columns_share(whole, self.images, self.plan.columns, column.index);
                    let mut buffer = rank.device.allocate(own.len())?;
                    rank.device.upload(&own, &mut buffer)?;
                    column.masks[lane] = buffer;
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, kind: Kind, tensors: &Tensors) -> Result<()> {
        tensors.check(&self.plan.params)?;
        self.watched(Work::Copy, |engine| engine.overwrite(kind, tensors))
    }

    fn overwrite(&mut self, kind: Kind, tensors: &Tensors) -> Result<()> {
        for (id, param) in self.plan.params.iter().enumerate() {
            let weight = tensors.expect(&param.weight_name(), &param.weight_shape())?;
            let bias = tensors.expect(&param.bias_name(), &[param.all_outputs()])?;
            for rank in &mut self.ranks {
                for column in &mut rank.columns {
                    let Some(share) = column.shares[id].as_mut() else {
                        continue;
                    };
                    let index = column.index;
                    let (matrices, share_bias) = share.of(kind)?;
                    for (part, target) in matrices.iter_mut().enumerate() {
                        let matrix = param.matrix(index, part, &weight.values);
                        rank.device.upload_matrix(
                            param.depth(),
                            param.outputs(),
                            &matrix,
                            target,
                        )?;
                    }
                    let outputs = param.outputs();
                    rank.device
                        .upload(&bias.values[index * outputs..][..outputs], share_bias)?;
                }
            }
        }
        Ok(())
    }

    fn get(&mut self, kind: Kind) -> Result<Tensors> {
        self.watched(Work::Copy, |engine| engine.copy(kind))
    }

    fn copy(&mut self, kind: Kind) -> Result<Tensors> {
        let mut tensors = Tensors::zeros(&self.plan.params);
        for (id, param) in self.plan.params.iter().enumerate() {
            let [weight, bias] = &mut tensors.0[2 * id..2 * id + 2] else {
                unreachable!("two a layer")
            };
            for rank in &mut self.ranks {
                read_param(rank, param, id, kind, weight, bias)?;
            }
        }
        Ok(tensors)
    }
}

/// Reads one rank's shares of a parameter into the whole tensors.
fn read_param<D: Device>(
    rank: &mut Rank<D>,
    param: &Param,
    id: usize,
    kind: Kind,
    weight: &mut Tensor,
    bias: &mut Tensor,
) -> Result<()> {
    let outputs = param.outputs();
    let mut matrix = vec![0.0; param.depth() * outputs];
    for column in &mut rank.columns {
        let Some(share) = column.shares[id].as_mut() else {
            continue;
        };
        let index = column.index;
        let (matrices, share_bias) = share.of(kind)?;
        for (part, source) in matrices.iter().enumerate() {
            rank.device
                .download_matrix(param.depth(), outputs, source, &mut matrix)?;
            param.put_matrix(index, part, &matrix, &mut weight.values);
        }
        rank.device
            .download(share_bias, &mut bias.values[index * outputs..][..outputs])?;
    }
    Ok(())
}

impl<B> Share<B> {
    fn of(&mut self, kind: Kind) -> Result<(&mut [B], &mut B)> {
        match kind {
            Kind::Values => Ok((&mut self.weights, &mut self.bias)),
            Kind::Momentum => Ok((&mut self.momentum, &mut self.bias_momentum)),
            Kind::Gradients => match &mut self.gradients {
                Some(gradients) => Ok((gradients, &mut self.bias_gradient)),
                None => Err(usage(
                    "gradients were folded into the update; ask the engine to keep them",
                )),
            },
        }
    }
}

/// One column's units of a `[images, all units]` matrix.
fn columns_share(whole: &[f32], images: usize, columns: usize, column: usize) -> Vec<f32> {
    let all = whole.len() / images;
    let units = all / columns;
    whole
        .chunks(all)
        .flat_map(|row| &row[column * units..][..units])
        .copied()
        .collect()
}

/// `[images, maps, height, width]` to `[images, height, width, maps]`.
pub(super) fn to_nhwc(values: &[f32], shape: Shape, images: usize) -> Vec<f32> {
    let mut out = vec![0.0; shape.len() * images];
    for (from, to) in values.chunks(shape.len()).zip(out.chunks_mut(shape.len())) {
        for (map, plane) in from.chunks(shape.pixels()).enumerate() {
            for (pixel, &value) in plane.iter().enumerate() {
                to[pixel * shape.maps + map] = value;
            }
        }
    }
    out
}

/// The columns' maps of a slot joined: `[images, all maps, height, width]`.
pub(super) fn activations<D: Device>(
    ranks: &mut [Rank<D>],
    plan: &Plan,
    slot: SlotId,
    images: usize,
) -> Result<Vec<f32>> {
    let Shape { maps, .. } = plan.slots[slot].shape;
    let (pixels, columns) = (plan.slots[slot].shape.pixels(), plan.slots[slot].columns);
    let columns = if slot == plan.input { 1 } else { columns };
    let all = columns * maps * pixels;
    let mut whole = vec![0.0; images * all];
    let mut own = vec![0.0; images * maps * pixels];
    for rank in ranks {
        for column in rank.columns.iter().filter(|c| c.index < columns) {
            let Some(buffer) = &column.slots[slot] else {
                continue;
            };
            rank.device.download(buffer, &mut own)?;
            for (image, values) in own.chunks(maps * pixels).enumerate() {
                for (i, &value) in values.iter().enumerate() {
                    let (pixel, map) = (i / maps, i % maps + column.index * maps);
                    whole[image * all + map * pixels + pixel] = value;
                }
            }
        }
    }
    Ok(whole)
}
