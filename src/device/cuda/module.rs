//! The kernels in the program: their fatbins, and how one is launched.

use super::buffer::Element;
use super::failure::describe;
use super::geometry::{Argument, Pointer};
use super::memory::Home;
use super::report;
use super::tensor_kernels::{TensorCores, TensorKernels};
use crate::error::{Result, device};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaStream, sys};
use std::cell::Cell;
use std::ffi::{CString, c_void};

/// One kernel on one GPU.
pub struct Kernel {
    name: String,
    function: sys::CUfunction,
    /// See [`resident`](Kernel::resident).
    resident: Cell<usize>,
}

// SAFETY: a handle; the driver allows its use from any thread.
unsafe impl Send for Kernel {}

/// Blocks of a launch; threads of a block.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub blocks: [usize; 3],
    pub threads: u32,
}

impl Grid {
    /// One thread for each of `items`, in blocks of 256.
    pub fn for_each(items: usize) -> Self {
        Grid {
            blocks: [items.div_ceil(256), 1, 1],
            threads: 256,
        }
    }

    /// One thread for four of `items`.
    pub fn for_quads(items: usize) -> Self {
        Grid::for_each(items.div_ceil(4))
    }
}

/// A kernel's arguments as the driver takes them: addresses of values that live until the launch.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => {
        &mut [$($crate::device::cuda::module::address(&$argument)),*]
    };
}
pub(super) use arguments;

/// The address of one argument.
pub fn address<T: Argument>(argument: &T) -> *mut c_void {
    std::ptr::from_ref(argument).cast_mut().cast()
}

impl Kernel {
    /// Lets launches ask for so many bytes of dynamic shared memory, beyond the 48 KiB that need no permission.
    pub fn allow_shared(&self, home: &Home, bytes: usize) -> Result<()> {
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MOST;
        home.bind()?;
        // SAFETY: the function belongs to the context just bound.
        let set =
            unsafe { result::function::set_function_attribute(self.function, MOST, bytes as i32) };
        home.check(
            &format!("asking for shared memory for kernel {}", self.name),
            set,
        )
    }

    /// Asks the driver how many blocks of so many threads, each with so many bytes of dynamic shared memory, fit a
    /// multiprocessor at once: what its registers, threads and shared memory allow.
    pub fn ask_resident(&self, home: &Home, threads: u32, dynamic_shared: usize) -> Result<()> {
        use result::occupancy::max_active_block_per_multiprocessor as fit;
        home.bind()?;
        // SAFETY: the function belongs to the context just bound.
        let blocks = unsafe { fit(self.function, threads as i32, dynamic_shared) };
        let what = format!("asking how many blocks of kernel {} fit", self.name);
        let blocks = home.check(&what, blocks)?;
        self.resident.set(blocks.max(1) as usize);
        Ok(())
    }

    /// Blocks that fit a multiprocessor at once, as the driver said when the kernel was loaded; 1 if it was not asked. It
    /// says the same in every run on the same GPU: the order of sums depends on it.
    pub fn resident(&self) -> usize {
        self.resident.get()
    }

    /// Launches this kernel on `stream`, with so many bytes of dynamic shared memory; an empty grid is nothing to do.
    ///
    /// # Safety
    /// `arguments` are the kernel's parameters in number, order and type, and what they point to is memory of this
    /// GPU, as large as the kernel takes it to be, and ordered on `stream` after whoever wrote it.
    pub unsafe fn launch(
        &self,
        home: &Home,
        stream: &CudaStream,
        grid: Grid,
        dynamic_shared: usize,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        // The limits of every GPU since compute capability 3.0.
        if grid.blocks[0] > i32::MAX as usize || grid.blocks[1] > 65_535 || grid.blocks[2] > 65_535
        {
            return Err(device(format!(
                "{}: kernel {} would need a grid of {:?} blocks: take a smaller --batch",
                home.name, self.name, grid.blocks
            )));
        }
        home.bind()?;
        let [x, y, z] = grid.blocks.map(|blocks| blocks as u32);
        // SAFETY: the function belongs to the context just bound, as does the stream; the rest is the caller's word.
        let launched = unsafe {
            result::launch_kernel(
                self.function,
                (x, y, z),
                (grid.threads, 1, 1),
                dynamic_shared as u32,
                stream.cu_stream(),
                arguments,
            )
        };
        launched.map_err(|error| home.error(&format!("launching kernel {}", self.name), error))
    }
}

/// One operation for every type of number.
pub struct Typed {
    f32: Kernel,
    bf16: Kernel,
    f16: Kernel,
}

impl Typed {
    pub fn of(&self, element: Element) -> &Kernel {
        match element {
            Element::F32 => &self.f32,
            Element::Bf16 => &self.bf16,
            Element::F16 => &self.f16,
        }
    }
}

