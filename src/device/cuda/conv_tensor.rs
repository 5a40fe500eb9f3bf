//! Convolution on tensor cores; `kernels/conv_tensor.cuh`, and `kernels/conv_strip.cuh` for few maps.

use super::buffer::Element;
use super::conv::ConvShape;
use super::geometry::{Pointer, activation_code};
use super::module::{Grid, Kernel, arguments};
use super::pad::padded_op;
use super::parts::Turn;
use super::tensor_kernels::TensorKernels;
use super::tensor_tile::{Number, Product, Tile};
use super::{Buffer, CudaDevice};
use crate::device::{Activated, ConvGradients};
use crate::error::{Result, device};
use crate::network::op::Conv;
use crate::precision::Precision;
use std::ffi::c_void;

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
        let tile = self.tile_for(Product::Forward, number, op)?;
        self.expect_f32(&[bias])?;
        self.parts_type(x, y)?;
        let weights = self.operands(op.parts, weights, op.depth() * op.output.maps)?;
        let bias = self.input(bias, op.output.maps)?;
        let y = self.output(y, images * op.output.len())?;
        let activation = activation_code(op.activation);
        let tiles = tile.tiles(images * op.output.pixels(), op.output.maps);
        for Turn { parts, partial } in self.turns(op.parts, x, tile.sums(tiles))? {
            let [(_, w), (_, peer_w)] = [weights[parts.start], weights[1]];
            // Here and no earlier: this waits for a message.
            let ([x, peer_x], op) = self.tensor_input(tile, op, images, &x[parts])?;
            let shape = ConvShape::new(&op, images)?;
            // SAFETY: every buffer was checked to hold what the shape says, in the kernel's type, and the work space the
            // sums of every tile.
            unsafe {
                self.launch_tensor(
                    (Product::Forward, number, tile),
                    tiles,
                    arguments![x, peer_x, w, peer_w, bias, y, activation, partial, shape],
                )
            }?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the number, and the operation's
    pub(super) fn launch_tensor_backward_data(
        &mut self,
        number: Number,
        op: &Conv,
        images: usize,
        dy: &Buffer,
        weights: &Buffer,
        before: Option<Activated<'_, Buffer>>,
        dx: &mut Buffer,
    ) -> Result<()> {
        let shape = ConvShape::new(op, images)?;
        self.type_of(&[dy, dx])?;
        let (y, activated) = self.activated(before, images * op.input.len(), dx)?;
        let dy = self.input(dy, images * op.output.len())?;
        let (_, weights) = weights.operand(&self.home, op.depth() * op.output.maps)?;
        let dx = self.output(dx, images * op.input.len())?;
        let tile = self.tile_for(Product::BackwardData, number, op)?;
        let tiles = tile.tiles(images * op.input.pixels(), op.input.maps);
        // SAFETY: every buffer was checked to hold what the shape says, in the kernel's type.
        unsafe {
            self.launch_tensor(
                (Product::BackwardData, number, tile),
                tiles,
                arguments![dy, weights, y, activated, dx, shape],
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
        to: ConvGradients<'_, Buffer>,
    ) -> Result<()> {
        let tile = self.tile_for(Product::BackwardWeights, number, op)?;
        let (kernel, ..) = self.tensor_kernel(Product::BackwardWeights, number, tile)?;
        let product = tile.weight_product(number, op, kernel.resident());
        self.launch_conv_sums(op, images, [x, dy], to, product, |device| {
            device.tensor_kernel(Product::BackwardWeights, number, tile)
        })
    }

    /// The places of a convolution's input, of one or all parts, and the convolution, as the tile's forward kernel takes
    /// them.
    fn tensor_input(
        &mut self,
        tile: Tile,
        op: &Conv,
        images: usize,
        x: &[&Buffer],
    ) -> Result<([Pointer; 2], Conv)> {
        let padded = tile.input(op);
        let places = self.parts(x.len(), x, images * op.input.len())?;
        if padded == op.input {
            return Ok((places, *op));
        }
        let to = self.workspace(images * padded.len() * x[0].element().bytes())?;
        self.launch_pad(op, images, x[0], padded, to)?;
        Ok(([to, Pointer::NULL], padded_op(op, padded)))
    }

    fn tensor_kernels(&self) -> Result<&TensorKernels> {
        let kernels = self.kernels.tensor.as_ref();
        kernels.ok_or_else(|| device(format!("{}: has no tensor cores", self.home.name)))
    }

    /// The tile that serves a product best.
    fn tile_for(&self, product: Product, number: Number, op: &Conv) -> Result<Tile> {
        let by_mma = match product {
            Product::Forward | Product::BackwardWeights => Tile::choose_for(number, op),
            Product::BackwardData => Tile::choose(number, op.input.maps, op.output.maps),
        };
        Ok(self.tensor_kernels()?.tile_or(product, number, op, by_mma))
    }

    /// The kernel of a product, its threads and its dynamic shared memory in bytes.
    fn tensor_kernel(
        &self,
        product: Product,
        number: Number,
        tile: Tile,
    ) -> Result<(&Kernel, u32, usize)> {
        let kernel = self.tensor_kernels()?.get(number, product, tile);
        let kernel = kernel.ok_or_else(|| {
            device(format!(
                "{}: no kernel for {product:?} with {tile:?}",
                self.home.name
            ))
        })?;
        Ok((kernel, tile.threads(), product.shared(number, tile)))
    }

    /// # Safety
    /// As [`Kernel::launch`].
    unsafe fn launch_tensor(
        &self,
        (product, number, tile): (Product, Number, Tile),
        tiles: usize,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let (kernel, threads, shared) = self.tensor_kernel(product, number, tile)?;
        let blocks = [tiles, 1, 1];
        let (home, grid) = (&self.home, Grid { blocks, threads });
        // SAFETY: the caller's word; the kernel was allowed so much shared memory when it was loaded.
        unsafe { kernel.launch(home, &home.streams.compute, grid, shared, arguments) }
    }
}
