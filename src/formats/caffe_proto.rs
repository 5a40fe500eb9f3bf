//! The messages of Caffe that weights travel in (caffe.proto of BVLC/caffe; field numbers are
//! its). The network's structure travels as text.

/// A `.caffemodel`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Net {
    #[prost(string, tag = "1")]
    pub name: String,
    /// The form of 2014, in which bvlc_alexnet is distributed.
    #[prost(message, repeated, tag = "2")]
    pub layers: Vec<OldLayer>,
    #[prost(message, repeated, tag = "100")]
    pub layer: Vec<Layer>,
    /// This program's own: the configuration as TOML, and the names of the classes. Readers skip
    /// fields that they do not know.
    #[prost(string, tag = "50000")]
    pub config: String,
    #[prost(string, repeated, tag = "50001")]
    pub classes: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OldLayer {
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(message, repeated, tag = "6")]
    pub blobs: Vec<Blob>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Layer {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub kind: String,
    #[prost(message, repeated, tag = "7")]
    pub blobs: Vec<Blob>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Blob {
    /// The old form of the shape.
    #[prost(int32, tag = "1")]
    pub num: i32,
    #[prost(int32, tag = "2")]
    pub channels: i32,
    #[prost(int32, tag = "3")]
    pub height: i32,
    #[prost(int32, tag = "4")]
    pub width: i32,
    #[prost(float, repeated, tag = "5")]
    pub data: Vec<f32>,
    #[prost(message, optional, tag = "7")]
    pub shape: Option<BlobShape>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BlobShape {
    #[prost(int64, repeated, tag = "1")]
    pub dim: Vec<i64>,
}

impl Blob {
    /// A blob of the new form.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        Blob {
            data,
            shape: Some(BlobShape {
                dim: shape.iter().map(|&d| d as i64).collect(),
            }),
            ..Blob::default()
        }
    }

    /// Its shape without leading ones, whichever form it has.
    pub fn shape(&self) -> Vec<i64> {
        let old = [self.num, self.channels, self.height, self.width].map(i64::from);
        let shape = self.shape.as_ref().map_or(&old[..], |s| &s.dim[..]);
        let first = shape.iter().position(|&d| d != 1).unwrap_or(shape.len());
        shape[first..].to_vec()
    }
}
