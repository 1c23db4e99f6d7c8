//! Loop: a Loop over the steps that were made, from the last to the first. Step t is (c, v₊, yₜ) = f(t, c, v, w); its way back is
//! (dv, +dw) = (dv₊, gₜ)·∂f/∂(v, w), at the values that step t had. How many steps there were the forward Loop itself says.

use super::body::{Body, Request};
use super::carried::{Carried, before, keeps_shape, starts, sums, with_gradient};
use super::{attribute, body_of, declared, remake, stacked};
use crate::autodiff::adjoint::Adjoint;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::GraphProto;
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::{Elem, Tensor, int};
use crate::rewrite::builder::Builder;
use crate::rewrite::site::Known;

/// How often the types of what is carried are looked for.
const ROUNDS: usize = 8;

pub fn back(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let node = a.site.node;
    let graph = body_of(node, "body")?;
    // The trip count and the condition come first.
    let count = graph.input.len().checked_sub(2).filter(|n| graph.output.len() > *n && node.input.len() >= 2);
    let count = count.filter(|n| node.input.len() == n + 2 && node.output.len() < graph.output.len());
    let count = count.ok_or("its inputs and outputs are not those of its body")?;
    let own = types_of(a, graph, count)?;
    let body = Body::of(&a.site, graph, &own)?;
    let types = body.outputs()?;
    let name = |i: usize| graph.input[i + 2].name().to_owned();
    for i in 0..count {
        let declared = TensorType::of_value(&graph.input[i + 2]).unwrap_or_default();
        let start = a.site.input(i + 2).map(|t| t.ty).unwrap_or_default();
        keeps_shape(&name(i), if declared.dims.is_some() { &declared } else { &start }, &types[i + 1])?;
    }

    let wanted = a.site.captures_with_gradient();
    let captured: Vec<Tensor> = wanted.iter().map(|v| a.site.tensor(*v)).collect();
    let others: Vec<String> = captured.iter().map(|t| t.name.clone()).collect();
    let given: Vec<usize> = (count..graph.output.len() - 1).filter(|slot| a.has_g(*slot)).collect();
    let ends: Vec<usize> = given.iter().map(|slot| slot + 1).collect();
    let each = (0..count).map(|i| Carried {
        input: name(i),
        output: i + 1,
        is_wanted: a.wants(i + 2),
        has_cotangent: a.has_g(i),
    });
    let has = with_gradient(&body, &each.collect::<Vec<_>>(), &others, &ends)?;
    let carried: Vec<usize> = (0..count).filter(|i| has[*i]).collect();

    // The way back through one step.
    let root = format!("{}body/", a.prefix);
    let behind: Vec<Tensor> =
        carried.iter().map(|i| Tensor { name: format!("{root}d_{i}"), ty: own[i + 2].clone() }).collect();
    let stacks: Vec<Tensor> =
        given.iter().map(|slot| Tensor { name: format!("{root}g_{slot}"), ty: types[slot + 1].clone() }).collect();
    let seeds: Vec<(usize, Tensor)> =
        carried.iter().map(|i| i + 1).chain(ends).zip(behind.iter().chain(&stacks).cloned()).collect();
    let wrt: Vec<String> = carried.iter().map(|i| name(*i)).chain(others).collect();
    let mut way = body.back(&Request { seeds: &seeds, wrt: &wrt, root: &root, is_repeated: true })?;
    let gradients = std::mem::take(&mut way.gradients);
    let (of_carried, of_captured) = gradients.split_at(carried.len());

    // What the steps made, and how many there were.
    let mut extra = Vec::new();
    for each in way.kept.clone() {
        way.hand_out(&each.inner, &each.tensor.name, &each.tensor.ty);
        extra.push(Tensor { name: format!("{}_all", each.tensor.name), ty: stacked(&each.tensor.ty) });
    }
    let whole = |dims: Option<Vec<Dim>>| TensorType { elem: Elem::I64.onnx(), dims };
    let steps = Tensor { name: format!("{root}steps"), ty: whole(None) };
    way.hand_out(graph.input[0].name(), &steps.name, &whole(None));
    let starting = starts(a, carried.iter().copied())?;
    let sums = sums(a, &mut way, &captured, of_captured, &root);
    let added = way.graph.output.drain(..).collect::<Vec<_>>();
    for ((gradient, behind), i) in of_carried.iter().zip(&behind).zip(&carried) {
        before(&mut way, gradient.as_ref(), behind, a.b.opset(), &root, format!("{root}d_{i}_before"));
    }
    way.graph.output.extend(added);
    let mut picks = Vec::new();
    for (slot, inner) in given.iter().zip(&stacks) {
        picks.push((inner.clone(), a.g(*slot)?));
    }
    picks.extend(way.kept.iter().map(|k| k.tensor.clone()).zip(extra.iter().cloned()));
    extra.push(steps.clone());
    let is_fixed = a.site.integers(0).is_some()
        && node.input.get(1).is_none_or(String::is_empty)
        && way.kept.iter().all(|k| k.tensor.ty.element_count().is_some());
    remake(a, vec![("body", way.forward.clone())], &extra, is_fixed, |_| ())?;

    let scalar = whole(Some(Vec::new()));
    let n = a.b.one("Size", &[&steps], Vec::new(), scalar.clone());
    let last = a.b.plus(&n, -1.0);
    let (at, go) = (
        Tensor { name: format!("{root}at"), ty: scalar },
        Tensor { name: format!("{root}go"), ty: TensorType { elem: DataType::Bool as i32, dims: Some(Vec::new()) } },
    );
    way.graph.input =
        [&at, &go].into_iter().chain(&behind).chain(sums.iter().map(|s| &s.input)).map(declared).collect();
    let mut b = Builder::new(a.b.opset(), &root, "at", Vec::new());
    let position = b.binary("Sub", &last, &at);
    let outputs: Vec<String> = picks.iter().map(|(inner, _)| inner.name.clone()).collect();
    let mut found = Vec::new();
    for (inner, all) in &picks {
        found.push(b.one("Gather", &[all, &position], vec![int("axis", 0)], inner.ty.clone()).into());
    }
    way.add_first(b.finish(&outputs, &found));
    let results = way.graph.output.drain(..).collect::<Vec<_>>();
    way.output(&go, format!("{root}go_on"));
    way.graph.output.extend(results);

    let one = a.b.number(1.0, &n);
    let always = a.b.cast(&one, go.ty.elem);
    let inputs: Vec<Option<Tensor>> =
        [n, always].into_iter().chain(starting).chain(sums.iter().map(|s| s.start.clone())).map(Some).collect();
    let types: Vec<TensorType> =
        behind.iter().map(|t| t.ty.clone()).chain(sums.iter().map(|s| s.input.ty.clone())).collect();
    let mut made = a.b.node("Loop", &inputs, vec![attribute("body", way.graph)], &types).into_iter();
    for (i, d) in carried.into_iter().zip(made.by_ref()) {
        if a.wants(i + 2) {
            a.give(i + 2, d);
        }
    }
    for (sum, d) in sums.iter().zip(made) {
        a.give_captured(wanted[sum.index], d);
    }
    Ok(())
}

