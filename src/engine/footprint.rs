//! What a network needs of a device's memory, told before any of it is allocated, so that a batch
//! that does not fit is refused with the largest one that does.

use super::rank::{reads, returns};
use crate::device::Device;
use crate::error::{Result, device as device_error};
use crate::network::plan::{Plan, Stage, Step};
use crate::precision::Precision;
use std::ops::Range;

/// Bytes beside the buffers: partial sums of weight gradients (17 MiB on 132 multiprocessors, and a matrix), rounding of
/// the driver.
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

/// Bytes on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Footprint {
    /// Parameters and what goes with them.
    pub fixed: usize,
    /// Of every image of a batch.
    pub per_image: usize,
    /// Of every image, for intermediate results.
    pub work_per_image: usize,
}

impl Footprint {
    /// What `columns` of `plan` allocate on a device in the plan's precision.
    /// `fused`: gradients of fully connected layers need no memory.
    pub(super) fn of(plan: &Plan, columns: Range<usize>, side: usize, fused: bool) -> Self {
        let alone = columns.len() == plan.columns;
        let map_bytes = plan.precision.map_bytes();
        // Of an image; the logits are f32 in every precision.
        let maps = |slot: usize| match slot == plan.logits {
            true => 4 * plan.slots[slot].shape.len(),
            false => map_bytes * plan.slots[slot].shape.len(),
        };
        // Weights have a copy in 16 bits beside them where maps are in 16 bits.
        let copy = if map_bytes < 4 { map_bytes } else { 0 };
        // Two inputs of 8-bit crops.
        let mut per_image = 2 * (plan.image * plan.image * 3 + DRAW);
        let mut fixed = 4 * side * side * 3;
        for column in columns.clone() {
            for (id, slot) in plan.slots.iter().enumerate() {
                if column < slot.columns && (id != plan.input || column == columns.start) {
                    per_image += maps(id);
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
                per_image += (copies + returned) * maps(id);
            }
            per_image += plan
                .gradient_buffers(column)
                .iter()
                .map(|n| map_bytes * (n / plan.batch))
                .sum::<usize>();
            for param in plan.params.iter().filter(|p| column < p.columns) {
                let matrices = if fused && param.kernel == 0 { 2 } else { 3 };
                fixed += (4 * matrices + copy) * param.parts * param.depth() * param.outputs();
                fixed += 4 * 3 * param.outputs();
            }
        }
        if columns.start == 0 {
            per_image += 4 * plan.classes;
        }
        Footprint {
            fixed,
            per_image,
            work_per_image: work_per_image(plan) + columns.map(|c| winners(plan, c)).sum::<usize>(),
        }
    }

    pub(super) fn needed(self, images: usize) -> Needed {
        Needed {
            buffers: self.fixed + self.per_image * images,
            work: MARGIN + self.work_per_image * images,
        }
    }
}

/// Bytes of an image that are kept from a pool after normalisation until the way back: for each output, which input it is.
fn winners(plan: &Plan, column: usize) -> usize {
    let steps = plan.stages.iter().filter_map(|stage| match stage {
        Stage::Compute { steps, .. } => steps.get(column),
        Stage::Exchange { .. } => None,
    });
    let of = |step: &Step| match step {
        Step::LrnPool { pool, .. } => pool.output.len(),
        _ => 0,
    };
    steps.map(of).sum()
}

/// Bytes of an image that the greediest operation takes for intermediate results. They share one work space.
fn work_per_image(plan: &Plan) -> usize {
    let of = |step: &Step| match step {
        // Two terms of the gradient.
        Step::LocalNorm { op, .. } => 2 * 4 * op.shape.len(),
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
        let mut need = Footprint::default();
        for (one, _) in (footprints.iter().zip(devices)).filter(|(_, d)| d.name() == device.name())
        {
            need.fixed += one.fixed + MARGIN;
            need.per_image += one.per_image + one.work_per_image;
        }
        let bytes = need.fixed + need.per_image * plan.batch;
        if bytes > free {
            let remedy = remedy(need, free, devices.len());
            return Err(device_error(format!(
                "{}: out of memory: a batch of {} needs {} MiB, {} MiB are free of {} MiB: {remedy}",
                device.name(),
                plan.batch,
                bytes.div_ceil(1 << 20),
                free >> 20,
                total >> 20,
            )));
        }
    }
    Ok(())
}

fn remedy(need: Footprint, free: usize, devices: usize) -> String {
    let more = if devices == 1 {
        "; two GPUs (--gpus 0,1) hold one column each"
    } else {
        ""
    };
    match free.saturating_sub(need.fixed) / need.per_image.max(1) {
        0 => format!("not even one image fits: set a smaller network.width, or free memory{more}"),
        batch => format!(
            "the largest batch that fits is {batch} (--set train.batch={batch}; train.accumulate adds batches up){more}"
        ),
    }
}
