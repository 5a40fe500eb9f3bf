//! Convolution on tensor cores; `kernels/conv_tensor.cuh`.

use super::buffer::Element;
use super::conv::ConvShape;
use super::geometry::{Divider, activation_code, int};
use super::memory::Home;
use super::module::{Grid, Kernel, TENSOR_TILES, TensorConv, TensorKernels, arguments};
use super::{Buffer, CudaDevice};
use crate::error::{Result, device};
use crate::network::op::Conv;
use crate::precision::Precision;
use std::ffi::c_void;

/// Rows of a block's tile and stages of its pipeline, as in `kernels/tensor_tile.cuh`.
const TILE_ROWS: usize = 128;
const STAGES: usize = 3;

/// What the operands of a product are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Bf16,
    F16,
    Tf32,
}

impl Number {
    fn bytes(self) -> usize {
        if self == Number::Tf32 { 4 } else { 2 }
    }

    /// Depth of a tile: 64 bytes.
    fn depth(self) -> usize {
        64 / self.bytes()
    }

    /// Elements of a copy of 16 bytes.
    fn chunk(self) -> usize {
        16 / self.bytes()
    }

    fn kernels(self, tensor: &TensorKernels) -> &TensorConv {
        match self {
            Number::Bf16 => &tensor.bf16,
            Number::F16 => &tensor.f16,
            Number::Tf32 => &tensor.tf32,
        }
    }
}

/// A kernel's tile, in the order in which kernels are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tile {
    Packed128,
    Packed96,
    Packed64,
    Packed48,
    /// 48 columns, for numbers of maps that no copy of 16 bytes divides.
    Single48,
    /// The same for few maps: rows of windows are strips, copied by four. Not for the gradient of the input.
    Strip48,
}

impl Tile {
    const ALL: [Tile; TENSOR_TILES + 1] = [
        Tile::Packed128,
        Tile::Packed96,
        Tile::Packed64,
        Tile::Packed48,
        Tile::Single48,
        Tile::Strip48,
    ];

    fn columns(self) -> usize {
        match self {
            Tile::Packed128 => 128,
            Tile::Packed96 => 96,
            Tile::Packed64 => 64,
            Tile::Packed48 | Tile::Single48 | Tile::Strip48 => 48,
        }
    }

    fn threads(self) -> u32 {
        if self == Tile::Packed128 { 256 } else { 128 }
    }

    /// Blocks that fit a multiprocessor, as far as registers decide (see the kernels' launch bounds).
    fn resident(self) -> usize {
        match self {
            Tile::Packed128 | Tile::Single48 => 2,
            Tile::Packed96 | Tile::Packed64 | Tile::Strip48 => 3,
            Tile::Packed48 => 4,
        }
    }

    /// For `columns` outputs, where `maps` and `columns` are both copied in chunks: the widest that wastes least.
    fn choose(number: Number, columns: usize, maps: usize) -> Self {
        let chunk = number.chunk();
        if !columns.is_multiple_of(chunk) || !maps.is_multiple_of(chunk) {
            return Tile::Single48;
        }
        let wasted = |tile: &&Tile| columns.next_multiple_of(tile.columns()) - columns;
        let packed = Tile::ALL[..4].iter().min_by_key(wasted);
        packed.copied().unwrap_or(Tile::Packed64)
    }

    /// As [`choose`](Tile::choose), for the products whose patches are of the input.
    fn choose_for(number: Number, op: &Conv) -> Self {
        let tile = Tile::choose(number, op.output.maps, op.input.maps);
        // Every strip starts at a multiple of four numbers.
        let by_four = |numbers: usize| (numbers * op.input.maps).is_multiple_of(4);
        let strips = tile == Tile::Single48
            && op.parts == 1
            && op.window.pad == 0
            && by_four(op.window.stride)
            && by_four(op.input.width)
            && op.output.maps.is_multiple_of(number.chunk());
        if strips { Tile::Strip48 } else { tile }
    }

    /// Rows of a matrix of weights as the tile counts them.
    fn depth(self, op: &Conv) -> usize {
        match self {
            Tile::Strip48 => op.window.size * (op.window.size * op.input.maps).next_multiple_of(4),
            _ => op.depth(),
        }
    }

    /// Tiles of a matrix.
    fn tiles(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(TILE_ROWS) * columns.div_ceil(self.columns())
    }
}

/// Which product of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    Forward,
    BackwardData,
    BackwardWeights,
}

impl Product {
    const ALL: [Product; 3] = [
        Product::Forward,
        Product::BackwardData,
        Product::BackwardWeights,
    ];

