//! Gather and its kin: what was read goes back to where it was read from, and adds up where it was read more than once.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::expand::range;
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::{reshape_like, shape_of, zeros_like};
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Elem, Tensor, int, string};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::{Known, Refusal, axis, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["Gather"], adjoint: gather },
    Rule { ops: &["GatherElements"], adjoint: gather_elements },
    Rule { ops: &["GatherND"], adjoint: gather_nd },
    Rule { ops: &["ScatterElements", "Scatter"], adjoint: |a| scatter(a, "ScatterElements", "GatherElements") },
    Rule { ops: &["ScatterND"], adjoint: |a| scatter(a, "ScatterND", "GatherND") },
    // The values go back to where they stood.
    Rule {
        ops: &["TopK"],
        adjoint: |a| {
            let (g, x) = (a.g(0)?, a.x(0)?);
            let at = axis(a.site.int("axis", -1), rank(&x)?)?;
            let (indices, zeros) = (a.y(1), zeros_like(a.b, &x));
            let dx = a.b.scatter(&zeros, &indices, &g, at);
            a.give(0, dx);
            Ok(())
        },
    },
];

/// `zeros` with `updates` added at `indices` along an axis.
fn scatter_add(b: &mut Builder, zeros: &Tensor, indices: &Tensor, updates: &Tensor, axis: usize) -> Known<Tensor> {
    if b.opset() < 16 {
        return added_by_comparison(b, zeros, indices, updates, axis);
    }
    let attributes = vec![int("axis", axis as i64), string("reduction", "add")];
    Ok(b.one("ScatterElements", &[zeros, indices, updates], attributes, zeros.ty.clone()))
}

/// y = x[…, indices, …] along an axis.
fn gather(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, indices) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let (rank_x, rank_i) = (rank(&x)?, rank(&indices)?);
    let at = axis(a.site.int("axis", 0), rank_x)?;
    let length = x.ty.dims.as_ref().and_then(|d| d.get(at)).and_then(Dim::known);
    // A constant position is read once: zeros around it.
    let position = a.site.integers(1).and_then(|p| if let [p] = p[..] { Some(p) } else { None });
    if let (Some(length), Some(position)) = (length, position) {
        let length = i64::try_from(length).map_err(|_| Refusal("its axis is too long".into()))?;
        let position = if position < 0 { position + length } else { position };
        let g = if rank_i == 0 { a.b.unsqueeze(&g, &[at]) } else { g };
        // Of an index of several axes, all have extent 1.
        let g = if rank_i > 1 {
            let kept: Vec<Extent> =
                (0..rank_x).map(|i| if i == at { Extent::Fixed(1) } else { (&x, i).into() }).collect();
            a.b.reshape(&g, &kept)
        } else {
            g
        };
        let mut pads = vec![0; 2 * rank_x];
        (pads[at], pads[rank_x + at]) = (position, length - 1 - position);
        let dx = a.b.pad(&g, &pads, None);
        a.give(0, Tensor { ty: x.ty, ..dx });
        return Ok(());
    }
    let g = a.b.widened(&g);
    if a.b.opset() < 16 {
        return by_product(a, &g, &x, &indices, at);
    }
    // Indices in the shape of what was read, which is [before, index, after] with one index axis.
    let flat: Vec<Extent> = (0..rank_x).map(|i| if i == at { Extent::Fixed(-1) } else { (&x, i).into() }).collect();
    let rows = a.b.reshape(&g, &flat);
    let mut column = vec![Extent::Fixed(1); rank_x];
    column[at] = Extent::Fixed(-1);
    let indices = a.b.reshape(&indices, &column);
    let whole = shape_of(a.b, &rows);
    let ty = TensorType { elem: indices.ty.elem, dims: rows.ty.dims.clone() };
    let spread = a.b.one("Expand", &[&indices, &whole], Vec::new(), ty);
    let zeros = zeros_like(a.b, &x);
    let zeros = a.b.cast(&zeros, g.ty.elem);
    let dx = scatter_add(a.b, &zeros, &spread, &rows, at)?;
    a.give(0, dx);
    Ok(())
}

