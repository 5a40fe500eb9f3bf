//! The network as a whole: two columns on any devices against a plain float64 form of the same
//! network in one piece, and what must hold for every run of it.
//!
//! A check is a function generic over the device; `cpu.rs` and `cuda.rs` instantiate it.

mod cases;
mod checks;
mod columns_equal_the_one_piece;
#[cfg(feature = "cuda")]
mod cuda;
mod golden_plans;
#[cfg(feature = "cuda")]
mod graphs;
mod initial_loss;
mod layers;
mod memory;
mod overfitting;
#[cfg(feature = "cuda")]
mod precision;
mod reference;
mod reference_gradients;
mod same_bits;
