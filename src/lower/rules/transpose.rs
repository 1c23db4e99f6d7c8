//! **What.** Transpose without `perm` gets the reversed order of axes, which it means, written out.
//!
//! **Why.** The gradient builder looks the attribute up and fails without it (`unordered_map::at`).
//!
//! **Equation.** perm = (r − 1, …, 1, 0).

use crate::graph::Attributes;
use crate::lower::registry::Rule;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Transpose"],
    because: "its gradient needs perm written out",
    applies: |site| site.on_path() && site.node.ints("perm").is_none(),
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let perm: Vec<usize> = (0..rank(&x)?).rev().collect();
    Ok(vec![b.transpose(&x, &perm).into()])
}
