//! Products of matrices.

use crate::autodiff::adjoint::{Adjoint, Cotangent};
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::{reshape_like, sum_to};
use crate::graph::types::TensorType;
use crate::regularizer::emit::{Tensor, float, int};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::{Known, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule { ops: &["MatMul"], adjoint: matmul }, Rule { ops: &["Gemm"], adjoint: gemm }];

/// With its last two axes exchanged.
fn transposed(b: &mut Builder, x: &Tensor) -> Known<Tensor> {
    let rank = rank(x)?;
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    Ok(b.transpose(x, &perm))
}

/// α·a′·b′ by Gemm, where ′ may transpose.
pub fn gemm_of(b: &mut Builder, (x, trans_x): (&Tensor, bool), (w, trans_w): (&Tensor, bool), alpha: f64) -> Tensor {
    let dim = |t: &Tensor, axis: usize| t.ty.dims.as_ref().and_then(|d| d.get(axis)).cloned().unwrap_or_default();
    let dims = vec![dim(x, usize::from(trans_x)), dim(w, usize::from(!trans_w))];
    let mut attributes = vec![int("transA", i64::from(trans_x)), int("transB", i64::from(trans_w))];
    if alpha != 1.0 {
        attributes.push(float("alpha", alpha as f32));
    }
    let ty = TensorType { elem: x.ty.elem, dims: Some(dims) };
    b.gemm(x, w, attributes, ty)
}

/// Y = α·A′·B′ + β·C: ∂A′ = α·g·B′ᵀ, ∂B′ = α·A′ᵀ·g, ∂C = β·g.
fn gemm(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, w) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let (alpha, beta) = (a.site.float("alpha", 1.0), a.site.float("beta", 1.0));
    let (trans_x, trans_w) = (a.site.int("transA", 0) != 0, a.site.int("transB", 0) != 0);
    if a.wants(0) {
        let dx = match trans_x {
            false => gemm_of(a.b, (&g, false), (&w, !trans_w), alpha),
            true => gemm_of(a.b, (&w, trans_w), (&g, true), alpha),
        };
        a.give(0, dx);
    }
    if a.wants(1) {
        let (g, x) = (a.b.widened(&g), a.b.widened(&x));
        let dw = match trans_w {
            false => gemm_of(a.b, (&x, !trans_x), (&g, false), alpha),
            true => gemm_of(a.b, (&g, true), (&x, trans_x), alpha),
        };
        a.give(1, dw);
    }
    if a.wants(2) {
        let tensor = a.b.times(&g, beta);
        a.give_summed(2, Cotangent { tensor, is_full: true })?;
    }
    Ok(())
}

/// Y = A·B over the last two axes: ∂A = g·Bᵀ, ∂B = Aᵀ·g, summed over batch axes that were repeated. Vectors count as one row or column.
fn matmul(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, w) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let (rank_x, rank_w) = (rank(&x)?, rank(&w)?);
    let row = if rank_x == 1 { a.b.unsqueeze(&x, &[0]) } else { x.clone() };
    let column = if rank_w == 1 { a.b.unsqueeze(&w, &[1]) } else { w.clone() };
    let rank_y = rank_x.max(2).max(rank_w.max(2));
    let g = match (rank_x, rank_w) {
        (1, 1) => a.b.unsqueeze(&g, &[0, 1]),
        (1, _) => a.b.unsqueeze(&g, &[rank_y - 2]),
        (_, 1) => a.b.unsqueeze(&g, &[rank_y - 1]),
        _ => g,
    };
    if a.wants(0) {
        let other = transposed(a.b, &column)?;
        let dx = a.b.matmul(&g, &other);
        let dx = sum_to(a.b, &dx, &row)?;
        let dx = reshape_like(a.b, &dx, &x);
        a.give(0, dx);
    }
    if a.wants(1) {
        let (g, row) = (a.b.widened(&g), a.b.widened(&row));
        // A weight that a whole batch shares: one product over all rows, and nothing to sum.
        let dw = if rank_w <= 2 && rank_x > 2 {
            let flat = |b: &mut Builder, t: &Tensor, r: usize| {
                let last: Extent = (t, r - 1).into();
                b.reshape(t, &[Extent::Fixed(-1), last])
            };
            let (rows, cotangents) = (flat(a.b, &row, rank_x), flat(a.b, &g, rank_y));
            gemm_of(a.b, (&rows, true), (&cotangents, false), 1.0)
        } else {
            let other = transposed(a.b, &row)?;
            let dw = a.b.matmul(&other, &g);
            sum_to(a.b, &dw, &column)?
        };
        let dw = reshape_like(a.b, &dw, &w);
        a.give(1, dw);
    }
    Ok(())
}
