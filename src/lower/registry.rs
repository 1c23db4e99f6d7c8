//! Which rule rewrites which node.

use super::builder::{Builder, Made};
use super::rules;
use super::site::{Known, Site};

/// How one operator, or one form of it, is rewritten.
///
/// Each rule's module says what it rewrites, why the pipeline wants it, and the equation.
pub struct Rule {
    /// The operators, of ONNX's own domain.
    pub ops: &'static [&'static str],
    /// Why, as a clause for the report.
    pub because: &'static str,
    /// Whether a node of that operator needs it.
    pub applies: fn(&Site) -> bool,
    /// Writes what stands in for it; one value for each output.
    pub rewrite: fn(&Site, &mut Builder) -> Known<Vec<Made>>,
}

/// Every rule. Of several for one operator the first that applies counts.
const RULES: &[&[Rule]] = &[
    rules::old_forms::RULES,
    rules::batch_normalization::RULES,
    rules::cast_like::RULES,
    rules::choose::RULES,
    rules::convolution::RULES,
    rules::cumsum::RULES,
    rules::depth_to_space::RULES,
    rules::dropout::RULES,
    rules::einsum::RULES,
    rules::elu::RULES,
    rules::gelu::RULES,
    rules::hard_sigmoid::RULES,
    rules::hyperbolic::RULES,
    rules::layer_normalization::RULES,
    rules::matmul::RULES,
    rules::negative_log_likelihood::RULES,
    rules::normalisations::RULES,
    rules::pad::RULES,
    rules::pooling::RULES,
    rules::pow::RULES,
    rules::rectifiers::RULES,
    rules::recurrent::RULES,
    rules::reductions::RULES,
    rules::resize::RULES,
    rules::slice::RULES,
    rules::softmax_cross_entropy::RULES,
    rules::softplus::RULES,
    rules::softsign::RULES,
    rules::split::RULES,
    rules::steps::RULES,
    rules::sum::RULES,
    rules::twice::RULES,
    rules::unrolled::RULES,
    rules::transpose::RULES,
    rules::trigonometric::RULES,
];

/// Every rule, one after another.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().copied().flatten()
}

/// The rule that a node needs.
pub fn rule(site: &Site) -> Option<&'static Rule> {
    if !matches!(site.node.domain(), "" | "ai.onnx") {
        return None;
    }
    let op = site.node.op_type();
    all().find(|rule| rule.ops.contains(&op) && (rule.applies)(site))
}

/// Whether a gradient has to pass the node: the condition of most rules.
pub fn on_path(site: &Site) -> bool {
    site.on_path()
}
