//! What happens to gradients before parameters change: they are unscaled, looked through for what is not finite, summed, measured and
//! clipped, in this order. All of it is arithmetic on whole tensors, without If: it costs little beside the way back.

use super::{
    ACCUMULATED, APPLY, Clip, GRADIENT_NORM, GRADIENTS_FINITE, LOSS_SCALE, LossScale, Trained, Written, where_allowed,
    wide,
};
use crate::autodiff::Options;
use crate::autodiff::report::Successor;
use crate::graph::types::TensorType;
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::{Elem, Tensor};
use crate::rewrite::builder::Builder;

/// What PyTorch's `clip_grad_norm_` adds to the norm.
const NORM_FLOOR: f64 = 1e-6;

/// Gradients as an optimiser reads them.
pub struct Handled {
    /// By parameter.
    pub gradients: Vec<Tensor>,
    /// By parameter: the sum of gradients that it hands on.
    pub sums: Vec<Option<Successor>>,
    /// Whether parameters and states change; `None` where they always do.
    pub gate: Option<Tensor>,
}

/// Handles the gradients of all parameters.
pub fn handle(b: &mut Builder, options: &Options, parameters: &[Trained], written: &mut Written) -> Handled {
    let is_touched = options.loss_scale != LossScale::None || options.accumulate || options.clip.is_some();
    let is_stepping = options.optimizer != super::Optimizer::None;
    let mut gradients: Vec<Tensor> = Vec::with_capacity(parameters.len());
    for (_, p, g) in parameters {
        let elem = if is_touched || is_stepping { wide(p.ty.elem) } else { p.ty.elem };
        let g = Tensor { ty: TensorType { elem: g.ty.elem, dims: p.ty.dims.clone() }, ..g.clone() };
        gradients.push(if g.ty.elem == 0 { g } else { b.cast(&g, elem) });
    }
    let finite = unscaled(b, options.loss_scale, &mut gradients, written);
    let mut sums = vec![None; parameters.len()];
    let mut gate = finite.clone();
    if options.accumulate {
        let apply = written.scalar(APPLY, DataType::Bool as i32);
        written.decided.apply = Some(APPLY);
        sums = accumulated(b, &apply, finite.as_ref(), parameters, &mut gradients, written);
        gate = Some(match &finite {
            Some(finite) => b.binary("And", &apply, finite),
            None => apply,
        });
    }
    if options.gradient_norm || matches!(options.clip, Some(Clip::Norm(_))) {
        let norm = norm(b, &gradients);
        if let Some(Clip::Norm(most)) = options.clip {
            let above = b.plus(&norm, NORM_FLOOR);
            let most = b.number(most, &above);
            let ratio = b.binary("Div", &most, &above);
            let one = b.number(1.0, &ratio);
            let factor = b.binary("Min", &ratio, &one);
            for g in &mut gradients {
                let factor = b.cast(&factor, g.ty.elem);
                *g = b.binary("Mul", g, &factor);
            }
        }
        written.results.push((GRADIENT_NORM.to_owned(), b.cast(&norm, Elem::F32.onnx())));
        written.told.gradient_norm = Some(GRADIENT_NORM);
    }
    if let Some(Clip::Value(most)) = options.clip {
        for g in &mut gradients {
            let (most, least) = (b.number(most, g), b.number(-most, g));
            let below = b.binary("Min", g, &most);
            *g = b.binary("Max", &below, &least);
        }
    }
    Handled { gradients, sums, gate }
}

/// Divides by the loss scale; returns whether everything is finite.
fn unscaled(b: &mut Builder, scale: LossScale, gradients: &mut [Tensor], written: &mut Written) -> Option<Tensor> {
    let input = match scale {
        LossScale::None => return None,
        LossScale::Fixed(_) => None,
        LossScale::Input => {
            written.decided.loss_scale = Some(LOSS_SCALE);
            Some(written.scalar(LOSS_SCALE, Elem::F32.onnx()))
        }
    };
    let mut marks = Vec::new();
    for g in gradients.iter_mut() {
        *g = match (&input, scale) {
            (Some(input), _) => {
                let scale = b.cast(input, g.ty.elem);
                b.binary("Div", g, &scale)
            }
            (None, LossScale::Fixed(scale)) => b.divided(g, scale),
            (None, _) => g.clone(),
        };
        // 0·g is 0 where g is finite, and NaN elsewhere; a norm could overflow.
        let nothing = b.times(g, 0.0);
        let mark = b.reduce("ReduceSum", &nothing, None, false);
        marks.push(b.cast(&mark, Elem::F32.onnx()));
    }
    let mark = sum(b, &marks);
    let bool_scalar = TensorType { elem: DataType::Bool as i32, dims: Some(Vec::new()) };
    let is_nan = b.one("IsNaN", &[&mark], Vec::new(), bool_scalar);
    let is_finite = b.unary("Not", &is_nan);
    written.results.push((GRADIENTS_FINITE.to_owned(), is_finite.clone()));
    written.told.gradients_finite = Some(GRADIENTS_FINITE);
    written.is_finite = Some(is_finite.clone());
    Some(is_finite)
}

/// Adds to the sums, and makes each gradient the mean of what its sum holds. A step empties the sums; gradients that are not finite do not
/// enter them.
fn accumulated(
    b: &mut Builder,
    apply: &Tensor,
    finite: Option<&Tensor>,
    parameters: &[Trained],
    gradients: &mut [Tensor],
    written: &mut Written,
) -> Vec<Option<Successor>> {
    let held = |b: &mut Builder, total: &Tensor, before: &Tensor| {
        let zero = b.number(0.0, before);
        let emptied = b.choose(apply, &zero, total);
        let emptied = Tensor { ty: before.ty.clone(), ..emptied };
        finite.map_or(emptied.clone(), |finite| where_allowed(b, finite, &emptied, before))
    };
    let before = written.scalar(ACCUMULATED, Elem::I64.onnx());
    let count = b.plus(&before, 1.0);
    let next = held(b, &count, &before);
    let counter = written.successor(&before, next);
    written.counters.push(counter);
    let mut sums = Vec::new();
    for ((_, p, _), g) in parameters.iter().zip(gradients) {
        let before = written.input(&format!("{}_sum", p.name), g.ty.clone());
        let total = b.binary("Add", &before, g);
        let next = held(b, &total, &before);
        sums.push(Some(written.successor(&before, next)));
        let count = b.cast(&count, g.ty.elem);
        *g = b.binary("Div", &total, &count);
    }
    sums
}

/// √Σg² over all gradients: in float64 where any of them is, else in float32.
fn norm(b: &mut Builder, gradients: &[Tensor]) -> Tensor {
    let is_double = gradients.iter().any(|g| g.ty.elem == Elem::F64.onnx());
    let elem = if is_double { Elem::F64 } else { Elem::F32 }.onnx();
    let mut squares = Vec::new();
    for g in gradients {
        let square = b.reduce("ReduceSumSquare", g, None, false);
        squares.push(b.cast(&square, elem));
    }
    let sum = sum(b, &squares);
    b.unary("Sqrt", &sum)
}

/// The sum of scalars.
fn sum(b: &mut Builder, scalars: &[Tensor]) -> Tensor {
    let ty = scalars.first().map(|s| s.ty.clone()).unwrap_or_default();
    let scalars: Vec<&Tensor> = scalars.iter().collect();
    b.one("Sum", &scalars, Vec::new(), ty)
}
