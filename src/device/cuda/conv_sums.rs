//! The sums over pixels in the gradient of a convolution's weights and bias: cut into parts that occupy the GPU, each with
//! a slab of its own in the work space, then added up by `sum_parts` of `kernels/sums.cu`.

use super::conv::ConvShape;
use super::geometry::{Divider, Pointer, int};
use super::module::{Grid, Kernel, arguments};
use super::pad::padded_op;
use super::{Buffer, CudaDevice};
use crate::device::ConvGradients;
use crate::error::Result;
use crate::network::op::{Conv, Shape};

/// The product that gives the gradient, as a kernel cuts it into tiles.
pub(super) struct WeightProduct {
    /// Tiles of the gradient.
    pub tiles: usize,
    /// Rows of the last tiles below the weights'.
    pub rows_left: usize,
    /// Pixels that a block takes at a time.
    pub depth: usize,
    /// Blocks that fit a multiprocessor at once.
    pub resident: usize,
    /// The input as the kernel reads it; where that is not the convolution's, a padded copy.
    pub input: Shape,
}

impl WeightProduct {
    /// Into how many parts to cut a sum over `pixels` so that the tiles occupy a GPU, and the pixels of a part. The parts
    /// of all tiles fit at once where the tiles do: blocks left over would take as long again as all the others.
    fn split(&self, pixels: usize, multiprocessors: usize) -> (usize, usize) {
        let most = (self.resident * multiprocessors / self.tiles.max(1)).max(1);
        // A part of fewer pixels is mostly overhead.
        let parts = (pixels / (16 * self.depth)).clamp(1, most);
        let share = pixels.div_ceil(parts).next_multiple_of(self.depth);
        let share = share.max(self.depth);
        (pixels.div_ceil(share).max(1), share)
    }
}

/// Where a kernel puts the parts and where their sum goes.
struct Sums {
    /// Room for a padded copy of the input, where there is to be one.
    padded: Option<Pointer>,
    parts: usize,
    /// Pixels of a part.
    share: usize,
    /// A slab for each part; where there is one part, the gradient of the weights itself.
    slabs: Pointer,
    /// The gradients of the weights and, where its sums are a row below theirs, of the bias.
    to: [Pointer; 2],
    elements: [usize; 2],
}

impl CudaDevice {
    /// Gradients of one part's weights, and of the bias where it is asked for, by the kernel that `choose` gives with its
    /// threads and its dynamic shared memory.
    pub(super) fn launch_conv_sums(
        &mut self,
        op: &Conv,
        images: usize,
        [x, dy]: [&Buffer; 2],
        to: ConvGradients<'_, Buffer>,
        product: WeightProduct,
        choose: impl FnOnce(&CudaDevice) -> Result<(&Kernel, u32, usize)>,
    ) -> Result<()> {
        let (mut bias, accumulate) = (to.bias, to.accumulate);
        let sums = self.conv_sums(op, images, &product, x, to.weights, &mut bias)?;
        let mut from = [
            self.input(x, images * op.input.len())?,
            self.input(dy, images * op.output.len())?,
        ];
        if let Some(padded) = sums.padded {
            self.launch_pad(op, images, x, product.input, padded)?;
            from[0] = padded;
        }
        let shape = ConvShape::new(&padded_op(op, product.input), images)?;
        let dividers = [
            Divider::new(op.output.pixels())?,
            Divider::new(op.output.width)?,
        ];
        let directly = i32::from(accumulate && sums.parts == 1);
        let with_bias = i32::from(sums.elements[1] > 0);
        let ([x, dy_place], [pixels, row]) = (from, dividers);
        let (slabs, share) = (sums.slabs, int(sums.share)?);
        let (kernel, threads, shared) = choose(self)?;
        let blocks = [product.tiles, sums.parts, 1];
        let (home, grid) = (&self.home, Grid { blocks, threads });
        let arguments = arguments![
            x, dy_place, slabs, share, directly, with_bias, pixels, row, shape
        ];
        // SAFETY: every buffer was checked to hold what the shape says, in the kernel's type; there is a slab for each
        // part; the kernel was allowed so much shared memory when it was loaded.
        unsafe { kernel.launch(home, &home.streams.compute, grid, shared, arguments) }?;
        if sums.parts > 1 {
            // SAFETY: the work space holds the parts just written, the gradients were checked.
            unsafe {
                self.launch_sum_parts(slabs, sums.to, sums.parts, sums.elements, accumulate)
            }?;
        }
        match bias {
            Some(bias) => {
                let rows = images * op.output.pixels();
                self.launch_bias_backward(rows, op.output.maps, dy, accumulate, bias)
            }
            None => Ok(()),
        }
    }

