//! Response normalisation and pooling in one pass; `kernels/lrn_pool.cu`.

use super::geometry::{Divider, LrnConstants, Pointer, argument_types, int};
use super::module::{Grid, arguments};
use super::pool::PoolShape;
use super::{Buffer, CudaDevice};
use crate::error::{Result, device};
use crate::network::op::{Lrn, Pool};

/// Floats of each of a block's tiles, as in the kernel.
const TILE: usize = 2560;
/// Outputs of a row and maps that a block takes, at most.
const MOST_COLUMNS: usize = 8;
const MOST_MAPS: usize = 64;

/// `kernels/lrn_pool.cu`'s `LrnPoolTile`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LrnPoolTile {
    columns: i32,
    maps: i32,
    halo_columns: Divider,
    halo_maps: Divider,
    by_maps: Divider,
    out_height: Divider,
}
argument_types!(LrnPoolTile);

/// Columns of outputs and maps of a block, and the columns and maps of input they see.
#[derive(Debug, PartialEq)]
struct Share {
    columns: usize,
    maps: usize,
    halo_columns: usize,
    halo_maps: usize,
}

impl Share {
    /// The largest that fits the tile.
    fn choose(lrn: &Lrn, pool: &Pool) -> Result<Self> {
        let mut maps = lrn.shape.maps.clamp(1, MOST_MAPS);
        loop {
            for columns in (1..=MOST_COLUMNS.min(pool.output.width.max(1))).rev() {
                let halo_columns = (columns - 1) * pool.window.stride + pool.window.size;
                let halo_maps = maps + lrn.size.max(1) - 1;
                if pool.window.size * halo_columns * halo_maps <= TILE {
                    return Ok(Share {
                        columns,
                        maps,
                        halo_columns,
                        halo_maps,
                    });
                }
            }
            if maps == 1 {
                return Err(device(format!(
                    "pooling windows of {} pixels after normalisation over {} maps are more than GPUs do in one pass",
                    pool.window.size, lrn.size
                )));
            }
            maps = maps.div_ceil(2);
        }
    }
}

impl CudaDevice {
    pub(super) fn launch_lrn_pool_forward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        one_part(lrn)?;
        let element = self.type_of(&[x, y])?;
        let (x, y) = (
            self.input(x, images * pool.input.len())?,
            self.output(y, images * pool.output.len())?,
        );
        let share = Share::choose(lrn, pool)?;
        let tile = LrnPoolTile {
            columns: int(share.columns)?,
            maps: int(share.maps)?,
            halo_columns: Divider::new(share.halo_columns)?,
            halo_maps: Divider::new(share.halo_maps)?,
            by_maps: Divider::new(share.maps)?,
            out_height: Divider::new(pool.output.height)?,
        };
        let (shape, constants) = (PoolShape::new(pool, images)?, LrnConstants::of_maps(lrn)?);
        let rows = images * pool.output.height;
        let blocks = [
            rows,
            pool.output.width.div_ceil(share.columns),
            pool.output.maps.div_ceil(share.maps),
        ];
        // SAFETY: the buffers were checked, and the share of a block fits its tiles.
        unsafe {
            self.launch(
                self.kernels.lrn_pool_forward.of(element),
                Grid {
                    blocks,
                    threads: 256,
                },
                arguments![x, y, shape, tile, constants],
            )
        }
    }

    /// Normalises once more into the work space, then goes back through the pool and the normalisation.
    pub(super) fn launch_lrn_pool_backward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        [x, y, dy]: [&Buffer; 3],
        dx: &mut Buffer,
    ) -> Result<()> {
        one_part(lrn)?;
        let (inputs, outputs) = (images * pool.input.len(), images * pool.output.len());
        let element = self.type_of(&[x, y, dy, dx])?;
        let (x, y, dy) = (
            self.input(x, inputs)?,
            self.input(y, outputs)?,
            self.input(dy, outputs)?,
        );
        let dx = self.output(dx, inputs)?;
        let normalised = self.workspace(inputs * element.bytes())?;
        let (own, dx_own) = ([x, Pointer::NULL], [dx, Pointer::NULL]);
        // SAFETY: every place holds its images; the last step may work in place.
        unsafe {
            self.launch_lrn(lrn, images, element, own, normalised)?;
            self.launch_pool_gradient(pool, images, element, [normalised, y, dy, dx])?;
            self.launch_lrn_gradient(lrn, images, element, own, dx, dx_own)
        }
    }
}

fn one_part(lrn: &Lrn) -> Result<()> {
    if lrn.parts == 1 {
        return Ok(());
    }
    Err(device(
        "normalisation over both columns cannot be fused with pooling",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::op::{Shape, Window};

    #[test]
    fn conv1s_maps_stay_together_in_a_block() {
        let shape = Shape::new(48, 55, 55);
        let lrn = Lrn {
            shape,
            parts: 1,
            column: 0,
            size: 5,
            k: 2.0,
            alpha: 1e-4,
            beta: 0.75,
        };
        let window = Window::new(3, 2, 0);
        let pool = Pool {
            input: shape,
            output: window.output(shape, 48),
            window,
        };
        let share = Share::choose(&lrn, &pool).unwrap();
        assert_eq!(
            share,
            Share {
                columns: 7,
                maps: 48,
                halo_columns: 15,
                halo_maps: 52
            }
        );
    }
}
