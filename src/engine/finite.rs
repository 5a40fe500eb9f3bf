//! Where a number is that is not finite, or too large.

use super::rank::{Rank, Share};
use super::{Engine, Work};
use crate::device::Device;
use crate::error::{Result, usage};
use crate::fault::{Faults, VARIABLE};
use crate::network::params::Param;

/// A tensor of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// "conv3.weight", "the momentum of conv3.weight", "the maps of conv3.pool".
    pub tensor: String,
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (column {})", self.tensor, self.column)
    }
}

impl<D: Device> Engine<D> {
    /// The first of the parameters and their momentum that holds a number that is not finite, in
    /// the order of the layers. Adds up every tensor on its device, which carries such a number
    /// into a sum; only sums are copied.
    pub fn first_bad_parameter(&mut self) -> Result<Option<Place>> {
        self.watched(Work::Wait, Self::find_bad_parameter)
    }

    fn find_bad_parameter(&mut self) -> Result<Option<Place>> {
        let params = &self.plan.params;
        let mut worst: Option<(usize, Place)> = None;
        for rank in &mut self.ranks {
            if rank.all_finite(params)? {
                continue;
            }
            for (id, param) in params.iter().enumerate() {
                if worst.as_ref().is_some_and(|(earlier, _)| *earlier <= id) {
                    break;
                }
                if let Some(place) = rank.first_bad_of(params, id, param)? {
                    worst = Some((id, place));
                }
            }
        }
        Ok(worst.map(|(_, place)| place))
    }

    /// The first maps of the last forward pass that hold a number that is not finite.
    pub fn first_bad_maps(&mut self) -> Result<Option<Place>> {
        for slot in 0..self.plan.slots.len() {
            let values = self.activations(slot)?;
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                return Ok(Some(self.place_of(slot, index, values.len())));
            }
        }
        Ok(None)
    }

    /// The largest number, by magnitude, among the maps of the last forward pass.
    pub fn largest_of_maps(&mut self) -> Result<Option<(f32, Place)>> {
        let mut largest: Option<(f32, Place)> = None;
        for slot in 0..self.plan.slots.len() {
            let values = self.activations(slot)?;
            let by_size = |a: &(usize, &f32), b: &(usize, &f32)| a.1.abs().total_cmp(&b.1.abs());
            let Some((index, &value)) = values.iter().enumerate().max_by(by_size) else {
                continue;
            };
            if largest.as_ref().is_none_or(|(v, _)| value.abs() > v.abs()) {
                largest = Some((value, self.place_of(slot, index, values.len())));
            }
        }
        Ok(largest)
    }

    /// Element `index` of the joined maps of a slot.
    fn place_of(&self, slot: usize, index: usize, elements: usize) -> Place {
        let columns = if slot == self.plan.input {
            1
        } else {
            self.plan.slots[slot].columns
        };
        let of_image = elements / self.images.max(1);
        Place {
            tensor: format!("the maps of {}", self.plan.slots[slot].name),
            column: index % of_image / (of_image / columns).max(1),
        }
    }

    /// Puts a NaN where faults on purpose ask for one.
    pub(super) fn put_nans(&mut self, faults: &Faults, step: u64) -> Result<()> {
        for (layer, part, column) in faults.nans(step) {
            let id = self.plan.params.iter().position(|p| p.name == layer);
            let share = self.ranks.iter_mut().find_map(|rank| {
                let of_column = rank.columns.iter_mut().find(|c| c.index == column)?;
                Some((&mut rank.device, of_column.shares[id?].as_mut()?))
            });
            let (device, share) = share.ok_or_else(|| {
                usage(format!("{VARIABLE}: column {column} has no layer {layer}"))
            })?;
            let buffer = match part {
                "bias" => &mut share.bias,
                "momentum" => &mut share.momentum[0],
                _ => &mut share.weights[0],
            };
            device.upload(&[f32::NAN], buffer)?;
        }
        Ok(())
    }
}

impl<B> Share<B> {
    /// Its tensors with their names and rows of so many outputs.
    fn tensors<'a>(&'a self, param: &Param) -> impl Iterator<Item = (String, usize, &'a B)> {
        let (weight, bias, depth) = (param.weight_name(), param.bias_name(), param.depth());
        let weights = self.weights.iter().map({
            let weight = weight.clone();
            move |b| (weight.clone(), depth, b)
        });
        let momentum = self
            .momentum
            .iter()
            .map(move |b| (format!("the momentum of {weight}"), depth, b));
        let biases = [
            (bias.clone(), 1, &self.bias),
            (format!("the momentum of {bias}"), 1, &self.bias_momentum),
        ];
        weights.chain(momentum).chain(biases)
    }
}

impl<D: Device> Rank<D> {
    /// Whether all tensors of this rank are finite.
    fn all_finite(&mut self, params: &[Param]) -> Result<bool> {
        let mut sums = self.start_sums(params)?;
        for column in &self.columns {
            for (param, share) in params.iter().zip(&column.shares) {
                let Some(share) = share else { continue };
                for (_, rows, tensor) in share.tensors(param) {
                    self.device
                        .bias_backward(rows, param.outputs(), tensor, true, &mut sums)?;
                }
            }
        }
        self.end_sums(params, sums)
    }

    /// The first tensor of parameter `id` here that is not finite.
    fn first_bad_of(
        &mut self,
        params: &[Param],
        id: usize,
        param: &Param,
    ) -> Result<Option<Place>> {
        for local in 0..self.columns.len() {
            let tensors = self.columns[local].shares[id]
                .as_ref()
                .map_or(0, |share| share.tensors(param).count());
            for number in 0..tensors {
                let mut sums = self.start_sums(params)?;
                let column = &self.columns[local];
                let share = column.share(id);
                let found = share.tensors(param).nth(number);
                let (name, rows, tensor) = found.expect("as many as were counted");
                self.device
                    .bias_backward(rows, param.outputs(), tensor, true, &mut sums)?;
                let place = Place {
                    tensor: name,
                    column: column.index,
                };
                if !self.end_sums(params, sums)? {
                    return Ok(Some(place));
                }
            }
        }
        Ok(None)
    }

    /// Room for sums of any tensor's outputs, all zero.
    fn start_sums(&mut self, params: &[Param]) -> Result<D::Buffer> {
        let room = room(params);
        let mut sums = match self.sums.take() {
            Some(sums) => sums,
            None => self.device.allocate(room)?,
        };
        self.device.upload(&vec![0.0; room], &mut sums)?;
        Ok(sums)
    }

    /// Whether the sums are finite.
    fn end_sums(&mut self, params: &[Param], sums: D::Buffer) -> Result<bool> {
        let mut values = vec![0.0; room(params)];
        self.device.download(&sums, &mut values)?;
        self.sums = Some(sums);
        Ok(values.iter().all(|v| v.is_finite()))
    }
}

/// Outputs of the widest parameter.
fn room(params: &[Param]) -> usize {
    params.iter().map(Param::outputs).max().unwrap_or(0)
}
