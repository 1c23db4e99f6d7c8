//! Protobuf records: where each field of a message lies in the file.
//!
//! Only tags and lengths are read. Positions are byte offsets in the whole file, so that an edit can name them.

use std::ops::Range;

use super::error::{WireError, WireResult};

/// How deep deprecated groups may nest; they occur only as unknown fields.
const MAX_GROUP_DEPTH: usize = 64;

/// One field of a message, as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Field number in the schema.
    pub field: u32,
    /// Protobuf wire type: 0 varint, 1 fixed64, 2 length-delimited, 3 group, 5 fixed32.
    pub wire_type: u8,
    /// First byte of the tag.
    pub start: usize,
    /// First byte of the length (length-delimited records), else of the payload.
    pub length_at: usize,
    /// The value itself, without tag and length.
    pub payload: Range<usize>,
    /// One past the last byte of the record.
    pub end: usize,
}

impl Record {
    /// Tag, length and payload.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether this is a string, bytes, a message or a packed list.
    pub fn is_length_delimited(&self) -> bool {
        self.wire_type == 2
    }
}

/// The records of one message, in file order. Stops after the first error.
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

/// Walks the message that fills `range` of `bytes`.
pub fn records(bytes: &[u8], range: Range<usize>) -> Records<'_> {
    let end = range.end.min(bytes.len());
    Records { bytes, at: range.start.min(end), end }
}

impl Iterator for Records<'_> {
    type Item = WireResult<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let record = read_record(self.bytes, self.at, self.end, 0);
        self.at = record.as_ref().map_or(self.end, |r| r.end);
        Some(record)
    }
}

fn read_record(bytes: &[u8], start: usize, end: usize, depth: usize) -> WireResult<Record> {
    let (tag, after_tag) = read_varint(bytes, start, end)?;
    let wire_type = (tag & 7) as u8;
    let field = u32::try_from(tag >> 3)
        .ok()
        .filter(|f| (1..=0x1fff_ffff).contains(f))
        .ok_or(WireError::Malformed { offset: start, what: "a field number that protobuf does not have" })?;
    let truncated = || WireError::Truncated { offset: start, field };
    let (length_at, payload, end) = match wire_type {
        0 => {
            let (_, after) = read_varint(bytes, after_tag, end)?;
            (after_tag, after_tag..after, after)
        }
        1 | 5 => {
            let width = if wire_type == 1 { 8 } else { 4 };
            let after = after_tag.checked_add(width).filter(|a| *a <= end).ok_or_else(truncated)?;
            (after_tag, after_tag..after, after)
        }
        2 => {
            let (length, body) = read_varint(bytes, after_tag, end)?;
            let after = usize::try_from(length)
                .ok()
                .and_then(|l| body.checked_add(l))
                .filter(|a| *a <= end)
                .ok_or_else(truncated)?;
            (after_tag, body..after, after)
        }
        3 => {
            let (body_end, after) = skip_group(bytes, after_tag, end, field, depth)?;
            (after_tag, after_tag..body_end, after)
        }
        _ => {
            return Err(WireError::Malformed { offset: start, what: "a wire type that protobuf does not have" });
        }
    };
    Ok(Record { field, wire_type, start, length_at, payload, end })
}

/// Where a group's content ends, and where its end tag does.
fn skip_group(bytes: &[u8], start: usize, end: usize, field: u32, depth: usize) -> WireResult<(usize, usize)> {
    if depth >= MAX_GROUP_DEPTH {
        return Err(WireError::Malformed { offset: start, what: "groups nested too deep" });
    }
    let mut at = start;
    while at < end {
        let (tag, after) = read_varint(bytes, at, end)?;
        if tag & 7 == 4 {
            return if tag >> 3 == u64::from(field) {
                Ok((at, after))
            } else {
                Err(WireError::Malformed { offset: at, what: "a group end that matches no group start" })
            };
        }
        at = read_record(bytes, at, end, depth + 1)?.end;
    }
    Err(WireError::Truncated { offset: start, field })
}

/// A varint and the position after it. Accepts non-minimal encodings of up to ten bytes, as protobuf does.
pub fn read_varint(bytes: &[u8], start: usize, end: usize) -> WireResult<(u64, usize)> {
    let mut value = 0u64;
    for (i, byte) in bytes.get(start..end).unwrap_or_default().iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((value, start + i + 1));
        }
    }
    Err(WireError::Malformed { offset: start, what: "a number that does not end" })
}

/// How many bytes the minimal varint of `value` takes.
pub fn varint_width(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends `value` as a varint of at least `width` bytes; wider than minimal is padded with continuation bytes.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let width = width.max(varint_width(value)).min(10);
    for _ in 1..width {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_truncated_length_names_its_offset_and_field() {
        let bytes = [0x3a, 0x05, 1, 2];
        let error = records(&bytes, 0..4).next().unwrap().unwrap_err();
        assert!(matches!(error, WireError::Truncated { offset: 0, field: 7 }));
    }

    #[test]
    fn an_unknown_group_is_one_record() {
        // Group 30 { field 1 varint 5 } end group 30, then field 1 = 2.
        let bytes = [0xf3, 0x01, 0x08, 0x05, 0xf4, 0x01, 0x08, 0x02];
        let all: Vec<_> = records(&bytes, 0..8).collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].field, all[0].span()), (30, 0..6));
    }

    proptest! {
        #[test]
        fn varints_of_any_width_read_back(value: u64, padding in 0usize..4) {
            let mut out = Vec::new();
            put_varint(&mut out, value, varint_width(value) + padding);
            prop_assert_eq!(read_varint(&out, 0, out.len()).unwrap(), (value, out.len()));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_spans_tile(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            for record in records(&bytes, 0..bytes.len()) {
                let Ok(record) = record else { break };
                prop_assert_eq!(record.start, at);
                prop_assert!(record.payload.end <= record.end && record.end <= bytes.len());
                at = record.end;
            }
        }
    }
}
