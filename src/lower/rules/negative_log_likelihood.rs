//! **What.** NegativeLogLikelihoodLoss, with weights, ignored classes and every reduction.
//!
//! **Why.** No gradient of it is registered.
//!
//! **Equation.** lᵢ = −wᵢ·x[i, tᵢ] by GatherElements along the classes, with wᵢ the weight of class tᵢ (1 without weights) and 0 where tᵢ is
//! ignored; the mean is Σlᵢ/Σwᵢ.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::{Rule, on_path};
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::int;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site, rank_from};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["NegativeLogLikelihoodLoss"],
    because: "no gradient of it is registered",
    applies: on_path,
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, target) = (site.required(0)?, site.required(1)?);
    rank_from(&x, 2)?;
    let target = b.cast(&target, DataType::Int64 as i32);
    let ignored = site.node.int("ignore_index");
    let mut safe = target.clone();
    let mut counted = None;
    if let Some(ignored) = ignored {
        let (ignored, zero) = (b.number(ignored as f64, &target), b.number(0.0, &target));
        let is_ignored = b.compare("Equal", &target, &ignored);
        safe = b.choose(&is_ignored, &zero, &target);
        safe.ty = target.ty.clone();
        let is_counted = b.one("Not", &[&is_ignored], Vec::new(), is_ignored.ty.clone());
        counted = Some(b.indicator(&is_counted, &x));
    }
    let weight = match site.input(2) {
        Some(weights) => {
            let of_class = b.one(
                "Gather",
                &[&weights, &safe],
                vec![int("axis", 0)],
                TensorType { elem: x.ty.elem, dims: target.ty.dims.clone() },
            );
            Some(match &counted {
                Some(counted) => b.binary("Mul", &of_class, counted),
                None => of_class,
            })
        }
        None => counted,
    };
    let index = b.unsqueeze(&safe, &[1]);
    let dims = x.ty.dims.clone().map(|mut dims| {
        dims[1] = Dim::Known(1);
        dims
    });
    let picked = b.one("GatherElements", &[&x, &index], vec![int("axis", 1)], TensorType { elem: x.ty.elem, dims });
    let mut picked = b.squeeze(&picked, &[1]);
    picked.ty.dims = target.ty.dims.clone().or(picked.ty.dims);
    let mut loss = b.unary("Neg", &picked);
    if let Some(weight) = &weight {
        loss = b.binary("Mul", &loss, weight);
    }
    let made = match (site.node.string("reduction").unwrap_or("mean"), weight) {
        ("none", _) => loss,
        ("sum", _) => b.reduce("ReduceSum", &loss, None, false),
        (_, None) => b.reduce("ReduceMean", &loss, None, false),
        (_, Some(weight)) => {
            let (sum, total) = (b.reduce("ReduceSum", &loss, None, false), b.reduce("ReduceSum", &weight, None, false));
            b.binary("Div", &sum, &total)
        }
    };
    Ok(vec![made.into()])
}
