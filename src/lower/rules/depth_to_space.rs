//! **What.** DepthToSpace and SpaceToDepth.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** Both move elements. What one Transpose of six axes would do, two of four do several times faster: each moves one axis of
//! blocks past one of places, so that whole rows are copied.

use crate::graph::Attributes;
use crate::graph::types::Dim;
use crate::lower::registry::{Rule, on_path};
use crate::lower::rules::interleave::weave;
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Refusal, Site, extent, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["DepthToSpace", "SpaceToDepth"],
    because: "no gradient of it is registered",
    applies: on_path,
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    if rank(&x)? != 4 {
        return Err("its input is no [N, C, H, W]".into());
    }
    let block = site.int("blocksize", 0);
    if !(1..=1 << 12).contains(&block) {
        return Err(Refusal(format!("its blocksize is {block}")));
    }
    let channels = extent(size(&x, 1)?);
    let length = |axis: usize| x.ty.dims.as_ref().and_then(|d| d.get(axis)).and_then(Dim::known).map(extent);
    // An extent of the result, or what is left; two open ones cannot both be left.
    let scaled = |axis: usize, scale: &dyn Fn(i64) -> i64| length(axis).map(scale);
    let open = [2, 3].iter().filter(|axis| length(**axis).is_none()).count();
    if open > 1 {
        return Err("its height and width are both known only to the running graph".into());
    }
    let or_left = |n: Option<i64>| Extent::Fixed(n.unwrap_or(-1));
    let columns = length(3);
    if site.node.op_type() == "SpaceToDepth" && site.node.string("mode") == Some("CRD") {
        // [N, C, H, b, W, b] → [N, C, b, b, H, W]
        let (rows, columns) = (scaled(2, &|n| n / block), scaled(3, &|n| n / block));
        let places = [or_left(rows), block.into(), or_left(columns), block.into()];
        let apart = b.reshape(&x, &[0.into(), channels.into()].into_iter().chain(places).collect::<Vec<_>>());
        let moved = b.transpose(&apart, &[0, 1, 3, 5, 2, 4]);
        let shape = [0.into(), (channels * block * block).into(), or_left(rows), or_left(columns)];
        return Ok(vec![b.reshape(&moved, &shape).into()]);
    }
    if site.node.op_type() == "SpaceToDepth" {
        // [N, C·H, b, W·b] → [N, b, C·H·W, b] → [N, b, b, C·H·W]
        let rows = scaled(2, &|n| channels * n / block);
        let apart = b.reshape(&x, &[0.into(), or_left(rows), block.into(), or_left(columns)]);
        let moved = b.transpose(&apart, &[0, 2, 1, 3]);
        let apart = b.reshape(&moved, &[0.into(), block.into(), (-1).into(), block.into()]);
        let moved = b.transpose(&apart, &[0, 1, 3, 2]);
        let (rows, columns) = (scaled(2, &|n| n / block), scaled(3, &|n| n / block));
        let shape = [0.into(), (channels * block * block).into(), or_left(rows), or_left(columns)];
        return Ok(vec![b.reshape(&moved, &shape).into()]);
    }
    let depth = channels / (block * block);
    if site.node.string("mode") == Some("CRD") {
        return Ok(vec![weave(b, &x, &[block, block], depth).into()]);
    }
    // [N, b, b, C·H·W] → [N, b, C·H, W·b] → [N, C·H, b, W·b]
    let apart = b.reshape(&x, &[0.into(), block.into(), block.into(), (-1).into()]);
    let moved = b.transpose(&apart, &[0, 1, 3, 2]);
    let (rows, columns) = (scaled(2, &|n| depth * n), scaled(3, &|n| n * block));
    let apart = b.reshape(&moved, &[0.into(), block.into(), or_left(rows), or_left(columns)]);
    let moved = b.transpose(&apart, &[0, 2, 1, 3]);
    let rows = scaled(2, &|n| n * block);
    Ok(vec![b.reshape(&moved, &[0.into(), depth.into(), or_left(rows), or_left(columns)]).into()])
}
