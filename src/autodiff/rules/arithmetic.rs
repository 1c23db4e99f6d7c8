//! Arithmetic of operands that broadcast. What was repeated is summed over on the way back.

use crate::autodiff::adjoint::{Adjoint, Cotangent};
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::same_dims;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::Builder;
use crate::rewrite::site::Known;

/// Rules of this module.
pub const RULES: &[Rule] = &[
    // ∂a = ∂b = … = g.
    Rule {
        ops: &["Add", "Sum"],
        adjoint: |a| {
            let g = a.lazy(0)?;
            (0..a.site.node.input.len())
                .filter(|i| a.wants(*i))
                .collect::<Vec<_>>()
                .into_iter()
                .try_for_each(|i| a.give_summed(i, g.clone()))
        },
    },
    // ∂a = g, ∂b = −g.
    Rule {
        ops: &["Sub"],
        adjoint: |a| {
            let mut g = a.lazy(0)?;
            if a.wants(0) {
                a.give_summed(0, g.clone())?;
            }
            if a.wants(1) {
                g.tensor = a.b.unary("Neg", &g.tensor);
                a.give_summed(1, g)?;
            }
            Ok(())
        },
    },
    // The mean of n operands: ∂aᵢ = g/n.
    Rule {
        ops: &["Mean"],
        adjoint: |a| {
            let mut g = a.lazy(0)?;
            let n = a.site.node.input.len();
            g.tensor = a.b.divided(&g.tensor, n as f64);
            (0..n).filter(|i| a.wants(*i)).collect::<Vec<_>>().into_iter().try_for_each(|i| a.give_summed(i, g.clone()))
        },
    },
    Rule { ops: &["Mul"], adjoint: mul },
    Rule { ops: &["Div"], adjoint: div },
    Rule { ops: &["Pow"], adjoint: pow },
    // y = a − b·⌊a/b⌋ (or truncated, with fmod): ∂a = g, ∂b = −g·(a − y)/b.
    Rule {
        ops: &["Mod"],
        adjoint: |a| {
            if a.wants(0) {
                let g = a.lazy(0)?;
                a.give_summed(0, g)?;
            }
            if a.wants(1) {
                let (g, x, divisor, y) = (a.g(0)?, a.x(0)?, a.x(1)?, a.y(0));
                let multiple = a.b.binary("Sub", &y, &x);
                let count = a.b.binary("Div", &multiple, &divisor);
                let tensor = a.b.binary("Mul", &g, &count);
                a.give_summed(1, Cotangent { tensor, is_full: true })?;
            }
            Ok(())
        },
    },
];

/// y = a·b: ∂a = g·b, ∂b = g·a; y = a²: ∂a = 2g·a.
fn mul(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, operands, y) = (a.lazy(0)?, [a.x(0)?, a.x(1)?], a.y(0));
    if operands[0].name == operands[1].name {
        // The factor goes to the cotangent, which may be much smaller.
        let twice = a.b.times(&g.tensor, 2.0);
        let tensor = a.b.binary("Mul", &twice, &operands[0]);
        a.give(0, Tensor { ty: operands[0].ty.clone(), ..tensor });
        return Ok(());
    }
    for slot in (0..2).filter(|slot| a.wants(*slot)).collect::<Vec<_>>() {
        let other = &operands[1 - slot];
        let tensor = a.b.binary("Mul", &g.tensor, other);
        let is_full = g.is_full || same_dims(other, &y);
        a.give_summed(slot, Cotangent { tensor, is_full })?;
    }
    Ok(())
}

/// y = a/b: ∂a = g/b, ∂b = −g·y/b.
fn div(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, divisor, y) = (a.lazy(0)?, a.x(1)?, a.y(0));
    let share = a.b.binary("Div", &g.tensor, &divisor);
    let is_full = g.is_full || same_dims(&divisor, &y);
    if a.wants(0) {
        a.give_summed(0, Cotangent { tensor: share.clone(), is_full })?;
    }
    if a.wants(1) {
        let product = a.b.binary("Mul", &share, &y);
        let tensor = a.b.unary("Neg", &product);
        a.give_summed(1, Cotangent { tensor, is_full: true })?;
    }
    Ok(())
}

/// y = aᵖ: ∂a = g·p·a^(p−1), ∂p = g·y·ln a, which is 0 where a = 0.
fn pow(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, exponent, y) = (a.lazy(0)?, a.x(0)?, a.x(1)?, a.y(0));
    let constant = a.site.numbers(1).and_then(|p| if let [p] = p[..] { Some(p) } else { None });
    if a.wants(0) {
        let is_full = g.is_full || same_dims(&x, &y);
        let tensor = match constant {
            Some(p) => {
                let scaled = a.b.times(&g.tensor, p);
                power_times(a.b, &scaled, &x, &y, p - 1.0)
            }
            None => {
                let p = a.b.cast(&exponent, x.ty.elem);
                let one = a.b.number(1.0, &x);
                let less = a.b.binary("Sub", &p, &one);
                let power = a.b.binary("Pow", &x, &less);
                let slope = a.b.binary("Mul", &p, &power);
                a.b.binary("Mul", &g.tensor, &slope)
            }
        };
        let is_full = is_full || constant.is_none();
        a.give_summed(0, Cotangent { tensor, is_full })?;
    }
    if a.wants(1) {
        let (zero, log, full) = (a.b.number(0.0, &x), a.b.unary("Log", &x), a.g(0)?);
        let is_positive = a.b.compare("Greater", &x, &zero);
        let safe = a.b.choose(&is_positive, &log, &zero);
        let slope = a.b.binary("Mul", &y, &safe);
        let tensor = a.b.binary("Mul", &full, &slope);
        let tensor = a.b.cast(&tensor, exponent.ty.elem);
        a.give_summed(1, Cotangent { tensor, is_full: true })?;
    }
    Ok(())
}

/// g·x^q without Pow where q is one of the common numbers; y = x^(q + 1).
fn power_times(b: &mut Builder, g: &Tensor, x: &Tensor, y: &Tensor, q: f64) -> Tensor {
    match q {
        0.0 => {
            // Of x's shape, which g may not have.
            let one = b.unary("Identity", g);
            if same_dims(g, x) { one } else { b.expand_like(&one, x) }
        }
        1.0 => b.binary("Mul", g, x),
        2.0 => {
            let once = b.binary("Mul", g, x);
            b.binary("Mul", &once, x)
        }
        -0.5 => b.binary("Div", g, y),
        q => {
            let q = b.number(q, x);
            let power = b.binary("Pow", x, &q);
            b.binary("Mul", g, &power)
        }
    }
}