    fn kernel(self, kernels: &TensorConv, tile: Tile) -> &Kernel {
        match (self, tile) {
            (Product::Forward, Tile::Strip48) => return &kernels.strip_forward,
            (Product::BackwardWeights, Tile::Strip48) => return &kernels.strip_backward_weights,
            _ => {}
        }
        let kernels = match self {
            Product::Forward => &kernels.forward,
            Product::BackwardData => &kernels.backward_data,
            Product::BackwardWeights => &kernels.backward_weights,
        };
        &kernels[tile as usize]
    }

    /// Dynamic shared memory of a block in bytes, as `Stages` in `kernels/tensor_tile.cuh` lays it out.
    fn shared(self, number: Number, tile: Tile) -> usize {
        let (depth, columns) = (number.depth(), tile.columns());
        let (along_k, rows, across) = (depth + number.chunk(), TILE_ROWS + 8, columns + 8);
        let elements = match self {
            Product::Forward => TILE_ROWS * along_k + depth * across,
            Product::BackwardData => TILE_ROWS * along_k + columns * along_k,
            Product::BackwardWeights => depth * rows + depth * across,
        };
        STAGES * elements * number.bytes()
    }
}

/// Lets every kernel have the shared memory it needs.
pub fn allow_shared(home: &Home, kernels: &TensorKernels) -> Result<()> {
    for number in [Number::Bf16, Number::F16, Number::Tf32] {
        for product in Product::ALL {
            let no_strips =
                |tile: &Tile| product == Product::BackwardData && *tile == Tile::Strip48;
            for tile in Tile::ALL.into_iter().filter(|tile| !no_strips(tile)) {
                let kernel = product.kernel(number.kernels(kernels), tile);
                kernel.allow_shared(home, product.shared(number, tile))?;
            }
        }
    }
    Ok(())
}

impl CudaDevice {
    /// What two operands of a product are rounded to on tensor cores; none where they are plain f32.
    pub(super) fn number_of(&self, first: &Buffer, second: &Buffer) -> Result<Option<Number>> {
        let types = [first, second].map(|b| match b.copy() {
            (Element::F32, _) => b.element(),
            (copy, _) => copy,
        });
        match types {
            [Element::F32, Element::F32] if self.precision == Precision::Tf32 => {
                Ok(Some(Number::Tf32))
            }
            [Element::F32, Element::F32] => Ok(None),
            [Element::Bf16, Element::Bf16] => Ok(Some(Number::Bf16)),
            [Element::F16, Element::F16] => Ok(Some(Number::F16)),
            [first, second] => Err(device(format!(
                "{}: a product of {first:?} and {second:?}",
                self.home.name
            ))),
        }
    }

    #[allow(clippy::too_many_arguments)] // the number, and the operation's
    pub(super) fn launch_tensor_forward(
        &mut self,
        number: Number,
        op: &Conv,
        images: usize,
        x: &[&Buffer],
        weights: &[&Buffer],
        bias: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let shape = ConvShape::new(op, images)?;
        self.expect_f32(&[bias])?;
        self.parts_type(x, y)?;
        let [x, peer_x] = self.parts(op.parts, x, images * op.input.len())?;
        let [w, peer_w] = self.operands(op.parts, weights, op.depth() * op.output.maps)?;
        let ((_, w), (_, peer_w)) = (w, peer_w);
        let bias = self.input(bias, op.output.maps)?;
        let y = self.output(y, images * op.output.len())?;
        let (parts, activation) = (int(op.parts)?, activation_code(op.activation));
        let tile = Tile::choose_for(number, op);
        let tiles = tile.tiles(images * op.output.pixels(), op.output.maps);
        // SAFETY: every buffer was checked to hold what the shape says, in the kernel's type.
        unsafe {
            self.launch_tensor(
                (Product::Forward, number, tile),
                [tiles, 1],
                arguments![x, peer_x, w, peer_w, bias, y, parts, activation, shape],
            )
        }
    }

    pub(super) fn launch_tensor_backward_data(
        &mut self,
        number: Number,
        op: &Conv,
        images: usize,
        dy: &Buffer,
        weights: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let shape = ConvShape::new(op, images)?;
        self.type_of(&[dy, dx])?;
        let dy = self.input(dy, images * op.output.len())?;
        let (_, weights) = weights.operand(&self.home, op.depth() * op.output.maps)?;
        let dx = self.output(dx, images * op.input.len())?;
        let tile = Tile::choose(number, op.input.maps, op.output.maps);
        let tiles = tile.tiles(images * op.input.pixels(), op.input.maps);
        // SAFETY: every buffer was checked to hold what the shape says, in the kernel's type.
        unsafe {
            self.launch_tensor(
                (Product::BackwardData, number, tile),
                [tiles, 1],
                arguments![dy, weights, dx, shape],
            )
        }
    }

