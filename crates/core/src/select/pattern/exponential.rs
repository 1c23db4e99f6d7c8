//! ELU, SELU and CELU as sums of a positive and a negative part, and SELU as a multiple of ELU.

use super::algebra::{Atoms, Evidence};
use super::lookback::Triggers;
use super::op::Op;
use super::polynomial::near;
use super::{Match, View};
use crate::graph::{Attributes, NodeId, ValueId};
use crate::select::Activation;

/// α of SELU.
pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// γ of SELU.
pub const SELU_GAMMA: f64 = 1.050_700_987_355_480_5;

impl View<'_, '_> {
    /// a·max(x, 0) + b·(eᵏᵐ − 1) with m = min(x, 0), and a·max(x, 0) + min(0, b·(eᵏˣ − 1)).
    pub fn elu_as_sum(&self, node: NodeId, triggers: &Triggers) -> Option<Match> {
        let value = self.graph.output(node, 0)?;
        let relu = triggers.iter().find(|t| matches!(self.activation_at(*t), Some((Activation::Relu, _))))?;
        let (_, x) = self.activation_at(relu)?;
        let positive = self.graph.output(relu, 0)?;
        triggers.iter().find_map(|trigger| {
            let mut evidence = Evidence::new();
            evidence.members.extend([relu, trigger]);
            evidence.members.extend_from_slice(self.members_at(relu));
            let t = self.graph.output(trigger, 0)?;
            let scale = match self.ops[trigger.index()] {
                Op::Exp => [1.0, self.exponent_of_negative_part(trigger, x, &mut evidence)?],
                Op::Min => self.negative_branch(trigger, x, &mut evidence)?,
                _ => return None,
            };
            let sum = self.expand(value, Atoms { x: Some(positive), t: Some(t) }, &mut evidence)?;
            let (a, s) = (sum.at(1, 0), sum.at(0, 1));
            let offset = if self.ops[trigger.index()] == Op::Exp { -s } else { 0.0 };
            if a == 0.0 || s == 0.0 || !sum.is(&[(1, 0, a), (0, 1, s), (0, 0, offset)], evidence.tolerance) {
                return None;
            }
            self.exponential(node, x, [a, s * scale[0], scale[1]], evidence)
        })
    }

    /// γ·ELU with SELU's α.
    pub fn scaled_elu(&self, node: NodeId) -> Option<Match> {
        self.both_orders(node).find_map(|[elu, gamma]| {
            let (inner, x) = self.made_by_activation(elu, Activation::Elu)?;
            let mut evidence = Evidence::new();
            let gamma = self.constant(gamma, &mut evidence)?;
            let alpha = self.alpha(inner, &mut evidence)?;
            evidence.members.push(inner);
            evidence.members.extend_from_slice(self.members_at(inner));
            let fits = near(gamma, SELU_GAMMA, evidence.tolerance) && near(alpha, SELU_ALPHA, evidence.tolerance);
            if !fits {
                return None;
            }
            self.settle(node, Activation::Selu, Some(x), evidence)
        })
    }

    /// e^(k·min(x, 0)), min(x, 0) written so or as −max(−x, 0); k.
    fn exponent_of_negative_part(&self, exp: NodeId, x: ValueId, evidence: &mut Evidence) -> Option<f64> {
        let argument = self.graph.input(exp, 0)?;
        self.ingredients(argument).into_iter().find_map(|part| {
            let mut on_trial = evidence.clone();
            let (node, op) = self.maker(part)?;
            let sign = if op == Op::Min {
                self.both_orders(node).find(|[v, zero]| *v == x && self.is_constant(*zero, 0.0, &mut on_trial))?;
                1.0
            } else {
                let (_, minus) = self.made_by_activation(part, Activation::Relu)?;
                (self.multiple(minus, x, &mut on_trial)? == -1.0).then_some(-1.0)?
            };
            on_trial.members.push(node);
            on_trial.members.extend_from_slice(self.members_at(node));
            let k = sign * self.multiple(argument, part, &mut on_trial)?;
            *evidence = on_trial;
            Some(k)
        })
    }

