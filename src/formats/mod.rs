//! Weights to and from other programs' files: ONNX, Caffe, safetensors of any naming.
//!
//! `graph` is the one-piece form of the network that ONNX and Caffe files are written from: the
//! columns side by side, as groups of one layer each.

mod caffe;
mod caffe_import;
mod caffe_proto;
pub mod graph;
mod names;
pub mod npy;
mod onnx;
mod onnx_proto;

pub use caffe::caffe;
pub use caffe_import::{caffe_mean, from_caffe};
pub use names::renamed;
pub use onnx::{OPSET, onnx};