    #[allow(clippy::too_many_arguments)] // the number, and the operation's
    pub(super) fn launch_tensor_backward_weights(
        &mut self,
        number: Number,
        op: &Conv,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        accumulate: bool,
        gradient: &mut Buffer,
    ) -> Result<()> {
        let shape = ConvShape::new(op, images)?;
        let elements = op.depth() * op.output.maps;
        self.expect_f32(&[gradient])?;
        let (x, dy) = (
            self.input(x, images * op.input.len())?,
            self.input(dy, images * op.output.len())?,
        );
        let gradient = self.output(gradient, elements)?;
        let tile = Tile::choose_for(number, op);
        let tiles = tile.tiles(tile.depth(op), op.output.maps);
        let pixels = images * op.output.pixels();
        let (parts, share) = self.split(pixels, tiles, number.depth(), tile.resident());
        let to = if parts == 1 {
            gradient
        } else {
            self.workspace(parts * elements * 4)?
        };
        let directly = i32::from(accumulate && parts == 1);
        let (pixels, row) = (
            Divider::new(op.output.pixels())?,
            Divider::new(op.output.width)?,
        );
        let share = int(share)?;
        // SAFETY: every buffer was checked to hold what the shape says, in the kernel's type; `to` holds a gradient for
        // each part.
        unsafe {
            self.launch_tensor(
                (Product::BackwardWeights, number, tile),
                [tiles, parts],
                arguments![x, dy, to, share, directly, pixels, row, shape],
            )
        }?;
        if parts > 1 {
            // SAFETY: the work space holds the parts just written, the gradient was checked.
            unsafe { self.launch_sum_parts(to, gradient, parts, elements, accumulate) }?;
        }
        Ok(())
    }

    /// # Safety
    /// As [`Kernel::launch`].
    unsafe fn launch_tensor(
        &self,
        (product, number, tile): (Product, Number, Tile),
        [tiles, parts]: [usize; 2],
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let Some(tensor) = &self.kernels.tensor else {
            return Err(device(format!("{}: has no tensor cores", self.home.name)));
        };
        let grid = Grid {
            blocks: [tiles, parts, 1],
            threads: tile.threads(),
        };
        let (kernel, shared) = (
            product.kernel(number.kernels(tensor), tile),
            product.shared(number, tile),
        );
        // SAFETY: the caller's word; the kernel was allowed so much shared memory when it was loaded.
        unsafe {
            kernel.launch(
                &self.home,
                &self.home.streams.compute,
                grid,
                shared,
                arguments,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::op::{Shape, Window};

    #[test]
    fn tiles_fit_alexnets_layers_without_waste() {
        let choose = |(columns, maps)| Tile::choose(Number::Bf16, columns, maps);
        use Tile::*;
        // Forward: outputs, maps; then the gradients of the inputs: maps, outputs.
        assert_eq!(
            [(48, 3), (128, 48), (192, 128), (192, 192), (128, 192)].map(choose),
            [Single48, Packed128, Packed96, Packed96, Packed128]
        );
        assert_eq!(
            [(48, 128), (128, 192), (192, 192)].map(choose),
            [Packed48, Packed128, Packed96]
        );
        assert_eq!(Tile::choose(Number::Tf32, 12, 20), Packed48);
        assert_eq!(Tile::choose(Number::Bf16, 12, 20), Single48);
    }

    #[test]
    fn conv1_is_done_by_strips_where_its_rows_can_be_copied_by_four() {
        let conv1 = |side, pad| {
            let (input, window) = (Shape::new(3, side, side), Window::new(11, 4, pad));
            Conv {
                input,
                parts: 1,
                output: window.output(input, 48),
                window,
                activation: None,
            }
        };
        let choose = |op| Tile::choose_for(Number::Bf16, &op);
        assert_eq!(choose(conv1(224, 0)), Tile::Strip48);
        assert_eq!(choose(conv1(224, 2)), Tile::Single48);
        assert_eq!(choose(conv1(227, 0)), Tile::Single48);
        assert_eq!(Tile::Strip48.depth(&conv1(224, 0)), 11 * 36);
    }

    #[test]
    fn two_blocks_fit_the_shared_memory_of_an_a100_and_one_that_of_any_gpu_since() {
        for number in [Number::Bf16, Number::F16, Number::Tf32] {
            for product in Product::ALL {
                for tile in Tile::ALL {
                    // Beside the table of patches, and what the system keeps of each block: 1 KiB.
                    let block = product.shared(number, tile) + 1536 + 1024;
                    assert!(2 * block <= 164 << 10, "{product:?} {number:?} {tile:?}");
                    assert!(block <= 99 << 10, "{product:?} {number:?} {tile:?}");
                }
            }
        }
    }
}
