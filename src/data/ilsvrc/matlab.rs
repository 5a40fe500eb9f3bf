//! The devkit's meta.mat: which number is which WordNet id.
//!
//! As much of MATLAB's level 5 format as that takes ("MAT-File Format", The MathWorks): elements
//! of a type, a length and data, compressed or not; a struct array with a matrix per field.

use std::io::Read;

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const STRUCT: u8 = 2;

/// Unpacked, the real file has about a megabyte.
const LARGEST: u64 = 64 << 20;

/// Number and WordNet id of every synset in the variable `synsets`. An error is the reason.
pub fn synsets(file: &[u8]) -> Result<Vec<(u32, String)>, String> {
    let header = file.get(..128).ok_or("truncated: no header")?;
    if &header[126..] != b"IM" {
        return Err("not a little-endian MATLAB file of level 5".into());
    }
    let mut rest = &file[128..];
    while !rest.is_empty() {
        let (kind, body) = element(&mut rest)?;
        if kind == COMPRESSED {
            let mut unpacked = Vec::new();
            flate2::read::ZlibDecoder::new(body)
                .take(LARGEST)
                .read_to_end(&mut unpacked)
                .map_err(|e| format!("broken: {e}"))?;
            let mut unpacked = &unpacked[..];
            let (kind, body) = element(&mut unpacked)?;
            if let Some(found) = variable(kind, body)? {
                return Ok(found);
            }
        } else if let Some(found) = variable(kind, body)? {
            return Ok(found);
        }
    }
    Err("no variable synsets".into())
}

/// The next element's type and data.
fn element<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), String> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
    let cut = || "truncated".to_string();
    let first = word(rest.split_off(..4).ok_or_else(cut)?);
    if first >> 16 != 0 {
        // A small one: its length in the upper half, its data in the next four bytes.
        let data = rest.split_off(..4).ok_or_else(cut)?;
        let length = (first >> 16) as usize;
        return Ok((first & 0xffff, data.get(..length).ok_or_else(cut)?));
    }
    let length = word(rest.split_off(..4).ok_or_else(cut)?) as usize;
    let data = rest.split_off(..length).ok_or_else(cut)?;
    if first != COMPRESSED {
        let padding = length.next_multiple_of(8) - length;
        *rest = rest.get(padding..).unwrap_or_default();
    }
    Ok((first, data))
}

/// Class, name, elements and data of an array, see [`array`].
type Array<'a> = (u8, &'a [u8], usize, &'a [u8]);

/// Reads one array.
fn array(mut body: &[u8]) -> Result<Array<'_>, String> {
    let (_, flags) = element(&mut body)?;
    let (_, dimensions) = element(&mut body)?;
    let (_, name) = element(&mut body)?;
    let count = dimensions
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap_or_default()) as usize)
        .try_fold(1usize, usize::checked_mul)
        .ok_or("an array of impossible size")?;
    Ok((
        *flags.first().ok_or("an array without a class")?,
        name,
        count,
        body,
    ))
}

/// The synsets, if this is the variable of that name.
fn variable(kind: u32, body: &[u8]) -> Result<Option<Vec<(u32, String)>>, String> {
    if kind != MATRIX {
        return Ok(None);
    }
    let (class, name, count, mut rest) = array(body)?;
    if class != STRUCT || name != b"synsets" {
        return Ok(None);
    }
    let (_, length) = element(&mut rest)?;
    let length = length.first().copied().unwrap_or(0).max(1);
    let (_, names) = element(&mut rest)?;
    let fields: Vec<&[u8]> = names
        .chunks(length.into())
        .map(|name| name.split(|&b| b == 0).next().unwrap_or_default())
        .collect();
    let place = |fits: &dyn Fn(&[u8]) -> bool| fields.iter().position(|name| fits(name));
    let id = place(&|name| name.starts_with(b"ILSVRC") && name.ends_with(b"_ID"));
    let wnid = place(&|name| name == b"WNID");
    let (Some(id), Some(wnid)) = (id, wnid) else {
        return Err("synsets have no fields ILSVRC…_ID and WNID".into());
    };
    let mut synsets = Vec::new();
    for _ in 0..count {
        let (mut number, mut name) = (None, None);
        for field in 0..fields.len() {
            let (_, body) = element(&mut rest)?;
            if field == id {
                number = Some(scalar(body)?);
            } else if field == wnid {
                name = Some(text(body)?);
            }
        }
        synsets.extend(number.zip(name));
    }
    Ok(Some(synsets))
}

fn scalar(body: &[u8]) -> Result<u32, String> {
    let (_, _, _, mut rest) = array(body)?;
    let (kind, data) = element(&mut rest)?;
    let wide = |n: usize| {
        data.get(..n)
            .map(<[u8]>::to_vec)
            .ok_or("a number without a value")
    };
    Ok(match kind {
        1 | 2 => u32::from(wide(1)?[0]),
        3 | 4 => u32::from(u16::from_le_bytes(wide(2)?.try_into().unwrap_or_default())),
        5 | 6 => u32::from_le_bytes(wide(4)?.try_into().unwrap_or_default()),
        7 => f32::from_le_bytes(wide(4)?.try_into().unwrap_or_default()) as u32,
        9 => f64::from_le_bytes(wide(8)?.try_into().unwrap_or_default()) as u32,
        other => return Err(format!("a number of type {other}")),
    })
}

fn text(body: &[u8]) -> Result<String, String> {
    let (_, _, _, mut rest) = array(body)?;
    let (kind, data) = element(&mut rest)?;
    match kind {
        // 8-bit and UTF-8.
        1 | 2 | 16 => Ok(String::from_utf8_lossy(data).into_owned()),
        // 16-bit.
        4 | 17 => {
            let units = data
                .chunks_exact(2)
                .map(|b| u16::from_le_bytes([b[0], b[1]]));
            Ok(char::decode_utf16(units)
                .map(|c| c.unwrap_or('?'))
                .collect())
        }
        other => Err(format!("a text of type {other}")),
    }
}
