//! What a run shows and leaves behind: progress, metrics, TensorBoard events, pictures, summary.
//!
//! This room takes plain numbers and byte images; it knows no device, network or data source.
//! Results go to stdout, messages and progress to stderr.
pub mod format;
pub mod metrics;
pub mod picture;
pub mod progress;
pub mod tensorboard;
