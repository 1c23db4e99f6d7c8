//! The IDX format of the MNIST data sets: a type, sizes, and elements, all big-endian.

use bytes::Bytes;

use super::array::Array;
use crate::engine::element_size;
use crate::onnx::tensor_proto::DataType;

/// What stands before the elements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    elem: DataType,
    shape: Vec<usize>,
    /// First byte of the elements.
    data: usize,
}

impl Header {
    /// Whether a file may begin like this.
    pub fn is_at(bytes: &[u8]) -> bool {
        matches!(bytes, [0, 0, 0x08 | 0x09 | 0x0b..=0x0e, _, ..])
    }

    /// Reads the header at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let [0, 0, kind, rank, rest @ ..] = bytes else { return Err("it is no IDX file".into()) };
        let elem = match kind {
            0x08 => DataType::Uint8,
            0x09 => DataType::Int8,
            0x0b => DataType::Int16,
            0x0c => DataType::Int32,
            0x0d => DataType::Float,
            0x0e => DataType::Double,
            _ => return Err(format!("its element type {kind:#04x} is none of IDX")),
        };
        let rank = usize::from(*rank);
        let sizes = rest.get(..4 * rank).ok_or("it is cut off")?;
        let size = |b: &[u8; 4]| usize::try_from(u32::from_be_bytes(*b)).unwrap_or(usize::MAX);
        Ok(Header { elem, shape: sizes.as_chunks().0.iter().map(size).collect(), data: 4 + 4 * rank })
    }

    /// Bytes of the whole file; `None` when it overflows.
    pub fn file_len(&self) -> Option<usize> {
        let elements = self.shape.iter().try_fold(element_size(self.elem as i32)?, |n, d| n.checked_mul(*d));
        elements?.checked_add(self.data)
    }
}

/// The array in an IDX file.
pub(super) fn read(name: &str, bytes: &Bytes) -> Result<Array, String> {
    let header = Header::parse(bytes)?;
    if header.file_len().is_some_and(|n| n < bytes.len()) {
        return Err(format!("it has bytes behind its last element: {:?} elements end before", header.shape));
    }
    Array::dense(name, header.elem, true, &header.shape, bytes.slice(header.data.min(bytes.len())..))
}

/// What the array of a file is called: `images` or `labels` where the file's name says so, else the name without its endings.
pub(super) fn name_of(file: &str) -> &str {
    match file {
        _ if file.contains("images") => "images",
        _ if file.contains("labels") => "labels",
        _ => file.split('.').next().unwrap_or(file),
    }
}
