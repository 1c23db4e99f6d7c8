//! Operators that move elements: the gradient moves back.

use crate::autodiff::rule::Rule;
use crate::autodiff::shape::reshape_like;
use crate::graph::Attributes;
use crate::rewrite::site::{Refusal, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Reshape", "Flatten", "Squeeze", "Unsqueeze"],
        adjoint: |a| {
            let (g, x) = (a.g(0)?, a.x(0)?);
            let dx = reshape_like(a.b, &g, &x);
            a.give(0, dx);
            Ok(())
        },
    },
    // yᵢ = x_perm(i): the inverse permutation.
    Rule {
        ops: &["Transpose"],
        adjoint: |a| {
            let (g, x) = (a.g(0)?, a.x(0)?);
            let rank = rank(&x)?;
            let reversed = || (0..rank as i64).rev().collect::<Vec<_>>();
            let perm = a.site.node.ints("perm").map_or_else(reversed, <[i64]>::to_vec);
            let mut inverse = vec![0; rank];
            for (i, p) in perm.iter().enumerate() {
                let slot = usize::try_from(*p).ok().and_then(|p| inverse.get_mut(p));
                *slot.ok_or_else(|| Refusal(format!("its perm {perm:?} does not fit rank {rank}")))? = i;
            }
            let dx = a.b.transpose(&g, &inverse);
            a.give(0, dx);
            Ok(())
        },
    },
    // What was turned round is turned back.
    Rule {
        ops: &["ReverseSequence"],
        adjoint: |a| {
            let (g, lengths) = (a.g(0)?, a.x(1)?);
            let dx = a.b.one("ReverseSequence", &[&g, &lengths], a.site.node.attribute.clone(), g.ty.clone());
            a.give(0, dx);
            Ok(())
        },
    },
    // The same triangle of the gradient, zero elsewhere.
    Rule {
        ops: &["Trilu"],
        adjoint: |a| {
            let g = a.g(0)?;
            let mut inputs = vec![Some(g.clone())];
            inputs.extend(a.site.input(1).map(Some));
            let made = a.b.node("Trilu", &inputs, a.site.node.attribute.clone(), &[g.ty]);
            a.give(0, made[0].clone());
            Ok(())
        },
    },
];
