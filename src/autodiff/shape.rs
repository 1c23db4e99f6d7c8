//! Shapes on the way back: undoing broadcasts, and giving a gradient the shape of its value.

use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Elem, Tensor, int};
use crate::rewrite::builder::{Builder, Extent, is_half};
use crate::rewrite::site::{Known, Refusal};

/// Whether two tensors are known to have the same shape.
pub fn same_dims(a: &Tensor, b: &Tensor) -> bool {
    a.name == b.name || matches!((&a.ty.dims, &b.ty.dims), (Some(a), Some(b)) if a == b && !a.contains(&Dim::Unknown))
}

/// The shape of `like`, where it can be written down, as Reshape reads it: with at most one open dimension.
fn written(like: &Tensor) -> Option<Vec<i64>> {
    let dims = like.ty.dims.as_ref()?;
    let open = dims.iter().filter(|d| d.known().is_none()).count();
    let write = |d: &Dim| d.known().map_or(Some(-1), |n| i64::try_from(n).ok());
    // 0 would keep a dimension.
    let shape: Vec<i64> = dims.iter().map(write).collect::<Option<_>>()?;
    (open <= 1 && !shape.contains(&0)).then_some(shape)
}

/// `g` in the shape of `like`, which has as many elements.
pub fn reshape_like(b: &mut Builder, g: &Tensor, like: &Tensor) -> Tensor {
    if same_dims(g, like) {
        return g.clone();
    }
    let shape = match written(like) {
        Some(shape) => b.integers(&shape),
        None => shape_of(b, like),
    };
    b.one("Reshape", &[g, &shape], Vec::new(), TensorType { elem: g.ty.elem, dims: like.ty.dims.clone() })
}

/// The shape of a tensor, in the running graph.
pub fn shape_of(b: &mut Builder, x: &Tensor) -> Tensor {
    let rank = x.ty.rank().map_or(Dim::Unknown, |r| Dim::Known(r as u64));
    b.one("Shape", &[x], Vec::new(), TensorType { elem: Elem::I64.onnx(), dims: Some(vec![rank]) })
}

/// Zeros of a tensor's shape and type.
pub fn zeros_like(b: &mut Builder, x: &Tensor) -> Tensor {
    let shape = shape_of(b, x);
    b.zeros_of(&shape, x.ty.clone())
}

/// The gradient `g` of what `x` was broadcast to, summed over what was repeated.
pub fn sum_to(b: &mut Builder, g: &Tensor, x: &Tensor) -> Known<Tensor> {
    let (Some(from), Some(to)) = (&g.ty.dims, &x.ty.dims) else { return sum_at_run_time(b, g, x) };
    let Some(lead) = from.len().checked_sub(to.len()) else {
        return Err(Refusal(format!("{:?} has a higher rank than what it is broadcast to", x.name)));
    };
    let one = Dim::Known(1);
    let mut axes: Vec<i64> = (0..lead as i64).collect();
    for (i, dim) in to.iter().enumerate() {
        let whole = &from[lead + i];
        if *dim == one && *whole != one {
            axes.push((lead + i) as i64);
        } else if dim.known().is_none() && (*dim == Dim::Unknown || dim != whole) {
            // It may be 1 or not.
            return sum_at_run_time(b, g, x);
        }
    }
    if axes.is_empty() {
        return Ok(g.clone());
    }
    let g = &b.widened(g);
    let summed = b.reduce("ReduceSum", g, Some(&axes), false);
    if axes.len() == lead { Ok(in_shape_of(summed, x)) } else { Ok(reshape_like(b, &summed, x)) }
}

