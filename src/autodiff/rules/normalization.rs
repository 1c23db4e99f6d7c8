//! Normalizations. With m, v the mean and variance over n elements, r = 1/√(v + ε), z = (x − m)·r and y = γ·z + β:
//! ∂β = Σ g, ∂γ = Σ g·z, and with h = g·γ, ∂x = r·(h − mean(h) − z·mean(h·z)).

use crate::autodiff::adjoint::{Adjoint, Cotangent};
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::{elements_per, in_shape_of, sum_to, zeros_like};
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Extent, is_half};
use crate::rewrite::site::{Known, Refusal, axis, rank};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["LayerNormalization"], adjoint: layer }, Rule { ops: &["BatchNormalization"], adjoint: batch }];

/// The cotangent of y; zeros where only the statistics reach the loss.
fn g_or_zeros(a: &mut Adjoint<'_, '_>) -> Known<Tensor> {
    if a.has_g(0) {
        return a.g(0);
    }
    let y = a.y(0);
    Ok(zeros_like(a.b, &y))
}

/// Over the axes from `axis` on. Mean and r are outputs of the operator; what reads them adds g_m/n − r²·z·g_r/n to ∂x.
fn layer(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (x, scale) = (a.x(0)?, a.x(1)?);
    let g = g_or_zeros(a)?;
    let [g, x, scale] = [g, x, scale].map(|t| a.b.widened(&t));
    let rank = rank(&x)?;
    let first = axis(a.site.int("axis", -1), rank)?;
    let axes: Vec<i64> = (first..rank).map(|i| i as i64).collect();
    let narrow =
        x.ty.dims
            .as_ref()
            .map(|d| d.iter().enumerate().map(|(i, d)| if i < first { d.clone() } else { Dim::Known(1) }).collect());
    let float = TensorType { elem: DataType::Float as i32, dims: narrow };
    let (mean, r) = (a.y_of_type(1, float.clone()), a.y_of_type(2, float));
    let (mean, r) = (a.b.cast(&mean, x.ty.elem), a.b.cast(&r, x.ty.elem));
    let centred = a.b.binary("Sub", &x, &mean);
    let z = a.b.binary("Mul", &centred, &r);
    if a.wants(2) {
        let bias = a.x(2)?;
        let db = sum_to(a.b, &g, &bias)?;
        a.give(2, db);
    }
    if a.wants(1) {
        let product = a.b.binary("Mul", &g, &z);
        let dw = sum_to(a.b, &product, &scale)?;
        a.give(1, dw);
    }
    if a.wants(0) {
        let h = a.b.binary("Mul", &g, &scale);
        let mut dx = centred_gradient(a.b, &h, &z, &r, &axes);
        if a.has_g(1) || a.has_g(2) {
            let n = elements_per(a.b, &x, &r);
            for slot in (1..3).filter(|slot| a.has_g(*slot)).collect::<Vec<_>>() {
                let g = a.g(slot)?;
                let g = a.b.cast(&g, x.ty.elem);
                let share = a.b.binary("Div", &g, &n);
                if slot == 1 {
                    dx = a.b.binary("Add", &dx, &share);
                } else {
                    let square = a.b.binary("Mul", &r, &r);
                    let pull = a.b.binary("Mul", &share, &square);
                    let pull = a.b.binary("Mul", &pull, &z);
                    dx = a.b.binary("Sub", &dx, &pull);
                }
            }
        }
        a.give(0, Tensor { ty: x.ty, ..dx });
    }
    Ok(())
}

/// r·(h − mean(h) − z·mean(h·z)).
fn centred_gradient(b: &mut Builder, h: &Tensor, z: &Tensor, r: &Tensor, axes: &[i64]) -> Tensor {
    let product = b.binary("Mul", h, z);
    let (mean, along) =
        (b.reduce("ReduceMean", h, Some(axes), true), b.reduce("ReduceMean", &product, Some(axes), true));
    let pull = b.binary("Mul", z, &along);
    let less = b.binary("Sub", h, &mean);
    let rest = b.binary("Sub", &less, &pull);
    b.binary("Mul", &rest, r)
}

