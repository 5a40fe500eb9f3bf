//! The network as data: operations and their geometry (`op`), the table of layers (`layer`), the
//! steps derived from it (`plan`), their printed form (`describe`) and the parameters (`params`).
//! Knows no device.

pub mod describe;
pub mod layer;
pub mod op;
pub mod params;
pub mod plan;
