//! **What.** Split of which an output leads nowhere.
//!
//! **Why.** The gradient concatenates what comes back and forgets what does not: the rest of the gradient lands in the wrong place.
//!
//! **Equation.** Output k is the slice from Σⱼ<ₖ nⱼ on, of length nₖ; the gradient of a slice is 0 elsewhere. Outputs that nobody reads
//! go, and those that lead nowhere are gathered: ONNX Runtime makes slices that tile an axis into a Split again.

use crate::lower::registry::Rule;
use crate::lower::rules::slice::aside;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{self, Known, Site, extent, rank, size, written_out};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Split"],
    because: "the gradient of an output that leads nowhere would be left out",
    applies: |site| site.on_path() && (0..site.node.output.len()).any(|slot| !site.gives_gradient(slot)),
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let axis = site::axis(site.int("axis", 0), rank(&x)?)?;
    let parts = extent(site.node.output.len() as u64);
    let lengths = match site.attribute_or_input("split", 1)? {
        Some(lengths) => lengths,
        None => {
            let length = extent(size(&x, axis)?);
            let each = (length + parts - 1) / parts.max(1);
            (0..parts).map(|k| each.min(length - k * each)).collect()
        }
    };
    let mut start = 0;
    let mut made = Vec::new();
    for (slot, length) in lengths.iter().enumerate().take(site.node.output.len()) {
        made.push(if site.gives_gradient(slot) {
            b.slice(&x, axis, start, start + length, 1).into()
        } else if site.is_read(slot) {
            written_out(*length)?;
            let positions: Vec<i64> = (start..start + length).collect();
            aside(b, &x, axis, &positions).into()
        } else {
            Made::nothing()
        });
        start += length;
    }
    Ok(made)
}