/// The same where only the running graph knows what was repeated: x's shape is filled up with ones in front, and every axis where it is 1
/// is summed over (one where both are 1 loses nothing).
fn sum_at_run_time(b: &mut Builder, g: &Tensor, x: &Tensor) -> Known<Tensor> {
    let g = &b.widened(g);
    if b.opset() < 13 {
        return sum_by_reshape(b, g, x);
    }
    let ints = |dims| TensorType { elem: Elem::I64.onnx(), dims: Some(vec![dims]) };
    let (whole, own) = (shape_of(b, g), shape_of(b, x));
    let (whole_rank, own_rank) = (shape_of(b, &whole), shape_of(b, &own));
    let lead = b.one("Sub", &[&whole_rank, &own_rank], Vec::new(), ints(Dim::Known(1)));
    let one = b.integers(&[1]);
    let ones = b.one("Expand", &[&one, &lead], Vec::new(), ints(Dim::Unknown));
    let filled = b.one("Concat", &[&ones, &own], vec![int("axis", 0)], ints(Dim::Unknown));
    let is_one = b.compare("Equal", &filled, &one);
    let found = b.one(
        "NonZero",
        &[&is_one],
        Vec::new(),
        TensorType { elem: Elem::I64.onnx(), dims: Some(vec![Dim::Known(1), Dim::Unknown]) },
    );
    let flat = b.integers(&[-1]);
    let axes = b.one("Reshape", &[&found, &flat], Vec::new(), ints(Dim::Unknown));
    let attributes = vec![int("keepdims", 1), int("noop_with_empty_axes", 1)];
    let summed = b.one("ReduceSum", &[g, &axes], attributes, TensorType { elem: g.ty.elem, dims: None });
    Ok(b.one("Reshape", &[&summed, &own], Vec::new(), TensorType { elem: g.ty.elem, dims: x.ty.dims.clone() }))
}

/// The same before operator set 13, where ReduceSum has axes of the file: each axis of g becomes two, how often x is repeated along it and
/// x's own extent, and every first one of them is summed over.
fn sum_by_reshape(b: &mut Builder, g: &Tensor, x: &Tensor) -> Known<Tensor> {
    let (Some(from), Some(to)) = (g.ty.rank(), x.ty.rank()) else {
        let name = &x.name;
        return Err(Refusal(format!(
            "whether {name:?} is broadcast is known only to the running graph, as its rank is, and ReduceSum has axes known there from operator set 13 on, which --opset 13 raises the graph to"
        )));
    };
    let Some(lead) = from.checked_sub(to) else {
        return Err(Refusal(format!("{:?} has a higher rank than what it is broadcast to", x.name)));
    };
    let axes = |n: usize, step: usize| -> Vec<i64> { (0..n as i64).map(|i| i * step as i64).collect() };
    let g = if lead == 0 { g.clone() } else { b.reduce("ReduceSum", g, Some(&axes(lead, 1)), false) };
    if to == 0 {
        return Ok(in_shape_of(g, x));
    }
    let (whole, own) = (shape_of(b, &g), shape_of(b, x));
    let one = b.integers(&[1]);
    let is_one = b.compare("Equal", &own, &one);
    let times = b.choose(&is_one, &whole, &one);
    let pairs = [b.unsqueeze(&times, &[1]), b.unsqueeze(&own, &[1])];
    let pairs = b.concat(&pairs, 1);
    let shape = b.reshape(&pairs, &[Extent::Fixed(-1)]);
    // 0 would keep an extent of another axis; where there is nothing, −1 comes to it too.
    let [zero, rest] = [0, -1].map(|n| b.integers(&[n]));
    let is_empty = b.compare("Equal", &shape, &zero);
    let shape = b.choose(&is_empty, &rest, &shape);
    let split = TensorType { elem: g.ty.elem, dims: Some(vec![Dim::Unknown; 2 * to]) };
    let split = b.one("Reshape", &[&g, &shape], Vec::new(), split);
    let summed = b.reduce("ReduceSum", &split, Some(&axes(to, 2)), false);
    Ok(in_shape_of(summed, x))
}

/// `t`, which is known to have the shape of `like`; its element type is its own.
pub fn in_shape_of(t: Tensor, like: &Tensor) -> Tensor {
    Tensor { ty: TensorType { elem: t.ty.elem, dims: like.ty.dims.clone() }, ..t }
}

/// The number of elements of x for each of y, as a tensor of one element of x's type, or of float32 where that counts no further than a
/// few thousand.
pub fn elements_per(b: &mut Builder, x: &Tensor, y: &Tensor) -> Tensor {
    let scalar = TensorType { elem: Elem::I64.onnx(), dims: Some(Vec::new()) };
    let (all, kept) = (b.one("Size", &[x], Vec::new(), scalar.clone()), b.one("Size", &[y], Vec::new(), scalar));
    let n = b.binary("Div", &all, &kept);
    b.cast(&n, if is_half(x.ty.elem) { Elem::F32.onnx() } else { x.ty.elem })
}
