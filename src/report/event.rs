//! The format of TensorBoard's event files.
//!
//! A file is a series of records, each `length: u64, crc(length): u32, event, crc(event): u32`,
//! all little-endian, with masked CRC-32C sums and `Event` protobuf messages. The messages here
//! declare the fields that are written, under the field numbers of TensorFlow's `event.proto` and
//! `summary.proto`.

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    pub session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// `SessionLog.status`: TensorBoard forgets this run's events from the event's step on.
pub(super) const SESSION_START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryValue {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    pub image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pub height: i32,
    #[prost(int32, tag = "2")]
    pub width: i32,
    /// 3: RGB.
    #[prost(int32, tag = "3")]
    pub colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    pub encoded_image_string: Vec<u8>,
}

/// A record: the data between its length and the two checksums.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted by a constant, as TensorFlow's record files have it.
fn masked_crc(data: &[u8]) -> u32 {
    const CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC_32C
        .checksum(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Splits a file into its records' data, checking the frames by a CRC of its own.
    pub fn records(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(rest[8..12], bitwise_masked_crc(&rest[..8]).to_le_bytes());
            let sum = &rest[12 + length..16 + length];
            assert_eq!(sum, bitwise_masked_crc(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        records
    }

    fn bitwise_masked_crc(data: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in data {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            }
        }
        (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        // The check value of CRC-32C (RFC 3720) for "123456789" is e3069283, here masked.
        let masked = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(b"123456789"), masked);
        assert_eq!(bitwise_masked_crc(b"123456789"), masked);
    }

    #[test]
    fn the_wire_bytes_are_those_of_the_schema() {
        let event = Event {
            wall_time: 1.0,
            step: 300,
            summary: Some(Summary {
                value: vec![SummaryValue {
                    tag: "a".into(),
                    simple_value: Some(1.0),
                    image: None,
                }],
            }),
            ..Default::default()
        };
        let mut expected = vec![0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]; // 1: double 1.0
        expected.extend([0x10, 0xac, 0x02]); // 2: varint 300
        expected.extend([0x2a, 10, 0x0a, 8]); // 5: summary, 1: value
        expected.extend([0x0a, 1, b'a', 0x15, 0, 0, 0x80, 0x3f]); // 1: tag, 2: float 1.0
        assert_eq!(event.encode_to_vec(), expected);
    }
}
