//! The body of a node as a graph of its own.

use super::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{GraphProto, TensorProto, ValueInfoProto};

/// What a body reads of the graph around it.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub ty: TensorType,
    /// Its elements, where it holds whole numbers that are known.
    pub integers: Option<Vec<i64>>,
}

/// The body with what is known of its own inputs where it says nothing itself, and with what it reads of the graph around it as further
/// inputs; whole numbers that are known become initializers, because shapes follow from them.
pub fn standing_alone(body: &GraphProto, own: &[TensorType], captured: &[Captured]) -> GraphProto {
    let mut alone = body.clone();
    for (given, known) in alone.input.iter_mut().zip(own) {
        let is_tensor = given.r#type.as_ref().is_none_or(|t| TensorType::of(t).is_some());
        let said = TensorType::of_value(given).unwrap_or_default();
        let elem = if said.elem == 0 { known.elem } else { said.elem };
        let ty = TensorType { elem, dims: more_known(said.dims, known.dims.clone()) };
        if is_tensor {
            *given = declared(given.name(), &ty);
        }
    }
    for each in captured {
        match each.constant() {
            Some(tensor) => alone.initializer.push(tensor),
            None => alone.input.push(declared(&each.name, &each.ty)),
        }
    }
    alone
}

impl Captured {
    fn constant(&self) -> Option<TensorProto> {
        let elements = self.integers.as_ref().filter(|_| self.ty.elem == DataType::Int64 as i32)?;
        let count = u64::try_from(elements.len()).ok();
        let dims = self.ty.dims.as_ref().filter(|_| self.ty.element_count() == count)?;
        let dims = dims.iter().map(|d| i64::try_from(d.known()?).ok()).collect::<Option<Vec<i64>>>()?;
        Some(TensorProto {
            name: Some(self.name.clone()),
            data_type: Some(self.ty.elem),
            dims,
            int64_data: elements.clone(),
            ..TensorProto::default()
        })
    }
}

/// A value as an input or output; without a type where its elements' is unknown.
pub fn declared(name: &str, ty: &TensorType) -> ValueInfoProto {
    let bare = || ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    ty.declare(name).unwrap_or_else(bare)
}

/// Of two descriptions of one shape, what is known from either; the first where they disagree.
fn more_known(first: Option<Vec<Dim>>, second: Option<Vec<Dim>>) -> Option<Vec<Dim>> {
    match (first, second) {
        (Some(a), Some(b)) if a.len() == b.len() => Some(
            a.into_iter().zip(b).map(|(a, b)| if a.known().is_none() && b != Dim::Unknown { b } else { a }).collect(),
        ),
        (a, b) => a.or(b),
    }
}
