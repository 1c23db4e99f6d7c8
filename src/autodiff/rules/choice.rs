//! Selections: the gradient goes where the value came from.

use crate::autodiff::adjoint::{Adjoint, Cotangent};
use crate::autodiff::rule::Rule;
use crate::graph::Attributes;
use crate::graph::types::TensorType;
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::Tensor;
use crate::rewrite::site::Known;

/// Rules of this module.
pub const RULES: &[Rule] = &[
    // y = a where c, else b: ∂a = g where c, else 0; ∂b the other way round.
    Rule {
        ops: &["Where"],
        adjoint: |a| {
            let (g, condition) = (a.g(0)?, a.x(0)?);
            let zero = a.b.number(0.0, &g);
            for slot in (1..3).filter(|slot| a.wants(*slot)).collect::<Vec<_>>() {
                let (yes, no) = if slot == 1 { (&g, &zero) } else { (&zero, &g) };
                let tensor = a.b.choose(&condition, yes, no);
                a.give_summed(slot, Cotangent { tensor, is_full: true })?;
            }
            Ok(())
        },
    },
    Rule { ops: &["Max", "Min"], adjoint: extremum },
    Rule { ops: &["Clip"], adjoint: clip },
    Rule { ops: &["Dropout"], adjoint: dropout },
];

/// ∂xᵢ = g/k where xᵢ is the extremum, k being how many operands are.
fn extremum(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let n = a.site.node.input.len();
    if n == 1 {
        let g = a.lazy(0)?;
        return a.give_summed(0, g);
    }
    let (g, y) = (a.g(0)?, a.y(0));
    let mut hits = Vec::new();
    for slot in 0..n {
        let x = a.x(slot)?;
        let is_it = a.b.equal(&x, &y);
        hits.push(a.b.indicator(&is_it, &y));
    }
    let mut count = hits[0].clone();
    for hit in &hits[1..] {
        count = a.b.binary("Add", &count, hit);
    }
    let share = a.b.binary("Div", &g, &count);
    for slot in (0..n).filter(|slot| a.wants(*slot)).collect::<Vec<_>>() {
        let tensor = a.b.binary("Mul", &share, &hits[slot]);
        a.give_summed(slot, Cotangent { tensor, is_full: true })?;
    }
    Ok(())
}

/// ∂x = g for low ≤ x ≤ high, else 0; what is clipped passes its gradient to the bound.
fn clip(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    let zero = a.b.number(0.0, &g);
    // Bounds are attributes before operator set 11.
    let attribute = |a: &mut Adjoint<'_, '_>, name| a.site.node.float(name).map(|v| a.b.number(f64::from(v), &x));
    let (low, high) =
        if a.b.opset() < 11 { (attribute(a, "min"), attribute(a, "max")) } else { (a.site.input(1), a.site.input(2)) };
    let mut dx = g.clone();
    for (slot, op, bound, other) in [(1, "Less", low.clone(), high.clone()), (2, "Greater", high, low)] {
        let Some(bound) = bound else { continue };
        let is_beyond = a.b.compare(op, &x, &bound);
        if a.wants(slot) {
            // The upper bound has the last word: where it lies below the lower one, all is the upper one's.
            let is_its = match (slot, &other) {
                (1, Some(high)) => {
                    let is_behind = a.b.compare("Greater", &bound, high);
                    let is_last = a.b.one("Not", &[&is_behind], Vec::new(), is_behind.ty.clone());
                    a.b.one("And", &[&is_beyond, &is_last], Vec::new(), is_beyond.ty.clone())
                }
                (2, Some(low)) => {
                    let is_last = a.b.compare("Greater", low, &bound);
                    a.b.one("Or", &[&is_beyond, &is_last], Vec::new(), is_beyond.ty.clone())
                }
                _ => is_beyond.clone(),
            };
            let tensor = a.b.choose(&is_its, &g, &zero);
            a.give_summed(slot, Cotangent { tensor, is_full: true })?;
        }
        dx = a.b.choose(&is_beyond, &zero, &dx);
    }
    if a.wants(0) {
        a.give(0, dx);
    }
    Ok(())
}

/// In training, y = x·m/(1 − r) with the mask m, its second output, and the ratio r: ∂x = g·m/(1 − r). Else y = x.
fn dropout(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let lazy = a.lazy(0)?;
    let Some(mode) = a.site.input(2).filter(|_| a.site.opset() >= 12) else { return a.give_summed(0, lazy) };
    let (g, x) = (a.g(0)?, a.x(0)?);
    let mask = a.y_of_type(1, TensorType { elem: DataType::Bool as i32, dims: x.ty.dims.clone() });
    let kept = a.b.indicator(&mask, &x);
    let one = a.b.number(1.0, &x);
    let ratio = match a.site.input(1) {
        Some(ratio) => a.b.cast(&ratio, x.ty.elem),
        None => a.b.number(0.5, &x),
    };
    let share = a.b.binary("Sub", &one, &ratio);
    let divisor = a.b.choose(&mode, &share, &one);
    let scaled = a.b.binary("Div", &g, &divisor);
    let dx = a.b.binary("Mul", &scaled, &kept);
    a.give(0, Tensor { ty: x.ty, ..dx });
    Ok(())
}
