//! Scan: a Scan over the same steps from the last to the first. With s the states, x what is scanned and y what is stacked, step t is
//! (s₊, yₜ) = f(s, xₜ, w); its way back is (ds, dxₜ, +dw) = (ds₊, gₜ)·∂f/∂(s, xₜ, w), at the values that step t had.

use super::body::{Body, Kept, Request};
use super::carried::{Carried, before, keeps_shape, starts, sums, with_gradient};
use super::{attribute, body_of, declared, remake, stacked};
use crate::autodiff::adjoint::Adjoint;
use crate::graph::Attributes;
use crate::graph::types::TensorType;
use crate::onnx::NodeProto;
use crate::regularizer::emit::{Tensor, int, ints};
use crate::rewrite::site::{Known, Refusal, axis};

/// What a scanned value is read along: the axis, and whether from its end.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Along {
    axis: i64,
    direction: i64,
}

impl Along {
    fn of(node: &NodeProto, what: &str, i: usize) -> Self {
        let at = |name: &str| node.ints(name).and_then(|l| l.get(i)).copied().unwrap_or(0);
        Along { axis: at(&format!("scan_{what}_axes")), direction: at(&format!("scan_{what}_directions")) }
    }

    fn backwards(self) -> Self {
        Along { direction: 1 - self.direction, ..self }
    }
}

