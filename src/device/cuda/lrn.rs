//! Response normalisation over neighbouring maps; `kernels/lrn.cu`.

use super::geometry::{Divider, LrnConstants, Pointer, argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::{Result, device};
use crate::network::op::Lrn;

/// Floats of a block's tile, as in the kernels.
const TILE: usize = 2048;

/// `kernels/lrn.cu`'s `LrnMaps`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LrnMaps {
    maps: i32,
    all: i32,
    offset: i32,
    by_maps: Divider,
}
argument_types!(LrnMaps);

/// How an operation is cut into blocks.
struct Plan {
    maps: LrnMaps,
    constants: LrnConstants,
    pixels: i32,
    pixels_per_block: i32,
    grid: Grid,
}

impl Plan {
    fn new(op: &Lrn, images: usize) -> Result<Self> {
        int(images * op.shape.len())?;
        let all = op.parts * op.shape.maps;
        if all > TILE {
            return Err(device(format!(
                "response normalisation over {all} maps: GPUs do at most {TILE}"
            )));
        }
        let (pixels, pixels_per_block) = (images * op.shape.pixels(), (TILE / all.max(1)).max(1));
        let offset = if op.parts == 2 {
            op.column * op.shape.maps
        } else {
            0
        };
        Ok(Plan {
            maps: LrnMaps {
                maps: int(op.shape.maps)?,
                all: int(all)?,
                offset: int(offset)?,
                by_maps: Divider::new(op.shape.maps)?,
            },
            constants: LrnConstants::of_maps(op)?,
            pixels: int(pixels)?,
            pixels_per_block: int(pixels_per_block)?,
            grid: Grid {
                blocks: [pixels.div_ceil(pixels_per_block), 1, 1],
                threads: 256,
            },
        })
    }
}

impl CudaDevice {
    pub(super) fn launch_lrn_forward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        y: &mut Buffer,
    ) -> Result<()> {
        let element = self.parts_type(x, y)?;
        let [x, peer_x] = self.parts(op.parts, x, images * op.shape.len())?;
        let y = self.output(y, images * op.shape.len())?;
        let plan = Plan::new(op, images)?;
        // SAFETY: every buffer was checked to hold the images, and the tile holds the pixels of a block.
        unsafe {
            self.launch(
                self.kernels.lrn_forward.of(element),
                plan.grid,
                arguments![
                    x,
                    peer_x,
                    y,
                    plan.pixels,
                    plan.pixels_per_block,
                    plan.maps,
                    plan.constants
                ],
            )
        }
    }

    pub(super) fn launch_lrn_backward(
        &mut self,
        op: &Lrn,
        images: usize,
        x: &[&Buffer],
        dy: &Buffer,
        dx: &mut [&mut Buffer],
    ) -> Result<()> {
        let elements = images * op.shape.len();
        let mut element = self.parts_type(x, dy)?;
        for gradient in dx.iter() {
            element = self.type_of(&[x[0], gradient])?;
        }
        let [x, peer_x] = self.parts(op.parts, x, elements)?;
        let dy = self.input(dy, elements)?;
        let [dx, peer_dx] = match dx {
            [own] if op.parts == 1 => [self.output(own, elements)?, Pointer::NULL],
            [own, peer] if op.parts == 2 => {
                [self.output(own, elements)?, self.output(peer, elements)?]
            }
            _ => {
                return Err(device(format!(
                    "{}: normalisation of {} parts was given {} gradients",
                    self.home.name,
                    op.parts,
                    dx.len()
                )));
            }
        };
        let plan = Plan::new(op, images)?;
        // SAFETY: every buffer was checked to hold the images, and the tile holds the pixels of a block.
        unsafe {
            self.launch(
                self.kernels.lrn_backward.of(element),
                plan.grid,
                arguments![
                    x,
                    peer_x,
                    dy,
                    dx,
                    peer_dx,
                    plan.pixels,
                    plan.pixels_per_block,
                    plan.maps,
                    plan.constants
                ],
            )
        }
    }
}
