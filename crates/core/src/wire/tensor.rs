//! Initializers: what a tensor is, without decoding what it holds.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;

use super::error::{WireError, WireResult};
use super::fields::tensor as field;
use super::record::{read_varint, records};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{StringStringEntryProto, TensorProto};

/// The head of a `TensorProto`: everything but its elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initializer {
    /// Tensor name, unique in its graph.
    pub name: String,
    /// Dimensions; empty for a scalar.
    pub dims: Vec<i64>,
    /// Element type, a number of `TensorProto.DataType`.
    pub data_type: i32,
    /// Byte ranges of the fields that hold elements, in file order, with their field numbers.
    pub payload: Vec<(u32, Range<usize>)>,
    /// Keys and values that locate external data (`location`, `offset`, `length` …); empty when the elements are inline.
    pub external: Vec<(String, String)>,
    /// What the ranges in `payload` are of, where that is not the model's file: see [`Model::with_nodes`](super::Model::with_nodes).
    pub(super) beside: Option<Bytes>,
}

impl Initializer {
    /// Reads the head of the tensor that fills `range`; elements are skipped, however many.
    pub fn read(bytes: &[u8], range: Range<usize>) -> WireResult<Self> {
        let mut tensor = Initializer::default();
        let mut external = Vec::new();
        let mut is_external = false;
        for record in records(bytes, range) {
            let record = record?;
            match (record.field, record.wire_type) {
                (field::DIMS, 0) => tensor.dims.push(varint(bytes, &record.payload)?.cast_signed()),
                (field::DIMS, 2) => {
                    let mut at = record.payload.start;
                    while at < record.payload.end {
                        let (value, next) = read_varint(bytes, at, record.payload.end)?;
                        tensor.dims.push(value.cast_signed());
                        at = next;
                    }
                }
                (field::DATA_TYPE, 0) => {
                    tensor.data_type = i32::try_from(varint(bytes, &record.payload)?).unwrap_or_default();
                }
                (field::DATA_LOCATION, 0) => is_external = varint(bytes, &record.payload)? == 1,
                (field::NAME, 2) => {
                    tensor.name = std::str::from_utf8(&bytes[record.payload.clone()])
                        .map_err(|_| WireError::Malformed {
                            offset: record.start,
                            what: "a tensor name that is not UTF-8",
                        })?
                        .to_owned();
                }
                (field::EXTERNAL_DATA, 2) => {
                    let entry = StringStringEntryProto::decode(&bytes[record.payload.clone()]).map_err(|source| {
                        WireError::Decode { part: "external_data".into(), offset: record.start, source }
                    })?;
                    external.push((entry.key.unwrap_or_default(), entry.value.unwrap_or_default()));
                }
                (f, _) if field::is_payload(f) => tensor.payload.push((f, record.payload)),
                _ => {}
            }
        }
        if is_external {
            tensor.external = external;
        }
        Ok(tensor)
    }

    /// The head of a tensor that stands in no file.
    pub(super) fn beside(tensor: &TensorProto) -> WireResult<Self> {
        let bytes = Bytes::from(tensor.encode_to_vec());
        let head = Self::read(&bytes, 0..bytes.len())?;
        Ok(Initializer { beside: Some(bytes), ..head })
    }

    /// Number of elements by the dimensions; `None` when they are negative or overflow.
    pub fn element_count(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?))
    }

    /// Whether the elements are floating point (of any width that a model is trained in).
    pub fn is_float(&self) -> bool {
        is_float(self.data_type)
    }

    /// The file that holds the elements, relative to the model's folder, when they are external.
    pub fn location(&self) -> Option<&str> {
        self.external.iter().find(|(k, _)| k == "location").map(|(_, v)| v.as_str())
    }

    /// Whether the elements lie beside the head as bytes of their own, which as many others can take the place of. Numbers of varying length
    /// do not, nor do elements in another file.
    pub fn is_in_place(&self) -> bool {
        let is_plain = |(number, _): &(u32, Range<usize>)| {
            matches!(*number, field::RAW_DATA | field::FLOAT_DATA | field::DOUBLE_DATA)
        };
        self.external.is_empty() && self.payload.iter().all(is_plain)
    }

    /// Little-endian elements put where the old ones lie: each range with what takes its place. `None` where they cannot be.
    pub fn in_place(&self, elements: &Bytes) -> Option<Vec<(Range<usize>, Bytes)>> {
        let length: usize = self.payload.iter().map(|(_, range)| range.len()).sum();
        if !self.is_in_place() || length != elements.len() {
            return None;
        }
        let mut rest = elements.clone();
        Some(self.payload.iter().map(|(_, range)| (range.clone(), rest.split_to(range.len()))).collect())
    }

    /// Up to `limit` elements as f64, for tensors that hold inline float32, float64, float16, int64, int32 or bool; `None` for others,
    /// for external data and for tensors of more than `limit` elements. Meant for constants such as 0.5 and shapes.
    pub fn small_values(&self, bytes: &[u8], limit: usize) -> Option<Vec<f64>> {
        let count = usize::try_from(self.element_count()?).ok().filter(|n| *n <= limit)?;
        if !self.external.is_empty() {
            return None;
        }
        let bytes = self.beside.as_deref().unwrap_or(bytes);
        let payload: Vec<(u32, &[u8])> =
            self.payload.iter().map(|(f, range)| bytes.get(range.clone()).map(|b| (*f, b))).collect::<Option<_>>()?;
        let values = decode_elements(self.data_type, &payload)?;
        (values.len() == count).then_some(values)
    }
}

