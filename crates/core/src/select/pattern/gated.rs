//! Products of x with a gate: GELU, SiLU, Mish, HardSwish; and HardSigmoid, which is such a gate alone.

use std::f64::consts::FRAC_1_SQRT_2;

use super::algebra::{Atoms, Evidence};
use super::lookback::Triggers;
use super::op::{Op, float_is};
use super::polynomial::Term;
use super::{Match, View};
use crate::graph::{NodeId, ValueId};
use crate::select::Activation;

/// √(2/π)
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

/// What stands in the middle of a gate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    /// erf
    Erf,
    /// tanh
    Tanh,
    /// tanh of softplus
    TanhOfSoftplus,
    /// σ
    Sigmoid,
    /// min(max(x/6 + 1/2, 0), 1)
    HardSigmoid,
    /// min(max(x, 0), 6)
    Relu6,
}

/// An activation as a formula: `outer` in x and t, where t is the core's output and the core's argument is `inner` in x.
struct Rule {
    core: Core,
    inner: &'static [Term],
    outer: &'static [Term],
    activation: Activation,
}

const RULES: [Rule; 7] = [
    Rule {
        core: Core::Erf,
        inner: &[(1, 0, FRAC_1_SQRT_2)],
        outer: &[(1, 0, 0.5), (1, 1, 0.5)],
        activation: Activation::Gelu,
    },
    Rule {
        core: Core::Tanh,
        inner: &[(1, 0, SQRT_2_OVER_PI), (3, 0, SQRT_2_OVER_PI * GELU_CUBIC)],
        outer: &[(1, 0, 0.5), (1, 1, 0.5)],
        activation: Activation::Gelu,
    },
    Rule { core: Core::TanhOfSoftplus, inner: &[(1, 0, 1.0)], outer: &[(1, 1, 1.0)], activation: Activation::Mish },
    Rule { core: Core::Sigmoid, inner: &[(1, 0, 1.0)], outer: &[(1, 1, 1.0)], activation: Activation::Silu },
    Rule { core: Core::HardSigmoid, inner: &[(1, 0, 1.0)], outer: &[(1, 1, 1.0)], activation: Activation::HardSwish },
    Rule {
        core: Core::Relu6,
        inner: &[(1, 0, 1.0), (0, 0, 3.0)],
        outer: &[(0, 1, 1.0 / 6.0)],
        activation: Activation::HardSigmoid,
    },
    Rule {
        core: Core::Relu6,
        inner: &[(1, 0, 1.0), (0, 0, 3.0)],
        outer: &[(1, 1, 1.0 / 6.0)],
        activation: Activation::HardSwish,
    },
];

impl View<'_, '_> {
    /// The gated activation that ends at this product or sum.
    pub fn gated(&self, node: NodeId, triggers: &Triggers) -> Option<Match> {
        triggers.iter().find_map(|trigger| {
            let (cores, argument) = self.cores_at(trigger)?;
            let mut rules = RULES.iter().filter(|rule| cores.contains(&rule.core));
            rules.find_map(|rule| self.by_rule(rule, node, trigger, argument))
        })
    }

