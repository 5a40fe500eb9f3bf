//! What a network needs of a device's memory, told before any of it is allocated, so that a batch
//! that does not fit is refused with the largest one that does.

use super::rank::{reads, returns};
use crate::device::Device;
use crate::error::{Result, device as device_error};
use crate::network::plan::{Plan, Stage, Step};
use crate::precision::Precision;
use std::ops::Range;

/// Bytes beside the buffers: partial sums of weight gradients (17 MiB on 132 multiprocessors, and a matrix), rows of tiles
/// below a convolution's last pixel, what the driver adds to buffers too small to be rounded.
const MARGIN: usize = 48 << 20;
/// Of an image in an input, beside its pixels: its draw and its label, at most.
const DRAW: usize = 64;

/// What an engine takes of a device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Needed {
    /// Bytes of its buffers, exact but for the padding of the CPU's and for what is allocated when first used: given
    /// masks, sums to find numbers that are not finite.
    pub buffers: usize,
    /// Bytes that operations take for intermediate results, at most.
    pub work: usize,
}

/// What some columns take of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Footprint {
    buffers: Vec<Size>,
    /// Bytes of every image for intermediate results.
    work_per_image: usize,
    /// Buffers that are made when first used, bytes of an image: winners of pools.
    later: Vec<usize>,
}

/// Bytes of one buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size {
    fixed: usize,
    /// Of every image of a batch.
    per_image: usize,
}

impl Footprint {
    /// What `columns` of `plan` allocate on a device in the plan's precision.
    /// `fused`: gradients of fully connected layers need no memory.
    pub(super) fn of(plan: &Plan, columns: Range<usize>, side: usize, fused: bool) -> Self {
        let alone = columns.len() == plan.columns;
        let mut footprint = Footprint {
            buffers: vec![],
            work_per_image: work_per_image(plan, alone),
            later: columns.clone().flat_map(|c| winners(plan, c)).collect(),
        };
        footprint.add_fixed(1, 4 * side * side * 3);
        // Two inputs of 8-bit crops.
        footprint.add_per_image(2, plan.image * plan.image * 3);
        footprint.add_per_image(2, DRAW);
        if columns.start == 0 {
            footprint.add_per_image(1, 4 * plan.classes);
        }
        for column in columns.clone() {
            footprint.add_maps(plan, column, column == columns.start, alone);
            footprint.add_parameters(plan, column, fused);
        }
        footprint
    }

    fn add_fixed(&mut self, count: usize, fixed: usize) {
        let size = Size {
            fixed,
            per_image: 0,
        };
        self.buffers.extend(std::iter::repeat_n(size, count));
    }

    fn add_per_image(&mut self, count: usize, per_image: usize) {
        let size = Size {
            fixed: 0,
            per_image,
        };
        self.buffers.extend(std::iter::repeat_n(size, count));
    }

    /// Maps, gradients and messages of a column; columns on one device share the images, which the `first` one holds.
    fn add_maps(&mut self, plan: &Plan, column: usize, first: bool, alone: bool) {
        let map_bytes = plan.precision.map_bytes();
        // Of an image; the logits are f32 in every precision.
        let maps = |slot: usize| match slot == plan.logits {
            true => 4 * plan.slots[slot].shape.len(),
            false => map_bytes * plan.slots[slot].shape.len(),
        };
        for (id, slot) in plan.slots.iter().enumerate() {
            if column < slot.columns && (id != plan.input || first) {
                self.add_per_image(1, maps(id));
            }
            let copies = match (reads(plan, column, id), alone) {
                (true, true) => 1,
                // An outbox, an inbox, and the slot of the mailbox the maps arrive in.
                (true, false) => 3,
                _ => 0,
            };
            // The gradients that come back, and the slot of their mailbox.
            let returned = if !alone && returns(plan, column, id) {
                2
            } else {
                0
            };
            self.add_per_image(copies + returned, maps(id));
        }
        for elements in plan.gradient_buffers(column) {
            self.add_per_image(1, map_bytes * (elements / plan.batch));
        }
    }

    fn add_parameters(&mut self, plan: &Plan, column: usize, fused: bool) {
        let map_bytes = plan.precision.map_bytes();
        for param in plan.params.iter().filter(|p| column < p.columns) {
            let matrices = if fused && param.kernel == 0 { 2 } else { 3 };
            let elements = param.depth() * param.outputs();
            self.add_fixed(matrices * param.parts, 4 * elements);
            // Weights have a copy in 16 bits beside them where maps are in 16 bits.
            if map_bytes < 4 {
                self.add_fixed(param.parts, map_bytes * elements);
            }
            self.add_fixed(3, 4 * param.outputs());
        }
    }

