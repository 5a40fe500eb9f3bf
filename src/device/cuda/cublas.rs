//! Matrix products of the fully connected layers by cuBLAS, loaded at run time.

use super::geometry::{Pointer, int};
use super::memory::{Home, Memory};
use crate::error::{Result, device};
use cudarc::cublas::result::{self, CublasError};
use cudarc::cublas::sys;
use std::sync::Arc;

/// Work space of a handle; set by us so that results do not depend on what the library would choose. The size NVIDIA
/// advises for its newer GPUs.
const WORKSPACE: usize = 32 << 20;

/// A cuBLAS handle of one GPU, bound to its compute stream.
pub struct Cublas {
    handle: sys::cublasHandle_t,
    home: Arc<Home>,
    _workspace: Memory,
}

// SAFETY: a handle may be used by one thread at a time, from any thread.
unsafe impl Send for Cublas {}

/// A row-major matrix in GPU memory, of which `transposed` takes the transpose.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub place: Pointer,
    /// Length of a stored row.
    pub columns: usize,
    pub transposed: bool,
}

impl Matrix {
    pub fn new(place: Pointer, columns: usize) -> Self {
        Matrix {
            place,
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
                "{}: the library cuBLAS is not found, neither as libcublas.so nor as libcublas.so.12: install the CUDA \
                 toolkit or its cuBLAS package, and name its folder in LD_LIBRARY_PATH (where there is only \
                 libcublas.so.13, put a link libcublas.so to it there); --cpu runs without it",
                home.name
            )));
        }
        home.bind()?;
        let workspace = Memory::new(home, WORKSPACE)?;
        let handle = check(home, "starting cuBLAS", result::create_handle())?;
        let blas = Cublas {
            handle,
            home: home.clone(),
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
            // No TF32, whatever the library's default: f32 means f32.
            let pedantic = sys::cublasMath_t::CUBLAS_PEDANTIC_MATH;
            check(
                home,
                "choosing cuBLAS's precision",
                sys::cublasSetMathMode(handle, pedantic).result(),
            )?;
        }
        Ok(blas)
    }

    /// `C = alpha · A · B + beta · C`, A `rows` × `depth`, B `depth` × `columns`, C row-major without gaps.
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
        c: Pointer,
    ) -> Result<()> {
        self.home.bind()?;
        let (rows, depth, columns) = (int(rows)?, int(depth)?, int(columns)?);
        let operation = |m: Matrix| match m.transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        // cuBLAS counts by columns: there a row-major matrix is its transpose, and C' = B' · A'.
        // SAFETY: sizes and places are the caller's word; alpha and beta are read before the call returns.
        let done = unsafe {
            result::sgemm(
                self.handle,
                operation(b),
                operation(a),
                columns,
                rows,
                depth,
                &alpha,
                b.place.0 as *const f32,
                int(b.columns)?,
                a.place.0 as *const f32,
                int(a.columns)?,
                &beta,
                c.0 as *mut f32,
                columns,
            )
        };
        check(&self.home, "multiplying matrices with cuBLAS", done)
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

fn check<T>(home: &Home, what: &str, result: Result<T, CublasError>) -> Result<T> {
    result.map_err(|CublasError(status)| device(format!("{}: {what}: {status:?}", home.name)))
}
