//! The tiles of products on tensor cores, and their choice; `kernels/tensor_tile.cuh` and `kernels/warpgroup_tile.cuh`.

use super::conv_sums::WeightProduct;
use crate::network::op::{Conv, Shape};

/// Rows of a block's tile.
const TILE_ROWS: usize = 128;

/// What the operands of a product are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Bf16,
    F16,
    Tf32,
}

impl Number {
    pub const ALL: [Number; 3] = [Number::Bf16, Number::F16, Number::Tf32];

    fn bytes(self) -> usize {
        if self == Number::Tf32 { 4 } else { 2 }
    }

    /// Elements of a copy of 16 bytes.
    fn chunk(self) -> usize {
        16 / self.bytes()
    }

    /// As kernels' names have it.
    pub fn name(self) -> &'static str {
        match self {
            Number::Bf16 => "bf16",
            Number::F16 => "f16",
            Number::Tf32 => "tf32",
        }
    }
}

/// A kernel's tile.
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
    /// By wgmma, in 16 bits.
    Warpgroup192,
    Warpgroup128,
    /// For the gradient of the input alone.
    Warpgroup48,
}

impl Tile {
    const PACKED: [Tile; 4] = [
        Tile::Packed128,
        Tile::Packed96,
        Tile::Packed64,
        Tile::Packed48,
    ];
    const ALL: [Tile; 9] = [
        Tile::Packed128,
        Tile::Packed96,
        Tile::Packed64,
        Tile::Packed48,
        Tile::Single48,
        Tile::Strip48,
        Tile::Warpgroup192,
        Tile::Warpgroup128,
        Tile::Warpgroup48,
    ];

