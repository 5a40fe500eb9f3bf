//! AlexNet split over two devices, as it was first trained (Krizhevsky, Sutskever, Hinton, NIPS
//! 2012).
//!
//! Reading order:
//! 1. [`network`]: the network as data. `op` says what each operation computes, `layer` is the
//!    table a preset writes, `plan` derives every column's steps and the exchanges among them.
//! 2. [`device`]: what a device must do; `device::cpu` and `device::cuda` do it, one file per
//!    operation, under the stem its kernel has in `kernels/`.
//! 3. [`engine`]: walks a plan over devices, forward, backward, update.
//! 4. [`data`]: image sources, augmentation drawn from counter-based streams, the loader.
//! 5. [`config`], [`optimizer`], [`checkpoint`], [`train`]: a training run.
//! 6. [`report`]: what a run shows and leaves behind. [`formats`]: files of other programs.
//! 7. [`measure`]: operations with operands of their own; [`verify`] compares them with a plain
//!    float64 device, [`bench`] times them.
//! 8. [`cli`]: one file per command.
//!
//! What must hold:
//! - Two columns equal the grouped one-piece form of the network, on any number of devices.
//! - Randomness is counter-based ([`random`]): results depend on neither devices, threads, loader
//!   workers nor interruptions. Same seed, same kind of device: the same bits.
//! - A checkpoint holds whole tensors, names no device, and is replaced atomically.
//! - Bytes exchanged are counted and equal the plan's prediction.
//! - Reported speed, memory and accuracy are measured.

pub mod batch;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod device;
pub mod engine;
pub mod error;
pub mod fault;
pub mod formats;
pub mod measure;
pub mod network;
mod nontemporal;
pub mod optimizer;
pub mod precision;
pub mod random;
pub mod report;
mod sync;
pub mod train;
pub mod verify;
