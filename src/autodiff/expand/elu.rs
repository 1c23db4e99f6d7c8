//! Elu, although it has a rule of its own: ONNX Runtime's CPU takes ten times as long for it as for Exp.
//!
//! With e = exp(min(x, 0)) and α = 1, y = max(x, e − 1), because e − 1 ≥ x below 0 and e − 1 = 0 above; and y′ = e, which is then known
//! already (see [`composite`](crate::autodiff::composite)).

use crate::lower::registry::Rule;
use crate::regularizer::emit::Elem;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule { ops: &["Elu"], because: "its parts are faster", applies: is_faster, rewrite }];

/// Whether this form of Elu is better spelt out. Before operator set 12, Clip is not for all types.
pub fn is_faster(site: &Site) -> bool {
    let is_full = |elem: i32| elem == Elem::F32.onnx() || elem == Elem::F64.onnx();
    let is_elu = site.node.op_type() == "Elu" && matches!(site.node.domain(), "" | "ai.onnx");
    is_elu && site.opset() >= 12 && site.float("alpha", 1.0) == 1.0 && site.input(0).is_some_and(|x| is_full(x.ty.elem))
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let zero = b.number(0.0, &x);
    let below = b.node("Clip", &[Some(x.clone()), None, Some(zero)], Vec::new(), std::slice::from_ref(&x.ty)).remove(0);
    let slope = b.unary("Exp", &below);
    let one = b.number(1.0, &x);
    let bent = b.binary("Sub", &slope, &one);
    Ok(vec![b.binary("Max", &x, &bent).into()])
}
