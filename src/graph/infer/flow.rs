//! If, Scan and Loop: what their bodies declare of their outputs.

use super::dims::position;
use super::site::Site;
use crate::graph::types::{Dim, TensorType};
use crate::graph::{Attributes, bodies};
use crate::onnx::GraphProto;

/// If: what both branches declare of their outputs, where they agree.
pub(super) fn branches(site: &Site<'_, '_>) -> Vec<TensorType> {
    let declared = |output: usize| {
        let of_branch =
            |body: &crate::onnx::GraphProto| body.output.get(output).and_then(TensorType::of_value).unwrap_or_default();
        bodies(site.node).map(|(body, _)| of_branch(body)).reduce(agreement).unwrap_or_default()
    };
    (0..site.output_count()).map(declared).collect()
}

fn agreement(a: TensorType, b: TensorType) -> TensorType {
    let dims = match (a.dims, b.dims) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            Some(x.into_iter().zip(y).map(|(d, e)| if d == e { d } else { Dim::Unknown }).collect())
        }
        _ => None,
    };
    TensorType { elem: if a.elem == b.elem { a.elem } else { 0 }, dims }
}

/// Scan: states keep their shape, and what each step makes is stacked along an axis.
pub(super) fn scan(site: &Site<'_, '_>) -> Vec<TensorType> {
    let Some((body, _)) = bodies(site.node).next() else { return Vec::new() };
    let scanned = usize::try_from(site.int("num_scan_inputs", 0)).unwrap_or_default();
    let Some(states) = site.input_count().checked_sub(scanned) else { return Vec::new() };
    let at = |name: &str, i: usize| site.node.ints(name).and_then(|l| l.get(i)).copied().unwrap_or(0);
    let length = site.dims(states).and_then(|dims| dims.get(position(at("scan_input_axes", 0), dims.len())?));
    let output = |k: usize| {
        let declared = declared(body, k);
        let elem = if declared.elem == 0 && k < states { site.elem(k) } else { declared.elem };
        if k < states {
            return TensorType { elem, dims: site.dims(k).map(<[Dim]>::to_vec).or(declared.dims) };
        }
        let dims = declared.dims.and_then(|mut dims| {
            let axis = position(at("scan_output_axes", k - states), dims.len() + 1)?;
            dims.insert(axis, length.cloned().unwrap_or_default());
            Some(dims)
        });
        TensorType { elem, dims }
    };
    (0..site.output_count()).map(output).collect()
}

/// Loop: what is carried, then what each step makes, stacked in front.
pub(super) fn repeat(site: &Site<'_, '_>) -> Vec<TensorType> {
    let Some((body, _)) = bodies(site.node).next() else { return Vec::new() };
    let carried = body.input.len().saturating_sub(2);
    let output = |k: usize| {
        // The condition is the first of the body's outputs.
        let declared = declared(body, k + 1);
        if k < carried {
            // Without a step it is what came in.
            let start = TensorType { elem: site.elem(k + 2), dims: site.dims(k + 2).map(<[Dim]>::to_vec) };
            let elem = if declared.elem == 0 { start.elem } else { declared.elem };
            return TensorType { elem, ..agreement(TensorType { elem, ..declared }, TensorType { elem, ..start }) };
        }
        let stacked = |dims: Vec<Dim>| std::iter::once(Dim::Unknown).chain(dims).collect();
        TensorType { elem: declared.elem, dims: declared.dims.map(stacked) }
    };
    (0..site.output_count()).map(output).collect()
}

fn declared(body: &GraphProto, output: usize) -> TensorType {
    body.output.get(output).and_then(TensorType::of_value).unwrap_or_default()
}