    fn by_rule(&self, rule: &Rule, node: NodeId, trigger: NodeId, argument: ValueId) -> Option<Match> {
        let (value, t) = (self.graph.output(node, 0)?, self.graph.output(trigger, 0)?);
        let mut evidence = Evidence::new();
        evidence.members.push(trigger);
        evidence.members.extend_from_slice(self.members_at(trigger));
        let argument = if rule.core == Core::TanhOfSoftplus {
            let (softplus, x) = self.made_by_activation(argument, Activation::Softplus)?;
            evidence.members.push(softplus);
            evidence.members.extend_from_slice(self.members_at(softplus));
            x
        } else {
            argument
        };
        let mut nearly = None;
        for x in self.ingredients(argument) {
            let mut evidence = evidence.clone();
            let Some(inner) = self.expand(argument, Atoms::x(x), &mut evidence) else { continue };
            if !rule.inner.iter().all(|(i, j, _)| inner.at(*i, *j) != 0.0) {
                continue;
            }
            let Some(outer) = self.expand(value, Atoms { x: Some(x), t: Some(t) }, &mut evidence) else { continue };
            let inner_fits = inner.is(rule.inner, evidence.tolerance);
            if inner_fits && outer.is(rule.outer, evidence.tolerance) {
                return self.settle(node, rule.activation, Some(x), evidence);
            }
            let has_its_shape = rule.outer.iter().all(|(i, j, _)| outer.at(*i, *j) != 0.0);
            if has_its_shape && nearly.is_none() {
                let what =
                    if inner_fits { format!("it computes {outer}") } else { format!("its inner part is {inner}") };
                nearly = Some((
                    evidence.members,
                    format!("{what}, where {} has {}", rule.activation, rule.wants(inner_fits)),
                ));
            }
        }
        if let Some((members, reason)) = nearly {
            self.near_miss(node, rule.activation, members, reason);
        }
        None
    }

    /// What a node may be the core of, with its argument.
    fn cores_at(&self, node: NodeId) -> Option<(&'static [Core], ValueId)> {
        if self.ops[node.index()] == Op::Erf {
            return Some((&[Core::Erf], self.graph.input(node, 0)?));
        }
        let (activation, argument) = self.activation_at(node)?;
        let cores: &[Core] = match activation {
            Activation::Tanh => &[Core::TanhOfSoftplus, Core::Tanh],
            Activation::Sigmoid => &[Core::Sigmoid],
            Activation::HardSigmoid if self.is_sixth(node) => &[Core::HardSigmoid],
            Activation::Relu6 => &[Core::Relu6],
            _ => return None,
        };
        Some((cores, argument))
    }

    /// Whether a HardSigmoid is the one of HardSwish, with slope 1/6 and offset 1/2.
    fn is_sixth(&self, node: NodeId) -> bool {
        let proto = self.graph.node(node);
        self.is_found(node)
            || proto.domain().starts_with(super::function::TORCH_LIB)
            || (proto.op_type() == "HardSigmoid"
                && float_is(proto, "alpha", 0.2, 1.0 / 6.0)
                && float_is(proto, "beta", 0.5, 0.5))
    }
}

