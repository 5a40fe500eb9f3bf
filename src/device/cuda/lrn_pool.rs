//! Response normalisation and pooling in one pass; `kernels/lrn_pool.cu`.

use super::geometry::{Divider, LrnConstants, activation_code, argument_types, int};
use super::module::{Grid, arguments};
use super::pool::PoolShape;
use super::{Buffer, CudaDevice};
use crate::error::{Result, device};
use crate::network::op::{Lrn, Pool, Window};

/// Maps that a warp holds, one a lane, and warps of a block, as in the kernels.
const LANES: usize = 32;
const WARPS: usize = 8;
/// The mark of a window without a winner; others are numbers of its pixels.
const NO_WINNER: usize = 255;
/// Dynamic shared memory that a block may have unasked.
const SHARED: usize = 48 << 10;

/// `kernels/lrn_pool.cu`'s `LrnPoolShare`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LrnPoolShare {
    maps: i32,
    side: Divider,
    halo: Divider,
    row_tiles: Divider,
}
argument_types!(LrnPoolShare);

/// Of a block, forward: the square of windows it computes and of the inputs these see, by their sides.
#[derive(Debug, PartialEq)]
struct Square {
    side: usize,
    halo: usize,
}

impl Square {
    fn new(window: Window, side: usize) -> Self {
        Square {
            side,
            halo: (side - 1) * window.stride + window.size,
        }
    }

    fn shared(&self) -> usize {
        self.halo * self.halo * LANES * 4
    }

    /// The one with the least work for all outputs: an input to normalise takes about half of what a window does.
    fn choose(pool: &Pool) -> Result<Self> {
        let output = pool.output;
        let work = |square: &Square| {
            let tiles = output.height.div_ceil(square.side) * output.width.div_ceil(square.side);
            tiles * (square.halo * square.halo + 2 * square.side * square.side)
        };
        let pixels = pool.window.size * pool.window.size;
        (1..=LANES)
            .map(|side| Square::new(pool.window, side))
            .filter(|square| square.shared() <= SHARED && pixels < NO_WINNER)
            .min_by_key(work)
            .ok_or_else(|| {
                let size = pool.window.size;
                device(format!(
                    "pooling windows of {size} pixels after normalisation are more than GPUs do in one pass"
                ))
            })
    }
}

/// Maps of a block, where those of a warp include so many at its edges, and the blocks for all.
fn map_tiles(lrn: &Lrn, edges: usize) -> Result<(usize, usize)> {
    let all = lrn.shape.maps.max(1);
    let most = LANES.saturating_sub(edges);
    if lrn.parts != 1 || most == 0 {
        return Err(device(format!(
            "normalisation over {} maps of {} columns is not done with pooling in one pass",
            lrn.size, lrn.parts
        )));
    }
    let tiles = all.div_ceil(most);
    Ok((all.div_ceil(tiles), tiles))
}

