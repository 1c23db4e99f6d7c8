//! **What.** MatMul with a vector.
//!
//! **Why.** The gradient multiplies as if both operands had two axes at least.
//!
//! **Equation.** A vector on the left is a row, one on the right a column: Unsqueeze, MatMul, Squeeze.

use crate::lower::registry::Rule;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["MatMul"],
    because: "its gradient wants matrices, not vectors",
    applies: |site| site.on_path() && (0..2).any(|slot| site.input(slot).is_some_and(|x| x.ty.rank() == Some(1))),
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (mut left, mut right) = (site.required(0)?, site.required(1)?);
    let (rank_left, rank_right) = (rank(&left)?, rank(&right)?);
    if rank_left == 1 {
        left = b.unsqueeze(&left, &[0]);
    }
    if rank_right == 1 {
        right = b.unsqueeze(&right, &[1]);
    }
    let product = b.matmul(&left, &right);
    let rank = rank_left.max(2).max(rank_right);
    let mut gone = Vec::new();
    if rank_left == 1 {
        gone.push(rank - 2);
    }
    if rank_right == 1 {
        gone.push(rank - 1);
    }
    Ok(vec![b.squeeze(&product, &gone).into()])
}
