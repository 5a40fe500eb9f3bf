//! alexnet-mp
