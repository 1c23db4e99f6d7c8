//! Quotients by 1 + something, and the logarithm of it: Sigmoid, SiLU, Softsign, Softplus.

use super::algebra::{Atoms, Evidence};
use super::op::Op;
use super::{Match, View};
use crate::graph::{NodeId, ValueId};
use crate::select::Activation;

impl View<'_, '_> {
    /// 1/(1 + e⁻ˣ), x/(1 + e⁻ˣ) and x/(1 + |x|).
    pub fn quotient(&self, node: NodeId) -> Option<Match> {
        let [above, below] = self.pair(node)?;
        if self.maker(below)?.1 != Op::Add {
            return None;
        }
        let mut evidence = Evidence::new();
        if let Some(x) = self.one_plus_exp_of_minus(below, Some(above), &mut evidence) {
            let is_one = above != x && self.is_constant(above, 1.0, &mut evidence);
            let activation = match (above == x, is_one) {
                (true, _) => Activation::Silu,
                (_, true) => Activation::Sigmoid,
                _ => return None,
            };
            return self.settle(node, activation, Some(x), evidence);
        }
        let mut evidence = Evidence::new();
        let x = self.one_plus_abs(below, &mut evidence)?;
        if x != above {
            return None;
        }
        self.settle(node, Activation::Softsign, Some(x), evidence)
    }

    /// Reciprocal(1 + e⁻ˣ).
    pub fn reciprocal(&self, node: NodeId) -> Option<Match> {
        let mut evidence = Evidence::new();
        let x = self.one_plus_exp_of_minus(self.graph.input(node, 0)?, None, &mut evidence)?;
        self.settle(node, Activation::Sigmoid, Some(x), evidence)
    }

    /// ln(1 + eˣ).
    pub fn softplus(&self, node: NodeId) -> Option<Match> {
        let mut evidence = Evidence::new();
        let x = self.one_plus_exp(self.graph.input(node, 0)?, &mut evidence)?;
        self.settle(node, Activation::Softplus, Some(x), evidence)
    }

    /// max(x, 0) + ln(1 + e^−|x|), the form without overflow.
    pub fn stable_softplus(&self, node: NodeId) -> Option<Match> {
        self.both_orders(node).find_map(|[linear, logarithm]| {
            let (relu, x) = self.made_by_activation(linear, Activation::Relu)?;
            let (log, argument) = self.made_by_activation(logarithm, Activation::Softplus)?;
            let (abs, _) = self.triggers_of(argument, Op::Abs)?;
            if self.graph.input(abs, 0) != Some(x) {
                return None;
            }
            let mut evidence = Evidence::new();
            if self.multiple(argument, self.graph.output(abs, 0)?, &mut evidence) != Some(-1.0) {
                return None;
            }
            for part in [relu, log] {
                evidence.members.push(part);
                evidence.members.extend_from_slice(self.members_at(part));
            }
            evidence.members.push(abs);
            self.settle(node, Activation::Softplus, Some(x), evidence)
        })
    }

    /// 1 + eᵖ; p.
    fn one_plus_exp(&self, sum: ValueId, evidence: &mut Evidence) -> Option<ValueId> {
        let (node, t) = self.addend(sum, Op::Exp)?;
        let p = self.expand(sum, Atoms::t(t), evidence)?;
        evidence.members.push(node);
        if !p.is(&[(0, 0, 1.0), (0, 1, 1.0)], evidence.tolerance) {
            return None;
        }
        self.graph.input(node, 0)
    }

    /// 1 + e⁻ˣ; x. Which x, `hint` says where e's argument leaves a choice.
    fn one_plus_exp_of_minus(&self, sum: ValueId, hint: Option<ValueId>, evidence: &mut Evidence) -> Option<ValueId> {
        let argument = self.one_plus_exp(sum, evidence)?;
        let candidates = self.ingredients(argument);
        let hinted = hint.filter(|h| candidates.contains(h));
        hinted.into_iter().chain(candidates.iter().copied()).find(|x| {
            let mut on_trial = evidence.clone();
            let fits = self.multiple(argument, *x, &mut on_trial).is_some_and(|c| c == -1.0);
            if fits {
                *evidence = on_trial;
            }
            fits
        })
    }

    /// 1 + |x|; x.
    fn one_plus_abs(&self, sum: ValueId, evidence: &mut Evidence) -> Option<ValueId> {
        let (node, t) = self.addend(sum, Op::Abs)?;
        let p = self.expand(sum, Atoms::t(t), evidence)?;
        evidence.members.push(node);
        if !p.is(&[(0, 0, 1.0), (0, 1, 1.0)], evidence.tolerance) {
            return None;
        }
        self.graph.input(node, 0)
    }

    /// The addend of a sum that an operator of this kind makes, with its value.
    fn addend(&self, sum: ValueId, op: Op) -> Option<(NodeId, ValueId)> {
        let (node, _) = self.maker(sum).filter(|(_, op)| *op == Op::Add)?;
        let made_by = |v: &ValueId| self.maker(*v).filter(|(_, o)| *o == op).map(|(n, _)| (n, *v));
        self.pair(node)?.iter().find_map(made_by)
    }

    /// The node of this kind close behind a value.
    pub fn triggers_of(&self, value: ValueId, op: Op) -> Option<(NodeId, ValueId)> {
        let made_by = |v: ValueId| self.maker(v).filter(|(_, o)| *o == op).map(|(n, _)| (n, v));
        self.ingredients(value).into_iter().find_map(made_by)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found, is_all, is_never};
    use Activation::*;

    use super::*;

    #[test]
    fn quotients_and_logarithms_are_found_in_every_order() {
        is_all(
            Sigmoid,
            &["n=Neg(x); e=Exp(n); d=Add(1,e); y=Div(1,d)", "n=Neg(x); e=Exp(n); d=Add(e,1); y=Reciprocal(d)"],
        );
        is_all(Softsign, &["a=Abs(x); b=Add(a,1); y=Div(x,b)", "a=Abs(x); b=Add(1@1,a); y=Div(x,b)"]);
        is_all(
            Softplus,
            &[
                "e=Exp(x); a=Add(1,e); y=Log(a)",
                "r=Relu(x); a=Abs(x); n=Neg(a); e=Exp(n); p=Add(e,1); l=Log(p); y=Add(r,l)",
                "g=Greater(x,20); s=Softplus(x); y=Where(g,x,s)",
            ],
        );
    }

    #[test]
    fn near_quotients_are_none() {
        is_never(Sigmoid, &["e=Exp(x); d=Add(1,e); y=Div(1,d)", "n=Neg(x); e=Exp(n); d=Add(2,e); y=Div(1,d)"]);
        is_never(Silu, &["n=Neg(u); e=Exp(n); d=Add(1,e); y=Div(x,d)"]);
        is_never(Softsign, &["a=Abs(u); b=Add(a,1); y=Div(x,b)", "a=Abs(x); b=Add(a,2); y=Div(x,b)"]);
        is_never(Softplus, &["e=Exp(x); a=Add(2,e); y=Log(a)"]);
        assert_eq!(found("g=Greater(x,2); s=Softplus(x); y=Where(g,x,s)"), ["s: softplus of x"]);
    }
}
