//! **What.** InstanceNormalization, GroupNormalization, MeanVarianceNormalization, RMSNormalization, LpNormalization, LRN.
//!
//! **Why.** No gradient of them is registered (RMSNormalization is newer than ONNX Runtime 1.19.2).
//!
//! **Equation.** Instance and group: (x − E[x])/√(Var[x] + ε)·scale + bias over the places of a channel, or of a group of channels.
//! Mean-variance: (x − E[x])/(√Var[x] + 1e-9). RMS: x/√(E[x²] + ε)·scale. Lp: x/‖x‖ₚ, and 0 where the norm is 0, as ONNX Runtime has it.
//! LRN: x·(bias + (α/size)·Σ x²)^−β, the sum over `size` neighbouring channels.

use crate::graph::Attributes;
use crate::graph::types::Dim;
use crate::lower::registry::{Rule, on_path};
use crate::lower::rules::normalise::{by_channel, normalised, over};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{self, Known, Site, extent, rank, rank_from, size, written_out};
use crate::rewrite::window::{Window, window_sum};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["InstanceNormalization"], because: UNREGISTERED, applies: on_path, rewrite: instance },
    Rule { ops: &["GroupNormalization"], because: UNREGISTERED, applies: on_path, rewrite: group },
    Rule { ops: &["MeanVarianceNormalization"], because: UNREGISTERED, applies: on_path, rewrite: mean_variance },
    Rule { ops: &["LpNormalization"], because: UNREGISTERED, applies: on_path, rewrite: lp },
    Rule { ops: &["LRN"], because: UNREGISTERED, applies: on_path, rewrite: local_response },
    Rule {
        ops: &["RMSNormalization"],
        because: "ONNX Runtime 1.19.2 does not know it",
        applies: |_| true,
        rewrite: root_mean_square,
    },
];

const UNREGISTERED: &str = "no gradient of it is registered";

fn instance(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, scale, bias) = (site.required(0)?, site.required(1)?, site.required(2)?);
    let rank = rank_from(&x, 3)?;
    let normal = normalised(b, &x, 2, rank, site.float("epsilon", 1e-5));
    Ok(vec![by_channel(b, &normal, rank, &scale, &bias).into()])
}

fn group(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, scale, bias) = (site.required(0)?, site.required(1)?, site.required(2)?);
    let rank = rank_from(&x, 2)?;
    let groups = site.int("num_groups", 1);
    let rows = b.reshape(&x, &[0.into(), groups.into(), (-1).into()]);
    let normal = normalised(b, &rows, 2, 3, site.float("epsilon", 1e-5));
    let shape: Vec<Extent> = (0..rank).map(|i| if i == 0 { 0.into() } else { (&x, i).into() }).collect();
    // Until operator set 20 scale and bias are of the groups.
    if site.opset() < 21 {
        let scaled = by_channel(b, &normal, 3, &scale, &bias);
        return Ok(vec![b.reshape(&scaled, &shape).into()]);
    }
    let back = b.reshape(&normal, &shape);
    Ok(vec![by_channel(b, &back, rank, &scale, &bias).into()])
}

fn mean_variance(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let axes = site.node.ints("axes").map_or_else(|| vec![0, 2, 3], <[i64]>::to_vec);
    let rank = rank(&x)?;
    let axes = axes.iter().map(|a| site::axis(*a, rank).map(|a| a as i64)).collect::<Known<Vec<i64>>>()?;
    let made = over(b, &x, &axes, |b, variance| {
        let root = b.unary("Sqrt", variance);
        b.plus(&root, 1e-9)
    });
    Ok(vec![made.into()])
}

fn root_mean_square(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, scale) = (site.required(0)?, site.required(1)?);
    let rank = rank(&x)?;
    let first = site::axis(site.int("axis", -1), rank)?;
    let axes: Vec<i64> = (first..rank).map(|a| a as i64).collect();
    let square = b.binary("Mul", &x, &x);
    let mean = b.reduce("ReduceMean", &square, Some(&axes), true);
    let sum = b.plus(&mean, site.float("epsilon", 1e-5));
    let root = b.unary("Sqrt", &sum);
    let normal = b.binary("Div", &x, &root);
    Ok(vec![b.binary("Mul", &normal, &scale).into()])
}

fn lp(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let axis = [site::axis(site.int("axis", -1), rank(&x)?)? as i64];
    let norm = match site.int("p", 2) {
        1 => {
            let magnitude = b.unary("Abs", &x);
            b.reduce("ReduceSum", &magnitude, Some(&axis), true)
        }
        _ => b.reduce("ReduceL2", &x, Some(&axis), true),
    };
    let zero = b.number(0.0, &x);
    let is_zero = b.compare("Equal", &norm, &zero);
    let one_there = b.indicator(&is_zero, &x);
    let divisor = b.binary("Add", &norm, &one_there);
    Ok(vec![b.binary("Div", &x, &divisor).into()])
}

fn local_response(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let length = written_out(site.int("size", 1))?.max(1);
    let rank = rank_from(&x, 3)?;
    let channels = size(&x, 1)?;
    let square = b.binary("Mul", &x, &x);
    // Channels as rows of a picture, places as its columns.
    let picture = b.reshape(&square, &[0.into(), 1.into(), extent(channels).into(), (-1).into()]);
    let window = Window {
        kernel: vec![u64::try_from(length).unwrap_or(1), 1],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads: vec![(length - 1) / 2, 0, length / 2, 0],
    };
    let mut sum = window_sum(b, &picture, &window);
    if let (Some(dims), Some(places)) = (&mut sum.ty.dims, &picture.ty.dims) {
        dims[2] = Dim::Known(channels);
        dims[3] = places[3].clone();
    }
    let shape: Vec<Extent> = (0..rank).map(|i| if i == 0 { 0.into() } else { (&x, i).into() }).collect();
    let sum = b.reshape(&sum, &shape);
    let scaled = b.times(&sum, site.float("alpha", 1e-4) / length as f64);
    let base = b.plus(&scaled, site.float("bias", 1.0));
    let exponent = b.number(-site.float("beta", 0.75), &x);
    let factor = b.one("Pow", &[&base, &exponent], Vec::new(), base.ty.clone());
    Ok(vec![b.binary("Mul", &x, &factor).into()])
}