/// The same before operator set 16, where no operator adds up.
fn by_product(a: &mut Adjoint<'_, '_>, g: &Tensor, x: &Tensor, indices: &Tensor, at: usize) -> Known<()> {
    let (rank_x, rank_g) = (rank(x)?, rank(g)?);
    let all = positions(a.b, x, at);
    let flat = a.b.reshape(indices, &[Extent::Fixed(1), Extent::Fixed(-1)]);
    let found = from_front(a.b, &flat, x, at);
    // g as [in front of the axis, indices, behind it].
    let parts = [
        product(a.b, g, 0, at),
        Extents::Written(-1),
        product(a.b, g, (at + rank_g + 1).saturating_sub(rank_x), rank_g),
    ];
    let dx = summed(a.b, &all, &found, g, parts, x);
    a.give(0, dx);
    Ok(())
}

/// [positions = index]ᵀ·g, a product of matrices, in the shape of x. The `found` indices are a row, or one for each sample, and `parts` are
/// g's extents as samples, indices and the rest.
fn summed(b: &mut Builder, all: &Tensor, found: &Tensor, g: &Tensor, parts: [Extents; 3], x: &Tensor) -> Tensor {
    let column = b.unsqueeze(all, &[1]);
    let hits = b.compare("Equal", &column, found);
    let hits = b.indicator(&hits, g);
    let rows = joined(b, g, parts);
    let sums = b.matmul(&hits, &rows);
    reshape_like(b, &sums, x)
}

/// A tensor in three extents.
fn joined(b: &mut Builder, t: &Tensor, parts: [Extents; 3]) -> Tensor {
    let shape: Vec<Tensor> = parts
        .into_iter()
        .map(|e| match e {
            Extents::Written(n) => b.integers(&[n]),
            Extents::Computed(t) => t,
        })
        .collect();
    let shape = b.concat(&shape, 0);
    b.one("Reshape", &[t, &shape], Vec::new(), TensorType { elem: t.ty.elem, dims: Some(vec![Dim::Unknown; 3]) })
}

/// A product of extents.
enum Extents {
    Written(i64),
    Computed(Tensor),
}

/// The product of extents of some axes.
fn product(b: &mut Builder, x: &Tensor, from: usize, to: usize) -> Extents {
    let extents = x.ty.dims.iter().flatten().take(to).skip(from);
    let known = extents.map(|d| d.known().and_then(|n| i64::try_from(n).ok())).product::<Option<i64>>();
    // 0 would keep an extent.
    if let Some(known) = known.filter(|n| *n != 0) {
        return Extents::Written(known);
    }
    let whole = shape_of(b, x);
    let part = b.slice(&whole, 0, from as i64, to as i64, 1);
    Extents::Computed(b.reduce("ReduceProd", &part, Some(&[0]), true))
}

/// 0, 1 … up to the length of an axis.
fn positions(b: &mut Builder, x: &Tensor, at: usize) -> Tensor {
    let length = b.shape(&[(x, at).into()]);
    let count = x.ty.dims.as_ref().and_then(|d| d.get(at)).cloned().unwrap_or_default();
    b.counted(&length, count)
}

/// Positions along an axis, those from its end counted from the front.
fn from_front(b: &mut Builder, indices: &Tensor, x: &Tensor, at: usize) -> Tensor {
    let indices = b.cast(indices, Elem::I64.onnx());
    let zero = b.integers(&[0]);
    let is_negative = b.compare("Less", &indices, &zero);
    let length = b.shape(&[(x, at).into()]);
    let wrapped = b.binary("Add", &indices, &length);
    let dims = indices.ty.dims.clone();
    Tensor { ty: TensorType { elem: Elem::I64.onnx(), dims }, ..b.choose(&is_negative, &wrapped, &indices) }
}

/// As [`scatter_add`] before operator set 16: every update against every place of the axis.
fn added_by_comparison(
    b: &mut Builder,
    zeros: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
    at: usize,
) -> Known<Tensor> {
    let (rank, whole) = (rank(updates)?, zeros.ty.dims.clone().unwrap_or_default());
    let part = updates.ty.dims.clone().unwrap_or_default();
    let same = |(i, (a, b)): (usize, (&Dim, &Dim))| i == at || (a == b && *a != Dim::Unknown);
    if whole.len() != part.len() || !whole.iter().zip(&part).enumerate().all(same) {
        return Err(Refusal(
            "its indices may be fewer than the data along other axes, and adding up what was read more than once then needs operator set 16 (ScatterElements with a reduction), which --opset 16 raises the graph to".into(),
        ));
    }
    let all = positions(b, zeros, at);
    let behind: Vec<usize> = (1..rank - at).collect();
    let all = b.unsqueeze(&all, &behind);
    let found = from_front(b, indices, zeros, at);
    let (found, updates) = (b.unsqueeze(&found, &[at + 1]), b.unsqueeze(updates, &[at + 1]));
    let hits = b.compare("Equal", &found, &all);
    let hits = b.indicator(&hits, &updates);
    let each = b.binary("Mul", &hits, &updates);
    let sums = b.reduce("ReduceSum", &each, Some(&[at as i64]), false);
    Ok(Tensor { ty: zeros.ty.clone(), ..sums })
}