/// Whether a number of `TensorProto.DataType` is float16, bfloat16, float32 or float64.
pub fn is_float(data_type: i32) -> bool {
    [DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16].iter().any(|t| *t as i32 == data_type)
}

fn varint(bytes: &[u8], payload: &Range<usize>) -> WireResult<u64> {
    Ok(read_varint(bytes, payload.start, payload.end)?.0)
}

/// Elements as f64 from the payload fields of a tensor (field number, bytes), whatever encoding the exporter chose.
pub fn decode_elements(data_type: i32, payload: &[(u32, &[u8])]) -> Option<Vec<f64>> {
    let data_type = DataType::try_from(data_type).ok()?;
    let mut out = Vec::new();
    for (field, bytes) in payload {
        match (*field, data_type) {
            (field::RAW_DATA | field::FLOAT_DATA, DataType::Float) => out.extend(f32s(bytes)?),
            (field::RAW_DATA | field::DOUBLE_DATA, DataType::Double) => {
                out.extend(chunks::<8>(bytes)?.map(f64::from_le_bytes));
            }
            (field::RAW_DATA, DataType::Int64) => {
                out.extend(chunks::<8>(bytes)?.map(|b| i64::from_le_bytes(b) as f64));
            }
            (field::RAW_DATA, DataType::Int32) => {
                out.extend(chunks::<4>(bytes)?.map(|b| f64::from(i32::from_le_bytes(b))));
            }
            (field::RAW_DATA, DataType::Bool) => out.extend(bytes.iter().map(|b| f64::from(u8::from(*b != 0)))),
            (field::RAW_DATA, DataType::Float16) => {
                out.extend(chunks::<2>(bytes)?.map(|b| f16_to_f64(u16::from_le_bytes(b))));
            }
            (field::RAW_DATA, DataType::Bfloat16) => {
                let widen = |b| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
                out.extend(chunks::<2>(bytes)?.map(widen));
            }
            (field::INT64_DATA | field::INT32_DATA, _) => {
                let mut at = 0;
                while at < bytes.len() {
                    let (value, next) = read_varint(bytes, at, bytes.len()).ok()?;
                    at = next;
                    out.push(match data_type {
                        DataType::Float16 => f16_to_f64(u16::try_from(value).ok()?),
                        DataType::Bfloat16 => f64::from(f32::from_bits(u32::try_from(value).ok()? << 16)),
                        DataType::Int32 | DataType::Int64 | DataType::Bool => value.cast_signed() as f64,
                        _ => return None,
                    });
                }
            }
            _ => return None,
        }
    }
    Some(out)
}

fn f32s(bytes: &[u8]) -> Option<impl Iterator<Item = f64> + '_> {
    Some(chunks::<4>(bytes)?.map(|b| f64::from(f32::from_le_bytes(b))))
}

fn chunks<const N: usize>(bytes: &[u8]) -> Option<impl Iterator<Item = [u8; N]> + '_> {
    let (whole, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| whole.iter().copied())
}

/// IEEE 754 binary16 to binary64.
fn f16_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2f64.powi(-14),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::TensorProto;

    #[test]
    fn every_encoding_of_the_same_elements_reads_alike() {
        let raw = TensorProto {
            dims: vec![2],
            data_type: Some(1),
            raw_data: Some([0.5f32, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into()),
            ..Default::default()
        };
        let typed =
            TensorProto { dims: vec![2], data_type: Some(1), float_data: vec![0.5, -3.0], ..Default::default() };
        for tensor in [raw, typed] {
            let bytes = tensor.encode_to_vec();
            let head = Initializer::read(&bytes, 0..bytes.len()).unwrap();
            assert_eq!(head.small_values(&bytes, 8), Some(vec![0.5, -3.0]));
        }
    }

    #[test]
    fn other_elements_go_where_the_old_ones_lie_if_these_are_bytes_of_their_own() {
        let raw = |bytes: &'static [u8]| TensorProto { raw_data: Some(bytes.into()), ..Default::default() };
        let in_place = |tensor: TensorProto, elements: &'static [u8]| {
            let mut bytes = tensor.encode_to_vec();
            let head = Initializer::read(&bytes, 0..bytes.len()).unwrap();
            let pieces = head.in_place(&Bytes::from_static(elements))?;
            pieces.into_iter().for_each(|(range, piece)| bytes[range].copy_from_slice(&piece));
            TensorProto::decode(bytes.as_slice()).ok()
        };
        assert_eq!(in_place(raw(b"abcd"), b"efgh"), Some(raw(b"efgh")));
        let float = |v: f32| TensorProto { float_data: vec![v], ..Default::default() };
        assert_eq!(in_place(float(0.0), b"\0\0\x80?"), Some(float(1.0)));
        assert_eq!(in_place(raw(b"abcd"), b"efg"), None);
        assert_eq!(in_place(TensorProto { int32_data: vec![1], ..Default::default() }, b"\x01"), None);
        let outside = TensorProto {
            data_location: Some(1),
            external_data: vec![StringStringEntryProto { key: Some("location".into()), value: Some("w.bin".into()) }],
            ..Default::default()
        };
        assert_eq!(in_place(outside, b""), None);
    }

    #[test]
    fn half_floats_widen_exactly() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)] {
            assert_eq!(f16_to_f64(bits), value);
        }
        assert!(f16_to_f64(0xfc00).is_infinite());
    }
}
