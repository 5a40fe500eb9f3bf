//! Convolution; `kernels/conv.cu`.

use super::conv_sums::WeightProduct;
use super::geometry::{Pointer, activation_code, argument_types, int};
use super::memory::Home;
use super::module::{Grid, Kernel, Kernels, arguments};
use super::parts::Turn;
use super::{Buffer, CudaDevice};
use crate::device::{Activated, ConvGradients};
use crate::error::{Result, device};
use crate::network::op::Conv;

/// Rows of a block's tile, its depth, and its threads, as in the kernels.
const TILE_ROWS: usize = 128;
const TILE_DEPTH: usize = 16;
const THREADS: u32 = 128;

/// `kernels/conv.cu`'s `ConvShape`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct ConvShape {
    images: i32,
    height: i32,
    width: i32,
    maps: i32,
    out_height: i32,
    out_width: i32,
    outputs: i32,
    size: i32,
    stride: i32,
    pad: i32,
}
argument_types!(ConvShape);

impl ConvShape {
    /// Also makes sure that every index of the operation fits 32 bits.
    pub(super) fn new(op: &Conv, images: usize) -> Result<Self> {
        int(images * op.input.len())?;
        int(images * op.output.len())?;
        int(op.depth() * op.output.maps)?;
        if op.window.size > 1024 {
            return Err(device(format!(
                "a convolution of {} pixels is more than kernels can do (1024)",
                op.window.size
            )));
        }
        Ok(ConvShape {
            images: int(images)?,
            height: int(op.input.height)?,
            width: int(op.input.width)?,
            maps: int(op.input.maps)?,
            out_height: int(op.output.height)?,
            out_width: int(op.output.width)?,
            outputs: int(op.output.maps)?,
            size: int(op.window.size)?,
            stride: int(op.window.stride)?,
            pad: int(op.window.pad)?,
        })
    }
}

/// Which of a kernel's variants serves: the width of its tiles, and whether maps are gathered by fours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Variant {
    Packed64,
    Packed48,
    Packed32,
    Single48,
    Single32,
}

impl Variant {
    const ALL: [Variant; 5] = [
        Variant::Packed64,
        Variant::Packed48,
        Variant::Packed32,
        Variant::Single48,
        Variant::Single32,
    ];

    /// For `columns` of outputs and a number of `gathered` maps: the widest tile that wastes least.
    pub(super) fn choose(columns: usize, gathered: usize) -> Self {
        let wasted = |tile: usize| columns.next_multiple_of(tile) - columns;
        if !gathered.is_multiple_of(4) {
            if wasted(32) < wasted(48) {
                Variant::Single32
            } else {
                Variant::Single48
            }
        } else if wasted(64) <= wasted(48).min(wasted(32)) {
            Variant::Packed64
        } else if wasted(48) <= wasted(32) {
            Variant::Packed48
        } else {
            Variant::Packed32
        }
    }

    fn tile_columns(self) -> usize {
        match self {
            Variant::Packed64 => 64,
            Variant::Packed48 | Variant::Single48 => 48,
            Variant::Packed32 | Variant::Single32 => 32,
        }
    }

    /// Tiles of a matrix.
    pub(super) fn tiles(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(TILE_ROWS) * columns.div_ceil(self.tile_columns())
    }

    /// Bytes of the sums of so many tiles.
    pub(super) fn sums(self, tiles: usize) -> usize {
        tiles * TILE_ROWS * self.tile_columns() * 4
    }

    /// The gradient of the weights, where so many blocks fit a multiprocessor.
    pub(super) fn weight_product(self, op: &Conv, resident: usize) -> WeightProduct {
        let rows = op.depth();
        WeightProduct {
            tiles: self.tiles(rows, op.output.maps),
            rows_left: rows.next_multiple_of(TILE_ROWS) - rows,
            depth: TILE_DEPTH,
            resident,
            input: op.input,
        }
    }

    fn forward(self, kernels: &Kernels) -> &Kernel {
        match self {
            Variant::Packed64 => &kernels.conv_forward_64_packed,
            Variant::Packed48 => &kernels.conv_forward_48_packed,
            Variant::Packed32 => &kernels.conv_forward_32_packed,
            Variant::Single48 => &kernels.conv_forward_48,
            Variant::Single32 => &kernels.conv_forward_32,
        }
    }

    fn backward_data(self, kernels: &Kernels) -> &Kernel {
        match self {
            Variant::Packed64 => &kernels.conv_backward_data_64_packed,
            Variant::Packed48 => &kernels.conv_backward_data_48_packed,
            Variant::Packed32 => &kernels.conv_backward_data_32_packed,
            Variant::Single48 => &kernels.conv_backward_data_48,
            Variant::Single32 => &kernels.conv_backward_data_32,
        }
    }

    fn backward_weights(self, kernels: &Kernels) -> &Kernel {
        match self {
            Variant::Packed64 => &kernels.conv_backward_weights_64_packed,
            Variant::Packed48 => &kernels.conv_backward_weights_48_packed,
            Variant::Packed32 => &kernels.conv_backward_weights_32_packed,
            Variant::Single48 => &kernels.conv_backward_weights_48,
            Variant::Single32 => &kernels.conv_backward_weights_32,
        }
    }
}

