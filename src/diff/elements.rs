//! Elements of a tensor as one stream of bytes in the layout of `raw_data`, whatever field or file holds them, and as numbers.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::onnx::TensorProto;
use crate::onnx::tensor_proto::{DataLocation, DataType};
use crate::wire::fields::tensor as field;
use crate::wire::{Initializer, read_varint};

/// So many bytes are read at a time: whole elements of every width, three-quarter bytes included.
pub const CHUNK: usize = 3 << 16;

/// A tensor's bytes, read from the front.
pub enum Stream<'a> {
    /// In memory.
    Slices(VecDeque<&'a [u8]>),
    /// In memory, owned.
    Owned(io::Cursor<Cow<'a, [u8]>>),
    /// Varints in memory, each an element of so many bytes; 0 stands for packed six-bit elements.
    Varints(VecDeque<&'a [u8]>, usize),
    /// In a file, and so many bytes of it.
    File(File, u64),
}

impl<'a> Stream<'a> {
    /// Of an initializer whose elements are inline. `None` for strings and for types that nobody knows.
    pub fn inline(tensor: &Initializer, bytes: &'a [u8]) -> Option<Self> {
        let parts = || tensor.payload.iter().filter_map(|(f, range)| Some((*f, bytes.get(range.clone())?)));
        if let Some((_, raw)) = parts().rfind(|(f, _)| *f == field::RAW_DATA) {
            return Some(Stream::Slices([raw].into()));
        }
        if parts().any(|(f, _)| matches!(f, field::INT32_DATA | field::INT64_DATA | field::UINT64_DATA)) {
            return Some(Stream::Varints(parts().map(|(_, b)| b).collect(), varint_width(tensor.data_type)?));
        }
        let is_string = tensor.data_type == DataType::String as i32;
        (!is_string).then(|| Stream::Slices(parts().map(|(_, b)| b).collect()))
    }

    /// Of a tensor that was decoded with what is around it.
    pub fn decoded(tensor: &'a TensorProto) -> Option<Self> {
        of_decoded(tensor).map(|bytes| Stream::Owned(io::Cursor::new(bytes)))
    }

    /// Of a part of a file.
    pub fn file(mut file: File, offset: u64, length: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Stream::File(file, length))
    }

    /// The next [`CHUNK`] bytes into `out`; fewer at the end.
    pub fn next(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        match self {
            Stream::Owned(bytes) => {
                bytes.take(CHUNK as u64).read_to_end(out)?;
            }
            Stream::Slices(parts) => {
                while let Some(part) = parts.front_mut().filter(|_| out.len() < CHUNK) {
                    let (now, later) = part.split_at(part.len().min(CHUNK - out.len()));
                    out.extend_from_slice(now);
                    *part = later;
                    if later.is_empty() {
                        parts.pop_front();
                    }
                }
            }
            Stream::Varints(parts, width) => {
                let six_bits = *width == 0;
                let mut quad = Vec::with_capacity(4);
                while let Some(part) = parts.front_mut().filter(|_| out.len() < CHUNK) {
                    let Ok((value, next)) = read_varint(part, 0, part.len()) else {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "an element that is cut off"));
                    };
                    *part = &part[next..];
                    if part.is_empty() {
                        parts.pop_front();
                    }
                    if !six_bits {
                        out.extend_from_slice(&value.to_le_bytes()[..*width]);
                        continue;
                    }
                    quad.push(value);
                    if quad.len() == 4 || parts.is_empty() {
                        out.extend_from_slice(&pack_six_bits(&quad));
                        quad.clear();
                    }
                }
            }
            Stream::File(file, left) => {
                let want = (*left).min(CHUNK as u64);
                file.take(want).read_to_end(out)?;
                if (out.len() as u64) < want {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the data file ends too early"));
                }
                *left -= want;
            }
        }
        Ok(())
    }
}

fn pack_six_bits(values: &[u64]) -> Vec<u8> {
    let bits = values.iter().enumerate().fold(0u64, |bits, (i, v)| bits | ((v & 0x3f) << (6 * i)));
    bits.to_le_bytes()[..(6 * values.len()).div_ceil(8)].to_vec()
}

