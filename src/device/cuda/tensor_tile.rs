//! The tiles of products on tensor cores, and their choice; `kernels/tensor_tile.cuh`.

use super::conv_sums::WeightProduct;
use super::memory::Home;
use super::module::{Kernel, TENSOR_TILES, TensorConv, TensorKernels};
use crate::error::Result;
use crate::network::op::{Conv, Shape};

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
    pub fn depth(self) -> usize {
        64 / self.bytes()
    }

    /// Elements of a copy of 16 bytes.
    fn chunk(self) -> usize {
        16 / self.bytes()
    }

    pub fn kernels(self, tensor: &TensorKernels) -> &TensorConv {
        match self {
            Number::Bf16 => &tensor.bf16,
            Number::F16 => &tensor.f16,
            Number::Tf32 => &tensor.tf32,
        }
    }
}

/// A kernel's tile, in the order in which kernels are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    Packed128,
    Packed96,
    Packed64,
    Packed48,
    /// 48 columns, for numbers of maps that no copy of 16 bytes divides.
    Single48,
    /// The same for windows whose rows are strips, copied by four (conv1's). Not for the gradient of the input.
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

    pub fn threads(self) -> u32 {
        if self == Tile::Packed128 { 256 } else { 128 }
    }

    /// For `columns` outputs, where `maps` and `columns` are both copied in chunks: the widest that wastes least.
    pub fn choose(number: Number, columns: usize, maps: usize) -> Self {
        let chunk = number.chunk();
        if !columns.is_multiple_of(chunk) || !maps.is_multiple_of(chunk) {
            return Tile::Single48;
        }
        let wasted = |tile: &&Tile| columns.next_multiple_of(tile.columns()) - columns;
        let packed = Tile::ALL[..4].iter().min_by_key(wasted);
        packed.copied().unwrap_or(Tile::Packed64)
    }

    /// As [`choose`](Tile::choose), for the products whose patches are of the input.
    pub fn choose_for(number: Number, op: &Conv) -> Self {
        let tile = Tile::choose(number, op.output.maps, op.input.maps);
        // In a row every strip starts at a multiple of four numbers.
        let strips = tile == Tile::Single48
            && op.parts == 1
            && (op.window.stride * op.input.maps).is_multiple_of(4)
            && op.output.maps.is_multiple_of(number.chunk());
        if strips { Tile::Strip48 } else { tile }
    }

    /// The input as the tile's kernels read it. For strips it contains the window's padding, and a row is a multiple of
    /// four numbers; where that is not `op.input`, it is to be copied first.
    pub fn input(self, op: &Conv) -> Shape {
        if self != Tile::Strip48 {
            return op.input;
        }
        let (maps, around) = (op.input.maps, 2 * op.window.pad);
        let width = op.input.width + around;
        let by_four = |width: &usize| (width * maps).is_multiple_of(4);
        let width = (width..width + 4).find(by_four).unwrap_or(width);
        Shape::new(maps, op.input.height + around, width)
    }

    /// Rows of a matrix of weights as the tile counts them.
    pub fn depth(self, op: &Conv) -> usize {
        match self {
            Tile::Strip48 => op.window.size * (op.window.size * op.input.maps).next_multiple_of(4),
            _ => op.depth(),
        }
    }

    /// Tiles of a matrix.
    pub fn tiles(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(TILE_ROWS) * columns.div_ceil(self.columns())
    }

    /// Bytes of the sums of so many tiles.
    pub fn sums(self, tiles: usize) -> usize {
        tiles * TILE_ROWS * self.columns() * 4
    }

    /// The gradient of the weights, where so many blocks fit a multiprocessor.
    pub(super) fn weight_product(
        self,
        number: Number,
        op: &Conv,
        resident: usize,
    ) -> WeightProduct {
        let rows = self.depth(op);
        WeightProduct {
            tiles: self.tiles(rows, op.output.maps),
            rows_left: rows.next_multiple_of(TILE_ROWS) - rows,
            depth: number.depth(),
            resident,
            input: self.input(op),
        }
    }
}

/// Which product of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
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

    pub fn kernel(self, kernels: &TensorConv, tile: Tile) -> &Kernel {
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
    pub fn shared(self, number: Number, tile: Tile) -> usize {
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

/// Lets every kernel have the shared memory it needs, and asks how many blocks fit of those whose sums are cut into parts.
pub fn allow_shared(home: &Home, kernels: &TensorKernels) -> Result<()> {
    for number in [Number::Bf16, Number::F16, Number::Tf32] {
        for product in Product::ALL {
            let no_strips =
                |tile: &Tile| product == Product::BackwardData && *tile == Tile::Strip48;
            for tile in Tile::ALL.into_iter().filter(|tile| !no_strips(tile)) {
                let kernel = product.kernel(number.kernels(kernels), tile);
                let shared = product.shared(number, tile);
                kernel.allow_shared(home, shared)?;
                if product == Product::BackwardWeights {
                    kernel.ask_resident(home, tile.threads(), shared)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::op::Window;

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
    fn conv1_is_done_by_strips_from_images_whose_rows_are_a_multiple_of_four() {
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
        for (side, pad, height, width) in [
            (224, 0, 224, 224),
            (227, 0, 227, 228),
            (224, 2, 228, 228),
            (225, 1, 227, 228),
        ] {
            let op = conv1(side, pad);
            let tile = Tile::choose_for(Number::Bf16, &op);
            assert_eq!(tile, Tile::Strip48, "{side} pixels, padded by {pad}");
            assert_eq!(tile.input(&op), Shape::new(3, height, width));
        }
        let (mut every_third, mut of_two) = (conv1(224, 0), conv1(224, 0));
        every_third.window.stride = 3;
        of_two.parts = 2;
        for op in [every_third, of_two] {
            assert_eq!(Tile::choose_for(Number::Bf16, &op), Tile::Single48);
        }
        assert_eq!(Tile::Strip48.depth(&conv1(224, 0)), 11 * 36);
    }

    #[test]
    fn two_blocks_fit_the_shared_memory_of_an_a100_and_one_that_of_any_gpu_since() {
        for number in [Number::Bf16, Number::F16, Number::Tf32] {
            for product in Product::ALL {
                for tile in Tile::ALL {
                    // Beside the table of patches or windows, and what the system keeps of each block: 1 KiB.
                    let block = product.shared(number, tile) + 2048 + 1024;
                    assert!(2 * block <= 164 << 10, "{product:?} {number:?} {tile:?}");
                    assert!(block <= 99 << 10, "{product:?} {number:?} {tile:?}");
                }
            }
        }
    }
}
