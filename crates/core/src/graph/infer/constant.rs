//! Operators whose result does not come from the elements of a tensor.

use super::int::Int;
use super::integers::{LIMIT, range_length, shape_range};
use super::site::{MAX_RANK, Site};
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

fn dims_of(sizes: &[i64]) -> Option<Vec<Dim>> {
    (sizes.len() <= LIMIT).then(|| sizes.iter().map(|n| Int::Known(*n).to_dim()).collect())
}

fn length(n: usize) -> Option<Vec<Dim>> {
    Some(vec![u64::try_from(n).map_or(Dim::Unknown, Dim::Known)])
}

/// Constant, by whichever attribute it has.
pub(super) fn constant(site: &Site<'_, '_>) -> Vec<TensorType> {
    let Some(attribute) = site.node.attribute.first() else { return Vec::new() };
    let (elem, dims) = match attribute.name() {
        "value" => attribute.t.as_ref().map_or((0, None), |t| (t.data_type(), dims_of(&t.dims))),
        "sparse_value" => {
            let sparse = attribute.sparse_tensor.as_ref();
            let elem = sparse.and_then(|s| s.values.as_ref()).map_or(0, |v| v.data_type());
            (elem, sparse.and_then(|s| dims_of(&s.dims)))
        }
        "value_float" => (DataType::Float as i32, Some(Vec::new())),
        "value_floats" => (DataType::Float as i32, length(attribute.floats.len())),
        "value_int" => (DataType::Int64 as i32, Some(Vec::new())),
        "value_ints" => (DataType::Int64 as i32, length(attribute.ints.len())),
        "value_string" => (DataType::String as i32, Some(Vec::new())),
        "value_strings" => (DataType::String as i32, length(attribute.strings.len())),
        _ => (0, None),
    };
    vec![TensorType { elem, dims }]
}

/// The type of `value` (float without one), the shape that the input holds.
pub(super) fn constant_of_shape(site: &Site<'_, '_>) -> Vec<TensorType> {
    let value = site.attribute("value").and_then(|a| a.t.as_ref());
    let elem = value.map_or(DataType::Float as i32, |t| t.data_type());
    let dims = match site.integers(0) {
        Some(shape) => Some(shape.iter().map(Int::to_dim).collect()),
        None => match site.dims(0) {
            Some([rank]) => rank
                .known()
                .and_then(|r| usize::try_from(r).ok())
                .filter(|r| *r <= MAX_RANK)
                .map(|r| vec![Dim::Unknown; r]),
            _ => None,
        },
    };
    vec![TensorType { elem, dims }]
}

/// RandomNormal and RandomUniform: both are attributes.
pub(super) fn random(site: &Site<'_, '_>) -> Vec<TensorType> {
    let elem = site.elem_attribute("dtype").unwrap_or(DataType::Float as i32);
    vec![TensorType { elem, dims: site.node.ints("shape").and_then(dims_of) }]
}

pub(super) fn range(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let known = || range_length(site.number(0)?, site.number(1)?, site.number(2)?);
    let from_zero = || match *site.integers(1)? {
        [ref limit] if site.number(0) == Some(0) && site.number(2) == Some(1) => Some(limit.to_dim()),
        _ => None,
    };
    Some(vec![known().map(Dim::Known).or_else(from_zero).unwrap_or_default()])
}

/// As many elements as axes, between `start` and `end`.
pub(super) fn shape(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let Some(dims) = site.dims(0) else { return Some(vec![Dim::Unknown]) };
    let (start, end) = shape_range(site, dims.len());
    length(end - start)
}