/// Asks how many blocks fit of the kernels whose sums are cut into parts.
pub(super) fn ask_resident(home: &Home, kernels: &Kernels) -> Result<()> {
    for variant in Variant::ALL {
        let kernel = variant.backward_weights(kernels);
        kernel.ask_resident(home, THREADS, 0)?;
    }
    Ok(())
}

impl CudaDevice {
    pub(super) fn launch_conv_forward(
        &mut self,
        op: &Conv,
        images: usize,
        x: &[&Buffer],
        weights: &[&Buffer],
        bias: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        if let Some(number) = self.number_of(x[0], weights[0])? {
            return self.launch_tensor_forward(number, op, images, x, weights, bias, y);
        }
        self.expect_f32(&[x[0], bias, y])?;
        let shape = ConvShape::new(op, images)?;
        let weights = self.parts(op.parts, weights, op.depth() * op.output.maps)?;
        let bias = self.input(bias, op.output.maps)?;
        let y = self.output(y, images * op.output.len())?;
        let activation = activation_code(op.activation);
        let variant = Variant::choose(op.output.maps, op.input.maps);
        let tiles = variant.tiles(images * op.output.pixels(), op.output.maps);
        let sums = variant.sums(tiles);
        for Turn { parts, partial } in self.turns(op.parts, x, sums)? {
            let [w, peer_w] = [weights[parts.start], weights[1]];
            // Here and no earlier: this waits for a message.
            let [x, peer_x] = self.parts(parts.len(), &x[parts], images * op.input.len())?;
            // SAFETY: every buffer was checked to hold what the shape says, the work space the sums of every tile.
            unsafe {
                self.launch(
                    variant.forward(&self.kernels),
                    Grid {
                        blocks: [tiles, 1, 1],
                        threads: THREADS,
                    },
                    arguments![x, peer_x, w, peer_w, bias, y, activation, partial, shape],
                )
            }?;
        }
        Ok(())
    }

    pub(super) fn launch_conv_backward_data(
        &mut self,
        op: &Conv,
        images: usize,
        dy: &Buffer,
        weights: &Buffer,
        before: Option<Activated<'_, Buffer>>,
        dx: &mut Buffer,
    ) -> Result<()> {
        if let Some(number) = self.number_of(dy, weights)? {
            return self.launch_tensor_backward_data(number, op, images, dy, weights, before, dx);
        }
        self.expect_f32(&[dy, dx])?;
        let shape = ConvShape::new(op, images)?;
        let (y, activated) = self.activated(before, images * op.input.len(), dx)?;
        let dy = self.input(dy, images * op.output.len())?;
        let weights = self.input(weights, op.depth() * op.output.maps)?;
        let dx = self.output(dx, images * op.input.len())?;
        let variant = Variant::choose(op.input.maps, op.output.maps);
        let tiles = variant.tiles(images * op.input.pixels(), op.input.maps);
        // SAFETY: every buffer was checked to hold what the shape says.
        unsafe {
            self.launch(
                variant.backward_data(&self.kernels),
                Grid {
                    blocks: [tiles, 1, 1],
                    threads: THREADS,
                },
                arguments![dy, weights, y, activated, dx, shape],
            )
        }
    }

    pub(super) fn launch_conv_backward_weights(
        &mut self,
        op: &Conv,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        to: ConvGradients<'_, Buffer>,
    ) -> Result<()> {
        if let Some(number) = self.number_of(x, dy)? {
            return self.launch_tensor_backward_weights(number, op, images, x, dy, to);
        }
        self.expect_f32(&[x, dy])?;
        let variant = Variant::choose(op.output.maps, op.input.maps);
        let resident = variant.backward_weights(&self.kernels).resident();
        let product = variant.weight_product(op, resident);
        self.launch_conv_sums(op, images, [x, dy], to, product, |device| {
            Ok((variant.backward_weights(&device.kernels), THREADS, 0))
        })
    }

    /// The output of an activation of so many elements, of `like`'s type, or null, and the activation's code.
    pub(super) fn activated(
        &self,
        activated: Option<Activated<'_, Buffer>>,
        elements: usize,
        like: &Buffer,
    ) -> Result<(Pointer, i32)> {
        let Some(Activated { activation, y }) = activated else {
            return Ok((Pointer::NULL, activation_code(None)));
        };
        self.type_of(&[y, like])?;
        Ok((self.input(y, elements)?, activation_code(Some(activation))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_alexnets_layers_without_waste() {
        let choices = [(48, 3), (128, 48), (192, 128), (192, 192), (128, 192)]
            .map(|(n, maps)| Variant::choose(n, maps));
        use Variant::*;
        assert_eq!(choices, [Single48, Packed64, Packed64, Packed64, Packed64]);
        assert_eq!(Variant::choose(96, 32), Packed48);
        assert_eq!(Variant::choose(12, 3), Single32);
    }
}
