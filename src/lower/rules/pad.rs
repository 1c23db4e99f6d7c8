//! **What.** Pad of other modes than constant, and Pad of some axes.
//!
//! **Why.** The gradient knows the constant mode alone, and takes the pads for those of all axes.
//!
//! **Equation.** reflect, edge and wrap repeat elements: Gather at the positions that they come from. Pads of some axes are 0 on the others.

use crate::graph::Attributes;
use crate::lower::registry::Rule;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{self, Known, Site, extent, rank, size, written_out};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Pad"],
        because: "its gradient knows the constant mode alone",
        applies: |site| site.on_path() && mode(site) != "constant",
        rewrite: repeating,
    },
    Rule {
        ops: &["Pad"],
        because: "its gradient wants the pads of all axes",
        applies: |site| site.on_path() && site.input(3).is_some(),
        rewrite: |site, b| {
            let x = site.required(0)?;
            let pads = pads(site, rank(&x)?)?;
            Ok(vec![b.pad(&x, &pads, site.input(2).as_ref()).into()])
        },
    },
];

fn mode<'a>(site: &Site<'a>) -> &'a str {
    site.node.string("mode").unwrap_or("constant")
}

/// The pads of all axes.
fn pads(site: &Site, rank: usize) -> Known<Vec<i64>> {
    let given = site.attribute_or_input("pads", 1)?.ok_or("it has no pads")?;
    let Some(axes) = site.attribute_or_input("axes", 3)? else { return Ok(given) };
    let mut pads = vec![0; 2 * rank];
    for (i, axis) in axes.iter().enumerate() {
        let axis = site::axis(*axis, rank)?;
        pads[axis] = given.get(i).copied().unwrap_or(0);
        pads[rank + axis] = given.get(axes.len() + i).copied().unwrap_or(0);
    }
    Ok(pads)
}

fn repeating(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let mut x = site.required(0)?;
    let rank = rank(&x)?;
    let pads = pads(site, rank)?;
    if pads.len() != 2 * rank {
        return Err("its pads do not fit its input".into());
    }
    for axis in 0..rank {
        let (begin, end) = (pads[axis], pads[rank + axis]);
        if begin == 0 && end == 0 {
            continue;
        }
        let n = extent(size(&x, axis)?);
        written_out(n + begin + end)?;
        if n == 0 {
            return Err("it repeats elements of an axis that has none".into());
        }
        let source = |i: i64| match mode(site) {
            "edge" => Ok(i.clamp(0, n - 1)),
            "wrap" => Ok(i.rem_euclid(n)),
            "reflect" if n == 1 => Ok(0),
            "reflect" => {
                let i = i.rem_euclid(2 * (n - 1));
                Ok(i.min(2 * (n - 1) - i))
            }
            other => Err(site::Refusal(format!("its mode {other:?} is unknown"))),
        };
        let positions = (-begin..n + end).map(source).collect::<Known<Vec<i64>>>()?;
        x = b.pick(&x, axis, &positions);
    }
    Ok(vec![x.into()])
}