/// yᵢ = x[…, indexᵢ, …]: the elements go back.
fn gather_elements(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, indices) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let at = axis(a.site.int("axis", 0), rank(&x)?)?;
    let (zeros, g) = (zeros_like(a.b, &x), a.b.widened(&g));
    let zeros = a.b.cast(&zeros, g.ty.elem);
    let dx = scatter_add(a.b, &zeros, &indices, &g, at)?;
    a.give(0, dx);
    Ok(())
}

/// Slices of x by tuples of positions.
fn gather_nd(a: &mut Adjoint<'_, '_>) -> Known<()> {
    if a.b.opset() < 16 {
        return by_product_of_tuples(a);
    }
    let (mut g, x, mut indices) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let batch = usize::try_from(a.site.int("batch_dims", 0)).unwrap_or_default();
    g = a.b.widened(&g);
    let zeros = zeros_like(a.b, &x);
    let mut zeros = a.b.cast(&zeros, g.ty.elem);
    if batch > 0 {
        // Batch axes become one, whose position is one more number of each tuple.
        let joined = |b: &mut Builder, t: &Tensor| -> Known<Tensor> {
            let rest = (batch..rank(t)?).map(|i| Extent::from((t, i)));
            Ok(b.reshape(t, &[Extent::Fixed(-1)].into_iter().chain(rest).collect::<Vec<_>>()))
        };
        (g, zeros, indices) = (joined(a.b, &g)?, joined(a.b, &zeros)?, joined(a.b, &indices)?);
        let last = rank(&indices)? - 1;
        let samples = range(a.b, &(&indices, 0).into());
        let samples = a.b.unsqueeze(&samples, &(1..=last).collect::<Vec<_>>());
        let extents: Vec<Extent> =
            (0..=last).map(|i| if i == last { Extent::Fixed(1) } else { (&indices, i).into() }).collect();
        let shape = a.b.shape(&extents);
        let mut ty = indices.ty.clone();
        if let Some(dim) = ty.dims.as_mut().and_then(|d| d.last_mut()) {
            *dim = Dim::Known(1);
        }
        let samples = a.b.one("Expand", &[&samples, &shape], Vec::new(), ty);
        let samples = a.b.cast(&samples, indices.ty.elem);
        indices = a.b.concat(&[samples, indices], last);
    }
    let ty = zeros.ty.clone();
    let dx = a.b.one("ScatterND", &[&zeros, &indices, &g], vec![string("reduction", "add")], ty);
    let dx = reshape_like(a.b, &dx, &x);
    a.give(0, dx);
    Ok(())
}

/// The same before operator set 16, where no operator adds up: tuples become positions in the joined axes that they index.
fn by_product_of_tuples(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, indices) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let g = a.b.widened(&g);
    let batch = usize::try_from(a.site.int("batch_dims", 0)).unwrap_or_default();
    let (rank_x, last) = (rank(&x)?, rank(&indices)?.saturating_sub(1));
    let length = usize::try_from(size(&indices, last)?).unwrap_or_default();
    if length == 0 || batch + length > rank_x || batch > last {
        return Err(Refusal(format!("its tuples of {length} positions do not fit {:?}", x.name)));
    }
    let mut found: Option<Tensor> = None;
    for i in 0..length {
        let place = i64::try_from(i).unwrap_or_default();
        let part = a.b.slice(&indices, last, place, place + 1, 1);
        let part = from_front(a.b, &part, &x, batch + i);
        found = Some(match found {
            None => part,
            Some(before) => {
                let extent = a.b.shape(&[(&x, batch + i).into()]);
                let scaled = a.b.binary("Mul", &before, &extent);
                a.b.binary("Add", &scaled, &part)
            }
        });
    }
    let found = found.ok_or_else(|| Refusal("its tuples hold no positions".into()))?;
    let samples = [product(a.b, &indices, 0, batch), Extents::Written(1), Extents::Written(-1)];
    let found = joined(a.b, &found, samples);
    let all = match product(a.b, &x, batch, batch + length) {
        Extents::Written(n) => range(a.b, &Extent::Fixed(n)),
        Extents::Computed(n) => a.b.counted(&n, Dim::Unknown),
    };
    let parts = [product(a.b, &g, 0, batch), Extents::Written(-1), product(a.b, &x, batch + length, rank_x)];
    let dx = summed(a.b, &all, &found, &g, parts, &x);
    a.give(0, dx);
    Ok(())
}

