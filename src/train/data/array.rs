//! An array in a file: rows that are looked up where they lie.

use bytes::Bytes;

use crate::engine::element_size;
use crate::graph::types::elem_name;
use crate::onnx::tensor_proto::DataType;

/// What an array holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Element type.
    pub elem: DataType,
    /// Shape of one row: all axes but the first.
    pub row: Vec<usize>,
    /// Number of rows, the first axis.
    pub rows: usize,
}

impl Field {
    /// Element type and shape, such as `uint8[60000, 28, 28]`.
    pub fn describe(&self) -> String {
        let dims: Vec<String> = std::iter::once(&self.rows).chain(&self.row).map(ToString::to_string).collect();
        format!("{}[{}]", elem_name(self.elem as i32), dims.join(", "))
    }
}

/// Rows in bytes, equally far from each other.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    /// Where they lie.
    pub bytes: Bytes,
    /// The first one's first byte.
    pub start: usize,
    /// From one row to the next.
    pub stride: usize,
    /// How many.
    pub rows: usize,
}

/// An array whose rows lie in one stretch of bytes or several.
#[derive(Debug, Clone)]
pub(super) struct Array {
    pub field: Field,
    /// Whether the elements' bytes stand in the other order than on most machines.
    pub big_endian: bool,
    row_bytes: usize,
    stretches: Vec<Stretch>,
}

impl Array {
    /// An array in C order whose elements are the first of `bytes`.
    pub fn dense(name: &str, elem: DataType, big_endian: bool, shape: &[usize], bytes: Bytes) -> Result<Self, String> {
        let Some((rows, row)) = shape.split_first() else {
            return Err("it is a single number, and the first axis of data counts samples".into());
        };
        let field = Field { name: name.to_owned(), elem, row: row.to_vec(), rows: *rows };
        let row_bytes = byte_len(&field)?;
        let length = row_bytes.checked_mul(*rows).ok_or("its shape has more elements than memory could hold")?;
        if bytes.len() < length {
            let (has, what) = (bytes.len(), field.describe());
            return Err(format!("it is cut off: {has} bytes of elements, and {what} needs {length}"));
        }
        let stretches = vec![Stretch { bytes, start: 0, stride: row_bytes, rows: *rows }];
        Ok(Array { field, big_endian, row_bytes, stretches })
    }

    /// An array of bytes whose rows lie among other things.
    pub fn strided(name: &str, row: &[usize], stretch: Stretch) -> Result<Self, String> {
        let field = Field { name: name.to_owned(), elem: DataType::Uint8, row: row.to_vec(), rows: stretch.rows };
        Ok(Array { row_bytes: byte_len(&field)?, field, big_endian: false, stretches: vec![stretch] })
    }

    /// Puts the rows of another array of the same type behind its own.
    pub fn append(&mut self, other: Array) -> Result<(), String> {
        let alike = self.field.elem == other.field.elem && self.field.row == other.field.row;
        if !alike || self.big_endian != other.big_endian {
            return Err(format!("{} cannot follow {}", other.field.describe(), self.field.describe()));
        }
        self.field.rows = self.field.rows.checked_add(other.field.rows).ok_or("it has too many rows")?;
        self.stretches.extend(other.stretches);
        Ok(())
    }

    /// The bytes of a row.
    pub fn row(&self, index: usize) -> Option<&[u8]> {
        let mut index = index;
        for stretch in &self.stretches {
            if index < stretch.rows {
                let start = index.checked_mul(stretch.stride)?.checked_add(stretch.start)?;
                return stretch.bytes.get(start..)?.get(..self.row_bytes);
            }
            index -= stretch.rows;
        }
        None
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}

fn byte_len(field: &Field) -> Result<usize, String> {
    let width = element_size(field.elem as i32).ok_or("its elements cannot be run")?;
    let length = field.row.iter().try_fold(width, |n, d| n.checked_mul(*d));
    length.ok_or_else(|| "its shape has more elements than memory could hold".into())
}
