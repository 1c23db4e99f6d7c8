//! Activations as Where: one branch above a threshold of x, another below.

use super::algebra::{Atoms, Evidence};
use super::op::Op;
use super::polynomial::near;
use super::{Match, View};
use crate::graph::{NodeId, ValueId};
use crate::select::Activation;

/// ln(1 + eˣ) and x differ by less than float32 can hold from here on.
const SOFTPLUS_IS_LINEAR: f64 = 16.0;

/// A comparison of x with a constant.
struct Condition {
    x: ValueId,
    threshold: f64,
    /// Whether it holds above the threshold, rather than below.
    above: bool,
    /// Whether x = threshold counts as below.
    strict: bool,
}

impl View<'_, '_> {
    /// Relu, LeakyRelu, PRelu, ThresholdedRelu, ELU and its kin, and Softplus with a linear part.
    ///
    /// Branches that meet at the threshold make > and ≥ the same; only ThresholdedRelu has a jump there.
    pub fn piecewise(&self, node: NodeId) -> Option<Match> {
        let [Some(condition), Some(then), Some(otherwise)] = *self.graph.inputs_of(node) else { return None };
        let mut evidence = Evidence::new();
        let condition = self.condition(condition, &mut evidence)?;
        let x = condition.x;
        let (above, below) = if condition.above { (then, otherwise) } else { (otherwise, then) };
        let is_zero_below = self.number(below).is_some_and(|n| n.value == 0.0);
        if condition.threshold != 0.0 {
            if above != x {
                return None;
            }
            if is_zero_below && condition.strict {
                self.constant(below, &mut evidence)?;
                return self.settle(node, Activation::ThresholdedRelu, Some(x), evidence);
            }
            let (softplus, _) =
                self.made_by_activation(below, Activation::Softplus).filter(|(_, argument)| *argument == x)?;
            if condition.threshold < SOFTPLUS_IS_LINEAR {
                return None;
            }
            evidence.members.push(softplus);
            evidence.members.extend_from_slice(self.members_at(softplus));
            return self.settle(node, Activation::Softplus, Some(x), evidence);
        }
        if is_zero_below && above == x {
            self.constant(below, &mut evidence)?;
            return self.settle(node, Activation::Relu, Some(x), evidence);
        }
        if above == x
            && let Some(found) = self.sloped(node, x, below, evidence.clone())
        {
            return Some(found);
        }
        self.exponential_branches(node, x, above, below, evidence)
    }

    /// αx below zero: LeakyRelu with a constant 0 < α < 1, PRelu with a tensor of slopes.
    fn sloped(&self, node: NodeId, x: ValueId, below: ValueId, evidence: Evidence) -> Option<Match> {
        let mut on_trial = evidence.clone();
        if let Some(slope) = self.multiple(below, x, &mut on_trial) {
            if 0.0 < slope && slope < 1.0 {
                return self.settle(node, Activation::LeakyRelu, Some(x), on_trial);
            }
            let reason = format!("its slope below zero is {slope}, not between 0 and 1");
            self.near_miss(node, Activation::LeakyRelu, on_trial.members, reason);
            return None;
        }
        let (product, _) = self.maker(below).filter(|(_, op)| *op == Op::Mul)?;
        let [slopes, _] = self.both_orders(product).find(|[_, other]| *other == x)?;
        let rank = self.graph.initializer(slopes)?.dims.len();
        if self.declared_rank(x).is_none_or(|x| x < rank) {
            let reason = format!("its slopes have rank {rank}, and x is not declared to have as many dimensions");
            self.near_miss(node, Activation::PRelu, vec![product], reason);
            return None;
        }
        let mut evidence = evidence;
        evidence.members.push(product);
        self.settle(node, Activation::PRelu, Some(x), evidence)
    }

    /// x > c, c < x, not(x ≤ c) …
    fn condition(&self, value: ValueId, evidence: &mut Evidence) -> Option<Condition> {
        let (mut node, mut op) = self.maker(value)?;
        let mut negated = false;
        if op == Op::Not {
            negated = true;
            evidence.members.push(node);
            (node, op) = self.maker(self.graph.input(node, 0)?)?;
        }
        let (above, equal_holds) = match op {
            Op::Greater => (true, false),
            Op::GreaterOrEqual => (true, true),
            Op::Less => (false, false),
            Op::LessOrEqual => (false, true),
            _ => return None,
        };
        let [left, right] = self.pair(node)?;
        let (x, threshold, above) = match self.constant(right, evidence) {
            Some(c) => (left, c, above),
            None => (right, self.constant(left, evidence)?, !above),
        };
        evidence.members.push(node);
        let (above, equal_holds) = if negated { (!above, !equal_holds) } else { (above, equal_holds) };
        Some(Condition { x, threshold, above, strict: above != equal_holds })
    }

    /// a·x above zero, b·(eᵏˣ − 1) below.
    fn exponential_branches(
        &self,
        node: NodeId,
        x: ValueId,
        above: ValueId,
        below: ValueId,
        mut evidence: Evidence,
    ) -> Option<Match> {
        let (exp, t) = self.triggers_of(below, Op::Exp)?;
        let a = self.multiple(above, x, &mut evidence)?;
        let k = self.multiple(self.graph.input(exp, 0)?, x, &mut evidence)?;
        let branch = self.expand(below, Atoms::t(t), &mut evidence)?;
        evidence.members.push(exp);
        let b = branch.at(0, 1);
        if b == 0.0 || !branch.is(&[(0, 1, b), (0, 0, -b)], evidence.tolerance) {
            return None;
        }
        self.exponential(node, x, [a, b, k], evidence)
    }

    /// Which of ELU, SELU and CELU a·x above zero and b·(eᵏˣ − 1) below is.
    pub fn exponential(&self, node: NodeId, x: ValueId, [a, b, k]: [f64; 3], evidence: Evidence) -> Option<Match> {
        use super::exponential::{SELU_ALPHA, SELU_GAMMA};
        let fits = |value, wanted| near(value, wanted, evidence.tolerance);
        let selu = fits(k, 1.0) && fits(a, SELU_GAMMA) && fits(b, SELU_GAMMA * SELU_ALPHA);
        let activation = match () {
            () if b <= 0.0 || k <= 0.0 => None,
            () if fits(a, 1.0) && fits(k, 1.0) => Some(Activation::Elu),
            () if fits(a, 1.0) && fits(b * k, 1.0) => Some(Activation::Celu),
            () if selu => Some(Activation::Selu),
            () => None,
        };
        if let Some(activation) = activation {
            let alpha = (activation == Activation::Elu).then_some((b, evidence.tolerance));
            return self.settle(node, activation, Some(x), evidence).map(|found| Match { alpha, ..found });
        }
        let reason =
            format!("it computes {a:.6}·x above zero and {b:.6}·(exp({k:.6}·x) − 1) below, no ELU, SELU or CELU");
        self.near_miss(node, Activation::Elu, evidence.members, reason);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found_in, model_with};
    use crate::onnx::TensorProto;

    #[test]
    fn slopes_for_every_channel_are_prelu_only_where_they_keep_the_shape() {
        let text = "a=Mul(x,slopes); g=Greater(x,0); y=Where(g,x,a)";
        let with = |dims: Vec<i64>| {
            let slopes = TensorProto { name: Some("slopes".into()), dims, data_type: Some(1), ..Default::default() };
            found_in(&model_with(text, Vec::new(), |g| g.initializer.push(slopes)))
        };
        assert_eq!(with(vec![8]), ["y: prelu of x"]);
        assert_eq!(with(vec![8, 1, 1]), [""; 0]);
    }
}