/// Types of the body's inputs: what is carried is what comes in, as far as steps keep it.
fn types_of(a: &Adjoint<'_, '_>, graph: &GraphProto, count: usize) -> Known<Vec<TensorType>> {
    let scalar = |elem: DataType| TensorType { elem: elem as i32, dims: Some(Vec::new()) };
    let mut own =
        vec![TensorType { dims: None, ..scalar(DataType::Int64) }, TensorType { dims: None, ..scalar(DataType::Bool) }];
    own.extend((0..count).map(|i| a.site.input(i + 2).map(|t| t.ty).unwrap_or_default()));
    for _ in 0..ROUNDS {
        let types = Body::of(&a.site, graph, &own)?.outputs()?;
        let next: Vec<TensorType> =
            own.iter().take(2).cloned().chain((0..count).map(|i| common(&own[i + 2], &types[i + 1]))).collect();
        if next == own {
            break;
        }
        own = next;
    }
    Ok(own)
}

/// What two types have in common.
fn common(a: &TensorType, b: &TensorType) -> TensorType {
    let dims = match (&a.dims, &b.dims) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            Some(x.iter().zip(y).map(|(d, e)| if d == e { d.clone() } else { Dim::Unknown }).collect())
        }
        _ => None,
    };
    TensorType { elem: a.elem, dims }
}
