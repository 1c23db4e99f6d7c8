//! Losses over classes.
//!
//! For scores x [N, C, …], p = softmax over C, label t and weight w_t of each place (0 where t is ignore_index): the loss of a place is
//! −w_t·ln p_t, so ∂x_c = g·w_t·(p_c − [c = t]). The mean divides by Σ w_t. Its log-probabilities are an output of the operator.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::shape_of;
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Elem, Tensor, int};
use crate::rewrite::site::{Known, Refusal, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["SoftmaxCrossEntropyLoss"], adjoint: cross_entropy },
    Rule { ops: &["NegativeLogLikelihoodLoss"], adjoint: likelihood },
];

/// What stands for int64 where a constant's type is asked.
fn integer() -> Tensor {
    Tensor { name: String::new(), ty: TensorType { elem: Elem::I64.onnx(), dims: None } }
}

/// [c = t] for every class, as the scores have them; nothing at places whose label is no class.
fn one_hot(a: &mut Adjoint<'_, '_>, x: &Tensor, labels: &Tensor) -> Known<Tensor> {
    let classes = x.ty.dims.as_ref().and_then(|d| d.get(1)).and_then(Dim::known);
    let rank = rank(x)?;
    let column = |n: Dim| TensorType { elem: labels.ty.elem, dims: Some(vec![n]) };
    // The classes as a column that broadcasts against the labels: [C, 1, …].
    let (count, dim) = match classes {
        Some(n) => (a.b.number(n as f64, &integer()), Dim::Known(n)),
        None => {
            let shape = shape_of(a.b, x);
            (a.b.pick(&shape, 0, &[1]), Dim::Unknown)
        }
    };
    let range = a.b.counted(&count, dim);
    let range = a.b.cast(&range, labels.ty.elem);
    let range = Tensor { ty: column(classes.map_or(Dim::Unknown, Dim::Known)), ..range };
    let axes: Vec<usize> = (1..rank - 1).collect();
    let range = a.b.unsqueeze(&range, &axes);
    let labels = a.b.unsqueeze(labels, &[1]);
    let is_it = a.b.compare("Equal", &labels, &range);
    Ok(a.b.indicator(&is_it, x))
}

/// g·w_t of every place with an axis for the classes: [N, 1, …], or a scalar where all places weigh the same.
fn scale(a: &mut Adjoint<'_, '_>, x: &Tensor, labels: &Tensor) -> Known<Tensor> {
    let reduction = a.site.node.string("reduction").unwrap_or("mean").to_owned();
    let ignored = a.site.node.int("ignore_index");
    let weights = a.site.input(2);
    let mut weight = match &weights {
        Some(weights) => {
            // An ignored label need not be a class.
            let index = match ignored {
                Some(ignored) => {
                    let (ignored, zero) = (a.b.number(ignored as f64, &integer()), a.b.number(0.0, &integer()));
                    let (ignored, zero) = (a.b.cast(&ignored, labels.ty.elem), a.b.cast(&zero, labels.ty.elem));
                    let is_ignored = a.b.compare("Equal", labels, &ignored);
                    a.b.choose(&is_ignored, &zero, labels)
                }
                None => labels.clone(),
            };
            let weights = a.b.widened(weights);
            let ty = TensorType { elem: x.ty.elem, dims: labels.ty.dims.clone() };
            Some(a.b.one("Gather", &[&weights, &index], vec![int("axis", 0)], ty))
        }
        None => None,
    };
    if let Some(ignored) = ignored {
        let integer = a.b.number(ignored as f64, &integer());
        let ignored = a.b.cast(&integer, labels.ty.elem);
        let is_ignored = a.b.compare("Equal", labels, &ignored);
        let (one, zero) = (a.b.number(1.0, x), a.b.number(0.0, x));
        let ones = weight.clone().unwrap_or(one);
        weight = Some(Tensor {
            ty: TensorType { elem: x.ty.elem, dims: labels.ty.dims.clone() },
            ..a.b.choose(&is_ignored, &zero, &ones)
        });
    }
    let g = if reduction == "none" { a.g(0)? } else { a.lazy(0)?.tensor };
    let g = a.b.widened(&g);
    let scaled = match (weight, reduction.as_str()) {
        (None, "mean") => {
            let n =
                a.b.one("Size", &[labels], Vec::new(), TensorType { elem: Elem::I64.onnx(), dims: Some(Vec::new()) });
            let n = a.b.cast(&n, x.ty.elem);
            return Ok(a.b.binary("Div", &g, &n));
        }
        (None, "sum") => return Ok(g),
        (None, _) => g,
        (Some(weight), "mean") => {
            let sum = a.b.reduce("ReduceSum", &weight, None, false);
            let share = a.b.binary("Div", &g, &sum);
            a.b.binary("Mul", &weight, &share)
        }
        (Some(weight), _) => a.b.binary("Mul", &weight, &g),
    };
    Ok(a.b.unsqueeze(&scaled, &[1]))
}

fn cross_entropy(a: &mut Adjoint<'_, '_>) -> Known<()> {
    if a.has_g(1) {
        return Err(Refusal("its log-probabilities reach the loss as well".into()));
    }
    let (x, labels) = (a.x(0)?, a.x(1)?);
    let log_p = a.y_of_type(1, x.ty.clone());
    let (log_p, x) = (a.b.widened(&log_p), a.b.widened(&x));
    let p = a.b.unary("Exp", &log_p);
    let hits = one_hot(a, &x, &labels)?;
    let rest = a.b.binary("Sub", &p, &hits);
    let scale = scale(a, &x, &labels)?;
    let dx = a.b.binary("Mul", &rest, &scale);
    a.give(0, Tensor { ty: x.ty, ..dx });
    Ok(())
}

/// The loss of a place is −w_t·x_t: ∂x_c = −g·w_t·[c = t].
fn likelihood(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (x, labels) = (a.x(0)?, a.x(1)?);
    let x = a.b.widened(&x);
    let hits = one_hot(a, &x, &labels)?;
    let scale = scale(a, &x, &labels)?;
    let negative = a.b.unary("Neg", &scale);
    let dx = a.b.binary("Mul", &hits, &negative);
    a.give(0, Tensor { ty: x.ty, ..dx });
    Ok(())
}
