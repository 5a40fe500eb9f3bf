//! Response normalisation and pooling in one pass; `kernels/lrn_pool.cu`.

use super::geometry::{Divider, LrnConstants, activation_code, argument_types, int};
use super::module::{Grid, arguments};
use super::pool::PoolShape;
use super::{Buffer, CudaDevice};
use crate::error::{Error, Result, device};
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

/// Elements of a block's tiles, backward, as in the kernel.
const RAW: usize = 4608;
const NEAR: usize = 4224;
const WINDOWS: usize = 1024;
const OWN: usize = 1792;
/// Windows along a block's square, at most; pixels of a window, which a byte numbers.
const MOST_SIDE: usize = 8;
const MOST_PIXELS: usize = 255;

/// `kernels/lrn_pool.cu`'s `LrnPoolShare`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LrnPoolShare {
    before: i32,
    own: Divider,
    windows: Divider,
    halo: Divider,
    maps: Divider,
    near: Divider,
    wide: Divider,
    row_tiles: Divider,
}
argument_types!(LrnPoolShare);

/// Of a block, backward: the square of inputs it computes, the windows that see it, the inputs
/// these see, all by their sides; its maps, those whose gradients it needs, those they depend on.
#[derive(Debug, PartialEq)]
struct Square {
    before: usize,
    own: usize,
    windows: usize,
    halo: usize,
    maps: usize,
    near: usize,
    wide: usize,
}

impl Square {
    fn new(lrn: &Lrn, pool: &Pool, side: usize, maps: usize) -> Self {
        let (size, stride) = (pool.window.size, pool.window.stride);
        let before = (size - 1) / stride;
        let windows = side + before;
        let near = maps + lrn.size - 1;
        Square {
            before,
            own: side * stride,
            windows,
            halo: (windows - 1) * stride + size.max(stride),
            maps,
            near,
            wide: near + lrn.size - 1,
        }
    }

    fn fits(&self) -> bool {
        self.halo * self.halo * self.wide <= RAW
            && self.halo * self.halo * self.near <= NEAR
            && self.windows * self.windows * self.near <= WINDOWS
            && self.own * self.own * self.maps <= OWN
    }

    /// Inputs read for each that is computed.
    fn reads(&self) -> f64 {
        (self.halo * self.halo * self.wide) as f64 / (self.own * self.own * self.maps) as f64
    }

    /// The one that reads least among those that fit the tiles.
    fn choose(lrn: &Lrn, pool: &Pool) -> Result<Self> {
        let all = lrn.shape.maps;
        let squares = (1..=MOST_SIDE).flat_map(|side| {
            (1..=all).map(move |parts| Square::new(lrn, pool, side, all.div_ceil(parts)))
        });
        squares
            .filter(|s| s.fits() && pool.window.size * pool.window.size <= MOST_PIXELS)
            .min_by(|a, b| a.reads().total_cmp(&b.reads()))
            .ok_or_else(|| too_large(lrn, pool))
    }
}

fn too_large(lrn: &Lrn, pool: &Pool) -> Error {
    device(format!(
        "pooling windows of {} pixels after normalisation over {} maps are more than GPUs do in one pass",
        pool.window.size, lrn.size
    ))
}

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
                return Err(too_large(lrn, pool));
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

    /// The pool's output is not needed: normalising again tells which input won.
    pub(super) fn launch_lrn_pool_backward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        [x, dy]: [&Buffer; 2],
        dx: &mut Buffer,
    ) -> Result<()> {
        one_part(lrn)?;
        let element = self.type_of(&[x, dy, dx])?;
        let (x, dy, dx) = (
            self.input(x, images * pool.input.len())?,
            self.input(dy, images * pool.output.len())?,
            self.output(dx, images * pool.input.len())?,
        );
        let square = Square::choose(lrn, pool)?;
        let tiles = |extent: usize| (extent + pool.window.pad).div_ceil(square.own);
        let share = LrnPoolShare {
            before: int(square.before)?,
            own: Divider::new(square.own)?,
            windows: Divider::new(square.windows)?,
            halo: Divider::new(square.halo)?,
            maps: Divider::new(square.maps)?,
            near: Divider::new(square.near)?,
            wide: Divider::new(square.wide)?,
            row_tiles: Divider::new(tiles(pool.input.height))?,
        };
        let (shape, constants) = (PoolShape::new(pool, images)?, LrnConstants::of_maps(lrn)?);
        let activated = activation_code(pool.activated);
        let blocks = [
            images * tiles(pool.input.height),
            tiles(pool.input.width),
            pool.input.maps.div_ceil(square.maps),
        ];
        // SAFETY: the buffers were checked, and the share of a block fits its tiles.
        unsafe {
            self.launch(
                self.kernels.lrn_pool_backward.of(element),
                Grid {
                    blocks,
                    threads: 256,
                },
                arguments![x, dy, dx, shape, share, constants, activated],
            )
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

    fn conv1() -> (Lrn, Pool) {
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
            activated: None,
        };
        (lrn, pool)
    }

    #[test]
    fn conv1s_maps_stay_together_in_a_block() {
        let (lrn, pool) = conv1();
        assert_eq!(
            Share::choose(&lrn, &pool).unwrap(),
            Share {
                columns: 7,
                maps: 48,
                halo_columns: 15,
                halo_maps: 52
            }
        );
    }

    /// Worked out by hand: 4 × 4 windows' own inputs, one more window before them each way.
    #[test]
    fn going_back_through_conv1_a_block_takes_half_its_maps() {
        let (lrn, pool) = conv1();
        let square = Square::choose(&lrn, &pool).unwrap();
        assert_eq!(
            square,
            Square {
                before: 1,
                own: 8,
                windows: 5,
                halo: 11,
                maps: 24,
                near: 28,
                wide: 32
            }
        );
        assert!(square.reads() < 2.6);
    }

    #[test]
    fn windows_too_large_for_a_block_are_refused_in_both_directions() {
        let (lrn, mut pool) = conv1();
        pool.window = Window::new(40, 1, 0);
        let (there, back) = (Share::choose(&lrn, &pool), Square::choose(&lrn, &pool));
        for error in [there.unwrap_err(), back.unwrap_err()] {
            assert!(error.to_string().contains("40 pixels"), "{error}");
        }
    }
}
