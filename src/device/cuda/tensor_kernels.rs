//! The kernels of products on tensor cores: `kernels/conv_bf16.cu`, `conv_f16.cu` and `conv_tf32.cu`, and those by wgmma,
//! `kernels/conv_wgmma_bf16.cu` and `conv_wgmma_f16.cu`.

use super::memory::Home;
use super::module::{Kernel, find, image, load_module};
use super::report;
use super::tensor_tile::{Number, Product, Tile};
use crate::error::{Result, device};
use crate::network::op::Conv;
use cudarc::driver::sys;

/// Asks for products by wgmma, on a GPU that has it.
pub const VARIABLE: &str = "ALEXNET_MP_WGMMA";

/// What a GPU's tensor cores know of what kernels ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorCores {
    /// No `mma` on bf16 and TF32, or no asynchronous copies to shared memory.
    None,
    Mma,
    /// `wgmma` as well, and it is to be used.
    Wgmma,
}

impl TensorCores {
    /// Those of a GPU of this compute capability; `wgmma` is what [`VARIABLE`] says.
    pub fn of(capability: (i32, i32), wgmma: Option<&str>) -> Result<Self> {
        let wanted = match wgmma {
            None | Some("" | "0") => false,
            Some("1") => true,
            Some(other) => {
                return Err(device(format!(
                    "{VARIABLE}={other}: 1 asks for products by wgmma, 0 does not"
                )));
            }
        };
        match capability {
            (9, 0) if wanted => Ok(TensorCores::Wgmma),
            (major, minor) if wanted => Err(device(format!(
                "{VARIABLE} asks for products by wgmma, which GPUs of compute capability 9.0 have, not {major}.{minor}: unset it"
            ))),
            (8.., _) => Ok(TensorCores::Mma),
            _ => Ok(TensorCores::None),
        }
    }
}

/// The kernels, each with what it is for.
pub struct TensorKernels {
    kernels: Vec<(Number, Product, Tile, Kernel)>,
}

impl TensorKernels {
    /// Loads those that the tensor cores can run, if any; lets them have the shared memory they need, and asks how many
    /// blocks fit of those whose sums are cut into parts.
    pub fn load(home: &Home, cores: TensorCores) -> Result<Option<Self>> {
        if cores == TensorCores::None {
            return Ok(None);
        }
        let by_wgmma = cores == TensorCores::Wgmma;
        if by_wgmma && report::has_kernels() && !report::ARCHS.contains(&90) {
            return Err(device(format!(
                "{VARIABLE} asks for products by wgmma, and the program holds {}: name 90 in ALEXNET_MP_CUDA_ARCHS and build again",
                report::summary()
            )));
        }
        let mut kernels = Vec::new();
        for number in Number::ALL {
            let module = load_module(home, &format!("conv_{}", number.name()), image_of(number))?;
            add_kernels(home, module, number, false, &mut kernels)?;
            if let Some(image) = wgmma_image_of(number).filter(|_| by_wgmma) {
                let module = load_module(home, &format!("conv_wgmma_{}", number.name()), image)?;
                add_kernels(home, module, number, true, &mut kernels)?;
            }
        }
        Ok(Some(TensorKernels { kernels }))
    }

    /// The kernel of a product with a tile that was chosen here.
    pub fn get(&self, number: Number, product: Product, tile: Tile) -> Option<&Kernel> {
        let wanted = (number, product, tile);
        let mut all = self.kernels.iter();
        all.find(|(n, p, t, _)| (*n, *p, *t) == wanted)
            .map(|(.., kernel)| kernel)
    }

    /// The tile by wgmma that serves a product best, if there is one and its kernel was loaded; else `other`.
    pub fn tile_or(&self, product: Product, number: Number, op: &Conv, other: Tile) -> Tile {
        let loaded = |tile: &Tile| self.get(number, product, *tile).is_some();
        let by_wgmma = Tile::choose_warpgroup(product, number, op).filter(loaded);
        by_wgmma.unwrap_or(other)
    }
}

/// Adds a file's kernels, those of all tiles by wgmma or of all others.
fn add_kernels(
    home: &Home,
    module: sys::CUmodule,
    number: Number,
    by_wgmma: bool,
    kernels: &mut Vec<(Number, Product, Tile, Kernel)>,
) -> Result<()> {
    for product in Product::ALL {
        for tile in product.tiles(number, by_wgmma) {
            let [of, with, on] = [product.name(), tile.name(), number.name()];
            let kernel = find(home, module, &format!("conv_{of}_{with}_{on}"))?;
            let shared = product.shared(number, tile);
            kernel.allow_shared(home, shared)?;
            if product == Product::BackwardWeights {
                kernel.ask_resident(home, tile.threads(), shared)?;
            }
            kernels.push((number, product, tile, kernel));
        }
    }
    Ok(())
}

fn image_of(number: Number) -> &'static [u8] {
    match number {
        Number::Bf16 => image!("conv_bf16"),
        Number::F16 => image!("conv_f16"),
        Number::Tf32 => image!("conv_tf32"),
    }
}

fn wgmma_image_of(number: Number) -> Option<&'static [u8]> {
    match number {
        Number::Bf16 => Some(image!("conv_wgmma_bf16")),
        Number::F16 => Some(image!("conv_wgmma_f16")),
        Number::Tf32 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wgmma_is_used_where_it_is_asked_for_and_there() {
        let of = |capability, wgmma| TensorCores::of(capability, wgmma).unwrap();
        assert_eq!(of((7, 5), None), TensorCores::None);
        assert_eq!(of((8, 0), Some("0")), TensorCores::Mma);
        assert_eq!(of((9, 0), None), TensorCores::Mma);
        assert_eq!(of((9, 0), Some("")), TensorCores::Mma);
        assert_eq!(of((9, 0), Some("1")), TensorCores::Wgmma);
        assert_eq!(of((12, 0), None), TensorCores::Mma);
    }

    #[test]
    fn asking_for_wgmma_elsewhere_or_in_other_words_is_an_error_with_a_remedy() {
        for capability in [(7, 5), (8, 9), (10, 0)] {
            let said = TensorCores::of(capability, Some("1"))
                .unwrap_err()
                .to_string();
            assert!(said.contains("9.0") && said.contains("unset"), "{said}");
        }
        let said = TensorCores::of((9, 0), Some("yes"))
            .unwrap_err()
            .to_string();
        assert!(said.contains("ALEXNET_MP_WGMMA=yes"), "{said}");
    }
}
