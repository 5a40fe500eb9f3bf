//! What a run shows and leaves behind: progress, metrics, TensorBoard events, pictures, summary.
//!
//! This room takes plain numbers and byte images; it knows no device, network or data source.
//! Results go to stdout, messages and progress to stderr.
pub mod activations;
mod chart;
pub mod colour;
pub mod comparison;
pub mod contact_sheet;
pub mod curves;
mod event;
pub mod figure4;
pub mod format;
pub mod kernels;
pub mod messages;
pub mod metrics;
pub mod picture;
pub mod progress;
pub mod scores;
pub mod summary;
pub mod tables;
pub mod tensorboard;
