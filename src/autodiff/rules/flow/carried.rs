//! What one step of Scan or Loop hands to the next, on the way back: which values have a cotangent that is carried, and sums over steps.

use super::body::{Back, Body};
use super::summed_in;
use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule;
use crate::autodiff::shape::{in_shape_of, zeros_like};
use crate::graph::ValueId;
use crate::graph::types::TensorType;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::Builder;
use crate::rewrite::path::Path;
use crate::rewrite::site::{Known, Refusal};

/// A value that one step hands to the next.
pub struct Carried {
    /// Its input in the body.
    pub input: String,
    /// Its output in the body, by position.
    pub output: usize,
    /// Whether the gradient of what it starts from is asked for.
    pub is_wanted: bool,
    /// Whether what it ends as has a cotangent.
    pub has_cotangent: bool,
}

/// Which carried values have a gradient: they depend on something whose gradient is asked for, and something that has a cotangent depends
/// on them. `from` are names of other inputs, `to` positions of other outputs.
pub fn with_gradient(body: &Body<'_>, carried: &[Carried], from: &[String], to: &[usize]) -> Known<Vec<bool>> {
    let analysis = body.analysis()?;
    let graph = &analysis.graph;
    let input = |c: &Carried| graph.find(&c.input);
    let output = |c: &Carried| graph.outputs.get(c.output).copied();
    let is_float = |v: ValueId| analysis.types.get(v).is_float() != Some(false);
    let others: Vec<ValueId> = from.iter().filter_map(|n| graph.find(n)).collect();
    let ends: Vec<ValueId> = to.iter().filter_map(|slot| graph.outputs.get(*slot).copied()).collect();
    let grow = |start: Vec<bool>, reaches: &dyn Fn(&[bool], &Carried) -> bool| {
        let mut set = start;
        loop {
            let next: Vec<bool> = carried.iter().zip(&set).map(|(c, is)| *is || reaches(&set, c)).collect();
            if next == set {
                return set;
            }
            set = next;
        }
    };
    let chosen = |set: &[bool], of: &dyn Fn(&Carried) -> Option<ValueId>| -> Vec<ValueId> {
        carried.iter().zip(set).filter(|(_, is)| **is).filter_map(|(c, _)| of(c)).collect()
    };
    let depends = grow(carried.iter().map(|c| c.is_wanted).collect(), &|set, c| {
        let from: Vec<ValueId> = chosen(set, &input).into_iter().chain(others.iter().copied()).collect();
        let path = Path::between(&analysis, &from, &graph.outputs, rule::stops);
        output(c).is_some_and(|v| path.depends(v) && is_float(v))
    });
    let leads = grow(carried.iter().map(|c| c.has_cotangent).collect(), &|set, c| {
        let to: Vec<ValueId> = chosen(set, &output).into_iter().chain(ends.iter().copied()).collect();
        input(c).is_some_and(|v| Path::between(&analysis, &[v], &to, rule::stops).needs_gradient(v))
    });
    Ok(depends.into_iter().zip(leads).map(|(a, b)| a && b).collect())
}

/// Where the cotangents of carried values start: what nodes behind give, or zeros.
pub fn starts(a: &mut Adjoint<'_, '_>, slots: impl Iterator<Item = usize>) -> Known<Vec<Tensor>> {
    let mut found = Vec::new();
    for slot in slots {
        found.push(if a.has_g(slot) {
            a.g(slot)?
        } else {
            let y = a.y(slot);
            zeros_like(a.b, &y)
        });
    }
    Ok(found)
}

/// The gradient of a value that every step reads, summed over them.
pub struct Sum {
    /// Which of the values.
    pub index: usize,
    /// Zeros, outside.
    pub start: Tensor,
    /// Its name and type in the body.
    pub input: Tensor,
}

/// Sums for those captured values that get a gradient in the body, which adds to them.
pub fn sums(
    a: &mut Adjoint<'_, '_>,
    way: &mut Back,
    captured: &[Tensor],
    gradients: &[Option<Tensor>],
    root: &str,
) -> Vec<Sum> {
    let mut sums = Vec::new();
    for (index, (value, gradient)) in captured.iter().zip(gradients).enumerate() {
        let Some(gradient) = gradient else { continue };
        let elem = if value.ty.elem == 0 { gradient.ty.elem } else { value.ty.elem };
        let ty = TensorType { elem: summed_in(elem), dims: value.ty.dims.clone() };
        let zeros = zeros_like(a.b, value);
        let start = a.b.cast(&zeros, ty.elem);
        let input = Tensor { name: format!("{root}sum_{index}"), ty: ty.clone() };
        let mut b = Builder::new(a.b.opset(), root, &format!("add_{index}"), Vec::new());
        let wide = b.cast(&in_shape_of(gradient.clone(), value), ty.elem);
        let sum = b.binary("Add", &input, &wide);
        way.add(b.finish(&[], &[]));
        way.output(&Tensor { ty, ..sum }, format!("{root}sum_{index}_next"));
        sums.push(Sum { index, start, input });
    }
    sums
}

/// The cotangent of a carried value before the step; zeros where the step does not read it.
pub fn before(way: &mut Back, gradient: Option<&Tensor>, behind: &Tensor, opset: i64, root: &str, name: String) {
    let tensor = match gradient {
        Some(gradient) => Tensor { ty: behind.ty.clone(), ..gradient.clone() },
        None => {
            let mut b = Builder::new(opset, root, &format!("{}_none", name.trim_start_matches(root)), Vec::new());
            let zeros = zeros_like(&mut b, behind);
            way.add(b.finish(&[], &[]));
            zeros
        }
    };
    way.output(&tensor, name);
}

/// What is carried keeps its rank and extents, or what its steps make could not be stacked.
pub fn keeps_shape(name: &str, before: &TensorType, after: &TensorType) -> Known<()> {
    let (Some(x), Some(y)) = (&before.dims, &after.dims) else { return Ok(()) };
    let same = |(a, b): (&crate::graph::types::Dim, &crate::graph::types::Dim)| {
        a.known().zip(b.known()).is_none_or(|(a, b)| a == b)
    };
    if x.len() == y.len() && x.iter().zip(y).all(same) {
        return Ok(());
    }
    let text = |d: &[crate::graph::types::Dim]| d.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(Refusal(format!(
        "its body changes the shape of the carried value {name:?}, from [{}] to [{}], and what steps of different shapes make cannot be stacked for the way back",
        text(x),
        text(y)
    )))
}
