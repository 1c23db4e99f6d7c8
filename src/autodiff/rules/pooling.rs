//! Pooling.
//!
//! MaxPool: the gradient goes to the place that the operator itself names in its second output, the first of equal ones. AveragePool:
//! every place of a window gets its share, which is a transposed convolution with ones.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::autodiff::rules::convolution::spread;
use crate::autodiff::shape::{reshape_like, shape_of, zeros_like};
use crate::graph::Attributes;
use crate::graph::types::TensorType;
use crate::lower::builder::Extent;
use crate::lower::rules::window::{Window, window_sum};
use crate::lower::site::{Known, Refusal, rank_from};
use crate::regularizer::emit::{Elem, Tensor, int, string};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["MaxPool"], adjoint: max }, Rule { ops: &["AveragePool"], adjoint: average }];

fn kernel(a: &Adjoint<'_, '_>) -> Known<Vec<u64>> {
    let given = a.site.node.ints("kernel_shape").ok_or("it has no kernel_shape")?;
    given.iter().map(|k| u64::try_from(*k).map_err(|_| Refusal(format!("its kernel has the length {k}")))).collect()
}

fn max(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    let window = Window::of(&a.site, &x, kernel(a)?)?;
    if a.site.int("storage_order", 0) != 0 {
        return Err(Refusal("it counts places by columns (storage_order 1)".into()));
    }
    let places = TensorType { elem: Elem::I64.onnx(), dims: g.ty.dims.clone() };
    let indices = a.y_of_type(1, places);
    let overlaps = (0..window.kernel.len()).any(|i| window.reach(i) >= window.strides[i]);
    if !overlaps {
        // No place is in two windows.
        let whole = shape_of(a.b, &x);
        let attributes = window.attributes().into_iter().filter(|p| p.name() != "dilations").collect();
        let dx = a.b.one("MaxUnpool", &[&g, &indices, &whole], attributes, x.ty.clone());
        a.give(0, dx);
        return Ok(());
    }
    if a.b.opset() < 16 {
        return Err(Refusal("its windows overlap, and adding up their gradients needs operator set 16 (ScatterElements with a reduction)".into()));
    }
    let flat = [Extent::Fixed(-1)];
    let g = a.b.widened(&g);
    let (indices, updates, zeros) = (a.b.reshape(&indices, &flat), a.b.reshape(&g, &flat), zeros_like(a.b, &x));
    let zeros = a.b.reshape(&zeros, &flat);
    let zeros = a.b.cast(&zeros, g.ty.elem);
    let ty = zeros.ty.clone();
    let attributes = vec![int("axis", 0), string("reduction", "add")];
    let sums = a.b.one("ScatterElements", &[&zeros, &indices, &updates], attributes, ty);
    let dx = reshape_like(a.b, &sums, &x);
    a.give(0, dx);
    Ok(())
}

fn average(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    let rank = rank_from(&x, 3)?;
    let window = Window::of(&a.site, &x, kernel(a)?)?;
    let counts_padding = a.site.int("count_include_pad", 0) != 0;
    if counts_padding && a.site.int("ceil_mode", 0) != 0 {
        return Err(Refusal("it counts padding and rounds up (count_include_pad with ceil_mode)".into()));
    }
    // Every channel as a sample of one channel.
    let apart = |t: &Tensor| -> Vec<Extent> {
        [Extent::Fixed(-1), Extent::Fixed(1)].into_iter().chain((2..rank).map(|i| (t, i).into())).collect()
    };
    let (cotangents, pictures) = (
        a.b.reshape(&g, &apart(&g)),
        Tensor {
            name: x.name.clone(),
            ty: TensorType {
                elem: x.ty.elem,
                dims: x.ty.dims.as_ref().map(|d| {
                    let places = d.get(2..).unwrap_or_default().iter().cloned();
                    [Default::default(), crate::graph::types::Dim::Known(1)].into_iter().chain(places).collect()
                }),
            },
        },
    );
    let share = if window.is_padded() && !counts_padding {
        // How many places of each window lie inside.
        let first = a.b.reshape(&x, &apart(&x));
        let one = a.b.slice(&first, 0, 0, 1, 1);
        let (zero, unit) = (a.b.times(&one, 0.0), 1.0);
        let ones = a.b.plus(&zero, unit);
        let counts = window_sum(a.b, &ones, &window);
        a.b.binary("Div", &cotangents, &counts)
    } else {
        a.b.divided(&cotangents, window.cells())
    };
    let share = Tensor { ty: cotangents.ty.clone(), ..share };
    let dims: Vec<u64> = [1, 1].into_iter().chain(window.kernel.iter().copied()).collect();
    let ones = a.b.ones(&x, &dims);
    let like = if places_are_known(&pictures) { pictures } else { a.b.reshape(&x, &apart(&x)) };
    let spread = spread(a.b, &share, &ones, &window, 1, &like);
    let dx = reshape_like(a.b, &spread, &x);
    a.give(0, dx);
    Ok(())
}

fn places_are_known(x: &Tensor) -> bool {
    x.ty.dims.as_ref().is_some_and(|d| d.iter().skip(2).all(|d| d.known().is_some()))
}
