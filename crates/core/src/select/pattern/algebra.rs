//! Arithmetic nodes as polynomials: what several nodes compute, whatever their order.
//!
//! x·0.5·(1+t), (0.5·x)·(t+1) and 0.5·x + x·t·0.5 are one polynomial in x and t, and one pattern finds them all.

use super::op::Op;
use super::polynomial::{Polynomial, near};
use super::{Match, View};
use crate::graph::{NodeId, ValueId};
use crate::select::Activation;

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

pub fn is_arithmetic(op: Op) -> bool {
    matches!(op, Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Neg | Op::Pow | Op::Sqrt)
}
