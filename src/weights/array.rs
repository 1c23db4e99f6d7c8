//! A named array in memory or in a mapped file.

use bytes::Bytes;

use crate::engine::element_size;
use crate::graph::types::elem_name;
use crate::onnx::tensor_proto::DataType;

/// An array with its name: little-endian elements in C order, as many as its shape says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Its name.
    pub name: String,
    /// Element type.
    pub elem: DataType,
    /// Dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Bytes,
}

impl Array {
    /// An array of these elements.
    ///
    /// # Errors
    /// When they are not as many as the shape says, or of a type whose size is not known.
    pub fn new(name: String, elem: DataType, shape: Vec<usize>, data: Bytes) -> Result<Self, String> {
        let needed = byte_len(elem, &shape)
            .ok_or_else(|| format!("{name:?} is {}, which cannot be read", describe(elem as i32, &shape)))?;
        if data.len() != needed {
            let what = describe(elem as i32, &shape);
            return Err(format!("{name:?} has {} bytes of elements, and {what} needs {needed}", data.len()));
        }
        Ok(Array { name, elem, shape, data })
    }

    /// Element type and shape, such as `float[10, 64]`.
    pub fn describe(&self) -> String {
        describe(self.elem as i32, &self.shape)
    }

    /// The same numbers as bfloat16, where this array is of float32 and each of them is one; else `None`.
    pub fn as_bfloat16(&self) -> Option<Array> {
        if self.elem != DataType::Float {
            return None;
        }
        let upper = |number: &[u8]| if let [0, 0, a, b] = *number { Some([a, b]) } else { None };
        let data: Vec<[u8; 2]> = self.data.chunks_exact(4).map(upper).collect::<Option<_>>()?;
        Some(Array { elem: DataType::Bfloat16, data: data.concat().into(), ..self.clone() })
    }

    /// Whether no element is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        fn all<const N: usize>(data: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> bool {
            data.as_chunks::<N>().0.iter().all(|bytes| is_finite(*bytes))
        }
        match self.elem {
            DataType::Float => all(&self.data, |b| f32::from_le_bytes(b).is_finite()),
            DataType::Double => all(&self.data, |b| f64::from_le_bytes(b).is_finite()),
            DataType::Float16 => all(&self.data, |b| half::f16::from_le_bytes(b).is_finite()),
            DataType::Bfloat16 => all(&self.data, |b| half::bf16::from_le_bytes(b).is_finite()),
            _ => true,
        }
    }

    /// The transpose of a matrix; `None` for other ranks.
    pub fn transposed(&self) -> Option<Array> {
        let [rows, columns] = self.shape[..] else { return None };
        let size = element_size(self.elem as i32)?;
        let mut data = Vec::with_capacity(self.data.len());
        for column in 0..columns {
            for row in 0..rows {
                let at = (row * columns + column) * size;
                data.extend_from_slice(self.data.get(at..at + size)?);
            }
        }
        Some(Array { shape: vec![columns, rows], data: data.into(), ..self.clone() })
    }
}

/// Element type and shape, such as `float[10, 64]`.
pub fn describe(elem: i32, shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("{}[{}]", elem_name(elem), sizes.join(", "))
}

/// Bytes of the elements; `None` for types without a known size, and where it overflows.
pub fn byte_len(elem: DataType, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(element_size(elem as i32)?, |n, d| n.checked_mul(*d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_transposed_and_nothing_else() {
        let array =
            Array::new("w".into(), DataType::Int16, vec![2, 3], vec![0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0].into());
        let turned = array.unwrap().transposed().unwrap();
        assert_eq!(turned.shape, [3, 2]);
        assert_eq!(turned.data.as_ref(), [0, 0, 3, 0, 1, 0, 4, 0, 2, 0, 5, 0]);
        assert!(Array::new("v".into(), DataType::Int8, vec![2], vec![0, 1].into()).unwrap().transposed().is_none());
    }

    #[test]
    fn an_array_has_as_many_elements_as_its_shape_says() {
        let message = Array::new("w".into(), DataType::Float, vec![2, 3], vec![0; 20].into()).unwrap_err();
        assert_eq!(message, "\"w\" has 20 bytes of elements, and float[2, 3] needs 24");
        assert!(Array::new("w".into(), DataType::Float, vec![usize::MAX, 3], Bytes::new()).is_err());
        assert!(Array::new("w".into(), DataType::String, vec![], Bytes::new()).is_err());
    }
}