    /// As kernels' names have it.
    pub fn name(self) -> &'static str {
        match self {
            Tile::Packed128 => "128",
            Tile::Packed96 => "96",
            Tile::Packed64 => "64",
            Tile::Packed48 => "48",
            Tile::Single48 => "single",
            Tile::Strip48 => "strip",
            Tile::Warpgroup192 => "warpgroup192",
            Tile::Warpgroup128 => "warpgroup128",
            Tile::Warpgroup48 => "warpgroup48",
        }
    }

    fn columns(self) -> usize {
        match self {
            Tile::Warpgroup192 => 192,
            Tile::Packed128 | Tile::Warpgroup128 => 128,
            Tile::Packed96 => 96,
            Tile::Packed64 => 64,
            Tile::Packed48 | Tile::Single48 | Tile::Strip48 | Tile::Warpgroup48 => 48,
        }
    }

    /// Whether its products are by wgmma.
    pub fn is_of_warpgroups(self) -> bool {
        matches!(
            self,
            Tile::Warpgroup192 | Tile::Warpgroup128 | Tile::Warpgroup48
        )
    }

    /// Depth of a stage: 64 bytes, by wgmma 128.
    fn depth(self, number: Number) -> usize {
        let bytes = if self.is_of_warpgroups() { 128 } else { 64 };
        bytes / number.bytes()
    }

    fn stages(self) -> usize {
        match self {
            Tile::Warpgroup192 | Tile::Warpgroup48 => 4,
            _ => 3,
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Tile::Packed128 => 256,
            _ if self.is_of_warpgroups() => 256,
            _ => 128,
        }
    }

    /// Of the tiles by wgmma the widest that wastes nothing of a product, if there is one.
    pub fn choose_warpgroup(product: Product, number: Number, op: &Conv) -> Option<Self> {
        let (columns, maps) = match product {
            Product::Forward | Product::BackwardWeights => (op.output.maps, op.input.maps),
            Product::BackwardData => (op.input.maps, op.output.maps),
        };
        let in_chunks = |maps: usize| maps.is_multiple_of(number.chunk());
        let serves = |tile: &Tile| columns.is_multiple_of(tile.columns());
        if !in_chunks(maps) || !in_chunks(columns) {
            return None;
        }
        product.tiles(number, true).find(serves)
    }

    /// For `columns` outputs, where `maps` and `columns` are both copied in chunks: the widest that wastes least.
    pub fn choose(number: Number, columns: usize, maps: usize) -> Self {
        let chunk = number.chunk();
        if !columns.is_multiple_of(chunk) || !maps.is_multiple_of(chunk) {
            return Tile::Single48;
        }
        let wasted = |tile: &&Tile| columns.next_multiple_of(tile.columns()) - columns;
        let packed = Tile::PACKED.iter().min_by_key(wasted);
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
    pub fn rows(self, op: &Conv) -> usize {
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
        let rows = self.rows(op);
        WeightProduct {
            tiles: self.tiles(rows, op.output.maps),
            rows_left: rows.next_multiple_of(TILE_ROWS) - rows,
            depth: self.depth(number),
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
    pub const ALL: [Product; 3] = [
        Product::Forward,
        Product::BackwardData,
        Product::BackwardWeights,
    ];

    /// As kernels' names have it.
    pub fn name(self) -> &'static str {
        match self {
            Product::Forward => "forward",
            Product::BackwardData => "backward_data",
            Product::BackwardWeights => "backward_weights",
        }
    }

    /// Whether there is a kernel for it of such numbers with this tile.
    fn has(self, number: Number, tile: Tile) -> bool {
        let backward_data = self == Product::BackwardData;
        match tile {
            Tile::Strip48 => !backward_data,
            Tile::Warpgroup48 => backward_data && number != Number::Tf32,
            _ => number != Number::Tf32 || !tile.is_of_warpgroups(),
        }
    }

    /// The tiles of its kernels of such numbers, the widest first: those by wgmma, or all others.
    pub fn tiles(self, number: Number, by_wgmma: bool) -> impl Iterator<Item = Tile> {
        let all = Tile::ALL.into_iter();
        all.filter(move |tile| tile.is_of_warpgroups() == by_wgmma && self.has(number, *tile))
    }

    /// Dynamic shared memory of a block in bytes, as the kernels' `Stages` lay it out.
    pub fn shared(self, number: Number, tile: Tile) -> usize {
        let (depth, columns) = (tile.depth(number), tile.columns());
        if tile.is_of_warpgroups() {
            // Swizzled rows begin at multiples of 1024 bytes.
            return tile.stages() * (TILE_ROWS + columns) * depth * number.bytes() + 1024;
        }
        let (along_k, rows, across) = (depth + number.chunk(), TILE_ROWS + 8, columns + 8);
        let elements = match self {
            Product::Forward => TILE_ROWS * along_k + depth * across,
            Product::BackwardData => TILE_ROWS * along_k + columns * along_k,
            Product::BackwardWeights => depth * rows + depth * across,
        };
        tile.stages() * elements * number.bytes()
    }
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
        assert_eq!(Tile::Strip48.rows(&conv1(224, 0)), 11 * 36);
    }

    fn every_kernel(by_wgmma: bool) -> Vec<(Number, Product, Tile)> {
        let mut all = vec![];
        for number in Number::ALL {
            for product in Product::ALL {
                let tiles = product.tiles(number, by_wgmma);
                all.extend(tiles.map(|tile| (number, product, tile)));
            }
        }
        all
    }

    #[test]
    fn two_blocks_fit_the_shared_memory_of_an_a100_and_one_that_of_any_gpu_since() {
        for (number, product, tile) in every_kernel(false) {
            // Beside the table of patches or windows, and what the system keeps of each block: 1 KiB.
            let block = product.shared(number, tile) + 2048 + 1024;
            assert!(2 * block <= 164 << 10, "{product:?} {number:?} {tile:?}");
            assert!(block <= 99 << 10, "{product:?} {number:?} {tile:?}");
        }
    }

    #[test]
    fn blocks_of_wgmma_fit_the_shared_memory_of_an_h100() {
        for (number, product, tile) in every_kernel(true) {
            let blocks = if tile == Tile::Warpgroup192 { 1 } else { 2 };
            let block = product.shared(number, tile) + 2048 + 1024;
            assert!(
                blocks * block <= 228 << 10,
                "{product:?} {number:?} {tile:?}"
            );
        }
    }

    #[test]
    fn wgmma_serves_every_layer_of_alexnet_but_conv1() {
        let layer = |maps, outputs| {
            let (input, window) = (Shape::new(maps, 13, 13), Window::new(3, 1, 1));
            Conv {
                input,
                parts: 1,
                output: window.output(input, outputs),
                window,
                activation: None,
            }
        };
        let choose = |number, maps, outputs| {
            Product::ALL
                .map(|product| Tile::choose_warpgroup(product, number, &layer(maps, outputs)))
        };
        use Tile::*;
        let (w192, w128, w48) = (Some(Warpgroup192), Some(Warpgroup128), Some(Warpgroup48));
        assert_eq!(choose(Number::Bf16, 48, 128), [w128, w48, w128]);
        assert_eq!(choose(Number::F16, 128, 192), [w192, w128, w192]);
        assert_eq!(choose(Number::Bf16, 192, 192), [w192; 3]);
        assert_eq!(choose(Number::Bf16, 192, 128), [w128, w192, w128]);
        assert_eq!(choose(Number::Bf16, 3, 48), [None; 3]);
        assert_eq!(choose(Number::Tf32, 192, 192), [None; 3]);
    }
}
