//! npy files (NumPy's format), read by validation.

use npyz::{DType, NpyFile, Order};

/// Shape and elements, in C order, of an npy file with elements of type `T`.
///
/// # Errors
/// What is wrong with it, without the file's name.
pub fn parse<T: npyz::Deserialize>(bytes: &[u8]) -> Result<(Vec<u64>, Vec<T>), String> {
    let file = NpyFile::new(bytes).map_err(|e| format!("not an npy file: {e}"))?;
    if file.order() != Order::C {
        return Err("is in Fortran order; expected C order (numpy.ascontiguousarray)".into());
    }
    let DType::Plain(kind) = file.dtype() else {
        return Err("holds records; expected numbers".into());
    };
    // The header is checked against the file's size before anything of its size is allocated.
    let elements = file.shape().iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    let needed = elements.and_then(|n| n.checked_mul(kind.size_field()));
    if needed.is_none_or(|n| n > bytes.len() as u64) {
        return Err(format!(
            "truncated: shape {:?} needs more than its {} bytes",
            file.shape(),
            bytes.len()
        ));
    }
    let shape = file.shape().to_vec();
    let values = file.into_vec().map_err(|e| format!("{kind}: {e}"))?;
    Ok((shape, values))
}
