//! If, Scan and Loop: their bodies are differentiated as graphs of their own.
//!
//! The way back runs bodies of its own in a node of the same kind. What these read of the way there are further outputs of the forward
//! node: what the branch taken made (If), or what every step made, stacked (Scan, Loop). Values of the outer graph that a body reads get
//! their gradients from new outputs; those of steps are added up, in float32 where the value is shorter.
//!
//! What a body inside a loop makes has a shape of its own in each step, where that is not fixed, and cannot be stacked. There the way back
//! runs the inner node once more instead.

mod body;
mod branch;
mod carried;
mod repeat;
mod scan;

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::graph::bodies;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, attribute_proto};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::is_half;
use crate::rewrite::site::{Known, Refusal};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["If"], adjoint: branch::back },
    Rule { ops: &["Scan"], adjoint: scan::back },
    Rule { ops: &["Loop"], adjoint: repeat::back },
];

/// The body of an attribute.
fn body_of<'a>(node: &'a NodeProto, name: &str) -> Known<&'a GraphProto> {
    let found = node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.g.as_deref());
    found.ok_or_else(|| Refusal(format!("it has no {name}")))
}

/// A body as an attribute.
fn attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(attribute_proto::AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

/// A value of a body as its input or output.
fn declared(tensor: &Tensor) -> ValueInfoProto {
    crate::graph::body::declared(&tensor.name, &tensor.ty)
}

/// The value with one more axis in front: of every step.
fn stacked(ty: &TensorType) -> TensorType {
    let dims = ty.dims.as_ref().map(|d| std::iter::once(Dim::Unknown).chain(d.iter().cloned()).collect());
    TensorType { elem: ty.elem, dims }
}

/// The element type that gradients of many steps are added up in.
fn summed_in(elem: i32) -> i32 {
    if is_half(elem) { DataType::Float as i32 } else { elem }
}

/// Puts the forward node with more outputs in the place of what there is; inside a loop, where `is_fixed` says not that their shapes are
/// the same in each step, on the way back instead. `bodies` are the new ones, by attribute.
fn remake(
    a: &mut Adjoint<'_, '_>,
    bodies: Vec<(&'static str, GraphProto)>,
    extra: &[Tensor],
    is_fixed: bool,
    change: impl FnOnce(&mut Vec<AttributeProto>),
) -> Known<()> {
    if extra.is_empty()
        && a.site.node.attribute.iter().all(|p| bodies.iter().all(|(n, g)| n != &p.name() || p.g.as_deref() == Some(g)))
    {
        return Ok(());
    }
    let again = a.is_repeated && !is_fixed;
    if again && let Some(op) = draws(a.site.node) {
        return Err(Refusal(format!(
            "it draws random numbers ({op}) inside a loop, in steps whose shapes may differ, and the gradient would have to draw the same again"
        )));
    }
    let mut node = a.site.node.clone();
    // How many outputs there are follows from the body.
    let count = outputs_of(&node, &bodies).saturating_sub(extra.len());
    node.output.resize(count.max(node.output.len()), String::new());
    for (name, graph) in bodies {
        if let Some(attribute) = node.attribute.iter_mut().find(|a| a.name() == name) {
            attribute.g = Some(Box::new(graph));
        }
    }
    change(&mut node.attribute);
    if again {
        let prefix = a.prefix.clone();
        node.output.iter_mut().enumerate().for_each(|(i, o)| *o = format!("{prefix}again_{i}"));
        node.name = Some(format!("{prefix}again"));
    }
    node.output.extend(extra.iter().map(|t| t.name.clone()));
    if again {
        a.b.push(node, extra);
    } else {
        a.made.extend(extra.iter().map(|t| (t.name.clone(), t.ty.clone())));
        a.remade.insert(a.site.id, vec![node]);
    }
    Ok(())
}

fn outputs_of(node: &NodeProto, bodies: &[(&'static str, GraphProto)]) -> usize {
    let of_body = bodies.first().map_or(0, |(_, g)| g.output.len());
    // The condition is no output.
    if node.op_type() == "Loop" { of_body.saturating_sub(1) } else { of_body }
}

/// The first operator inside a node's bodies that draws random numbers.
fn draws(node: &NodeProto) -> Option<&str> {
    bodies(node).flat_map(|(body, _)| &body.node).find_map(|inner| match inner.op_type() {
        "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Bernoulli" | "Multinomial"
        | "Dropout" => Some(inner.op_type()),
        _ => draws(inner),
    })
}
