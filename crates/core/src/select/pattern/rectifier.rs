//! Relu, Relu6 and LeakyRelu as Max, Min and Clip; HardSigmoid as Clip.

use super::algebra::{Atoms, Evidence};
use super::op::Op;
use super::polynomial::near;
use super::{Match, View};
use crate::graph::{Attributes, NodeId, ValueId};
use crate::select::Activation;

impl View<'_, '_> {
    /// max(x, 0) is Relu; max(x, αx) with 0 < α < 1 is LeakyRelu; max(min(x, 6), 0) is Relu6.
    pub fn maximum(&self, node: NodeId) -> Option<Match> {
        self.both_orders(node).find_map(|[x, other]| {
            let mut evidence = Evidence::new();
            if self.is_constant(other, 0.0, &mut evidence) {
                if let Some((below, x)) = self.minimum_with(x, 6.0, &mut evidence) {
                    evidence.members.push(below);
                    return self.settle(node, Activation::Relu6, Some(x), evidence);
                }
                return self.settle(node, Activation::Relu, Some(x), evidence);
            }
            let slope = self.multiple(other, x, &mut evidence)?;
            if !(0.0 < slope && slope < 1.0) {
                let reason = format!("max(x, {slope}·x) is one only for a slope between 0 and 1");
                self.near_miss(node, Activation::LeakyRelu, evidence.members, reason);
                return None;
            }
            self.settle(node, Activation::LeakyRelu, Some(x), evidence)
        })
    }

    /// min(relu(x), 6).
    pub fn minimum(&self, node: NodeId) -> Option<Match> {
        self.both_orders(node).find_map(|[value, bound]| {
            let mut evidence = Evidence::new();
            let (relu, x) = self.made_by_activation(value, Activation::Relu)?;
            if !self.is_constant(bound, 6.0, &mut evidence) {
                return None;
            }
            evidence.members.push(relu);
            evidence.members.extend_from_slice(self.members_at(relu));
            self.settle(node, Activation::Relu6, Some(x), evidence)
        })
    }

    /// Clip between 0 and nothing, between 0 and 6, up to 6 of a Relu, and of x/6 + 1/2 between 0 and 1.
    pub fn clip(&self, node: NodeId) -> Option<Match> {
        let x = self.graph.input(node, 0)?;
        let mut evidence = Evidence::new();
        let (low, high) = self.bounds(node, &mut evidence)?;
        let is = |bound: Option<f64>, wanted| bound.is_some_and(|b| near(b, wanted, evidence.tolerance));
        let (zero, six, one) = (is(low, 0.0), is(high, 6.0), is(high, 1.0));
        // Bounds of a Clip never change its shape.
        if zero && high.is_none() {
            return self.settle(node, Activation::Relu, Some(x), Evidence::new());
        }
        if zero && six {
            return self.settle(node, Activation::Relu6, Some(x), Evidence::new());
        }
        if six && let (None, Some((relu, x))) = (low, self.made_by_activation(x, Activation::Relu)) {
            let mut evidence = Evidence::new();
            evidence.members.push(relu);
            evidence.members.extend_from_slice(self.members_at(relu));
            return self.settle(node, Activation::Relu6, Some(x), evidence);
        }
        if zero && one {
            for candidate in self.ingredients(x).into_iter().skip(1) {
                let mut evidence = Evidence::new();
                let Some(inner) = self.expand(x, Atoms::x(candidate), &mut evidence) else { continue };
                if inner.is(&[(1, 0, 1.0 / 6.0), (0, 0, 0.5)], evidence.tolerance) {
                    return self.settle(node, Activation::HardSigmoid, Some(candidate), evidence);
                }
            }
        }
        if zero && let Some(high) = high {
            let reason = format!("it clips between 0 and {high}, and relu has no upper bound (relu6 has 6)");
            self.near_miss(node, Activation::Relu, Vec::new(), reason);
        }
        None
    }

