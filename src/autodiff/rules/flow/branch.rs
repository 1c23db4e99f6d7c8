//! If: the branch that was taken is gone back through. ∂x of a value x that the branches read is what the branch taken gives, or zeros.

use super::body::{Back, Body, Kept, Request};
use super::{attribute, body_of, remake};
use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::shape::zeros_like;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::Builder;
use crate::rewrite::site::{Known, Refusal};

const BRANCHES: [&str; 2] = ["then_branch", "else_branch"];

pub fn back(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let wanted = a.site.captures_with_gradient();
    let captured: Vec<Tensor> = wanted.iter().map(|v| a.site.tensor(*v)).collect();
    let wrt: Vec<String> = captured.iter().map(|t| t.name.clone()).collect();
    let mut seeds = Vec::new();
    for slot in 0..a.site.node.output.len() {
        if a.has_g(slot) {
            seeds.push((slot, a.g(slot)?));
        }
    }
    let mut ways: Vec<Back> = Vec::new();
    for name in BRANCHES {
        let root = format!("{}{name}/", a.prefix);
        let request = Request { seeds: &seeds, wrt: &wrt, root: &root, is_repeated: a.is_repeated };
        ways.push(Body::of(&a.site, body_of(a.site.node, name)?, &[])?.back(&request)?);
    }
    let used: Vec<usize> = (0..wrt.len()).filter(|i| ways.iter().any(|w| w.gradients[*i].is_some())).collect();
    if used.is_empty() {
        return Ok(());
    }
    let kept: Vec<Vec<Kept>> = ways.iter().map(|w| w.kept.clone()).collect();
    let opset = a.b.opset();
    for (k, way) in ways.iter_mut().enumerate() {
        let root = format!("{}{}/", a.prefix, BRANCHES[k]);
        for &i in &used {
            let gradient = match &way.gradients[i] {
                Some(gradient) => Tensor { ty: captured[i].ty.clone(), ..gradient.clone() },
                None => {
                    let mut b = Builder::new(opset, &root, &format!("none_{i}"), Vec::new());
                    let zeros = zeros_like(&mut b, &captured[i]);
                    way.add(b.finish(&[], &[]));
                    zeros
                }
            };
            way.output(&gradient, format!("{root}d_{i}"));
        }
        // Both branches have the same outputs; what the other one would have made is empty.
        for (j, of) in kept.iter().enumerate() {
            for each in of {
                if j == k {
                    way.hand_out(&each.inner, &each.tensor.name, &each.tensor.ty);
                } else {
                    let (nodes, ty) = nothing(&each.tensor, opset)?;
                    way.forward.node.extend(nodes);
                    way.forward.output.extend(ty.declare(&format!("{}_none", each.tensor.name)));
                }
            }
        }
    }
    let [there, back]: [Vec<GraphProto>; 2] =
        [ways.iter().map(|w| w.forward.clone()).collect(), ways.into_iter().map(|w| w.graph).collect()];
    let extra: Vec<Tensor> =
        kept.into_iter().flatten().map(|k| Tensor { ty: either(&k.tensor.ty, opset), ..k.tensor }).collect();
    remake(a, BRANCHES.into_iter().zip(there).collect(), &extra, false, |_| ())?;
    let attributes: Vec<AttributeProto> =
        BRANCHES.iter().zip(back).map(|(name, graph)| attribute(name, graph)).collect();
    let condition = a.x(0)?;
    let types: Vec<TensorType> = used.iter().map(|i| captured[*i].ty.clone()).collect();
    let made = a.b.node("If", &[Some(condition)], attributes, &types);
    for (i, gradient) in used.into_iter().zip(made) {
        a.give_captured(wanted[i], gradient);
    }
    Ok(())
}

/// What stands for a value that the other branch makes: no elements, of the same type and rank. Before operator set 11 both branches have
/// to give one shape, as far as that is known.
fn nothing(like: &Tensor, opset: i64) -> Known<(Vec<NodeProto>, TensorType)> {
    let elem = like.ty.elem;
    let zero = match DataType::try_from(elem).unwrap_or(DataType::Undefined) {
        DataType::Undefined | DataType::String => {
            return Err(Refusal(format!(
                "its gradient needs {:?}, which a branch makes and whose element type is unknown; declare it in the branch's value_info",
                like.name
            )));
        }
        DataType::Float => TensorProto { float_data: vec![0.0], ..TensorProto::default() },
        DataType::Double => TensorProto { double_data: vec![0.0], ..TensorProto::default() },
        DataType::Int64 => TensorProto { int64_data: vec![0], ..TensorProto::default() },
        DataType::Uint32 | DataType::Uint64 => TensorProto { uint64_data: vec![0], ..TensorProto::default() },
        _ => TensorProto { int32_data: vec![0], ..TensorProto::default() },
    };
    let extent = |d: &Dim| if opset < 11 { d.known().unwrap_or(0) } else { 0 };
    let dims: Vec<u64> = like.ty.dims.as_ref().map_or_else(|| vec![0], |d| d.iter().map(extent).collect());
    let shape = dims.iter().map(|d| d.cast_signed()).collect::<Vec<i64>>();
    let shape = TensorProto {
        dims: vec![extent_of(&shape)],
        data_type: Some(DataType::Int64 as i32),
        int64_data: shape,
        ..TensorProto::default()
    };
    let zero = TensorProto { dims: vec![1], data_type: Some(elem), ..zero };
    let node = |op: &str, what: &str, input: Vec<String>, value: TensorProto| NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("{}{what}", like.name)),
        input,
        output: vec![format!("{}{what}", like.name)],
        attribute: vec![AttributeProto {
            name: Some("value".into()),
            r#type: Some(attribute_proto::AttributeType::Tensor as i32),
            t: Some(Box::new(value)),
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    };
    let shape = node("Constant", "_shape", Vec::new(), shape);
    let filled = node("ConstantOfShape", "_none", shape.output.clone(), zero);
    Ok((vec![shape, filled], TensorType { elem, dims: Some(dims.into_iter().map(Dim::Known).collect()) }))
}

/// What there is of a kept value outside: it, or nothing.
fn either(ty: &TensorType, opset: i64) -> TensorType {
    let open = |d: &Dim| if opset < 11 && d.known().is_some() { d.clone() } else { Dim::Unknown };
    TensorType { elem: ty.elem, dims: ty.dims.as_ref().map(|d| d.iter().map(open).collect()) }
}

fn extent_of(list: &[i64]) -> i64 {
    i64::try_from(list.len()).unwrap_or(i64::MAX)
}
