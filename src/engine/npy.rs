//! NumPy's array format, `.npy`: versions 1.0 to 3.0 as `numpy.lib.format` documents them, without pickled objects.

use bytes::Bytes;
use half::{bf16, f16};

use super::tensor::{Element, Tensor, element_size};
use crate::graph::types::elem_name;
use crate::onnx::tensor_proto::DataType;

/// First bytes of an array.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// What stands before the elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub elem: DataType,
    /// Whether the elements' bytes stand in the other order than on most machines.
    pub big_endian: bool,
    /// Whether the first index varies fastest.
    pub fortran_order: bool,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// First byte of the elements.
    pub data: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(MAGIC) {
            return Err("it is no NumPy array (.npy)".into());
        }
        let cut = || "it is cut off".to_owned();
        let number = |at: usize, width: usize| -> Option<usize> {
            let digits = bytes.get(at..at + width)?;
            Some(digits.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)))
        };
        let (start, length) = match bytes.get(6) {
            Some(1) => (10, number(8, 2).ok_or_else(cut)?),
            Some(2 | 3) => (12, number(8, 4).ok_or_else(cut)?),
            Some(version) => return Err(format!("its format version {version} is not known")),
            None => return Err(cut()),
        };
        let text = bytes.get(start..).and_then(|b| b.get(..length)).ok_or_else(cut)?;
        let text = String::from_utf8_lossy(text);
        let broken = || format!("its header is not understood: {:?}", text.trim());
        let entry = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
        let descr = entry("descr").ok_or_else(broken)?;
        let (elem, big_endian) = element_type(quoted(descr).ok_or_else(|| {
            if descr.starts_with('[') { "it is a structured array, not a plain one".into() } else { broken() }
        })?)?;
        let fortran_order = match entry("fortran_order").ok_or_else(broken)? {
            t if t.starts_with("True") => true,
            t if t.starts_with("False") => false,
            _ => return Err(broken()),
        };
        let shape = entry("shape").and_then(|s| s.strip_prefix('(')?.split_once(')')).ok_or_else(broken)?.0;
        let numbers = shape.split(',').map(|n| n.trim().trim_end_matches('L')).filter(|n| !n.is_empty());
        let shape = numbers.map(|n| n.parse().map_err(|_| broken())).collect::<Result<_, _>>()?;
        Ok(Header { elem, big_endian, fortran_order, shape, data: start + length })
    }

    /// Number of bytes that the elements take; `None` when it overflows.
    pub fn byte_len(&self) -> Option<usize> {
        self.shape.iter().try_fold(element_size(self.elem as i32)?, |n, d| n.checked_mul(*d))
    }
}

/// The text in quotes that `text` begins with.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote).map(|(inside, _)| inside)
}

/// The element type of a NumPy type string such as `<f4`, and whether it is big-endian.
fn element_type(descr: &str) -> Result<(DataType, bool), String> {
    let (order, kind) = match descr.chars().next() {
        Some(c @ ('<' | '>' | '|' | '=')) => (c, &descr[1..]),
        _ => ('|', descr),
    };
    let elem = match kind {
        "f2" => DataType::Float16,
        "f4" => DataType::Float,
        "f8" => DataType::Double,
        "i1" => DataType::Int8,
        "i2" => DataType::Int16,
        "i4" => DataType::Int32,
        "i8" => DataType::Int64,
        "u1" => DataType::Uint8,
        "u2" => DataType::Uint16,
        "u4" => DataType::Uint32,
        "u8" => DataType::Uint64,
        "b1" => DataType::Bool,
        // What NumPy writes of ml_dtypes.bfloat16, whose name it does not keep.
        "V2" | "bfloat16" => DataType::Bfloat16,
        k if k.starts_with('O') => return Err("it holds Python objects, which are pickled and not read".into()),
        k if k.starts_with(['U', 'S']) => return Err("it holds strings, and only numbers and bool can be run".into()),
        k if k.starts_with('c') => {
            return Err("it holds complex numbers, and only real ones and bool can be run".into());
        }
        _ => return Err(format!("its element type {descr:?} is not known")),
    };
    Ok((elem, order == '>'))
}

/// Reads an array.
pub fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let header = Header::parse(bytes)?;
    let length = header.byte_len().ok_or("its shape has more elements than memory could hold")?;
    let data = bytes.get(header.data..).unwrap_or_default();
    if data.len() < length {
        let (has, name) = (data.len(), elem_name(header.elem as i32));
        return Err(format!("it is cut off: {has} bytes of elements, and {name}{:?} needs {length}", header.shape));
    }
    let data = &data[..length];
    let tensor = match header.elem {
        DataType::Float16 => elements::<f16>(data, &header),
        DataType::Bfloat16 => elements::<bf16>(data, &header),
        DataType::Float => elements::<f32>(data, &header),
        DataType::Double => elements::<f64>(data, &header),
        DataType::Int8 => elements::<i8>(data, &header),
        DataType::Int16 => elements::<i16>(data, &header),
        DataType::Int32 => elements::<i32>(data, &header),
        DataType::Int64 => elements::<i64>(data, &header),
        DataType::Uint8 => elements::<u8>(data, &header),
        DataType::Uint16 => elements::<u16>(data, &header),
        DataType::Uint32 => elements::<u32>(data, &header),
        DataType::Uint64 => elements::<u64>(data, &header),
        DataType::Bool => elements::<bool>(data, &header),
        _ => None,
    };
    tensor.ok_or_else(|| "its elements do not fill its shape".into())
}

