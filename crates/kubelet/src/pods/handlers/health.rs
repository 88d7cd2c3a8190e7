//! The messages of the gRPC health protocol: each has one field.
//!
//! <https://github.com/grpc/grpc/blob/master/src/proto/grpc/health/v1/health.proto>

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What a service says of itself.
pub(super) const SERVING: u64 = 1;

/// `HealthCheckRequest`, as it goes over the wire.
pub(super) fn request(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.put_u8(0x0a);
        put_varint(&mut field, service.len() as u64);
        field.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(PREFIX + field.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(field.len()).unwrap_or(u32::MAX));
    message.put(field);
    message.freeze()
}

/// The status in a `HealthCheckResponse`, when it is one.
pub(super) fn status(message: &[u8]) -> Option<u64> {
    let (prefix, mut fields) = message.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    let mut status = 0;
    if prefix[0] != 0 || fields.len() != usize::try_from(length).ok()? {
        return None;
    }
    while fields.has_remaining() {
        let key = varint(&mut fields)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut fields)?,
            (_, 0) => drop(varint(&mut fields)?),
            (_, 1) => skip(&mut fields, 8)?,
            (_, 2) => {
                let length = varint(&mut fields)?;
                skip(&mut fields, length)?;
            }
            (_, 5) => skip(&mut fields, 4)?,
            _ => return None,
        }
    }
    Some(status)
}

/// The name of a status.
pub(super) fn status_name(status: u64) -> String {
    let names = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
    let known = usize::try_from(status).ok().and_then(|status| names.get(status));
    known.map_or_else(|| status.to_string(), ToString::to_string)
}

fn put_varint(buffer: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        buffer.put_u8(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number.to_le_bytes()[0]);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn skip(bytes: &mut &[u8], count: u64) -> Option<()> {
    let (_, rest) = bytes.split_at_checked(usize::try_from(count).ok()?)?;
    *bytes = rest;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_the_service_if_there_is_one() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn a_status_is_found_among_what_is_unknown() {
        let check = |fields: &[u8], expected| {
            let mut message = vec![0, 0, 0, 0, u8::try_from(fields.len()).unwrap()];
            message.extend_from_slice(fields);
            assert_eq!(status(&message), expected, "{fields:?}");
        };
        check(&[], Some(0));
        check(&[8, 1], Some(SERVING));
        check(&[0x12, 2, b'h', b'i', 8, 2], Some(2));
        check(&[0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 0x28, 0xff, 1, 8, 3], Some(3));
        check(&[8], None);
        check(&[0x12, 9, b'h'], None);
        check(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], None);
        check(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], None);
        check(&[0x0b], None);
        for garbage in [&[0, 0, 0][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 1, 8, 1]] {
            assert_eq!(status(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn statuses_have_names() {
        assert_eq!(
            [0, 1, 2, 3, 9].map(status_name),
            ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", "9"]
        );
    }
}