pub fn back(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let node = a.site.node;
    let graph = body_of(node, "body")?;
    let scanned = usize::try_from(a.site.int("num_scan_inputs", 0)).unwrap_or_default();
    let states = node.input.len().checked_sub(scanned).filter(|_| scanned > 0 && graph.input.len() == node.input.len());
    let states = states.filter(|n| graph.output.len() >= *n && graph.output.len() >= node.output.len());
    let states = states.ok_or("its inputs and outputs are not those of its body")?;
    let own: Vec<TensorType> = (0..node.input.len())
        .map(|i| {
            let ty = a.site.input(i).map(|t| t.ty).unwrap_or_default();
            if i < states { ty } else { one_step(ty, Along::of(node, "input", i - states)) }
        })
        .collect();
    let body = Body::of(&a.site, graph, &own)?;
    let types = body.outputs()?;
    let name = |i: usize| graph.input[i].name().to_owned();
    for i in 0..states {
        keeps_shape(&name(i), &own[i], &types[i])?;
    }

    let wanted = a.site.captures_with_gradient();
    let captured: Vec<Tensor> = wanted.iter().map(|v| a.site.tensor(*v)).collect();
    let through: Vec<usize> = (states..node.input.len()).filter(|i| a.wants(*i)).collect();
    let others: Vec<String> = through.iter().map(|i| name(*i)).chain(captured.iter().map(|t| t.name.clone())).collect();
    let given: Vec<usize> = (states..graph.output.len()).filter(|slot| a.has_g(*slot)).collect();
    let each =
        (0..states).map(|i| Carried { input: name(i), output: i, is_wanted: a.wants(i), has_cotangent: a.has_g(i) });
    let has = with_gradient(&body, &each.collect::<Vec<_>>(), &others, &given)?;
    let carried: Vec<usize> = (0..states).filter(|i| has[*i]).collect();

    // The way back through one step.
    let root = format!("{}body/", a.prefix);
    let behind: Vec<Tensor> =
        carried.iter().map(|i| Tensor { name: format!("{root}d_{i}"), ty: own[*i].clone() }).collect();
    let stacks: Vec<Tensor> =
        given.iter().map(|slot| Tensor { name: format!("{root}g_{slot}"), ty: types[*slot].clone() }).collect();
    let seeds: Vec<(usize, Tensor)> =
        carried.iter().chain(&given).copied().zip(behind.iter().chain(&stacks).cloned()).collect();
    let wrt: Vec<String> = carried.iter().map(|i| name(*i)).chain(others).collect();
    let mut way = body.back(&Request { seeds: &seeds, wrt: &wrt, root: &root, is_repeated: true })?;
    let gradients = std::mem::take(&mut way.gradients);
    let (of_states, rest) = gradients.split_at(carried.len());
    let (of_scanned, of_captured) = rest.split_at(through.len());

    // Its inputs and outputs: states, then what is scanned.
    let starting = starts(a, carried.iter().copied())?;
    for ((gradient, behind), i) in of_states.iter().zip(&behind).zip(&carried) {
        before(&mut way, gradient.as_ref(), behind, a.b.opset(), &root, format!("{root}d_{i}_before"));
    }
    let sums = sums(a, &mut way, &captured, of_captured, &root);
    way.graph.input = behind.iter().chain(sums.iter().map(|s| &s.input)).map(declared).collect();
    let mut inputs: Vec<Option<Tensor>> =
        starting.into_iter().chain(sums.iter().map(|s| s.start.clone())).map(Some).collect();
    let mut read: Vec<Along> = Vec::new();
    let mut scan = |way: &mut super::body::Back, inner: &Tensor, outer: Tensor, along: Along| {
        way.graph.input.push(declared(inner));
        inputs.push(Some(outer));
        read.push(along.backwards());
    };
    for (slot, inner) in given.iter().zip(&stacks) {
        let g = a.g(*slot)?;
        scan(&mut way, inner, g, Along::of(node, "output", slot - states));
    }
    let (again, kept): (Vec<Kept>, Vec<Kept>) =
        way.kept.clone().into_iter().partition(|k| (states..node.input.len()).any(|i| name(i) == k.inner));
    for each in &again {
        let found = (states..node.input.len()).find(|i| name(*i) == each.inner);
        let i = found.ok_or_else(|| Refusal("it has no such input".into()))?;
        let x = a.x(i)?;
        scan(&mut way, &each.tensor, x, Along::of(node, "input", i - states));
    }
    let mut extra = Vec::new();
    for each in &kept {
        way.hand_out(&each.inner, &each.tensor.name, &each.tensor.ty);
        let all = Tensor { name: format!("{}_all", each.tensor.name), ty: stacked(&each.tensor.ty) };
        scan(&mut way, &each.tensor, all.clone(), Along { axis: 0, direction: 0 });
        extra.push(all);
    }
    if given.is_empty() && again.is_empty() && kept.is_empty() {
        // Something has to say how many steps there are.
        let inner = Tensor { name: format!("{root}step"), ty: own[states].clone() };
        let x = a.x(states)?;
        scan(&mut way, &inner, x, Along::of(node, "input", 0));
    }
    let mut written: Vec<Along> = Vec::new();
    let mut results: Vec<TensorType> =
        behind.iter().map(|t| t.ty.clone()).chain(sums.iter().map(|s| s.input.ty.clone())).collect();
    let mut to = Vec::new();
    for (i, gradient) in through.iter().zip(of_scanned) {
        let Some(gradient) = gradient else { continue };
        way.output(&Tensor { ty: own[*i].clone(), ..gradient.clone() }, format!("{root}d_{i}"));
        written.push(Along::of(node, "input", i - states).backwards());
        results.push(a.x(*i)?.ty);
        to.push(*i);
    }

    // Lengths are those of the steps: fixed where the scanned input's is.
    let is_fixed = (states..node.input.len()).any(|i| length(a.site.input(i), Along::of(node, "input", i - states)))
        && kept.iter().all(|k| k.tensor.ty.element_count().is_some());
    let new = kept.len();
    remake(a, vec![("body", way.forward)], &extra, is_fixed, |attributes| {
        for list in attributes.iter_mut().filter(|p| matches!(p.name(), "scan_output_axes" | "scan_output_directions"))
        {
            list.ints.resize(list.ints.len() + new, 0);
        }
    })?;
    let mut attributes = vec![attribute("body", way.graph), int("num_scan_inputs", read.len() as i64)];
    let mut lists = |what: &str, of: &[Along]| {
        if of.iter().any(|a| a.axis != 0) {
            attributes.push(ints(&format!("scan_{what}_axes"), &of.iter().map(|a| a.axis).collect::<Vec<_>>()));
        }
        if of.iter().any(|a| a.direction != 0) {
            attributes
                .push(ints(&format!("scan_{what}_directions"), &of.iter().map(|a| a.direction).collect::<Vec<_>>()));
        }
    };
    lists("input", &read);
    lists("output", &written);
    let mut made = a.b.node("Scan", &inputs, attributes, &results).into_iter();
    for (i, d) in carried.into_iter().zip(made.by_ref()) {
        if a.wants(i) {
            a.give(i, d);
        }
    }
    for (sum, d) in sums.iter().zip(made.by_ref()) {
        a.give_captured(wanted[sum.index], d);
    }
    for (i, d) in to.into_iter().zip(made) {
        a.give(i, d);
    }
    Ok(())
}

/// What one step sees of a scanned value.
fn one_step(mut ty: TensorType, along: Along) -> TensorType {
    ty.dims = ty.dims.and_then(|mut dims| {
        let at = axis(along.axis, dims.len()).ok()?;
        dims.remove(at);
        Some(dims)
    });
    ty
}

/// Whether the number of steps is known.
fn length(scanned: Option<Tensor>, along: Along) -> bool {
    let dims = scanned.and_then(|t| t.ty.dims).unwrap_or_default();
    axis(along.axis, dims.len()).is_ok_and(|at| dims[at].known().is_some())
}