    /// Lower and upper bound of a Clip, attributes up to opset 10 and inputs since; `None` outside when one is no constant, inside
    /// when there is none.
    fn bounds(&self, node: NodeId, evidence: &mut Evidence) -> Option<(Option<f64>, Option<f64>)> {
        let proto = self.graph.node(node);
        let from_attribute = |name| match proto.attribute(name) {
            Some(a) if a.ref_attr_name.as_ref().is_some_and(|r| !r.is_empty()) => None,
            Some(a) => Some(Some(f64::from(a.f())).filter(|v| v.abs() < 3.4e38)),
            None => Some(None),
        };
        let mut from_input = |slot| match self.graph.input(node, slot) {
            Some(bound) => {
                let number = self.number(bound).filter(|n| !n.integer)?;
                evidence.tolerance = evidence.tolerance.max(number.tolerance);
                Some(Some(number.value).filter(|v| !number.unbounded && *v > f64::from(f32::MIN)))
            }
            None => Some(None),
        };
        let (low, high) = (from_input(1)?, from_input(2)?);
        Some((low.or(from_attribute("min")?), high.or(from_attribute("max")?)))
    }

    /// min(x, bound); its node and x.
    fn minimum_with(&self, value: ValueId, bound: f64, evidence: &mut Evidence) -> Option<(NodeId, ValueId)> {
        let (node, op) = self.maker(value)?;
        match op {
            Op::Min => {
                let [x, _] = self.both_orders(node).find(|[_, b]| self.is_constant(*b, bound, evidence))?;
                Some((node, x))
            }
            Op::Clip => {
                let (low, high) = self.bounds(node, evidence)?;
                (low.is_none() && high.is_some_and(|h| near(h, bound, evidence.tolerance)))
                    .then_some((node, self.graph.input(node, 0)?))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found, is_all, is_never, near_miss};
    use Activation::*;

    use super::*;

    #[test]
    fn relu_and_its_kin_are_found_as_max_min_and_clip() {
        is_all(
            Relu,
            &[
                "y=Max(x,0)",
                "y=Max(0@1,x)",
                "y=Max(x,0@2)",
                "y=Clip(x,0)",
                "y=Clip[min=0](x)",
                "y=Clip(x,0,3.4028234e38)",
                "y=Clip[min=0 max=3.4028234e38](x)",
                "g=Greater(x,0); y=Where(g,x,0)",
                "g=LessOrEqual(x,0); y=Where(g,0,x)",
            ],
        );
        is_all(Relu6, &["y=Clip(x,0,6)", "y=Clip[min=0 max=6](x)", "r=Relu(x); y=Min(r,6)", "m=Min(x,6); y=Max(m,0)"]);
        is_all(
            LeakyRelu,
            &[
                "a=Mul(x,0.01); y=Max(x,a)",
                "a=Mul(0.2,x); y=Max(a,x)",
                "a=Mul(x,0.01); g=Greater(x,0); y=Where(g,x,a)",
                "a=Mul(x,0.01); g=Less(x,0); y=Where(g,a,x)",
                "a=Mul(x,0.01); g=GreaterOrEqual(0,x); y=Where(g,a,x)",
                "a=Mul(x,0.01); g=Less(x,0); n=Not(g); y=Where(n,x,a)",
            ],
        );
        is_all(ThresholdedRelu, &["g=Greater(x,0.5); y=Where(g,x,0)"]);
    }

    #[test]
    fn other_bounds_and_slopes_are_none() {
        is_never(
            Relu,
            &["y=Max(x,u)", "y=Clip(x,0,1)", "y=Clip(x,-1)", "y=Clip(x,u)", "y=Max(x,0@3)", "y=Max(x,0:int)"],
        );
        is_never(Relu, &["y=Max(x,0,u)", "y=Clip[min=@low](x)", "g=Greater(u,0); y=Where(g,x,0)", "y=Min(x,0)"]);
        is_never(LeakyRelu, &["a=Mul(x,1.5); y=Max(x,a)", "a=Mul(u,0.1); y=Max(x,a)", "a=Mul(x,0.1); y=Min(x,a)"]);
        is_never(ThresholdedRelu, &["g=GreaterOrEqual(x,0.5); y=Where(g,x,0)"]);
        assert!(near_miss("y=Clip(x,0,1)").contains("between 0 and 1"));
        assert!(near_miss("a=Mul(x,1.5); y=Max(x,a)").contains("slope between 0 and 1"));
        assert_eq!(found("a=Mul(x,1.5); g=Greater(x,0); y=Where(g,x,a)"), [""; 0]);
    }
}