impl Rule {
    /// The part that a near miss lacks, in words.
    fn wants(&self, inner_fits: bool) -> String {
        let terms = if inner_fits { self.outer } else { self.inner };
        let power = |x: usize, t: usize| {
            let x = ["", "·x", "·x²", "·x³"].get(x).copied().unwrap_or("");
            format!("{x}{}", if t == 1 { "·t" } else { "" })
        };
        let texts: Vec<String> = terms.iter().map(|(x, t, c)| format!("{c:.6}{}", power(*x, *t))).collect();
        texts.join(" + ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found, is_all, is_never, near_miss};
    use Activation::*;

    use super::*;

    #[test]
    fn gelu_is_found_through_erf_in_every_order() {
        is_all(
            Gelu,
            &[
                "a=Div(x,1.41421356); b=Erf(a); c=Add(b,1); d=Mul(x,c); y=Mul(d,0.5)",
                "a=Div(x,1.41421356); b=Erf(a); c=Add(1,b); d=Mul(0.5,c); y=Mul(d,x)",
                "a=Mul(0.70710678,x); b=Erf(a); c=Add(1,b); d=Mul(x,0.5); y=Mul(c,d)",
                "a=Mul(x,0.70710678@1); b=Erf(a); c=Add(b,1@1); d=Mul(x,c); y=Div(d,2)",
                "s=Sqrt(2); a=Div(x,s); b=Erf(a); c=Mul(b,0.5); d=Add(c,0.5); y=Mul(x,d)",
                "a=Div(x,1.4142); b=Erf(a); c=Mul(b,0.5); p=Mul(x,c); q=Mul(x,0.5); y=Add(q,p)",
                "a=Mul(x,0.70710678:f16); b=Erf(a); c=Add(b,1:f16); d=Mul(x,c); y=Mul(d,0.5:f16)",
                "a=Mul(x,0.70710678@2); b=Erf(a); c=Add(b,1); d=Mul(x,c); y=Mul(d,0.5@2)",
            ],
        );
    }

    #[test]
    fn gelu_is_found_through_tanh_in_every_order() {
        is_all(
            Gelu,
            &[
                "p=Pow(x,3); q=Mul(p,0.044715); r=Add(x,q); s=Mul(r,0.7978845608); t=Tanh(s); c=Add(t,1); d=Mul(x,0.5); y=Mul(d,c)",
                "p=Pow(x,3:int); q=Mul(0.044715,p); r=Add(q,x); s=Mul(0.79788456,r); t=Tanh(s); c=Add(1,t); d=Mul(c,x); y=Mul(0.5,d)",
                "p=Mul(x,x); q=Mul(p,x); r=Mul(q,0.044715); s=Add(x,r); k=Mul(s,0.797885); t=Tanh(k); c=Add(t,1); d=Mul(c,0.5); y=Mul(x,d)",
                "p=Mul(x,x); q=Mul(p,0.044715); r=Add(q,1); s=Mul(x,0.79788456); k=Mul(s,r); t=Tanh(k); c=Add(1,t); d=Mul(0.5,x); y=Mul(d,c)",
                "e=Div(2,3.14159265); f=Sqrt(e); p=Mul(x,x); q=Mul(x,p); r=Mul(q,0.044715); s=Add(x,r); k=Mul(s,f); t=Tanh(k); c=Add(t,1); d=Mul(c,0.5); y=Mul(x,d)",
            ],
        );
    }

    #[test]
    fn gelu_of_a_product_and_a_gated_gelu_keep_their_parts_apart() {
        let product = "m=Mul(u,v); a=Div(m,1.41421356); b=Erf(a); c=Add(b,1); d=Mul(m,c); y=Mul(d,0.5); z=Mul(y,w)";
        assert_eq!(found(product), ["y: gelu of m"]);
        let twice = "s=Sigmoid(x); a=Mul(x,s); t=Sigmoid(a); y=Mul(t,a)";
        assert_eq!(found(twice), ["a: silu of x", "y: silu of a"]);
    }

    #[test]
    fn what_is_not_quite_gelu_is_none_and_says_why() {
        let wrong_half = "a=Div(x,1.41421356); b=Erf(a); c=Add(b,1); d=Mul(x,c); y=Mul(d,0.4)";
        let wrong_root = "a=Div(x,2); b=Erf(a); c=Add(b,1); d=Mul(x,c); y=Mul(d,0.5)";
        let wrong_cube = "p=Pow(x,3); q=Mul(p,0.0447); r=Add(x,q); s=Mul(r,0.79788456); t=Tanh(s); c=Add(t,1); d=Mul(x,0.5); y=Mul(d,c)";
        let other_factor = "a=Div(x,1.41421356); b=Erf(a); c=Add(b,1); d=Mul(u,c); y=Mul(d,0.5)";
        let broadcast = "a=Div(x,1.41421356); b=Erf(a); c=Add(b,1@4); d=Mul(x,c); y=Mul(d,0.5)";
        let learned = "a=Div(x,1.41421356); b=Erf(a); c=Add(b,1); d=Mul(x,c); y=Mul(d,v)";
        is_never(Gelu, &[wrong_half, wrong_root, wrong_cube, other_factor, broadcast, learned]);
        assert_eq!(
            near_miss(wrong_half),
            "gelu: it computes 0.400000·x + 0.400000·x·t, where gelu has 0.500000·x + 0.500000·x·t"
        );
        assert!(near_miss(wrong_root).starts_with("gelu: its inner part is 0.500000·x"), "{}", near_miss(wrong_root));
        assert!(near_miss(broadcast).contains("a constant of rank 4"), "{}", near_miss(broadcast));
    }

    #[test]
    fn silu_mish_and_the_hard_ones_are_found_whole() {
        is_all(
            Silu,
            &[
                "s=Sigmoid(x); y=Mul(x,s)",
                "s=Sigmoid(x); y=Mul(s,x)",
                "b=Mul(x,1); s=Sigmoid(b); y=Mul(x,s)",
                "n=Neg(x); e=Exp(n); d=Add(e,1); y=Div(x,d)",
                "n=Mul(x,-1); e=Exp(n); d=Add(1,e); s=Reciprocal(d); y=Mul(x,s)",
                "n=Neg(x); e=Exp(n); d=Add(1,e); s=Div(1,d); y=Mul(s,x)",
            ],
        );
        is_all(
            Mish,
            &["s=Softplus(x); t=Tanh(s); y=Mul(x,t)", "e=Exp(x); a=Add(e,1); s=Log(a); t=Tanh(s); y=Mul(t,x)"],
        );
        is_all(
            HardSwish,
            &[
                "s=HardSigmoid[alpha=0.16666667 beta=0.5](x); y=Mul(x,s)",
                "a=Add(x,3); c=Clip(a,0,6); m=Mul(x,c); y=Div(m,6)",
                "a=Add(3,x); c=Clip[min=0 max=6](a); d=Div(c,6); y=Mul(d,x)",
                "a=Add(x,3); r=Relu(a); c=Min(r,6); m=Mul(x,c); y=Mul(m,0.16666667)",
                "a=Add(x,3); b=Clip(a,0); c=Clip(b,_,6); m=Mul(c,x); y=Div(m,6)",
                "a=Add(x,3); b=Max(a,0); c=Min(6,b); m=Mul(c,x); y=Div(m,6)",
            ],
        );
        is_all(
            HardSigmoid,
            &[
                "a=Add(x,3); c=Clip(a,0,6); y=Div(c,6)",
                "a=Mul(x,0.16666667); b=Add(a,0.5); y=Clip(b,0,1)",
                "y=HardSigmoid(x)",
            ],
        );
    }

    #[test]
    fn gates_of_something_else_stay_themselves() {
        assert_eq!(found("s=Sigmoid(u); y=Mul(x,s)"), ["s: sigmoid of u"]);
        assert_eq!(found("b=Mul(x,1.702); s=Sigmoid(b); y=Mul(x,s)"), ["s: sigmoid of b"]);
        assert!(near_miss("b=Mul(x,1.702); s=Sigmoid(b); y=Mul(x,s)").contains("1.702000·x"));
        assert_eq!(found("s=Softplus(u); t=Tanh(s); y=Mul(x,t)"), ["s: softplus of u", "t: tanh of s"]);
        is_never(HardSwish, &["s=HardSigmoid(x); y=Mul(x,s)", "a=Add(x,3); c=Clip(a,0,6); y=Mul(x,c)"]);
        assert_eq!(found("y=Softmax(x)"), [""; 0]);
    }

    #[test]
    fn microsofts_operators_count_where_they_are_exact() {
        is_all(Gelu, &["y=com.microsoft::Gelu(x)", "y=com.microsoft::FastGelu(x)"]);
        is_all(Silu, &["y=com.microsoft::QuickGelu[alpha=1](x)", "y=Swish(x)"]);
        is_never(Gelu, &["y=com.microsoft::FastGelu(x,u)", "y=com.microsoft::BiasGelu(x,u)", "y=other::Gelu(x)"]);
        is_never(Silu, &["y=com.microsoft::QuickGelu(x)", "y=Swish[alpha=2](x)"]);
    }
}
