//! **What.** A node whose operands are the same trained initializer, which nothing else reads.
//!
//! **Why.** The gradient builder gives both contributions to its gradient one name (`Duplicate definition of name`).
//!
//! **Equation.** The same operator on the initializer and a copy of it.

use crate::lower::registry::Rule;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Add", "Sub", "Mul", "Div", "MatMul", "Max", "Min"],
    because: "it reads a parameter twice, and both gradients would get one name",
    applies: |site| site.on_path() && site.node.input.len() == 2 && is_twice(site),
    rewrite,
}];

fn is_twice(site: &Site) -> bool {
    site.node.input[0] == site.node.input[1] && site.parameters().contains(&site.node.input[0])
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let copy = b.unary("Identity", &x);
    let inputs: [Option<Tensor>; 2] = [Some(x), Some(copy)];
    let made = b.node(site.node.op_type(), &inputs, site.node.attribute.clone(), &[site.output_type(0)]);
    Ok(made.into_iter().map(Made::from).collect())
}
