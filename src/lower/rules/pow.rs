//! **What.** Pow with an exponent of whole-number type, and with a base that is stretched over the exponent.
//!
//! **Why.** The gradient subtracts 1 from the exponent in the base's type, and does not sum over the axes that the base was stretched
//! along, so that its gradient comes out in the wrong shape. A trained exponent gets no gradient at all, silently: that is refused.
//!
//! **Equation.** The same operator on a cast exponent and an expanded base.

use crate::lower::registry::Rule;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Pow"],
        because: "its gradient stops at the exponent",
        applies: |site| site.on_path() && is_exponent_trained(site),
        rewrite: |_, _| Err("its exponent is trained, and the gradient builder gives it none".into()),
    },
    Rule {
        ops: &["Pow"],
        because: "its gradient needs an exponent of the base's type, and a base that is not stretched",
        applies: |site| site.on_path() && (is_whole(site) || is_stretched(site)),
        rewrite,
    },
];

fn is_exponent_trained(site: &Site) -> bool {
    site.depends_on_trained(1)
}

fn is_whole(site: &Site) -> bool {
    matches!((site.input(0), site.input(1)), (Some(x), Some(e)) if x.ty.elem != e.ty.elem)
}

fn is_stretched(site: &Site) -> bool {
    // A single number is never what stretches the base.
    let is_one = site
        .input(1)
        .is_some_and(|e| e.ty.is_scalar() == Some(true) && e.ty.rank() <= site.input(0).and_then(|x| x.ty.rank()));
    !is_one && site.input(0).is_some_and(|x| x.ty.dims != site.output_type(0).dims)
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (mut x, mut exponent) = (site.required(0)?, site.required(1)?);
    if is_whole(site) {
        exponent = b.cast(&exponent, x.ty.elem);
    }
    if is_stretched(site) {
        let whole = b.one("Pow", &[&x, &exponent], Vec::new(), site.output_type(0));
        x = b.expand_like(&x, &whole);
    }
    Ok(vec![b.one("Pow", &[&x, &exponent], Vec::new(), site.output_type(0)).into()])
}
