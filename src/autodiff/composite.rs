//! Functions that several nodes compute and whose derivative is simpler than the sum of what each node would give.

use std::f64::consts::PI;

use crate::graph::{Graph, NodeId, ValueId};

/// A function of one operand that ends at a node, by values of the graph: ∂y/∂x is elementwise the `slope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Composite {
    /// x.
    pub operand: ValueId,
    /// dy/dx, which the forward pass computes anyway.
    pub slope: ValueId,
}

/// The composite that ends at a node.
pub fn ending_at(graph: &Graph<'_>, node: NodeId) -> Option<Composite> {
    let [a, b] = operands(graph, node)?;
    let find = match op(graph, node) {
        "Add" => rho,
        "Max" => elu,
        _ => return None,
    };
    find(graph, a, b).or_else(|| find(graph, b, a))
}

/// ρ(u) = u·erf(u) + exp(−u²)/√π, PER of one projection, with ρ′ = erf(u): what the factors of the first term and the second term add to
/// it, 2u·exp(−u²)/√π, cancels.
fn rho(graph: &Graph<'_>, a: ValueId, b: ValueId) -> Option<Composite> {
    linear_part(graph, a).filter(|c| is_bell(graph, b, c.operand))
}

/// Elu: max(x, e − 1), e = exp(min(x, 0)), with the derivative e on both sides of 0.
fn elu(graph: &Graph<'_>, x: ValueId, bent: ValueId) -> Option<Composite> {
    let [slope, one] = operands(graph, made_by(graph, bent, "Sub")?)?;
    let clip = made_by(graph, graph.input(made_by(graph, slope, "Exp")?, 0)?, "Clip")?;
    let is_it = graph.input(clip, 0) == Some(x)
        && graph.input(clip, 1).is_none()
        && graph.scalar(graph.input(clip, 2)?) == Some(0.0)
        && graph.scalar(one) == Some(1.0);
    is_it.then_some(Composite { operand: x, slope })
}

/// u·erf(u).
fn linear_part(graph: &Graph<'_>, value: ValueId) -> Option<Composite> {
    let product = made_by(graph, value, "Mul")?;
    let [a, b] = operands(graph, product)?;
    let erf_of = |slope: ValueId, operand: ValueId| {
        let erf = made_by(graph, slope, "Erf")?;
        (graph.input(erf, 0) == Some(operand)).then_some(Composite { operand, slope })
    };
    erf_of(a, b).or_else(|| erf_of(b, a))
}

/// exp(c − u²) with c = −½ ln π, to the rounding of a float32.
fn is_bell(graph: &Graph<'_>, value: ValueId, u: ValueId) -> bool {
    let found = || {
        let difference = made_by(graph, graph.input(made_by(graph, value, "Exp")?, 0)?, "Sub")?;
        let [c, square] = operands(graph, difference)?;
        let factors = operands(graph, made_by(graph, square, "Mul")?)?;
        Some(factors == [u, u] && (graph.scalar(c)? + PI.ln() / 2.0).abs() < 1e-7)
    };
    found().unwrap_or(false)
}

fn op<'m>(graph: &Graph<'m>, node: NodeId) -> &'m str {
    let node = graph.node(node);
    if matches!(node.domain(), "" | "ai.onnx") { node.op_type() } else { "" }
}

fn made_by(graph: &Graph<'_>, value: ValueId, expected: &str) -> Option<NodeId> {
    graph.made_by(value).filter(|node| op(graph, *node) == expected)
}

/// The operands of a node that has two.
fn operands(graph: &Graph<'_>, node: NodeId) -> Option<[ValueId; 2]> {
    if graph.input(node, 2).is_some() {
        return None;
    }
    Some([graph.input(node, 0)?, graph.input(node, 1)?])
}