/// The bytes of a decoded tensor as `raw_data` would hold them; `None` when they are external.
pub fn of_decoded(tensor: &TensorProto) -> Option<Cow<'_, [u8]>> {
    if tensor.data_location() == DataLocation::External {
        return None;
    }
    if let Some(raw) = &tensor.raw_data {
        return Some(Cow::from(&raw[..]));
    }
    let mut out = Vec::new();
    tensor.float_data.iter().for_each(|v| out.extend(v.to_le_bytes()));
    tensor.double_data.iter().for_each(|v| out.extend(v.to_le_bytes()));
    tensor.int64_data.iter().for_each(|v| out.extend(v.to_le_bytes()));
    for text in &tensor.string_data {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(&text[..]);
    }
    match varint_width(tensor.data_type()) {
        Some(0) => {
            let values: Vec<u64> = tensor.int32_data.iter().map(|v| u64::from(v.cast_unsigned())).collect();
            values.chunks(4).for_each(|quad| out.extend(pack_six_bits(quad)));
        }
        width => {
            let width = width.unwrap_or(4).min(4);
            tensor.int32_data.iter().for_each(|v| out.extend(&v.to_le_bytes()[..width]));
        }
    }
    let width = varint_width(tensor.data_type()).unwrap_or(8);
    tensor.uint64_data.iter().for_each(|v| out.extend(&v.to_le_bytes()[..width.max(1)]));
    Some(Cow::from(out))
}

/// Bytes of `raw_data` for one varint of a typed field; 0 for six-bit elements.
fn varint_width(data_type: i32) -> Option<usize> {
    use DataType as T;
    Some(match DataType::try_from(data_type).ok()? {
        T::Int64 | T::Uint64 => 8,
        T::Int32 | T::Uint32 => 4,
        T::Int16 | T::Uint16 | T::Float16 | T::Bfloat16 => 2,
        T::Int8 | T::Uint8 | T::Bool | T::Float8e4m3fn | T::Float8e4m3fnuz | T::Float8e5m2 | T::Float8e5m2fnuz => 1,
        T::Float8e8m0 | T::Uint4 | T::Int4 | T::Float4e2m1 | T::Uint2 | T::Int2 => 1,
        T::Float6e2m3 | T::Float6e3m2 => 0,
        T::Undefined | T::Float | T::Double | T::String | T::Complex64 | T::Complex128 => return None,
    })
}

/// Bits of an element; those of a component for complex numbers. `None` for strings and types that nobody knows.
pub fn bits(data_type: i32) -> Option<u64> {
    use DataType as T;
    Some(match DataType::try_from(data_type).ok()? {
        T::Double | T::Complex128 => 64,
        T::Float | T::Complex64 => 32,
        T::Uint4 | T::Int4 | T::Float4e2m1 => 4,
        T::Uint2 | T::Int2 => 2,
        T::Float6e2m3 | T::Float6e3m2 => 6,
        _ => 8 * varint_width(data_type)? as u64,
    })
}

/// How many numbers an element is.
pub fn components(data_type: i32) -> u64 {
    if [DataType::Complex64 as i32, DataType::Complex128 as i32].contains(&data_type) { 2 } else { 1 }
}

/// Whether f64 does not hold every element.
pub fn is_wide(data_type: i32) -> bool {
    [DataType::Int64 as i32, DataType::Uint64 as i32].contains(&data_type)
}

