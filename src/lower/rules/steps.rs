//! **What.** Sign, Floor, Ceil, Round, and Mod of floating point.
//!
//! **Why.** No gradient of them is registered, not even that it is 0.
//!
//! **Equation.** The derivative of a step is 0 wherever it has one. The operator stays, and its result takes the way through int64 and
//! back, where the gradient builder stops; it is exact for |y| < 2⁶³. fmod(x, m) = x − q·m with the whole number
//! q = round((x − fmod(x, m))/m), found the same way, so that the derivatives are 1 and −q.

use crate::lower::registry::{Rule, on_path};
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Sign", "Floor", "Ceil", "Round"],
        because: "no gradient of it is registered; it is 0",
        applies: on_path,
        rewrite: |site, b| {
            let x = site.required(0)?;
            let step = b.unary(site.node.op_type(), &x);
            Ok(vec![constant(b, &step).into()])
        },
    },
    Rule { ops: &["Mod"], because: "no gradient of it is registered", applies: on_path, rewrite: modulo },
];

/// The same whole numbers, with no gradient.
fn constant(b: &mut Builder, whole: &Tensor) -> Tensor {
    let integer = b.cast(whole, DataType::Int64 as i32);
    b.cast(&integer, if whole.ty.elem == 0 { DataType::Float as i32 } else { whole.ty.elem })
}

fn modulo(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, m) = (site.required(0)?, site.required(1)?);
    let rest = b.again(site, &[site.output_type(0)]).swap_remove(0);
    let multiple = b.binary("Sub", &x, &rest);
    let ratio = b.binary("Div", &multiple, &m);
    let quotient = b.unary("Round", &ratio);
    let quotient = constant(b, &quotient);
    let product = b.binary("Mul", &quotient, &m);
    Ok(vec![b.binary("Sub", &x, &product).into()])
}
