//! AlexNet split over two devices, as it was first trained.
pub mod batch;
pub mod device;
pub mod error;
pub mod network;
pub mod random;
pub mod report;
