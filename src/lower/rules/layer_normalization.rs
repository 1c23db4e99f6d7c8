//! **What.** LayerNormalization gets its outputs for mean and inverse standard deviation, and a bias of zeros where it has none.
//!
//! **Why.** The gradient reads the two statistics, and always writes a gradient of the bias.
//!
//! **Equation.** The same operator; nothing else reads the new outputs.

use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::Rule;
use crate::onnx::tensor_proto::DataType;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{self, Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["LayerNormalization"],
    because: "its gradient reads the outputs Mean and InvStdDev, and the bias",
    applies: |site| site.on_path() && (site.outputs() < 3 || site.input(2).is_none()),
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let statistics = match (&x.ty.dims, site::rank(&x)) {
        (Some(dims), Ok(rank)) => {
            let axis = site::axis(site.int("axis", -1), rank)?;
            let kept = dims.iter().take(axis).cloned();
            Some(kept.chain(std::iter::repeat_n(Dim::Known(1), rank - axis)).collect())
        }
        _ => None,
    };
    let stash = i32::try_from(site.int("stash_type", 1)).unwrap_or(DataType::Float as i32);
    let statistics = TensorType { elem: stash, dims: statistics };
    let mut inputs = vec![Some(x.clone()), Some(site.required(1)?), site.input(2)];
    if inputs[2].is_none() {
        let scale = site.required(1)?;
        inputs[2] = Some(b.times(&scale, 0.0));
    }
    let outputs = [site.output_type(0), statistics.clone(), statistics];
    let made = b.node("LayerNormalization", &inputs, site.node.attribute.clone(), &outputs);
    Ok(made.into_iter().map(Made::from).collect())
}
