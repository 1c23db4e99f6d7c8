//! Whether a float tensor of one element is a parameter or a number of a formula.
//!
//! A tensor of rank 0 is a number of a formula: exporters write ½, √2, ε and attention scales so, and the few models that learn one
//! are served by `--wrt`. One element of rank 1 or more is how Fixup's and other residual nets write a learned bias or multiplier, so
//! it is a parameter unless the graph around it says otherwise: it divides, its result goes straight into Sqrt, Erf or a Softmax (an
//! epsilon, √½, an attention scale), or it has one of the values of the activations' formulas beside an Erf, Tanh or Sigmoid. Values
//! 0 and 1 alone say nothing, because Fixup's parameters begin there.

use crate::graph::{Graph, NodeId, Slot, ValueId};

/// Numbers that the formulas of GELU, SELU, HardSwish, Mish and their kin hold.
const OF_FORMULAS: [f64; 16] = [
    0.5,
    2.0,
    3.0,
    6.0,
    -1.0,
    0.044_715,
    1.702,
    1.050_700_987_355_480_5,
    1.673_263_242_354_377_2,
    1.0 / 3.0,
    1.0 / 6.0,
    0.2,
    std::f64::consts::SQRT_2,
    std::f64::consts::FRAC_1_SQRT_2,
    0.797_884_560_802_865_4,   // √(2/π)
    0.035_677_408_136_300_125, // 0.044715·√(2/π)
];

/// How far the graph is searched around the operand.
const HOPS: usize = 3;

/// Whether the operand `value` of an arithmetic node is a number of a formula.
pub(super) fn is_of_formula(graph: &Graph<'_>, node: NodeId, slot: u32, value: Option<ValueId>) -> bool {
    if leads_to(
        graph,
        node,
        HOPS,
        &|op| matches!(op, "Sqrt" | "Erf" | "Reciprocal" | "Log" | "Floor" | "Round" | "Ceil" | "Sin" | "Cos"),
        1,
    ) || leads_to(graph, node, HOPS, &|op| matches!(op, "Softmax" | "LogSoftmax"), 2)
    {
        return true;
    }
    let Some(number) = value.and_then(|v| graph.initial_values(v, 1)).and_then(|v| v.first().copied()) else {
        return false;
    };
    let is_activation = |op: &str| matches!(op, "Erf" | "Tanh" | "Sigmoid" | "Exp" | "Softplus" | "Pow");
    let known = OF_FORMULAS.iter().any(|f| (f - number).abs() <= 1e-5 * f.abs());
    let other =
        (0..graph.inputs_of(node).len()).filter(|i| u32::try_from(*i) != Ok(slot)).find_map(|i| graph.input(node, i));
    let comes_from = |hops| other.is_some_and(|v| comes_from(graph, v, hops, &is_activation));
    // The 1 that is added to an Erf, a Tanh or an Exp.
    (number == 1.0 && graph.node(node).op_type() != "Mul" && comes_from(1))
        || (known && (comes_from(HOPS) || leads_to(graph, node, HOPS, &is_activation, HOPS)))
}

/// Whether a node's result reaches an operator within some nodes, over arithmetic and masking alone.
fn leads_to(graph: &Graph<'_>, node: NodeId, hops: usize, wanted: &dyn Fn(&str) -> bool, within: usize) -> bool {
    if within == 0 || hops == 0 {
        return false;
    }
    let Some(result) = graph.output(node, 0) else { return false };
    graph.uses(result).iter().take(4).any(|used| {
        let op = graph.node(used.node).op_type();
        matches!(used.slot, Slot::Input(_))
            && (wanted(op)
                || (matches!(op, "Add" | "Sub" | "Mul" | "Where" | "Cast" | "Reshape" | "Transpose" | "Concat")
                    && leads_to(graph, used.node, hops - 1, wanted, within - 1)))
    })
}

/// Whether a value was made by an operator within some nodes, over arithmetic alone.
fn comes_from(graph: &Graph<'_>, value: ValueId, hops: usize, wanted: &dyn Fn(&str) -> bool) -> bool {
    let Some((node, _)) = graph.producer(value).filter(|_| hops > 0) else { return false };
    let op = graph.node(node).op_type();
    wanted(op)
        || (matches!(op, "Add" | "Sub" | "Mul" | "Div" | "Cast")
            && graph.inputs_of(node).iter().take(4).flatten().any(|v| comes_from(graph, *v, hops - 1, wanted)))
}

/// Whether a node's result is the argument of a Sin or Cos: its operand holds frequencies.
pub(super) fn feeds_sines(graph: &Graph<'_>, node: NodeId) -> bool {
    leads_to(graph, node, HOPS, &|op| matches!(op, "Sin" | "Cos"), HOPS)
}
