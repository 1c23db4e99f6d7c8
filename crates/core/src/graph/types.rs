//! Element types and shapes of values.

use std::fmt;
use std::sync::Arc;

use crate::onnx::tensor_proto::DataType;
use crate::onnx::{TypeProto, ValueInfoProto, tensor_shape_proto, type_proto};

/// One dimension.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Dim {
    /// A number of elements.
    Known(u64),
    /// A name that the model gives it; equal names are equal sizes.
    Symbol(Arc<str>),
    /// Nothing is known.
    #[default]
    Unknown,
}

impl Dim {
    /// The size, when it is known.
    pub fn known(&self) -> Option<u64> {
        match self {
            Dim::Known(n) => Some(*n),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// What is known of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TensorType {
    /// Element type, a number of `TensorProto.DataType`; 0 when unknown.
    pub elem: i32,
    /// Dimensions; `None` when not even the rank is known.
    pub dims: Option<Vec<Dim>>,
}

impl TensorType {
    /// From a declared type; `None` for sequences, maps and optionals.
    pub fn of(declared: &TypeProto) -> Option<Self> {
        let Some(type_proto::Value::TensorType(tensor)) = &declared.value else { return None };
        let dims = tensor.shape.as_ref().map(|shape| {
            let dim = |d: &crate::onnx::tensor_shape_proto::Dimension| match &d.value {
                Some(tensor_shape_proto::dimension::Value::DimValue(n)) => {
                    u64::try_from(*n).map_or(Dim::Unknown, Dim::Known)
                }
                Some(tensor_shape_proto::dimension::Value::DimParam(s)) if !s.is_empty() => {
                    Dim::Symbol(s.as_str().into())
                }
                _ => Dim::Unknown,
            };
            shape.dim.iter().map(dim).collect()
        });
        Some(TensorType { elem: tensor.elem_type(), dims })
    }

    /// From a declared value.
    pub fn of_value(declared: &ValueInfoProto) -> Option<Self> {
        declared.r#type.as_ref().and_then(Self::of)
    }

    /// Rank, when it is known.
    pub fn rank(&self) -> Option<usize> {
        self.dims.as_ref().map(Vec::len)
    }

    /// Whether the elements are floating point; `None` when the type is unknown.
    pub fn is_float(&self) -> Option<bool> {
        (self.elem != 0).then(|| crate::wire::is_float(self.elem))
    }

    /// Whether it can hold one element only: rank 0, or all dims 1. `None` when that is unknown.
    pub fn is_scalar(&self) -> Option<bool> {
        let dims = self.dims.as_ref()?;
        if dims.iter().any(|d| d.known().is_some_and(|n| n != 1)) {
            return Some(false);
        }
        dims.iter().all(|d| d.known() == Some(1)).then_some(true)
    }

    /// The number of elements, when every dimension is known.
    pub fn element_count(&self) -> Option<u64> {
        self.dims.as_ref()?.iter().try_fold(1u64, |n, d| n.checked_mul(d.known()?))
    }

    /// As a declaration for a value of this name; `None` when the element type is unknown.
    pub fn declare(&self, name: &str) -> Option<ValueInfoProto> {
        if self.elem == 0 {
            return None;
        }
        let dimension = |d: &Dim| crate::onnx::tensor_shape_proto::Dimension {
            value: match d {
                Dim::Known(n) => i64::try_from(*n).ok().map(tensor_shape_proto::dimension::Value::DimValue),
                Dim::Symbol(s) => Some(tensor_shape_proto::dimension::Value::DimParam(s.to_string())),
                Dim::Unknown => None,
            },
            denotation: None,
        };
        let shape =
            self.dims.as_ref().map(|dims| crate::onnx::TensorShapeProto { dim: dims.iter().map(dimension).collect() });
        let tensor = type_proto::Tensor { elem_type: Some(self.elem), shape };
        Some(ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
            ..ValueInfoProto::default()
        })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&elem_name(self.elem))?;
        match &self.dims {
            None => f.write_str("[rank unknown]"),
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", dims.join(", "))
            }
        }
    }
}

/// The name of an element type as ONNX's documentation writes it, lower case.
pub fn elem_name(elem: i32) -> String {
    match DataType::try_from(elem) {
        Ok(DataType::Undefined) | Err(_) => "unknown type".into(),
        Ok(t) => t.as_str_name().to_ascii_lowercase(),
    }
}
