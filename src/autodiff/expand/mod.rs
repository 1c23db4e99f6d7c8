//! Operators that are differentiated by spelling them out first, in operators that have rules, or that are faster so.
//!
//! Unlike [lowering](crate::lower), which writes what ONNX Runtime training knows, these are for the step graph alone. They read shapes that
//! are known before the graph runs where it says so.

mod attention;
pub mod elu;
mod grid_sample;
mod images;
mod pieces;
mod rotary;
mod sequences;

use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::Rule;
use crate::regularizer::emit::{Elem, Tensor};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::Site;

const RULES: &[&[Rule]] =
    &[attention::RULES, elu::RULES, grid_sample::RULES, images::RULES, pieces::RULES, rotary::RULES, sequences::RULES];

/// Every rule, one after another.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().copied().flatten()
}

/// The rule of a node's operator.
pub fn rule(site: &Site) -> Option<&'static Rule> {
    if !matches!(site.node.domain(), "" | "ai.onnx") {
        return None;
    }
    all().find(|rule| rule.ops.contains(&site.node.op_type()) && (rule.applies)(site))
}

/// An int64 tensor's type.
pub(super) fn whole(dims: Option<Vec<Dim>>) -> TensorType {
    TensorType { elem: Elem::I64.onnx(), dims }
}

/// 0, 1, 2 … below an extent: int64, one axis.
pub(super) fn range(b: &mut Builder, n: &Extent) -> Tensor {
    if let Extent::Fixed(n) = n {
        let all: Vec<i64> = (0..*n).collect();
        if all.len() <= 64 {
            return b.integers(&all);
        }
    }
    let length = b.shape(std::slice::from_ref(n));
    let dim = if let Extent::Fixed(n) = n { Dim::Known(n.unsigned_abs()) } else { Dim::Unknown };
    b.counted(&length, dim)
}
