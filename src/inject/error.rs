//! Why an injection was refused.

use thiserror::Error;

use crate::analysis::AnalysisError;
use crate::graph::GraphError;
use crate::lower::LowerError;
use crate::regularizer::Unsupported;
use crate::select::{ParseError, SelectError};
use crate::wire::WireError;

/// A refusal; nothing was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The file's bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The graph's structure, or a selector of initializers.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// A record of an earlier injection that cannot be read.
    #[error("{problem}; strip could not tell a new injection from it, so take that entry out first")]
    BadRecord {
        /// What is wrong with it.
        problem: String,
    },
    /// A selector.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// What the training pipeline does not take.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A per-layer coefficient's selector.
    #[error("--coef {item}={value}: {source}")]
    CoefficientItem {
        /// The selector.
        item: String,
        /// The coefficient.
        value: f64,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A per-layer coefficient that no chosen layer takes.
    #[error("--coef {item}={value}: none of the {layers} chosen layer(s) matches {item:?}")]
    CoefficientUnused {
        /// The selector.
        item: String,
        /// The coefficient.
        value: f64,
        /// How many layers were chosen.
        layers: usize,
    },
    /// No λ was given.
    #[error("no coefficient was given; the paper searched 3e-4, 1e-4, 3e-5 and 1e-5, so start with --coef 3e-5")]
    NoCoefficient,
    /// λ was given for other layers only.
    #[error("no coefficient was given for {layer}: --coef has it for other layers only; add --coef 3e-5 for the rest")]
    NoCoefficientFor {
        /// The layer.
        layer: String,
    },
    /// λ is NaN, infinite or negative.
    #[error("coefficient {value:?} makes no regulariser: it must be a finite number, and not negative")]
    BadCoefficient {
        /// What was given.
        value: f64,
    },
    /// λ is not what it was in the arithmetic that the term is computed in.
    #[error(
        "coefficient {value:e} is {becomes} in float32, which the term is computed in; float32 holds 1.5e-45 to 3.4e38"
    )]
    CoefficientLost {
        /// What was given.
        value: f64,
        /// What it would be.
        becomes: f32,
    },
    /// Two versions of the default operator set.
    #[error(
        "the model imports the default operator set twice, as {first} and as {second}, and nobody knows which one counts; \
         keep one of them"
    )]
    TwoOpsets {
        /// The first version.
        first: i64,
        /// The other.
        second: i64,
    },
    /// No slices.
    #[error("--slices {slices} is out of range: between 1 and 16777216, and the paper takes 256")]
    BadSlices {
        /// What was given.
        slices: u64,
    },
    /// A graph without nodes.
    #[error("the graph has no nodes, so there is nothing to regularise")]
    NoNodes,
    /// Nothing of ONNX's own operators may stand in the graph.
    #[error(
        "the model imports no version of ONNX's own operator set, only {found}, so its graph can hold none of the operators that \
         would be added; import one, such as 17"
    )]
    NoOperators {
        /// The operator sets that it imports.
        found: String,
    },
    /// The graph has no loss.
    #[error(
        "no graph output can be the loss: it would be a scalar of floating point that depends on a weight ({found}); \
         export the model with its loss inside, name an inner one with --loss NAME, \
         or add the term as an output of its own with --as-output"
    )]
    NoLoss {
        /// The outputs, with their types.
        found: String,
    },
    /// More than one output could be the loss.
    #[error("{} outputs could be the loss: {}; choose with --loss NAME", candidates.len(), candidates.join(", "))]
    AmbiguousLoss {
        /// Their names.
        candidates: Vec<String>,
    },
    /// `--loss` names nothing.
    #[error("--loss {name:?} names no value of the graph{hint}")]
    LossNotFound {
        /// The name given.
        name: String,
        /// `; did you mean …?`, or nothing.
        hint: String,
    },
    /// `--loss` names something that cannot be a loss.
    #[error("{name:?} cannot be the loss: {problem}")]
    BadLoss {
        /// The name.
        name: String,
        /// Why not.
        problem: String,
    },
    /// The term would have to be added before an activation is computed.
    #[error(
        "the loss {loss:?} is used by {consumer} before the tapped activation {tensor:?} is computed; \
         choose the loss that is the graph's output, or leave this layer out with '!tensor:{tensor}'"
    )]
    LossTooEarly {
        /// The loss.
        loss: String,
        /// The node that reads it.
        consumer: String,
        /// The tapped value.
        tensor: String,
    },
    /// `--form loss` on a graph that holds its backward pass.
    #[error(
        "--form loss: this graph already holds its backward pass ({evidence}), and a term added to its loss would not reach the \
         gradients; --form gradient adds the term's gradient to them, or inject into the forward graph that this one was made from"
    )]
    HoldsBackward {
        /// What shows it.
        evidence: String,
    },
    /// `--form gradient` on a graph without a backward pass.
    #[error(
        "--form gradient: this graph computes no gradients ({found}) that the term's could be added to; \
         --form loss adds the term to the loss, before the graph is differentiated"
    )]
    NoBackward {
        /// What kind of graph it is.
        found: &'static str,
    },
    /// `--for` on a graph that is differentiated already.
    #[error(
        "--for {target} rewrites forward graphs before they are differentiated, and this one holds its backward pass already \
         ({evidence}); leave --for out, or rewrite the forward graph that this one was made from"
    )]
    TargetDifferentiated {
        /// The pipeline.
        target: &'static str,
        /// What shows the backward pass.
        evidence: String,
    },
    /// `--for` where the losses are in `training_info`.
    #[error(
        "--for {target} wants the loss in the main graph, and this model has it in training_info, which that pipeline does not read; \
         leave --for out to regularise it there, or export the model with its loss inside"
    )]
    TargetTrainingInfo {
        /// The pipeline.
        target: &'static str,
    },
    /// `--as-output` and the gradient form.
    #[error(
        "--form gradient and --as-output exclude each other; --outputs per exposes the value of the term in the gradient form"
    )]
    GradientAsOutput,
    /// `--loss-term` outside the gradient form.
    #[error(
        "--loss-term is for graphs that hold their backward pass: here the term is in the loss anyway, unless --as-output keeps it out"
    )]
    LossTermAnyway,
    /// `--loss` without `--loss-term` in the gradient form.
    #[error(
        "--loss {name:?}: in the gradient form the loss stays what it is; add --loss-term to have the term added to it as well"
    )]
    LossUntouched {
        /// The name given.
        name: String,
    },
    /// No training_info says what its loss is.
    #[error(
        "the model trains by its training_info ({entries} of them), and none of them says what its loss is by a Gradient node \
         (ai.onnx.preview.training); --loss NAME takes one of the main graph, --as-output adds the term to that"
    )]
    TrainingInfo {
        /// How many there are.
        entries: usize,
    },
    /// The loss of a training_info is computed by the main graph.
    #[error(
        "training_info {entry}: its loss {loss:?} is computed by the main graph, which is left as it is; \
         compute the loss in the algorithm graph, or take the main graph's with --loss {loss}"
    )]
    LossOfMainGraph {
        /// Which training_info.
        entry: usize,
        /// The loss.
        loss: String,
    },
    /// The operator set is too old.
    #[error("layer {layer} ({estimator}): {source}; {advice}")]
    Unsupported {
        /// The layer.
        layer: String,
        /// The estimator.
        estimator: &'static str,
        /// What is missing.
        source: Unsupported,
        /// What to do.
        advice: &'static str,
    },
    /// `--strict`, and something was skipped.
    #[error("--strict: {what} cannot be regularised: {reason}")]
    Strict {
        /// The activation.
        what: String,
        /// Why not.
        reason: String,
    },
    /// Every selected activation had to be skipped.
    #[error("{}: {first}", nothing_left(*count))]
    NothingLeft {
        /// How many were selected.
        count: usize,
        /// The first one with its reason.
        first: String,
    },
    /// Exposing the task loss of a graph without one.
    #[error("--outputs task: the loss is not touched, so the task loss is what it was")]
    NoTaskLoss,
}

impl From<GraphError> for InjectError {
    fn from(error: GraphError) -> Self {
        InjectError::Analysis(error.into())
    }
}

fn nothing_left(count: usize) -> String {
    match count {
        1 => "what is selected cannot be regularised".into(),
        n => format!("none of the {n} selected layers can be regularised; the first"),
    }
}
