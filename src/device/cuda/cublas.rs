//! Matrix products of the fully connected layers by cuBLAS, loaded at run time.

use super::buffer::Element;
use super::geometry::{Pointer, int};
use super::memory::{Home, Memory};
use crate::error::{Result, device};
use crate::precision::Precision;
use cudarc::cublas::result::{self, CublasError};
use cudarc::cublas::sys;
use std::ffi::c_void;
use std::sync::Arc;

/// Work space of a handle; set by us so that results do not depend on what the library would choose. The size NVIDIA
/// advises for its newer GPUs.
const WORKSPACE: usize = 32 << 20;

/// A cuBLAS handle of one GPU, bound to its compute stream.
pub struct Cublas {
    handle: sys::cublasHandle_t,
    home: Arc<Home>,
    precision: Precision,
    _workspace: Memory,
}

// SAFETY: a handle may be used by one thread at a time, from any thread.
unsafe impl Send for Cublas {}

/// A row-major matrix in GPU memory, of which `transposed` takes the transpose.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub place: Pointer,
    pub element: Element,
    /// Length of a stored row.
    pub columns: usize,
    pub transposed: bool,
}

impl Matrix {
    pub fn new((element, place): (Element, Pointer), columns: usize) -> Self {
        Matrix {
            place,
            element,
            columns,
            transposed: false,
        }
    }

    pub fn transposed(self) -> Self {
        Matrix {
            transposed: !self.transposed,
            ..self
        }
    }
}

impl Cublas {
    pub fn open(home: &Arc<Home>) -> Result<Self> {
        // SAFETY: loads a library that runs no code of its own at load time that we depend on.
        if !unsafe { sys::is_culib_present() } {
            return Err(device(format!(
                "{}: the library cuBLAS is not found: none of libcublas.so, libcublas.so.13 and libcublas.so.12 loads: \
                 install the CUDA toolkit or its cuBLAS package, and name its folder in LD_LIBRARY_PATH; --cpu runs \
                 without it",
                home.name
            )));
        }
        home.bind()?;
        let workspace = Memory::new(home, WORKSPACE)?;
        let handle = result::create_handle().map_err(|CublasError(status)| {
            device(format!(
                "{}: starting cuBLAS: {status:?}{}",
                home.name,
                start_remedy(status)
            ))
        })?;
        let mut blas = Cublas {
            handle,
            home: home.clone(),
            precision: Precision::F32,
            _workspace: workspace,
        };
        let place = blas._workspace.pointer().0 as *mut _;
        // SAFETY: the handle is new; the stream is of the same context and outlives it, as the work space does.
        unsafe {
            check(
                home,
                "choosing cuBLAS's stream",
                result::set_stream(handle, home.streams.compute.cu_stream().cast()),
            )?;
            check(
                home,
                "giving cuBLAS memory",
                sys::cublasSetWorkspace_v2(handle, place, WORKSPACE).result(),
            )?;
        }
        blas.set_precision(Precision::F32)?;
        Ok(blas)
    }

    /// Chooses how products of f32 are computed, and that sums of 16-bit operands are f32 to the end.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        use sys::cublasMath_t::{
            CUBLAS_DEFAULT_MATH as AS_ASKED,
            CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION as F32_SUMS,
        };
        self.precision = precision;
        // The default has no fewer bits than the operands: f32 stays f32, and TF32 is where it is asked for by product.
        // The pedantic mode would choose from fewer kernels; `verify` tells whether it were needed.
        let mode = match precision {
            Precision::F32 => AS_ASKED,
            _ => F32_SUMS,
        };
        self.home.bind()?;
        // SAFETY: the handle is alive.
        let set = unsafe { sys::cublasSetMathMode(self.handle, mode) };
        check(&self.home, "choosing cuBLAS's precision", set.result())
    }

    /// `C = alpha · A · B + beta · C`, A `rows` × `depth`, B `depth` × `columns`, C row-major without gaps. A and B of one
    /// type, sums in f32.
    ///
    /// # Safety
    /// The matrices lie within memory of this GPU, C apart from A and B, ordered on the compute stream.
    pub unsafe fn multiply(
        &self,
        [rows, depth, columns]: [usize; 3],
        alpha: f32,
        a: Matrix,
        b: Matrix,
        beta: f32,
        (element, c): (Element, Pointer),
    ) -> Result<()> {
        self.home.bind()?;
        let (rows, depth, columns) = (int(rows)?, int(depth)?, int(columns)?);
        let operation = |m: Matrix| match m.transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let compute = match self.precision {
            Precision::Tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            Precision::F32 | Precision::Bf16 | Precision::F16 => {
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
            }
        };
        let (alpha, beta): (*const f32, *const f32) = (&alpha, &beta);
        // cuBLAS counts by columns: there a row-major matrix is its transpose, and C' = B' · A'.
        // SAFETY: sizes and places are the caller's word; alpha and beta are read before the call returns.
        let done = unsafe {
            result::gemm_ex(
                self.handle,
                operation(b),
                operation(a),
                columns,
                rows,
                depth,
                alpha.cast(),
                b.place.0 as *const c_void,
                data_type(b.element),
                int(b.columns)?,
                a.place.0 as *const c_void,
                data_type(a.element),
                int(a.columns)?,
                beta.cast(),
                c.0 as *mut c_void,
                data_type(element),
                columns,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        check(&self.home, "multiplying matrices with cuBLAS", done)
    }
}

fn data_type(element: Element) -> sys::cudaDataType {
    match element {
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
        Element::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Element::F16 => sys::cudaDataType::CUDA_R_16F,
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        if self.home.is_quiet() {
            // SAFETY: made by `open`, destroyed here alone.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

/// What keeps a handle from being created, as the end of a line; the library says one word for several causes.
fn start_remedy(status: sys::cublasStatus_t) -> &'static str {
    match status {
        sys::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED => {
            "; either too little of the GPU's memory is free (`alexnet-mp devices` says how much), or the driver is older \
             than this cuBLAS (cuBLAS 13 needs driver 580 or later, cuBLAS 12 driver 525)"
        }
        sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => {
            "; too little of the GPU's memory is free: `alexnet-mp devices` says how much"
        }
        _ => "",
    }
}

fn check<T>(home: &Home, what: &str, result: Result<T, CublasError>) -> Result<T> {
    result.map_err(|CublasError(status)| device(format!("{}: {what}: {status:?}", home.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_that_cannot_be_created_is_told_with_the_likely_causes() {
        let said = start_remedy(sys::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED);
        assert!(
            said.contains("memory is free") && said.contains("driver 580"),
            "{said}"
        );
        let other = sys::cublasStatus_t::CUBLAS_STATUS_ARCH_MISMATCH;
        assert_eq!(start_remedy(other), "");
    }
}
