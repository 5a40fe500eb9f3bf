//! npy files (NumPy's format), read by validation.

use npyz::{DType, NpyFile, Order};

/// Shape and elements, in C order, of an npy file with elements of type `T`.
///
/// # Errors
/// What is wrong with it, without the file's name.
pub fn parse<T: npyz::Deserialize>(bytes: &[u8]) -> Result<(Vec<u64>, Vec<T>), String> {
    if header_end(bytes).is_some_and(|end| end > bytes.len() as u64) {
        return Err(format!(
            "truncated: its header is longer than its {} bytes",
            bytes.len()
        ));
    }
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

/// Where the header ends by its own word, which the reader would allocate unread; none where the
/// file is too short to say.
fn header_end(bytes: &[u8]) -> Option<u64> {
    let length = bytes.get(8..)?;
    match bytes[6] {
        1 => Some(10 + u64::from(u16::from_le_bytes(*length.first_chunk()?))),
        _ => Some(12 + u64::from(u32::from_le_bytes(*length.first_chunk()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: 4 GB were allocated.
    #[test]
    fn a_header_longer_than_the_file_is_refused_unread() {
        for (version, length) in [(1, &[0xff, 0xff][..]), (2, &[0x74, 0xf2, 0xf2, 0xf2])] {
            let mut file = b"\x93NUMPY".to_vec();
            file.extend([version, 0]);
            file.extend(length);
            file.extend(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}");
            let refused = parse::<f32>(&file).unwrap_err();
            assert!(refused.contains("header is longer"), "{refused}");
        }
    }
}