    /// For batches of so many images on `device`.
    pub(super) fn needed<D: Device>(&self, images: usize, device: &D) -> Needed {
        let taken = |size: &Size| device.taken(size.fixed + size.per_image * images);
        let later: usize = self.later.iter().map(|m| device.taken(m * images)).sum();
        Needed {
            buffers: self.buffers.iter().map(taken).sum(),
            work: MARGIN + self.work_per_image * images + later,
        }
    }
}

/// Bytes of an image that are kept from each pool after normalisation until the way back: for each output, which input it
/// is.
fn winners(plan: &Plan, column: usize) -> Vec<usize> {
    let steps = plan.stages.iter().filter_map(|stage| match stage {
        Stage::Compute { steps, .. } => steps.get(column),
        Stage::Exchange { .. } => None,
    });
    let of = |step: &Step| match step {
        Step::LrnPool { pool, .. } => Some(pool.output.len()),
        _ => None,
    };
    steps.filter_map(of).collect()
}

/// Bytes of an image that the greediest operation takes for intermediate results. They share one work space. `alone`: no
/// maps arrive from another device.
fn work_per_image(plan: &Plan, alone: bool) -> usize {
    let of = |step: &Step| match step {
        // Two terms of the gradient.
        Step::LocalNorm { op, .. } => 2 * 4 * op.shape.len(),
        // Sums of the own maps while the others arrive; no kernel's tiles leave more columns idle than those of 48.
        Step::Conv { op, .. } if op.parts > 1 && !alone => {
            4 * op.output.pixels() * op.output.maps.next_multiple_of(48)
        }
        // A copy with zeros around it and rows of whole fours, where tensor cores take it strip by strip.
        Step::Conv { op, .. } if op.input.maps % 8 != 0 && plan.precision != Precision::F32 => {
            let (around, maps) = (2 * op.window.pad, op.input.maps);
            let pixels = (op.input.height + around) * (op.input.width + around + 3);
            plan.precision.map_bytes() * pixels * maps
        }
        // Sums before they are rounded.
        Step::Linear { op, .. } => 4 * op.outputs,
        _ => 0,
    };
    let steps = plan.stages.iter().filter_map(|stage| match stage {
        Stage::Compute { steps, .. } => Some(steps),
        Stage::Exchange { .. } => None,
    });
    steps.flatten().map(of).max().unwrap_or(0)
}

/// What each device needs for its columns.
pub(super) fn of_devices<D: Device>(
    plan: &Plan,
    devices: &[D],
    side: usize,
    keep_gradients: bool,
) -> Vec<Footprint> {
    let of = |(index, device): (usize, &D)| {
        let columns = if devices.len() == 1 {
            0..plan.columns
        } else {
            index..index + 1
        };
        let fused = device.fuses_linear_update() && !keep_gradients;
        Footprint::of(plan, columns, side, fused)
    };
    devices.iter().enumerate().map(of).collect()
}

/// Refuses a batch that does not fit the devices, where they tell how much is free.
///
/// # Errors
/// `Device`, with MiB needed and free and the largest batch that fits.
pub(super) fn check<D: Device>(
    plan: &Plan,
    devices: &[D],
    side: usize,
    keep_gradients: bool,
) -> Result<()> {
    let footprints = of_devices(plan, devices, side, keep_gradients);
    for device in devices {
        let Some((free, total)) = device.free_memory() else {
            continue;
        };
        // The same device twice holds both columns.
        let here = |images: usize| -> usize {
            (footprints.iter().zip(devices))
                .filter(|(_, other)| other.name() == device.name())
                .map(|(footprint, _)| footprint.needed(images, device))
                .map(|needed| needed.buffers + needed.work)
                .sum()
        };
        let bytes = here(plan.batch);
        if bytes > free {
            let largest = (1..plan.batch).rev().find(|&images| here(images) <= free);
            return Err(device_error(format!(
                "{}: out of memory: a batch of {} needs {} MiB, {} MiB are free of {} MiB: {}",
                device.name(),
                plan.batch,
                bytes.div_ceil(1 << 20),
                free >> 20,
                total >> 20,
                remedy(largest, devices.len()),
            )));
        }
    }
    Ok(())
}

fn remedy(largest: Option<usize>, devices: usize) -> String {
    let more = if devices == 1 {
        "; two GPUs (--gpus 0,1) hold one column each"
    } else {
        ""
    };
    match largest {
        None => {
            format!("not even one image fits: set a smaller network.width, or free memory{more}")
        }
        Some(batch) => format!(
            "the largest batch that fits is {batch} (--set train.batch={batch}; train.accumulate adds batches up){more}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn columns_on_two_devices_need_room_for_conv3s_sums_while_maps_arrive() {
        let plan = Config::load("paper", &[]).unwrap().plan().unwrap();
        assert_eq!(work_per_image(&plan, false), 4 * 13 * 13 * 192);
        assert_eq!(work_per_image(&plan, true), 4 * 2048);
    }
}
