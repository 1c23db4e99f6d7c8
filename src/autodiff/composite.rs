//! Functions that several nodes compute and whose derivative is simpler than the sum of what each node would give.

use std::f64::consts::PI;

use crate::analysis::Analysis;
use crate::graph::{Graph, NodeId, ValueId};
use crate::regularizer::emit::Tensor;
use crate::regularizer::fit::slope_coefficients;
use crate::rewrite::builder::Builder;
use crate::rewrite::path::Path;

/// A function of one operand that ends at a node, by values of the graph: ∂y/∂x is elementwise the `slope`.
#[derive(Debug, Clone, PartialEq)]
pub struct Composite {
    /// x.
    pub operand: ValueId,
    /// dy/dx.
    slope: Slope,
}

/// A derivative.
#[derive(Debug, Clone, PartialEq)]
enum Slope {
    /// The forward pass computes it anyway.
    Value(ValueId),
    /// A polynomial at `x`, the coefficient of 1 first, over `root`.
    Ratio { coefficients: Vec<f64>, x: ValueId, root: ValueId },
}

impl Composite {
    /// dy/dx, in the shape of x.
    pub fn slope(&self, analysis: &Analysis, b: &mut Builder) -> Tensor {
        let tensor = |v: ValueId| Tensor { name: analysis.graph.name(v).to_owned(), ty: analysis.types.get(v).clone() };
        match &self.slope {
            Slope::Value(slope) => tensor(*slope),
            Slope::Ratio { coefficients, x, root } => {
                let x = tensor(*x);
                let mut highest_first = coefficients.iter().rev();
                let mut p = b.number(highest_first.next().copied().unwrap_or_default(), &x);
                for c in highest_first {
                    p = b.binary("Mul", &p, &x);
                    p = b.plus(&p, *c);
                }
                b.binary("Div", &p, &tensor(*root))
            }
        }
    }
}

/// The composite that ends at a node of the path.
pub fn ending_at(analysis: &Analysis, path: &Path, node: NodeId) -> Option<Composite> {
    let graph = &analysis.graph;
    let finder = Finder { graph, path };
    let [a, b] = finder.operands(node)?;
    let find = match finder.op(node) {
        "Add" => Finder::rho,
        "Max" => Finder::elu,
        "Mul" => Finder::closed_form,
        _ => return None,
    };
    let found = find(&finder, a, b).or_else(|| find(&finder, b, a))?;
    // A constant of one element may have axes, and more of them than the operand: then the result has them too.
    let rank = |value: ValueId| analysis.types.get(value).rank();
    let is_elementwise = rank(found.operand).is_some() && rank(found.operand) == rank(graph.output(node, 0)?);
    (is_elementwise && path.needs_gradient(found.operand)).then_some(found)
}

/// Looks at the nodes before a node.
#[derive(Clone, Copy)]
struct Finder<'a, 'm> {
    graph: &'a Graph<'m>,
    path: &'a Path,
}

