//! Arithmetic nodes as polynomials: what several nodes compute, whatever their order.
//!
//! x·0.5·(1+t), (0.5·x)·(t+1) and 0.5·x + x·t·0.5 are one polynomial in x and t, and one pattern finds them all.

use super::op::Op;
use super::{Match, View};
use crate::graph::{NodeId, ValueId};
use crate::select::Activation;

/// Highest power of x.
const X: usize = 4;
/// Highest power of t, plus one.
const T: usize = 2;

/// A term of a formula: power of x, power of t, coefficient.
pub type Term = (usize, usize, f64);

/// Coefficients by power of x (up to 3) and of t (up to 1).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Polynomial([[f64; T]; X]);

impl Polynomial {
    fn term(x: usize, t: usize, coefficient: f64) -> Self {
        let mut p = Polynomial::default();
        p.0[x][t] = coefficient;
        p
    }

    /// The coefficient of xⁱtʲ.
    pub fn at(&self, x: usize, t: usize) -> f64 {
        self.0[x][t]
    }

    /// The value, when it is a constant.
    pub fn constant(&self) -> Option<f64> {
        (*self == Self::term(0, 0, self.at(0, 0))).then_some(self.at(0, 0))
    }

    fn plus(&self, other: &Self, sign: f64) -> Self {
        let mut sum = *self;
        for (row, others) in sum.0.iter_mut().zip(&other.0) {
            for (c, o) in row.iter_mut().zip(others) {
                *c += sign * o;
            }
        }
        sum
    }

    fn times(&self, other: &Self) -> Option<Self> {
        let mut product = Polynomial::default();
        for (i, j, a) in self.terms() {
            for (k, l, b) in other.terms() {
                *product.0.get_mut(i + k)?.get_mut(j + l)? += a * b;
            }
        }
        Some(product)
    }

    fn terms(&self) -> impl Iterator<Item = Term> + '_ {
        let row = |(i, row): (usize, &[f64; T])| (0..T).map(move |j| (i, j)).zip(*row);
        self.0.iter().enumerate().flat_map(row).filter(|(_, c)| *c != 0.0).map(|((i, j), c)| (i, j, c))
    }

    /// Whether it has these terms and no other, to a relative tolerance.
    pub fn is(&self, formula: &[Term], tolerance: f64) -> bool {
        let wanted = |i, j| formula.iter().find(|t| (t.0, t.1) == (i, j)).map_or(0.0, |t| t.2);
        (0..X).all(|i| (0..T).all(|j| near(self.0[i][j], wanted(i, j), tolerance)))
    }
}

/// How near misses print it.
impl std::fmt::Display for Polynomial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (k, (i, j, c)) in self.terms().enumerate() {
            let power = ["", "·x", "·x²", "·x³"].get(i).copied().unwrap_or("·…");
            let sign = if k > 0 { " + " } else { "" };
            write!(f, "{sign}{c:.6}{power}{}", if j == 1 { "·t" } else { "" })?;
        }
        Ok(())
    }
}

/// Whether two numbers agree to a relative tolerance; 0 is met by 0 alone, up to the rounding of sums.
pub fn near(value: f64, wanted: f64, tolerance: f64) -> bool {
    (value - wanted).abs() <= tolerance * wanted.abs() + 1e-12
}

/// What stands for x and for t.
#[derive(Debug, Clone, Copy)]
pub struct Atoms {
    /// The activation's input.
    pub x: Option<ValueId>,
    /// The transcendental part: erf(…), σ(…), e^….
    pub t: Option<ValueId>,
}

impl Atoms {
    /// x alone.
    pub fn x(x: ValueId) -> Self {
        Atoms { x: Some(x), t: None }
    }

    /// t alone.
    pub fn t(t: ValueId) -> Self {
        Atoms { x: None, t: Some(t) }
    }
}

/// What was looked at on the way to a match.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The nodes.
    pub members: Vec<NodeId>,
    /// The loosest tolerance of a constant.
    pub tolerance: f64,
    /// The highest rank of a constant.
    rank: usize,
    /// How many more nodes may be looked at: what keeps the search linear.
    budget: u32,
}

impl Evidence {
    pub fn new() -> Self {
        Evidence { members: Vec::new(), tolerance: 1e-5, rank: 0, budget: 24 }
    }
}

