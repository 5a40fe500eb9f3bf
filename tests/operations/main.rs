//! Every operation of a device against a plain float64 reference.
//!
//! A test is a function generic over the device; `for_each_device!` at the top of its file
//! instantiates it. The references are in `reference.rs`.

mod activation;
mod augment;
mod conv;
mod conv_arriving;
mod conv_tensor;
mod conv_wgmma;
mod dropout;
mod exchange;
mod linear;
mod local_norm;
mod loss_scale;
mod lrn;
mod lrn_pool;
mod pool;
mod precision;
mod reference;
mod sgd;
mod softmax;
mod support;
mod threads;