impl<'m> Finder<'_, 'm> {
    /// ρ(u) = u·erf(u) + exp(−u²)/√π, PER of one projection, with ρ′ = erf(u): what the factors of the first term and the second term add
    /// to it, 2u·exp(−u²)/√π, cancels.
    fn rho(&self, a: ValueId, b: ValueId) -> Option<Composite> {
        self.linear_part(a).filter(|c| self.is_bell(b, c.operand))
    }

    /// Elu: max(x, e − 1), e = exp(min(x, 0)), with the derivative e on both sides of 0.
    fn elu(&self, x: ValueId, bent: ValueId) -> Option<Composite> {
        let [slope, one] = self.operands_of(bent, "Sub")?;
        let clip = self.made_by(self.graph.input(self.made_by(slope, "Exp")?, 0)?, "Clip")?;
        let is_it = self.graph.input(clip, 0) == Some(x)
            && self.graph.input(clip, 1).is_none()
            && self.number(self.graph.input(clip, 2)?) == Some(0.0)
            && self.number(one) == Some(1.0);
        is_it.then_some(Composite { operand: x, slope: Slope::Value(slope) })
    }

    /// √s·P(x) with s = c·n + 1 and x = 1 − 2/s: exact PER of rows by their n = ‖h‖² (see [`fit`](crate::regularizer::fit)). Its
    /// derivative is c·K(x)/(2√s), with a polynomial K of P's degree, where each of these operators would add one of its own or two.
    fn closed_form(&self, root: ValueId, p: ValueId) -> Option<Composite> {
        let s = self.graph.input(self.made_by(root, "Sqrt")?, 0)?;
        let [scaled, one] = self.operands_of(s, "Add")?;
        let [operand, scale] = self.operands_of(scaled, "Mul")?;
        let [highest, _] = self.operands_of(p, "Add")?;
        let [_, x] = self.operands_of(highest, "Mul")?;
        let [unit, v] = self.operands_of(x, "Sub")?;
        let [two, of] = self.operands_of(v, "Div")?;
        let is_one = |v: ValueId| self.number(v) == Some(1.0);
        let is_it = of == s && is_one(one) && is_one(unit) && self.number(two) == Some(2.0);
        let c = self.number(scale).filter(|_| is_it)?;
        let polynomial = slope_coefficients(&self.horner(p, x)?);
        let coefficients = polynomial.into_iter().map(|k| k * c / 2.0).collect();
        Some(Composite { operand, slope: Slope::Ratio { coefficients, x, root } })
    }

    /// The coefficients of a polynomial at `x` that Horner's rule evaluates, that of 1 first.
    fn horner(&self, mut p: ValueId, x: ValueId) -> Option<Vec<f64>> {
        let mut coefficients = Vec::new();
        loop {
            if let Some(leading) = self.number(p) {
                coefficients.push(leading);
                return Some(coefficients);
            }
            let [product, c] = self.operands_of(p, "Add")?;
            coefficients.push(self.number(c)?);
            let [next, by] = self.operands_of(product, "Mul")?;
            p = (by == x).then_some(next)?;
        }
    }

    /// u·erf(u).
    fn linear_part(&self, value: ValueId) -> Option<Composite> {
        let [a, b] = self.operands_of(value, "Mul")?;
        let erf_of = |slope: ValueId, operand: ValueId| {
            let erf = self.made_by(slope, "Erf")?;
            let is_it = self.graph.input(erf, 0) == Some(operand);
            is_it.then_some(Composite { operand, slope: Slope::Value(slope) })
        };
        erf_of(a, b).or_else(|| erf_of(b, a))
    }

    /// exp(c − u²) with c = −½ ln π, to the rounding of a float32.
    fn is_bell(&self, value: ValueId, u: ValueId) -> bool {
        let found = || {
            let [c, square] = self.operands_of(self.graph.input(self.made_by(value, "Exp")?, 0)?, "Sub")?;
            let factors = self.operands_of(square, "Mul")?;
            Some(factors == [u, u] && (self.number(c)? + PI.ln() / 2.0).abs() < 1e-7)
        };
        found().unwrap_or(false)
    }

    /// A constant of one element that is not trained.
    fn number(&self, value: ValueId) -> Option<f64> {
        self.graph.scalar(value).filter(|_| !self.path.needs_gradient(value))
    }

    fn op(&self, node: NodeId) -> &'m str {
        let node = self.graph.node(node);
        if matches!(node.domain(), "" | "ai.onnx") { node.op_type() } else { "" }
    }

    fn made_by(&self, value: ValueId, expected: &str) -> Option<NodeId> {
        self.graph.made_by(value).filter(|node| self.op(*node) == expected)
    }

    /// The operands of a node that has two.
    fn operands(&self, node: NodeId) -> Option<[ValueId; 2]> {
        if self.graph.input(node, 2).is_some() {
            return None;
        }
        Some([self.graph.input(node, 0)?, self.graph.input(node, 1)?])
    }

    /// The two operands of the `expected` node that makes a value.
    fn operands_of(&self, value: ValueId, expected: &str) -> Option<[ValueId; 2]> {
        self.operands(self.made_by(value, expected)?)
    }
}
