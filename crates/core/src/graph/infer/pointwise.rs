//! Operators that work element by element, and those that keep a shape.

use super::dims::broadcast;
use super::site::Site;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// The dimensions of input 0.
pub(super) fn same(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    site.dims(0).map(<[Dim]>::to_vec)
}

/// The dimensions that all inputs broadcast to.
pub(super) fn broadcast_dims(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let first = site.dims(0)?;
    match site.input_count() {
        1 => Some(first.to_vec()),
        2 => Some(broadcast(first, site.dims(1)?)),
        count => (1..count).try_fold(first.to_vec(), |shape, slot| Some(broadcast(&shape, site.dims(slot)?))),
    }
}

/// Arithmetic: the inputs broadcast, and have one element type (Pow has that of its base).
pub(super) fn broadcast_all(site: &Site<'_, '_>) -> Vec<TensorType> {
    let candidates = if site.node.op_type() == "Pow" { 1 } else { site.input_count() };
    let elem = (0..candidates).map(|slot| site.elem(slot)).find(|e| *e != 0).unwrap_or(0);
    vec![TensorType { elem, dims: broadcast_dims(site) }]
}

/// Where: the element type of the choices.
pub(super) fn choose(site: &Site<'_, '_>) -> Vec<TensorType> {
    let elem = if site.elem(1) != 0 { site.elem(1) } else { site.elem(2) };
    vec![TensorType { elem, dims: broadcast_dims(site) }]
}

/// Dropout: the result, and a mask of booleans (of the data's type before opset 10).
pub(super) fn dropout(site: &Site<'_, '_>) -> Vec<TensorType> {
    let elem = site.elem(0);
    let mask = if site.opset() < 10 { elem } else { DataType::Bool as i32 };
    [elem, mask].map(|elem| TensorType { elem, dims: same(site) }).into()
}

pub(super) fn cast(site: &Site<'_, '_>) -> Vec<TensorType> {
    vec![TensorType { elem: site.elem_attribute("to").unwrap_or(0), dims: same(site) }]
}

/// RandomNormalLike and its kin: the type that `dtype` names, else the input's.
pub(super) fn like_with_dtype(site: &Site<'_, '_>) -> Vec<TensorType> {
    vec![TensorType { elem: site.elem_attribute("dtype").unwrap_or_else(|| site.elem(0)), dims: same(site) }]
}

/// QuantizeLinear has the type of its zero point (uint8 without one), DequantizeLinear that of its scale.
pub(super) fn quantize(site: &Site<'_, '_>) -> Vec<TensorType> {
    let elem = match site.node.op_type() {
        "DequantizeLinear" => site.elem(1),
        _ if site.value(2).is_some() => site.elem(2),
        _ => site.elem_attribute("output_dtype").filter(|t| *t != 0).unwrap_or(DataType::Uint8 as i32),
    };
    vec![TensorType { elem, dims: same(site) }]
}
