//! If, Scan and Loop: what their bodies declare of their outputs, and what follows from the bodies' inputs.

use std::collections::HashSet;

use prost::Message;

use super::dims::position;
use super::integers::known_numbers;
use super::site::Site;
use super::{Types, declared};
use crate::graph::body::{Captured, standing_alone};
use crate::graph::types::{Dim, TensorType};
use crate::graph::{Attributes, Graph, bodies};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{GraphProto, ModelProto};
use crate::wire::Model;

/// Bodies in bodies are looked into down to here: each level takes a pass, and for a Loop a few.
pub(super) const DEPTH: usize = 3;

/// If: what both branches make, where they agree.
pub(super) fn branches(site: &Site<'_, '_>) -> Vec<TensorType> {
    let each = bodies(site.node).map(|(body, _)| made_in(site, body, &[]));
    let both = |a: Vec<TensorType>, b: Vec<TensorType>| a.into_iter().zip(b).map(|(a, b)| agreement(a, b)).collect();
    each.reduce(both).unwrap_or_default()
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
    let own = |i: usize| {
        let mut ty = outside(site, i);
        if let Some(k) = i.checked_sub(states) {
            ty.dims = ty.dims.and_then(|mut dims| {
                dims.remove(position(at("scan_input_axes", k), dims.len())?);
                Some(dims)
            });
        }
        ty
    };
    let made = made_in(site, body, &(0..site.input_count()).map(own).collect::<Vec<_>>());
    let output = |(k, made): (usize, TensorType)| {
        if k < states {
            let elem = if made.elem == 0 { site.elem(k) } else { made.elem };
            return TensorType { elem, dims: site.dims(k).map(<[Dim]>::to_vec).or(made.dims) };
        }
        let dims = made.dims.and_then(|mut dims| {
            let axis = position(at("scan_output_axes", k - states), dims.len() + 1)?;
            dims.insert(axis, length.cloned().unwrap_or_default());
            Some(dims)
        });
        TensorType { elem: made.elem, dims }
    };
    made.into_iter().enumerate().map(output).collect()
}

/// Loop: what is carried, then what each step makes, stacked in front.
pub(super) fn repeat(site: &Site<'_, '_>) -> Vec<TensorType> {
    let Some((body, _)) = bodies(site.node).next() else { return Vec::new() };
    let carried = body.input.len().saturating_sub(2);
    let counters = [DataType::Int64, DataType::Bool].map(|elem| TensorType { elem: elem as i32, dims: None });
    let mut own: Vec<TensorType> = counters.into_iter().chain((0..carried).map(|k| outside(site, k + 2))).collect();
    let mut made = Vec::new();
    // What steps change is open from the second pass on, and after the third nothing is said of what still changes.
    for is_last in [false, false, true] {
        // The condition is the first of the body's outputs.
        made = made_in(site, body, &own).into_iter().skip(1).collect();
        // Without a step it is what came in.
        let after = |(own, made): (&TensorType, &TensorType)| {
            let elem = if own.elem == 0 { made.elem } else { own.elem };
            let dims = agreement(own.clone(), made.clone()).dims;
            TensorType { elem, dims: dims.filter(|d| !is_last || own.dims.as_ref() == Some(d)) }
        };
        let next: Vec<TensorType> = own[2..].iter().zip(&made).map(after).collect();
        let is_settled = next.iter().eq(own[2..].iter().take(next.len()));
        own.splice(2..2 + next.len(), next);
        if is_settled {
            break;
        }
    }
    let stacked = |dims: Vec<Dim>| std::iter::once(Dim::Unknown).chain(dims).collect();
    let behind = made.into_iter().skip(carried).map(|t| TensorType { elem: t.elem, dims: t.dims.map(stacked) });
    own.into_iter().skip(2).chain(behind).collect()
}

/// What is known of an input of the node.
fn outside(site: &Site<'_, '_>, slot: usize) -> TensorType {
    TensorType { elem: site.elem(slot), dims: site.dims(slot).map(<[Dim]>::to_vec) }
}

/// Types of a body's outputs: what it declares, and where that is not all, what follows.
fn made_in(site: &Site<'_, '_>, body: &GraphProto, own: &[TensorType]) -> Vec<TensorType> {
    let said: Vec<TensorType> = body.output.iter().map(|o| TensorType::of_value(o).unwrap_or_default()).collect();
    let is_open = said.iter().any(|t| t.elem == 0 || t.dims.is_none());
    if is_open && let Some(found) = inferred(site, body, own) { found } else { said }
}