impl CudaDevice {
    /// Notes beside `y` which input of its window every output is.
    pub(super) fn launch_lrn_pool_forward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let (maps, map_tiles) = map_tiles(lrn, lrn.size.saturating_sub(1))?;
        let square = Square::choose(pool)?;
        let (shape, constants) = (PoolShape::new(pool, images)?, LrnConstants::of_maps(lrn)?);
        let element = self.type_of(&[x, y])?;
        let x = self.input(x, images * pool.input.len())?;
        let to = self.output(y, images * pool.output.len())?;
        let winners = self.marks(y)?;
        let row_tiles = pool.output.height.div_ceil(square.side);
        let share = LrnPoolShare {
            maps: int(maps)?,
            side: Divider::new(square.side)?,
            halo: Divider::new(square.halo)?,
            row_tiles: Divider::new(row_tiles)?,
        };
        let column_tiles = pool.output.width.div_ceil(square.side);
        let grid = Grid {
            blocks: [images * row_tiles, column_tiles, map_tiles],
            threads: (LANES * WARPS) as u32,
        };
        let kernels = match is_alexnets(lrn, pool) {
            true => &self.kernels.lrn_pool_forward_5_3_2,
            false => &self.kernels.lrn_pool_forward,
        };
        let (home, kernel) = (&self.home, kernels.of(element));
        let arguments = arguments![x, to, winners, shape, share, constants];
        // SAFETY: the buffers were checked, there is a mark for every output, and the shared memory holds the halo.
        unsafe {
            let stream = &home.streams.compute;
            kernel.launch(home, stream, grid, square.shared(), arguments)
        }
    }

    /// `y` is the buffer that the forward pass wrote.
    pub(super) fn launch_lrn_pool_backward(
        &mut self,
        lrn: &Lrn,
        pool: &Pool,
        images: usize,
        [x, y, dy]: [&Buffer; 3],
        dx: &mut Buffer,
    ) -> Result<()> {
        let (maps, map_tiles) = map_tiles(lrn, 2 * lrn.size.saturating_sub(1))?;
        let (shape, constants) = (PoolShape::new(pool, images)?, LrnConstants::of_maps(lrn)?);
        let element = self.type_of(&[x, dy, dx])?;
        let x = self.input(x, images * pool.input.len())?;
        let winners = y.marked(&self.home, images * pool.output.len())?;
        let dy = self.input(dy, images * pool.output.len())?;
        let dx = self.output(dx, images * pool.input.len())?;
        let (maps, height) = (int(maps)?, Divider::new(pool.input.height)?);
        let activated = activation_code(pool.activated);
        let grid = Grid {
            blocks: [images * pool.input.height, map_tiles, 1],
            threads: (LANES * WARPS) as u32,
        };
        let kernels = match is_alexnets(lrn, pool) {
            true => &self.kernels.lrn_pool_backward_5_3_2,
            false => &self.kernels.lrn_pool_backward,
        };
        // SAFETY: the buffers and the marks were checked.
        unsafe {
            self.launch(
                kernels.of(element),
                grid,
                arguments![
                    x, winners, dy, dx, shape, maps, height, constants, activated
                ],
            )
        }
    }
}

/// Whether the kernels with AlexNet's sizes built in serve.
fn is_alexnets(lrn: &Lrn, pool: &Pool) -> bool {
    (lrn.size, pool.window.size, pool.window.stride) == (5, 3, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::op::Shape;

    fn ops(maps: usize, side: usize) -> (Lrn, Pool) {
        let shape = Shape::new(maps, side, side);
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
            output: window.output(shape, maps),
            window,
            activated: None,
        };
        (lrn, pool)
    }

    /// Worked out by hand: 27 × 27 outputs in nine squares of 9 × 9, which see 19 × 19 inputs; 13 × 13 in four of 7 × 7.
    #[test]
    fn squares_cover_alexnets_layers_with_little_to_spare() {
        for (maps, side, expected) in [(48, 55, (9, 19)), (128, 27, (7, 15))] {
            let square = Square::choose(&ops(maps, side).1).unwrap();
            assert_eq!((square.side, square.halo), expected);
        }
    }

    #[test]
    fn maps_are_shared_out_evenly_with_room_for_their_neighbours() {
        let tiles = |maps, edges| map_tiles(&ops(maps, 5).0, edges).unwrap();
        assert_eq!(tiles(48, 4), (24, 2));
        assert_eq!(tiles(128, 4), (26, 5));
        assert_eq!(tiles(48, 8), (24, 2));
        assert_eq!(tiles(128, 8), (22, 6));
    }

    #[test]
    fn what_is_too_large_for_a_block_is_refused() {
        let (lrn, mut pool) = ops(48, 55);
        pool.window = Window::new(40, 1, 0);
        let error = Square::choose(&pool).unwrap_err();
        assert!(error.to_string().contains("40 pixels"), "{error}");
        assert!(map_tiles(&lrn, LANES).is_err());
    }
}
