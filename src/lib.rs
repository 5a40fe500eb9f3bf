//! AlexNet split over two devices, as it was first trained.
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod engine;
pub mod error;
pub mod network;
pub mod optimizer;
pub mod random;