fn inferred(site: &Site<'_, '_>, body: &GraphProto, own: &[TensorType]) -> Option<Vec<TensorType>> {
    let known = site.known;
    let depth = known.depth.checked_sub(1)?;
    let mut seen = HashSet::new();
    let captures = known.graph.captures_of(site.id).iter().map(|c| c.value).filter(|v| seen.insert(*v));
    let captured: Vec<Captured> = captures
        .map(|value| Captured {
            name: known.graph.name(value).to_owned(),
            ty: known.types[value.index()].clone(),
            integers: known_numbers(known, value),
        })
        .collect();
    let proto = ModelProto {
        ir_version: Some(known.model.ir_version),
        opset_import: known.model.opset_imports.clone(),
        graph: Some(standing_alone(body, own, &captured)),
        ..ModelProto::default()
    };
    let model = Model::from_bytes(proto.encode_to_vec()).ok()?;
    let graph = Graph::of(&model).ok()?;
    let types = Types::starting(&graph, &model, declared(&graph, &model), depth);
    Some(graph.outputs.iter().map(|v| types.get(*v).clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{Net, ints};
    use crate::onnx::{AttributeProto, NodeProto, ValueInfoProto};

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        let input = inputs.iter().map(|n| (*n).to_owned()).collect();
        NodeProto { op_type: Some(op.into()), input, output: vec![output.into()], ..Default::default() }
    }

    /// A body that declares nothing.
    fn body(name: &str, inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> AttributeProto {
        let values = |names: &[&str]| {
            names.iter().map(|n| ValueInfoProto { name: Some((*n).into()), ..Default::default() }).collect()
        };
        let g = GraphProto { node: nodes, input: values(inputs), output: values(outputs), ..Default::default() };
        AttributeProto { name: Some(name.into()), g: Some(Box::new(g)), ..Default::default() }
    }

    fn types(net: Net, names: &[&str]) -> Vec<String> {
        let model = net.build();
        let graph = Graph::of(&model).unwrap();
        let types = Types::of(&graph, &model);
        names.iter().map(|n| types.get(graph.find(n).unwrap()).to_string()).collect()
    }

    #[test]
    fn what_a_scan_stacks_follows_from_its_states_and_from_axes_outside() {
        let step = vec![node("Add", &["s", "x"], "n"), node("Unsqueeze", &["n", "axes"], "o")];
        let attributes = vec![body("body", &["s", "x"], step, &["n", "o"]), Net::int("num_scan_inputs", 1)];
        let net = Net::new().input("start", 1, "N 4").input("all", 1, "N 7 4").numbers("axes", &[-1]).node(
            "Scan",
            &["start", "all"],
            &["last", "y"],
            [attributes, vec![ints("scan_input_axes", &[1])]].concat(),
        );
        assert_eq!(types(net, &["last", "y"]), ["float[N, 4]", "float[7, N, 4, 1]"]);
    }

    #[test]
    fn what_a_loop_carries_is_known_as_far_as_its_steps_keep_it() {
        let step = vec![
            node("Identity", &["go"], "on"),
            node("Tanh", &["a"], "an"),
            node("Concat", &["b", "b"], "bn"),
            node("Cast", &["i"], "o"),
        ];
        let mut attribute = body("body", &["i", "go", "a", "b"], step, &["on", "an", "bn", "an"]);
        for (k, (name, value)) in [("axis", 0), ("to", 1)].into_iter().enumerate() {
            if let Some(g) = &mut attribute.g {
                g.node[k + 2].attribute.push(Net::int(name, value));
            }
        }
        let net = Net::new().input("x", 1, "N 4").input("go_on", 9, "").numbers("trips", &[3]).node(
            "Loop",
            &["trips", "go_on", "x", "x"],
            &["kept", "grown", "y"],
            vec![attribute],
        );
        assert_eq!(types(net, &["kept", "grown", "y"]), ["float[N, 4]", "float[?, 4]", "float[?, N, 4]"]);
    }

    #[test]
    fn an_if_whose_branches_declare_nothing_gives_what_both_make() {
        let branch = |name: &str, op: &str| body(name, &[], vec![node(op, &["x"], "t")], &["t"]);
        let net = Net::new()
            .input("x", 1, "N 4")
            .input("c", 9, "")
            .node("If", &["c"], &["y"], vec![branch("then_branch", "Neg"), branch("else_branch", "Transpose")])
            .node("If", &["c"], &["z"], vec![branch("then_branch", "Neg"), branch("else_branch", "Abs")]);
        assert_eq!(types(net, &["y", "z"]), ["float[?, ?]", "float[N, 4]"]);
    }
}