/// The elements of a chunk of `raw_data`, appended to `out`; `None` for types that are no numbers.
pub fn numbers(data_type: i32, bytes: &[u8], out: &mut Vec<f64>) -> Option<()> {
    use DataType as T;
    let wide = |n: u32, to: fn(u8) -> f64, out: &mut Vec<f64>| {
        let mask = (1u8 << n) - 1;
        out.extend(bytes.iter().flat_map(|b| (0..8 / n).map(move |i| to((b >> (n * i)) & mask))));
    };
    match DataType::try_from(data_type).ok()? {
        T::Float | T::Complex64 => out.extend(each(bytes).map(|b| f64::from(f32::from_le_bytes(b)))),
        T::Double | T::Complex128 => out.extend(each(bytes).map(f64::from_le_bytes)),
        T::Float16 => out.extend(each(bytes).map(|b| small_float(u16::from_le_bytes(b).into(), 5, 10, Special::Ieee))),
        T::Bfloat16 => {
            out.extend(each(bytes).map(|b| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))));
        }
        T::Int64 => out.extend(each(bytes).map(|b| i64::from_le_bytes(b) as f64)),
        T::Uint64 => out.extend(each(bytes).map(|b| u64::from_le_bytes(b) as f64)),
        T::Int32 => out.extend(each(bytes).map(|b| f64::from(i32::from_le_bytes(b)))),
        T::Uint32 => out.extend(each(bytes).map(|b| f64::from(u32::from_le_bytes(b)))),
        T::Int16 => out.extend(each(bytes).map(|b| f64::from(i16::from_le_bytes(b)))),
        T::Uint16 => out.extend(each(bytes).map(|b| f64::from(u16::from_le_bytes(b)))),
        T::Int8 => out.extend(bytes.iter().map(|b| f64::from(b.cast_signed()))),
        T::Uint8 | T::Bool => out.extend(bytes.iter().map(|b| f64::from(*b))),
        T::Float8e4m3fn => out.extend(bytes.iter().map(|b| small_float((*b).into(), 4, 3, Special::Fn))),
        T::Float8e4m3fnuz => out.extend(bytes.iter().map(|b| small_float((*b).into(), 4, 3, Special::Fnuz))),
        T::Float8e5m2 => out.extend(bytes.iter().map(|b| small_float((*b).into(), 5, 2, Special::Ieee))),
        T::Float8e5m2fnuz => out.extend(bytes.iter().map(|b| small_float((*b).into(), 5, 2, Special::Fnuz))),
        T::Float8e8m0 => {
            let power = |b: &u8| if *b == 0xff { f64::NAN } else { 2f64.powi(i32::from(*b) - 127) };
            out.extend(bytes.iter().map(power));
        }
        T::Uint4 => wide(4, f64::from, out),
        T::Int4 => wide(4, |v| f64::from((v << 4).cast_signed() >> 4), out),
        T::Float4e2m1 => wide(4, |v| small_float(v.into(), 2, 1, Special::Finite), out),
        T::Uint2 => wide(2, f64::from, out),
        T::Int2 => wide(2, |v| f64::from((v << 6).cast_signed() >> 6), out),
        T::Float6e2m3 => six_bits(bytes, |v| small_float(v, 2, 3, Special::Finite), out),
        T::Float6e3m2 => six_bits(bytes, |v| small_float(v, 3, 2, Special::Finite), out),
        T::Undefined | T::String => return None,
    }
    Some(())
}

fn each<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn six_bits(bytes: &[u8], to: fn(u32) -> f64, out: &mut Vec<f64>) {
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0u32, |bits, (i, b)| bits | (u32::from(*b) << (8 * i)));
        out.extend((0..u32::try_from(8 * three.len() / 6).unwrap_or(0)).map(|i| to((bits >> (6 * i)) & 0x3f)));
    }
}

/// What the greatest exponents and the negative zero of a small float stand for.
#[derive(Clone, Copy, PartialEq)]
enum Special {
    /// Infinities and NaN, as in IEEE 754.
    Ieee,
    /// All ones is NaN; no infinities.
    Fn,
    /// Negative zero is NaN, the bias is one more; no infinities.
    Fnuz,
    /// Every pattern is a number.
    Finite,
}