    /// Checks where the gradients go and makes room for the parts. Takes `bias` where its sums become one row more of
    /// the product: where that costs nothing, and `sum_parts` finds it at a multiple of four.
    fn conv_sums(
        &mut self,
        op: &Conv,
        images: usize,
        product: &WeightProduct,
        x: &Buffer,
        weights: &mut Buffer,
        bias: &mut Option<&mut Buffer>,
    ) -> Result<Sums> {
        let outputs = op.output.maps;
        let (parts, share) = product.split(images * op.output.pixels(), self.multiprocessors);
        self.expect_f32(&[weights])?;
        let mut elements = [op.depth() * outputs, 0];
        let mut to = [self.output(weights, elements[0])?, Pointer::NULL];
        let is_row = parts > 1 && product.rows_left > 0 && outputs.is_multiple_of(4);
        if let Some(bias) = bias.take_if(|_| is_row) {
            self.expect_f32(&[bias])?;
            (to[1], elements[1]) = (self.output(bias, outputs)?, outputs);
        }
        let padded = match product.input == op.input {
            true => 0,
            false => images * product.input.len() * x.element().bytes(),
        };
        // The slabs follow, where reads of 16 bytes are aligned.
        let after = padded.next_multiple_of(16);
        let slabs = match parts {
            1 => 0,
            _ => parts * (elements[0] + elements[1]) * 4,
        };
        let place = match after + slabs {
            0 => Pointer::NULL,
            bytes => self.workspace(bytes)?,
        };
        let slabs = match parts {
            1 => to[0],
            _ => place.offset(after),
        };
        Ok(Sums {
            padded: (padded > 0).then_some(place),
            parts,
            share,
            slabs,
            to,
            elements,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::conv::Variant;
    use super::super::tensor_tile::{Number, Tile};
    use super::*;
    use crate::network::op::Window;

    /// AlexNet's, of one column of two.
    fn the_five_layers() -> [Conv; 5] {
        let layer = |side, maps, parts, outputs, [size, stride, pad]: [usize; 3]| {
            let (input, window) = (Shape::new(maps, side, side), Window::new(size, stride, pad));
            Conv {
                input,
                parts,
                output: window.output(input, outputs),
                window,
                activation: None,
            }
        };
        [
            layer(224, 3, 1, 48, [11, 4, 0]),
            layer(27, 48, 1, 128, [5, 1, 2]),
            layer(13, 128, 2, 192, [3, 1, 1]),
            layer(13, 192, 1, 192, [3, 1, 1]),
            layer(13, 192, 1, 128, [3, 1, 1]),
        ]
    }

    fn products(op: &Conv, resident: usize) -> Vec<WeightProduct> {
        let tensor = [Number::Bf16, Number::F16, Number::Tf32]
            .map(|number| Tile::choose_for(number, op).weight_product(number, op, resident));
        let plain = Variant::choose(op.output.maps, op.input.maps).weight_product(op, resident);
        tensor.into_iter().chain([plain]).collect()
    }

    #[test]
    fn alexnets_sums_fit_a_gpu_at_once_and_leave_less_than_half_of_it_idle() {
        let (layers, images) = (the_five_layers(), 128);
        for (multiprocessors, resident) in [108, 132, 142]
            .into_iter()
            .flat_map(|m| (1..5).map(move |r| (m, r)))
        {
            for (op, product) in layers
                .iter()
                .flat_map(|op| products(op, resident).into_iter().map(move |p| (op, p)))
            {
                let pixels = images * op.output.pixels();
                let (parts, share) = product.split(pixels, multiprocessors);
                let (blocks, slots) = (product.tiles * parts, resident * multiprocessors);
                let case = format!("{blocks} blocks of {} tiles, {slots} fit", product.tiles);
                assert!(product.tiles <= slots, "{case}");
                assert!(blocks <= slots && 2 * blocks > slots, "{case}");
                assert!(
                    parts * share >= pixels && (parts - 1) * share < pixels,
                    "{case}"
                );
            }
        }
    }

    #[test]
    fn more_tiles_than_fit_at_once_are_summed_in_one_part() {
        let mut product = products(&the_five_layers()[3], 1).remove(0);
        product.tiles = 200;
        assert_eq!(product.split(10_000, 132), (1, 10_016));
        product.tiles = 0;
        assert_eq!(product.split(0, 132), (1, 32));
    }
}
