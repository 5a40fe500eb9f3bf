//! npy files (NumPy's format), read by validation.

use npyz::{DType, NpyFile, Order, TypeStr};

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
    if brackets_within_brackets(bytes) > DEEPEST {
        return Err(format!(
            "not an npy file: its header has more than {DEEPEST} brackets within each other"
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
    let values = file.into_vec().map_err(|_| wrong_type::<T>(&kind))?;
    Ok((shape, values))
}

/// What was expected, what was found, and what makes the one of the other in NumPy.
fn wrong_type<T>(found: &TypeStr) -> String {
    let bits = 8 * found.size_field();
    let name = match found.type_char() {
        npyz::TypeChar::Float => format!("float{bits}"),
        npyz::TypeChar::Int => format!("int{bits}"),
        npyz::TypeChar::Uint => format!("uint{bits}"),
        npyz::TypeChar::Bool => "bool".into(),
        _ => found.to_string(),
    };
    let (expected, size) = (std::any::type_name::<T>(), size_of::<T>());
    let code = &expected[..1];
    format!("expected {expected}, found {name} (convert with .astype('{code}{size}'))")
}

/// Brackets within each other in a header: two for numbers, a few more for records. The reader's
/// time doubles with every one.
const DEEPEST: usize = 8;

/// How deep the header's brackets nest, those that are never closed included.
fn brackets_within_brackets(bytes: &[u8]) -> usize {
    let end = header_end(bytes).map_or(bytes.len(), |end| end as usize);
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in &bytes[..end] {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
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

    fn with_header(header: &str) -> Vec<u8> {
        let mut file = b"\x93NUMPY\x01\0".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend([0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
        file
    }

    /// Found by fuzzing: reading such a header took 93 s.
    #[test]
    fn a_header_of_brackets_within_brackets_is_refused_unread() {
        for bracket in ["{", "[", "("] {
            let file = with_header(&format!(
                "{{'descr': '<f4', 'fortran_order': False, 'shape': (2,), {}",
                bracket.repeat(12)
            ));
            let refused = parse::<f32>(&file).unwrap_err();
            assert!(refused.contains("brackets within"), "{refused}");
        }
    }

    #[test]
    fn another_type_of_numbers_is_named_with_the_way_to_convert_it() {
        let header = |kind: &str| {
            let text = "'fortran_order': False, 'shape': (1,)}";
            with_header(&format!("{{'descr': '{kind}', {text}"))
        };
        assert_eq!(
            parse::<f32>(&header("<f8")).unwrap_err(),
            "expected f32, found float64 (convert with .astype('f4'))"
        );
        assert_eq!(
            parse::<i64>(&header("<i4")).unwrap_err(),
            "expected i64, found int32 (convert with .astype('i8'))"
        );
    }

    #[test]
    fn records_are_still_told_from_damage() {
        let file = with_header(
            "{'descr': [('a', [('b', '<f4', (1, 2))])], 'fortran_order': False, 'shape': (1,)}",
        );
        let refused = parse::<f32>(&file).unwrap_err();
        assert!(refused.contains("records"), "{refused}");
    }
}
