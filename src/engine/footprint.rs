//! What a network needs of a device's memory, told before any of it is allocated, so that a batch
//! that does not fit is refused with the largest one that does.

use super::rank::{reads, returns};
use crate::device::Device;
use crate::error::{Result, device as device_error};
use crate::network::plan::Plan;
use std::ops::Range;

/// Bytes beside the buffers: work space of operations, rounding of the driver.
const MARGIN: usize = 48 << 20;

/// Bytes on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Footprint {
    /// Parameters and what goes with them.
    pub fixed: usize,
    /// Of every image of a batch.
    pub per_image: usize,
}

impl Footprint {
    /// What `columns` of `plan` allocate on a device, inputs apart (their form is the device's).
    /// `fused`: gradients of fully connected layers need no memory.
    pub(super) fn of(plan: &Plan, columns: Range<usize>, side: usize, fused: bool) -> Self {
        let alone = columns.len() == plan.columns;
        let maps = |slot: usize| plan.slots[slot].shape.len();
        let mut elements = 0;
        let mut fixed = side * side * 3;
        for column in columns.clone() {
            for (id, slot) in plan.slots.iter().enumerate() {
                if column < slot.columns && (id != plan.input || column == columns.start) {
                    elements += maps(id);
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
                elements += (copies + returned) * maps(id);
            }
            elements += plan
                .gradient_buffers(column)
                .iter()
                .map(|n| n / plan.batch)
                .sum::<usize>();
            for param in plan.params.iter().filter(|p| column < p.columns) {
                let matrices = if fused && param.kernel == 0 { 2 } else { 3 };
                fixed += matrices * param.parts * param.depth() * param.outputs();
                fixed += 3 * param.outputs();
            }
        }
        if columns.start == 0 {
            elements += plan.classes;
        }
        Footprint {
            fixed: 4 * fixed,
            per_image: 4 * elements,
        }
    }

    /// The same with two inputs of 8-bit crops, and the work space an operation may ask for.
    fn with_margin(self, plan: &Plan) -> Self {
        let largest = plan.slots.iter().map(|s| s.shape.len()).max();
        let input = plan.image * plan.image * 3 + 32;
        Footprint {
            fixed: self.fixed + MARGIN,
            per_image: self.per_image + 2 * input + 4 * largest.unwrap_or(0),
        }
    }

    pub(super) fn bytes(self, images: usize) -> usize {
        self.fixed + self.per_image * images
    }
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
    for (index, device) in devices.iter().enumerate() {
        let Some((free, total)) = device.free_memory() else {
            continue;
        };
        // The same device twice holds both columns.
        let mut need = Footprint::default();
        for (other, _) in (devices.iter().enumerate()).filter(|(_, d)| d.name() == device.name()) {
            let columns = if devices.len() == 1 {
                0..plan.columns
            } else {
                other..other + 1
            };
            let fused = devices[other].fuses_linear_update() && !keep_gradients;
            let one = Footprint::of(plan, columns, side, fused).with_margin(plan);
            need.fixed += one.fixed;
            need.per_image += one.per_image;
        }
        if need.bytes(plan.batch) > free {
            let remedy = remedy(need, free, devices.len());
            return Err(device_error(format!(
                "{}: out of memory: a batch of {} needs {} MiB, {} MiB are free of {} MiB: {remedy}",
                devices[index].name(),
                plan.batch,
                need.bytes(plan.batch).div_ceil(1 << 20),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::device::cpu::CpuDevice;
    use crate::engine::Engine;

    /// What an engine allocates on CPU devices, and what was told before.
    fn allocated_and_told(
        preset: &str,
        batch: usize,
        devices: usize,
        keep: bool,
    ) -> Vec<[usize; 2]> {
        let overrides = [format!("train.batch={batch}"), "network.width=0.25".into()];
        let config = Config::load(preset, &overrides).unwrap();
        let (plan, side) = (config.plan().unwrap(), config.data.side);
        let opened: Vec<CpuDevice> = (0..devices).map(|_| CpuDevice::open(1).unwrap()).collect();
        let fused = opened[0].fuses_linear_update() && !keep;
        let before: Vec<usize> = opened.iter().map(Device::allocated_bytes).collect();
        let input = 2 * batch * plan.image * plan.image * 3;
        let told: Vec<usize> = (0..devices)
            .map(|index| {
                let columns = if devices == 1 {
                    0..plan.columns
                } else {
                    index..index + 1
                };
                Footprint::of(&plan, columns, side, fused).bytes(batch) + input
            })
            .collect();
        let engine = Engine::new(plan, opened, side, 0, keep).unwrap();
        let after = engine.allocated_bytes();
        let allocated = after.iter().zip(&before).map(|(a, b)| a - b);
        allocated.zip(told).map(|(a, t)| [a, t]).collect()
    }

    #[test]
    fn what_is_told_is_what_is_allocated() {
        for (preset, devices) in [
            ("paper", 1),
            ("paper", 2),
            ("source-145", 2),
            ("source-145-half", 1),
        ] {
            for (batch, keep) in [(1, true), (6, true), (6, false)] {
                for [allocated, told] in allocated_and_told(preset, batch, devices, keep) {
                    // Draws, labels and rounding apart.
                    assert!(
                        allocated.abs_diff(told) <= 4096 + batch * 128,
                        "{preset}, {devices} devices, batch {batch}, {keep}: {allocated} allocated, {told} told"
                    );
                }
            }
        }
    }
}