fn elements<T: Element>(data: &[u8], header: &Header) -> Option<Tensor> {
    let width = element_size(T::TYPE as i32)?;
    let mut swapped = [0; 8];
    let values = data.chunks_exact(width).map(|bytes| {
        if !header.big_endian {
            return T::from_le(bytes);
        }
        let place = swapped.get_mut(..width)?;
        place.copy_from_slice(bytes);
        place.reverse();
        T::from_le(place)
    });
    let values = values.collect::<Option<Vec<T>>>()?;
    let values = if header.fortran_order { to_c_order(&values, &header.shape) } else { values };
    Tensor::new(header.shape.clone(), values)
}

/// Elements as they are wanted in memory, little-endian in C order; not copied where they are already.
pub(crate) fn in_memory_order(header: &Header, data: Bytes) -> Bytes {
    fn of<const N: usize>(header: &Header, data: &Bytes) -> Vec<u8> {
        let mut elements = data.as_chunks::<N>().0.to_vec();
        if header.big_endian {
            elements.iter_mut().for_each(|e| e.reverse());
        }
        let is_fortran = header.fortran_order && header.shape.len() > 1;
        if is_fortran { to_c_order(&elements, &header.shape).into_flattened() } else { elements.into_flattened() }
    }
    let width = element_size(header.elem as i32).unwrap_or(1);
    if (!header.big_endian || width == 1) && (!header.fortran_order || header.shape.len() < 2) {
        return data;
    }
    match width {
        1 => of::<1>(header, &data),
        2 => of::<2>(header, &data),
        4 => of::<4>(header, &data),
        _ => of::<8>(header, &data),
    }
    .into()
}

/// The header of version 1.0 before little-endian elements in C order. bfloat16, which NumPy does not know, is written as it writes that
/// of ml_dtypes.
pub(crate) fn header(elem: DataType, shape: &[usize]) -> Vec<u8> {
    let descr = match elem {
        DataType::Float16 => "<f2",
        DataType::Float => "<f4",
        DataType::Double => "<f8",
        DataType::Int8 => "|i1",
        DataType::Int16 => "<i2",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::Uint8 => "|u1",
        DataType::Uint16 => "<u2",
        DataType::Uint32 => "<u4",
        DataType::Uint64 => "<u8",
        DataType::Bool => "|b1",
        _ => "<V2",
    };
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", sizes.join(", "));
    // The elements start at a multiple of 64 bytes, and a line break stands before them.
    let before = MAGIC.len() + 4;
    let padding = (before + dict.len() + 1).next_multiple_of(64) - before - 1;
    dict = format!("{dict:<padding$}\n");
    let length = u16::try_from(dict.len()).unwrap_or(u16::MAX).to_le_bytes();
    [MAGIC, &[1, 0], &length, dict.as_bytes()].concat()
}

/// Elements in Fortran order, in C order.
pub(crate) fn to_c_order<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for size in shape {
        strides.push(stride);
        stride *= size;
    }
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[index.iter().zip(&strides).map(|(i, s)| i * s).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Data;

    fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let dict = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut out = [MAGIC, &[1, 0], &u16::try_from(dict.len()).unwrap().to_le_bytes()].concat();
        out.extend(dict.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn byte_order_and_index_order_are_undone() {
        let bytes: Vec<u8> = (0..6i16).flat_map(i16::to_be_bytes).collect();
        let tensor = read(&npy("'>i2'", "True", "(2, 3)", &bytes)).unwrap();
        assert_eq!(tensor.shape(), [2, 3]);
        assert_eq!(tensor.data(), &Data::Int16(vec![0, 2, 4, 1, 3, 5]));
        let scalar = read(&npy("'|b1'", "False", "()", &[1])).unwrap();
        assert_eq!((scalar.shape(), scalar.data()), (&[][..], &Data::Bool(vec![true])));
        let empty = read(&npy("'<f4'", "False", "(0, 5)", &[])).unwrap();
        assert_eq!(empty.shape(), [0, 5]);
    }

    #[test]
    fn every_refusal_says_what_is_there() {
        for (file, words) in [
            (npy("'|O'", "False", "(1,)", &[0; 8]), "Python objects"),
            (npy("'<U5'", "False", "(1,)", &[0; 20]), "strings"),
            (npy("'<c8'", "False", "(1,)", &[0; 8]), "complex"),
            (npy("'<M8[ns]'", "False", "(1,)", &[0; 8]), "\"<M8[ns]\""),
            (npy("[('a', '<f4')]", "False", "(1,)", &[0; 4]), "structured"),
            (npy("'<f4'", "False", "(3, 2)", &[0; 20]), "20 bytes of elements, and float[3, 2] needs 24"),
            (npy("'<f4'", "False", "(4294967296, 4294967296, 4)", &[]), "more elements than memory"),
            (npy("'<f4'", "False", "(-1,)", &[]), "not understood"),
            (npy("'<f4'", "Maybe", "(1,)", &[0; 4]), "not understood"),
            (b"\x93NUMPY\x09\0\0\0".to_vec(), "version 9"),
            (b"\x93NUMPY\x01\0\xff\xff{".to_vec(), "cut off"),
            (b"\x93NUM".to_vec(), "no NumPy array"),
        ] {
            let message = read(&file).unwrap_err();
            assert!(message.contains(words), "{message:?} lacks {words:?}");
        }
    }

    #[test]
    fn a_header_that_is_written_reads_back() {
        for (elem, shape) in [(DataType::Float, vec![]), (DataType::Bfloat16, vec![3]), (DataType::Bool, vec![2, 0, 7])]
        {
            let bytes = header(elem, &shape);
            assert_eq!(bytes.len() % 64, 0);
            let read = Header::parse(&bytes).unwrap();
            let expected = Header { elem, big_endian: false, fortran_order: false, shape, data: bytes.len() };
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = npy("'<f8'", "False", "(2, 2)", &[7; 32]);
        assert!(read(&whole).is_ok());
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
    }
}
