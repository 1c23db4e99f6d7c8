//! **What.** CumSum, forward or reverse, exclusive or not.
//!
//! **Why.** No gradient of it is registered.
//!
//! **Equation.** A product with a triangle of ones along the axis: y = x·T with Tⱼᵢ = 1 for j ≤ i (j < i when exclusive; j ≥ i in reverse).
//! Where the length is open, T is made from it by comparing Range with itself.

use crate::graph::types::Dim;
use crate::lower::registry::{Rule, on_path};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{self, Known, Refusal, Site, rank};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["CumSum"], because: "no gradient of it is registered", applies: on_path, rewrite }];

/// Longest axis: its triangle has that squared elements.
const LONGEST: u64 = 4096;

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let rank = rank(&x)?;
    let axis =
        site.integers(1).and_then(|a| a.first().copied()).ok_or("its axis is known only to the running graph")?;
    let axis = site::axis(axis, rank)?;
    let length = x.ty.dims.as_ref().and_then(|d| d.get(axis)).and_then(Dim::known);
    if length.is_some_and(|n| n > LONGEST) {
        return Err(Refusal(format!("its axis is longer than {LONGEST}")));
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(axis, rank - 1);
    let moved = if rank == 1 { b.unsqueeze(&x, &[0]) } else { b.transpose(&x, &perm) };
    let triangle = triangle(site, b, &x, axis);
    let sums = b.matmul(&moved, &triangle);
    let made = if rank == 1 { b.squeeze(&sums, &[0]) } else { b.transpose(&sums, &perm) };
    Ok(vec![made.into()])
}

fn triangle(site: &Site, b: &mut Builder, x: &Tensor, axis: usize) -> Tensor {
    let shape = b.shape(&[crate::rewrite::builder::Extent::from((x, axis))]);
    let length = x.ty.dims.as_ref().and_then(|d| d.get(axis)).cloned().unwrap_or_default();
    let range = b.counted(&shape, length);
    let (rows, columns) = (b.unsqueeze(&range, &[1]), b.unsqueeze(&range, &[0]));
    let (first, second) = if site.int("reverse", 0) != 0 { (columns, rows) } else { (rows, columns) };
    // Before operator set 12 there is only the strict comparison.
    let holds = if site.int("exclusive", 0) != 0 {
        b.compare("Less", &first, &second)
    } else {
        let greater = b.compare("Greater", &first, &second);
        b.one("Not", &[&greater], Vec::new(), greater.ty.clone())
    };
    b.indicator(&holds, x)
}