/// A float of `e` exponent and `m` mantissa bits to binary64.
fn small_float(bits: u32, e: u32, m: u32, special: Special) -> f64 {
    let (fraction, exponent) = (bits & ((1 << m) - 1), (bits >> m) & ((1 << e) - 1));
    let is_negative = (bits >> (e + m)) & 1 == 1;
    let sign = if is_negative { -1.0 } else { 1.0 };
    let top = (1 << e) - 1;
    match special {
        Special::Ieee if exponent == top => return if fraction == 0 { sign * f64::INFINITY } else { f64::NAN },
        Special::Fn if exponent == top && fraction == (1 << m) - 1 => return f64::NAN,
        Special::Fnuz if is_negative && exponent == 0 && fraction == 0 => return f64::NAN,
        _ => {}
    }
    let bias = (1 << (e - 1)) - i32::from(special != Special::Fnuz);
    let fraction = f64::from(fraction) / f64::from(1u32 << m);
    let exponent = i32::try_from(exponent).unwrap_or(0);
    sign * if exponent == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(exponent - bias) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn read(data_type: DataType, bytes: &[u8]) -> Vec<f64> {
        let mut out = Vec::new();
        numbers(data_type as i32, bytes, &mut out).unwrap();
        out
    }

    #[test]
    fn small_floats_have_the_values_of_their_formats() {
        // Largest and smallest positive numbers, from the tables of the OCP and ONNX specifications.
        assert_eq!(read(DataType::Float8e4m3fn, &[0x7e, 0x01]), [448.0, 2f64.powi(-9)]);
        assert_eq!(read(DataType::Float8e4m3fnuz, &[0x7f, 0x01]), [240.0, 2f64.powi(-10)]);
        assert_eq!(read(DataType::Float8e5m2, &[0x7b, 0x01]), [57344.0, 2f64.powi(-16)]);
        assert_eq!(read(DataType::Float8e5m2fnuz, &[0x7f, 0x01]), [57344.0, 2f64.powi(-17)]);
        assert_eq!(read(DataType::Float4e2m1, &[0x17]), [6.0, 0.5]);
        assert_eq!(read(DataType::Float6e2m3, &[0x1f, 0, 0])[0], 7.5);
        assert_eq!(read(DataType::Float6e3m2, &[0x1f, 0, 0])[0], 28.0);
        assert_eq!(read(DataType::Float16, &[0xff, 0x7b, 0, 0xfc]), [65504.0, f64::NEG_INFINITY]);
        assert_eq!(read(DataType::Int4, &[0x8f]), [-1.0, -8.0]);
        assert_eq!(read(DataType::Int2, &[0b1110_0100]), [0.0, 1.0, -2.0, -1.0]);
        assert!(
            read(DataType::Float8e4m3fn, &[0x7f])[0].is_nan() && read(DataType::Float8e4m3fnuz, &[0x80])[0].is_nan()
        );
    }

    #[test]
    fn typed_fields_stream_as_raw_data() {
        let cases = [
            (DataType::Int64, TensorProto { int64_data: vec![-2, 3], ..Default::default() }),
            (DataType::Int8, TensorProto { int32_data: vec![-2, 3], ..Default::default() }),
            (DataType::Float16, TensorProto { int32_data: vec![0xc000, 0x4200], ..Default::default() }),
            (DataType::Uint32, TensorProto { uint64_data: vec![7, 3], ..Default::default() }),
            (DataType::Double, TensorProto { double_data: vec![-2.0, 3.0], ..Default::default() }),
            (DataType::Float, TensorProto { float_data: vec![-2.0, 3.0], ..Default::default() }),
            (DataType::Float6e2m3, TensorProto { int32_data: vec![1, 2, 3, 4], ..Default::default() }),
        ];
        for (data_type, tensor) in cases {
            let tensor = TensorProto { data_type: Some(data_type as i32), ..tensor };
            let bytes = tensor.encode_to_vec();
            let head = Initializer::read(&bytes, 0..bytes.len()).unwrap();
            let mut streamed = Vec::new();
            Stream::inline(&head, &bytes).unwrap().next(&mut streamed).unwrap();
            assert_eq!(streamed, &*of_decoded(&tensor).unwrap(), "{data_type:?}");
            let values = read(data_type, &streamed);
            match data_type {
                DataType::Uint32 => assert_eq!(values, [7.0, 3.0]),
                DataType::Float6e2m3 => assert_eq!(values, [0.125, 0.25, 0.375, 0.5]),
                _ => assert_eq!(values, [-2.0, 3.0], "{data_type:?}"),
            }
        }
    }
}