/// y is x with updates written, or combined with what stands there, at positions. Where
///
/// - they are written or added: ∂u is what stands there in g, and ∂x is g, with zeros there where they were written;
/// - the largest (or smallest) stays: g goes to those of x and u that are y, in equal shares;
/// - they are multiplied: g times the product of the others.
fn scatter(a: &mut Adjoint<'_, '_>, write: &str, read: &str) -> Known<()> {
    let reduction = a.site.node.string("reduction").unwrap_or("none").to_owned();
    let (g, x, indices, updates) = (a.g(0)?, a.x(0)?, a.x(1)?, a.x(2)?);
    let along = if write == "ScatterND" { Vec::new() } else { vec![int("axis", a.site.int("axis", 0))] };
    let put = |b: &mut Builder, into: &Tensor, what: &Tensor, reduction: Option<&str>| {
        let mut attributes = along.clone();
        attributes.extend(reduction.map(|r| string("reduction", r)));
        b.one(write, &[into, &indices, what], attributes, into.ty.clone())
    };
    let get = |b: &mut Builder, from: &Tensor| {
        let ty = TensorType { elem: from.ty.elem, dims: updates.ty.dims.clone() };
        b.one(read, &[from, &indices], along.clone(), ty)
    };
    let (dx, du) = match reduction.as_str() {
        "none" => {
            let zeros = zeros_like(a.b, &updates);
            (put(a.b, &g, &zeros, None), get(a.b, &g))
        }
        "add" => (g.clone(), get(a.b, &g)),
        "max" | "min" => {
            let y = a.y(0);
            let there = get(a.b, &y);
            let [of_x, of_u] = [(&x, &y), (&updates, &there)].map(|(t, y)| {
                let is_it = a.b.compare("Equal", t, y);
                a.b.indicator(&is_it, t)
            });
            let count = put(a.b, &of_x, &of_u, Some("add"));
            let share = a.b.binary("Div", &g, &count);
            let shared = get(a.b, &share);
            (a.b.binary("Mul", &share, &of_x), a.b.binary("Mul", &shared, &of_u))
        }
        "mul" => {
            let (zero, one) = (a.b.number(0.0, &x), a.b.number(1.0, &x));
            // The product of all factors that are not 0, and how many are.
            let [(nulls_x, rest_x), (nulls_u, rest_u)] = [&x, &updates].map(|t| {
                let is_null = a.b.compare("Equal", t, &zero);
                (a.b.indicator(&is_null, t), a.b.choose(&is_null, &one, t))
            });
            let product = put(a.b, &rest_x, &rest_u, Some("mul"));
            let nulls = put(a.b, &nulls_x, &nulls_u, Some("add"));
            let weighed = a.b.binary("Mul", &g, &product);
            let (weighed_u, nulls_at_u) = (get(a.b, &weighed), get(a.b, &nulls));
            let mut others = |weighed: &Tensor, own: &Tensor, all: &Tensor, rest: &Tensor| {
                let others = a.b.binary("Sub", all, own);
                let is_null = a.b.compare("Greater", &others, &zero);
                let share = a.b.binary("Div", weighed, rest);
                let made = a.b.choose(&is_null, &zero, &share);
                Tensor { ty: rest.ty.clone(), ..made }
            };
            (others(&weighed, &nulls_x, &nulls, &rest_x), others(&weighed_u, &nulls_u, &nulls_at_u, &rest_u))
        }
        other => return Err(Refusal(format!("its reduction {other:?} is unknown"))),
    };
    if a.wants(0) {
        a.give(0, Tensor { ty: x.ty, ..dx });
    }
    if a.wants(2) {
        a.give(2, Tensor { ty: updates.ty.clone(), ..du });
    }
    Ok(())
}