    /// min(0, b·(eᵏˣ − 1)); b and k.
    fn negative_branch(&self, min: NodeId, x: ValueId, evidence: &mut Evidence) -> Option<[f64; 2]> {
        self.both_orders(min).find_map(|[branch, zero]| {
            let mut on_trial = evidence.clone();
            if !self.is_constant(zero, 0.0, &mut on_trial) {
                return None;
            }
            let (exp, t) = self.triggers_of(branch, Op::Exp)?;
            let k = self.multiple(self.graph.input(exp, 0)?, x, &mut on_trial)?;
            let p = self.expand(branch, Atoms::t(t), &mut on_trial)?;
            let b = p.at(0, 1);
            if b <= 0.0 || !p.is(&[(0, 1, b), (0, 0, -b)], on_trial.tolerance) {
                return None;
            }
            on_trial.members.push(exp);
            *evidence = on_trial;
            Some([b, k])
        })
    }

    /// α of an ELU.
    fn alpha(&self, elu: NodeId, evidence: &mut Evidence) -> Option<f64> {
        if let Some(found) = self.match_at(elu) {
            let (alpha, tolerance) = found.alpha?;
            evidence.tolerance = evidence.tolerance.max(tolerance);
            return Some(alpha);
        }
        let proto = self.graph.node(elu);
        match proto.attribute("alpha") {
            _ if proto.op_type() != "Elu" => None,
            Some(a) if a.ref_attr_name.as_ref().is_some_and(|r| !r.is_empty()) => None,
            Some(a) => Some(f64::from(a.f())),
            None => Some(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found, is_all, is_never, near_miss};
    use Activation::*;

    #[test]
    fn elu_is_found_as_where_and_as_sum() {
        super::super::testing::is_all(
            Elu,
            &[
                "e=Exp(x); m=Sub(e,1); a=Mul(m,1.5); g=Greater(x,0); y=Where(g,x,a)",
                "e=Exp(x); m=Add(e,-1); g=Less(x,0); y=Where(g,m,x)",
                "e=Exp(x); m=Mul(0.5,e); a=Sub(m,0.5); g=Greater(x,0); y=Where(g,x,a)",
                "r=Relu(x); n=Neg(x); q=Relu(n); k=Neg(q); e=Exp(k); m=Sub(e,1); y=Add(r,m)",
                "r=Relu(x); n=Neg(x); q=Relu(n); k=Neg(q); e=Exp(k); m=Sub(e,1); a=Mul(m,0.7); y=Add(a,r)",
                "r=Max(x,0); q=Min(0,x); e=Exp(q); m=Sub(e,1); y=Add(m,r)",
                "r=Relu(x); e=Exp(x); m=Sub(e,1); a=Mul(1.2,m); q=Min(a,0); y=Add(r,q)",
            ],
        );
    }

    #[test]
    fn selu_and_celu_are_told_from_elu_by_their_constants() {
        is_all(
            Selu,
            &[
                "e=Exp(x); m=Sub(e,1); a=Mul(m,1.6732632); g=Greater(x,0); s=Where(g,x,a); y=Mul(s,1.050701)",
                "e=Exp(x); m=Sub(e,1); a=Mul(m,1.7580993); p=Mul(x,1.050701); g=Greater(x,0); y=Where(g,p,a)",
                "e=Elu[alpha=1.6732632](x); y=Mul(1.050701,e)",
                "r=Relu(x); e=Exp(x); m=Sub(e,1); a=Mul(1.6732632,m); q=Min(a,0); s=Add(r,q); y=Mul(s,1.050701)",
                "y=Selu(x)",
            ],
        );
        is_all(
            Celu,
            &[
                "d=Div(x,2); e=Exp(d); m=Sub(e,1); a=Mul(m,2); q=Min(0,a); r=Max(0,x); y=Add(r,q)",
                "d=Mul(x,0.5); e=Exp(d); m=Sub(e,1); a=Mul(m,2); g=Greater(x,0); y=Where(g,x,a)",
            ],
        );
        assert_eq!(found("e=Elu(x); y=Mul(e,1.050701)"), ["e: elu of x"]);
    }

    #[test]
    fn other_constants_are_no_elu() {
        let wrong_offset = "e=Exp(x); m=Sub(e,2); g=Greater(x,0); y=Where(g,x,m)";
        let wrong_scale = "e=Exp(x); m=Sub(e,1); p=Mul(x,2); g=Greater(x,0); y=Where(g,p,m)";
        let other_input = "e=Exp(u); m=Sub(e,1); g=Greater(x,0); y=Where(g,x,m)";
        let not_negative = "r=Relu(x); q=Relu(x); k=Neg(q); e=Exp(k); m=Sub(e,1); y=Add(r,m)";
        is_never(Elu, &[wrong_offset, wrong_scale, other_input, not_negative]);
        assert!(near_miss(wrong_scale).contains("2.000000·x above zero"));
    }

    use super::*;
}