/// A fatbin holds fields of eight bytes, which the driver reads where they stand; bytes alone may stand anywhere.
#[repr(align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// The fatbin of a file of `kernels/`.
macro_rules! image {
    ($($file:literal),+) => {{
        static IMAGE: &$crate::device::cuda::module::Aligned<[u8]> =
            &$crate::device::cuda::module::Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $($file),+, ".fatbin")));
        &IMAGE.0
    }};
}
pub(super) use image;

/// Declares [`Kernels`]: per file of `kernels/` the kernels it holds for each type of number, then those it holds once.
macro_rules! kernels {
    ($($file:literal: [$($typed:ident),*] $($kernel:ident),*;)+) => {
        /// Every kernel, by its name.
        pub struct Kernels {
            $($(pub $typed: Typed,)* $(pub $kernel: Kernel,)*)+
            /// Convolution on tensor cores, where there are some.
            pub tensor: Option<TensorKernels>,
        }

        impl Kernels {
            /// Loads all files' modules; they stay loaded as long as the GPU's context lives.
            pub fn load(home: &Home, tensor_cores: TensorCores) -> Result<Self> {
                $($(let $typed;)* $(let $kernel;)* {
                    let module = load_module(home, $file, image!($file))?;
                    $($typed = Typed {
                        f32: find(home, module, stringify!($typed))?,
                        bf16: find(home, module, concat!(stringify!($typed), "_bf16"))?,
                        f16: find(home, module, concat!(stringify!($typed), "_f16"))?,
                    };)*
                    $($kernel = find(home, module, stringify!($kernel))?;)*
                })+
                let tensor = TensorKernels::load(home, tensor_cores)?;
                let kernels = Kernels { $($($typed,)* $($kernel,)*)+ tensor };
                super::conv::ask_resident(home, &kernels)?;
                Ok(kernels)
            }
        }
    };
}

kernels! {
    "activation": [activation_forward, activation_backward];
    "arithmetic": [scale, add];
    "augment": [augment];
    "conv": []
        conv_forward_64_packed, conv_forward_48_packed, conv_forward_32_packed, conv_forward_48, conv_forward_32,
        conv_backward_data_64_packed, conv_backward_data_48_packed, conv_backward_data_32_packed,
        conv_backward_data_48, conv_backward_data_32,
        conv_backward_weights_64_packed, conv_backward_weights_48_packed, conv_backward_weights_32_packed,
        conv_backward_weights_48, conv_backward_weights_32;
    "dropout": [dropout_forward, dropout_backward];
    "linear": [linear_bias, linear_bias_dropout, linear_update];
    "local_norm": [local_norm_forward, local_norm_terms, local_norm_backward];
    "loss_scale": [] loss_scale_check, loss_scale_merge, loss_scale_update;
    "lrn": [lrn_forward, lrn_backward];
    "lrn_pool": [lrn_pool_forward, lrn_pool_backward, lrn_pool_forward_5_3_2, lrn_pool_backward_5_3_2];
    "pad": [pad];
    "peer": [] pattern_fill, pattern_check;
    "pool": [pool_forward, pool_backward];
    "sgd": [sgd];
    "softmax": [softmax_backward] softmax_forward, score_images, score_add;
    "sums": [column_sums] sum_parts;
    "words": [] set_words;
}

pub(super) fn load_module(home: &Home, file: &str, image: &[u8]) -> Result<sys::CUmodule> {
    use sys::cudaError_enum as Code;
    home.bind()?;
    // SAFETY: the image is a whole fatbin as nvcc wrote it, which the driver reads before it returns.
    let loaded = unsafe { result::module::load_data(image.as_ptr().cast()) };
    loaded.map_err(|error| {
        let remedy = match error.0 {
            Code::CUDA_ERROR_NO_BINARY_FOR_GPU => {
                "the program holds none for this GPU: name its architecture in ALEXNET_MP_CUDA_ARCHS and build again"
            }
            Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | Code::CUDA_ERROR_INVALID_IMAGE => {
                "the driver is older than the compiler of the kernels: update the driver, or build with an older nvcc"
            }
            _ => "build the program again",
        };
        let held = report::summary();
        device(format!("{}: kernels {file} do not load: {}; {remedy} ({held})", home.name, describe(error)))
    })
}

pub(super) fn find(home: &Home, module: sys::CUmodule, name: &str) -> Result<Kernel> {
    let symbol = CString::new(name).map_err(|_| device("a kernel's name holds a zero byte"))?;
    // SAFETY: the module was loaded just now and is never unloaded.
    let function: Result<_, DriverError> = unsafe { result::module::get_function(module, symbol) };
    let function =
        function.map_err(|error| home.error(&format!("finding kernel {name}"), error))?;
    Ok(Kernel {
        name: name.into(),
        function,
        resident: Cell::new(1),
    })
}

/// Type-checks that addresses are what pointers are to kernels.
const _: () = assert!(size_of::<Pointer>() == 8);

#[cfg(test)]
mod tests {
    #[test]
    fn fatbins_stand_where_their_fields_can_be_read() {
        for image in [image!("lrn"), image!("sums"), image!("conv_bf16")] {
            assert!(image.as_ptr().cast::<u64>().is_aligned());
        }
    }
}
