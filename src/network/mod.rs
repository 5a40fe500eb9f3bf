//! The network as data.
pub mod op;