impl View<'_, '_> {
    /// A value as a polynomial in the atoms; `None` when it is none or too far away.
    pub fn expand(&self, value: ValueId, atoms: Atoms, evidence: &mut Evidence) -> Option<Polynomial> {
        if atoms.x == Some(value) {
            return Some(Polynomial::term(1, 0, 1.0));
        }
        if atoms.t == Some(value) {
            return Some(Polynomial::term(0, 1, 1.0));
        }
        let Some((node, op)) = self.maker(value).filter(|(_, op)| is_arithmetic(*op)) else {
            let constant = self.constant(value, evidence)?;
            return Some(Polynomial::term(0, 0, constant));
        };
        evidence.budget = evidence.budget.checked_sub(1)?;
        if self.match_at(node).is_some() {
            return None;
        }
        let first = self.expand(self.graph.input(node, 0)?, atoms, evidence)?;
        let mut second = || self.expand(self.pair(node)?[1], atoms, evidence);
        let result = match op {
            Op::Add => first.plus(&second()?, 1.0),
            Op::Sub => first.plus(&second()?, -1.0),
            Op::Mul => first.times(&second()?)?,
            Op::Div => first.times(&Polynomial::term(0, 0, 1.0 / second()?.constant().filter(|c| *c != 0.0)?))?,
            // The exponent alone may be an integer.
            Op::Pow => match self.number(self.pair(node)?[1])?.value {
                2.0 => first.times(&first)?,
                3.0 => first.times(&first)?.times(&first)?,
                _ => return None,
            },
            Op::Neg => Polynomial::default().plus(&first, -1.0),
            Op::Sqrt => Polynomial::term(0, 0, first.constant()?.sqrt()),
            _ => return None,
        };
        evidence.members.push(node);
        Some(result)
    }

    /// A value as c·x; the coefficient.
    pub fn multiple(&self, value: ValueId, x: ValueId, evidence: &mut Evidence) -> Option<f64> {
        let p = self.expand(value, Atoms::x(x), evidence)?;
        (p == Polynomial::term(1, 0, p.at(1, 0)) && p.at(1, 0) != 0.0).then_some(p.at(1, 0))
    }

    /// A constant of one floating-point element, noted.
    pub fn constant(&self, value: ValueId, evidence: &mut Evidence) -> Option<f64> {
        let number = self.number(value).filter(|n| !n.integer)?;
        evidence.tolerance = evidence.tolerance.max(number.tolerance);
        evidence.rank = evidence.rank.max(number.rank);
        Some(number.value)
    }

    /// Whether a value is a constant near this one; noted.
    pub fn is_constant(&self, value: ValueId, wanted: f64, evidence: &mut Evidence) -> bool {
        self.constant(value, evidence).is_some_and(|c| near(c, wanted, evidence.tolerance))
    }

    /// Values that arithmetic nodes close behind `value` read, nearest first, itself among them; constants left out.
    pub fn ingredients(&self, value: ValueId) -> Vec<ValueId> {
        let mut found = vec![value];
        let mut next = 0;
        while next < found.len() && found.len() < 12 {
            if let Some((node, _)) = self.maker(found[next]).filter(|(n, op)| is_arithmetic(*op) && !self.is_found(*n))
            {
                for input in self.graph.inputs_of(node).iter().flatten() {
                    if !found.contains(input) && self.number(*input).is_none() {
                        found.push(*input);
                    }
                }
            }
            next += 1;
        }
        found
    }

    /// Nodes close behind the inputs of `node`, seen through arithmetic, that are none of it: erf, exp, activations …
    pub fn triggers(&self, node: NodeId) -> Triggers {
        let mut triggers = Triggers { nodes: [NodeId(0); 4], count: 0 };
        let mut seen = [node; 12];
        let (mut next, mut end) = (0, 1);
        while next < end {
            for input in self.graph.inputs_of(seen[next]).iter().flatten() {
                let Some((maker, op)) = self.maker(*input) else { continue };
                if is_arithmetic(op) && !self.is_found(maker) {
                    if end < seen.len() && !seen[..end].contains(&maker) {
                        seen[end] = maker;
                        end += 1;
                    }
                } else if self.is_found(maker) || matches!(op, Op::Erf | Op::Exp | Op::Min | Op::Activation(_)) {
                    triggers.push(maker);
                }
            }
            next += 1;
        }
        triggers
    }

    /// The match, unless a constant of high rank would broadcast its shape.
    ///
    /// One element of rank ≤ 1 changes no shape. One of rank 4 does, when x has rank 2: it is accepted only where x's rank is declared.
    pub fn settle(
        &self,
        node: NodeId,
        activation: Activation,
        input: Option<ValueId>,
        mut evidence: Evidence,
    ) -> Option<Match> {
        let fits = |x| self.declared_rank(x).is_some_and(|rank| rank >= evidence.rank);
        if evidence.rank > 1 && !input.is_some_and(fits) {
            let rank = evidence.rank;
            let reason =
                format!("a constant of rank {rank} may change its shape, as the rank of its input is unknown or lower");
            self.near_miss(node, activation, evidence.members, reason);
            return None;
        }
        evidence.members.push(node);
        evidence.members.sort_unstable();
        evidence.members.dedup();
        Some(Match { node, activation, input, members: evidence.members, alpha: None })
    }
}

/// Up to four nodes.
pub struct Triggers {
    nodes: [NodeId; 4],
    count: usize,
}

impl Triggers {
    fn push(&mut self, node: NodeId) {
        if self.count < self.nodes.len() && !self.nodes[..self.count].contains(&node) {
            self.nodes[self.count] = node;
            self.count += 1;
        }
    }

    /// Them, nearest first.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes[..self.count].iter().copied()
    }
}

fn is_arithmetic(op: Op) -> bool {
    matches!(op, Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Neg | Op::Pow | Op::Sqrt)
}