/// Over samples and places, for each channel. In inference mode m and v are the running statistics, and ∂x = g·γ·r. What reads new running
/// statistics μ·old + (1 − μ)·m (or v) adds (1 − μ)·(g_m + 2·(x − m)·g_v)/n to ∂x.
fn batch(a: &mut Adjoint<'_, '_>) -> Known<()> {
    if (1..3).any(|slot| a.has_g(slot)) && a.site.opset() < 14 {
        return Err(Refusal("its running statistics reach the loss".into()));
    }
    let (x, scale) = (a.x(0)?, a.x(1)?);
    let g = g_or_zeros(a)?;
    let [g, x, scale] = [g, x, scale].map(|t| a.b.widened(&t));
    let rank = rank(&x)?;
    let axes: Vec<i64> = (0..rank as i64).filter(|i| *i != 1).collect();
    let is_training = match a.site.opset() {
        // Before operator set 14 a node with more outputs than one is in training mode.
        ..14 => a.site.outputs() > 1,
        _ => a.site.int("training_mode", 0) != 0,
    };
    let across = |b: &mut Builder, t: &Tensor| {
        let mut extents = vec![Extent::Fixed(1); rank];
        extents[1] = Extent::Fixed(-1);
        let made = b.reshape(t, &extents);
        b.cast(&made, x.ty.elem)
    };
    let (centred, variance) = if is_training {
        let mean = a.b.reduce("ReduceMean", &x, Some(&axes), true);
        let centred = a.b.binary("Sub", &x, &mean);
        let square = a.b.binary("Mul", &centred, &centred);
        let variance = a.b.reduce("ReduceMean", &square, Some(&axes), true);
        (centred, variance)
    } else {
        let (mean, variance) = (a.x(3)?, a.x(4)?);
        let (mean, variance) = (across(a.b, &mean), across(a.b, &variance));
        let centred = a.b.binary("Sub", &x, &mean);
        (centred, variance)
    };
    let shifted = a.b.plus(&variance, a.site.float("epsilon", 1e-5));
    let root = a.b.unary("Sqrt", &shifted);
    let r = a.b.unary("Reciprocal", &root);
    let z = a.b.binary("Mul", &centred, &r);
    // Both sums are needed for ∂x in training mode as well.
    let product = a.b.binary("Mul", &g, &z);
    let (sum, along) =
        (a.b.reduce("ReduceSum", &g, Some(&axes), true), a.b.reduce("ReduceSum", &product, Some(&axes), true));
    for (slot, total) in [(1, &along), (2, &sum)] {
        if a.wants(slot) {
            let like = a.x(slot)?;
            let flat = a.b.reshape(total, &[Extent::Fixed(-1)]);
            // The parameters may be of another type than x.
            let elem = if is_half(like.ty.elem) { flat.ty.elem } else { like.ty.elem };
            let flat = a.b.cast(&flat, elem);
            a.give(slot, in_shape_of(flat, &like));
        }
    }
    if a.wants(0) {
        let scale = across(a.b, &scale);
        let factor = a.b.binary("Mul", &scale, &r);
        let mut dx = if is_training {
            let n = elements_per(a.b, &x, &r);
            let (sum, along) = (a.b.binary("Div", &sum, &n), a.b.binary("Div", &along, &n));
            let pull = a.b.binary("Mul", &z, &along);
            let less = a.b.binary("Sub", &g, &sum);
            let rest = a.b.binary("Sub", &less, &pull);
            a.b.binary("Mul", &rest, &factor)
        } else {
            a.b.binary("Mul", &g, &factor)
        };
        for slot in (1..3).filter(|slot| is_training && a.has_g(*slot)).collect::<Vec<_>>() {
            let g = a.g(slot)?;
            let g = across(a.b, &g);
            let n = elements_per(a.b, &x, &r);
            let share = a.b.binary("Div", &g, &n);
            let weight = (1.0 - a.site.float("momentum", 0.9)) * if slot == 1 { 1.0 } else { 2.0 };
            let mut pull = a.b.times(&share, weight);
            if slot == 2 {
                pull = a.b.binary("Mul", &pull, &centred);
            }
            dx = a.b.binary("Add", &dx, &pull);
        }
        a.give_summed(0, Cotangent { tensor: Tensor { ty: x.ty, ..dx }, is_full: true })?;
    }
    Ok(())
}
