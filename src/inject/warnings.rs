//! What deserves a second look after an injection was planned: cost, missing kernels, doubled terms.

use super::Injection;
use super::report::{LayerReport, Report};
use super::term::feeds_no_defaults;
use crate::graph::backward::requests;
use crate::record::Record;
use crate::regularizer::View;

/// A drawn normal number takes about as long as this many multiply-adds (15 ns against 0.06 ns on one core).
const MULTIPLY_ADDS_PER_NORMAL: f64 = 250.0;

/// What an open batch dimension is taken for when the cost of a step is weighed.
const TYPICAL_BATCH: f64 = 128.0;

/// Θ and projections above this many bytes for one layer are worth a warning.
const LARGE: f64 = 64e6;

/// Where maps are flattened there is a cheaper view.
fn cheaper_view(report: &Report) -> &'static str {
    let flattened = |l: &LayerReport| l.view == View::Flatten.name() && l.shape.matches(',').count() >= 2;
    if report.layers.iter().any(flattened) { ", and --view channel less" } else { "" }
}

/// RandomNormal and RandomNormalLike were revised in this operator set, for bfloat16.
const NO_RANDOM_KERNELS: i64 = 22;

/// What a person should know before training with the injected graph, a sentence each.
pub fn warnings(injection: &Injection, report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    let sampled = injection.options.estimator.draws();
    if sampled {
        let heavy: Vec<&LayerReport> = report.layers.iter().filter(|l| l.cost.bytes > LARGE).collect();
        if let Some(worst) = heavy.iter().max_by(|a, b| a.cost.bytes.total_cmp(&b.cost.bytes)) {
            out.push(format!(
                "{} layer(s) draw large slices in every step, the largest {:.0} MB ({}); --estimator exact needs none{}",
                heavy.len(),
                worst.cost.bytes / 1e6,
                worst.name,
                cheaper_view(report)
            ));
        }
        // Random numbers are drawn once a step, whatever the batch.
        let batch = if report.cost.per_sample { TYPICAL_BATCH } else { 1.0 };
        let drawing = MULTIPLY_ADDS_PER_NORMAL * report.cost.random_numbers / batch;
        let term = report.cost.term_multiply_adds + drawing;
        let model = report.cost.model_multiply_adds;
        if model > 0.0 && term > model {
            out.push(format!(
                "the term costs about {:.1} times the model's own forward pass; --estimator exact costs next to nothing{}",
                term / model,
                cheaper_view(report)
            ));
        }
    }
    let opset = report.model.opset;
    if opset < 7 {
        out.push(format!(
            "the model imports operator set {opset}, whose Add and Mul ONNX Runtime does not have; onnx.version_converter brings it to 13, also after the injection"
        ));
    }
    if sampled && opset >= NO_RANDOM_KERNELS && !report.layers.is_empty() {
        out.push(format!(
            "the model imports operator set {opset}, and ONNX Runtime (1.32) has no CPU kernel of RandomNormal since {NO_RANDOM_KERNELS}; --estimator exact runs there"
        ));
    }
    let asked = || !requests(&injection.analysis.graph).is_empty();
    if !injection.analysis.has_trainable() && injection.destination == super::Destination::Loss && !asked() {
        let chosen = injection.options.wrt.is_some() || injection.options.freeze.is_some();
        let why = if chosen {
            "--wrt and --freeze leave no initializer to train, so nothing says which layers can learn"
        } else {
            "no initializer is trainable, so nothing says which layers can learn; are the parameters graph inputs?"
        };
        out.push(why.into());
    }
    if let Some(loss) = injection.loss.as_ref().filter(|l| l.reached.len() > 1) {
        let names: Vec<&str> = loss.reached.iter().map(|v| injection.analysis.graph.name(*v)).collect();
        out.push(format!(
            "the term reaches {} outputs, each of which changes with it: {}",
            names.len(),
            names.join(", ")
        ));
    }
    if injection.options.target.is_some() && !report.losses.is_empty() && !injection.options.outputs.task {
        out.push(
            "the eval_model that generate_artifacts makes has the term in its loss, too: --outputs task makes the task loss an \
             output behind it; or make the eval_model of the same graph rewritten with --coef 0, which has the same parameters"
                .into(),
        );
    }
    if injection.options.coef_input && feeds_no_defaults(injection) {
        let names: Vec<String> = report.coefficients.iter().map(|c| format!("{:?}", c.initializer)).collect();
        out.push(format!(
            "every step has to feed {}: ONNX Runtime's training takes no input that has a default, so there is none; without --coef-input it is \
             an initializer, which generate_artifacts(frozen_params=…) makes a parameter of the checkpoint that a pipeline can change, too",
            names.join(", ")
        ));
    }
    if report.coefficients.iter().any(|c| c.value == 0.0) {
        out.push("a coefficient is 0: those layers are computed and weigh nothing".into());
    }
    let unknown = report.layers.iter().filter(|l| l.d.is_none()).count();
    if unknown > 0 {
        out.push(format!(
            "{unknown} layer(s) have a row length that only the running graph knows; it is computed there"
        ));
    }
    let before = Record::all(injection.analysis.model).unwrap_or_default();
    let twice: Vec<&str> = report
        .layers
        .iter()
        .filter(|l| before.iter().any(|(_, r)| r.layers.iter().any(|b| b.tensor == l.tensor)))
        .map(|l| l.tensor.as_str())
        .collect();
    if let Some(first) = twice.first() {
        out.push(format!(
            "{} layer(s) are regularised already, {first:?} first: the terms add up; 'per-inject strip' takes the earlier one out",
            twice.len()
        ));
    }
    out
}
