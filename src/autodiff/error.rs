//! Why a graph was not differentiated.

use thiserror::Error;

use crate::analysis::AnalysisError;
use crate::graph::GraphError;
use crate::hoist::HoistError;
use crate::inject::InjectError;
use crate::lower::{LowerError, by_reason};
use crate::select::SelectError;
use crate::wire::WireError;

/// A refusal; nothing was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DifferentiateError {
    /// The file's bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The graph's structure, or a selector of initializers.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// A call that cannot be spelt out.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Trained initializers of bodies.
    #[error(transparent)]
    Hoist(#[from] HoistError),
    /// A selector.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// An operator set that gradients cannot be written in.
    #[error(
        "the model imports operator set {found}; gradients are written in operator sets {OLDEST} and later: convert it first with onnx.version_converter"
    )]
    Opset {
        /// Its version.
        found: i64,
    },
    /// An operator set that the model cannot be raised to.
    #[error("the model cannot be raised from operator set {found} to {to}: {problem}")]
    Raise {
        /// Its version.
        found: i64,
        /// What was asked for.
        to: i64,
        /// What stands in the way; where nodes do, all of them.
        problem: String,
    },
    /// The IR version.
    #[error(
        "the model has IR version {found}; before 4 an initializer cannot be a default that a step replaces: set ir_version to 8 first"
    )]
    IrVersion {
        /// Its version.
        found: i64,
    },
    /// The loss.
    #[error(transparent)]
    Loss(#[from] InjectError),
    /// The graph has no loss.
    #[error(
        "no graph output can be the loss: it would be a scalar of floating point that depends on a weight ({found}); export the model with its \
         loss inside, name an inner one with --loss NAME, or choose with --wrt what is trained ('per-inject inspect' shows what is)"
    )]
    NoLoss {
        /// The outputs, with their types.
        found: String,
    },
    /// The graph holds gradients already.
    #[error(
        "the graph holds its backward pass already ({evidence}); differentiate the forward graph that it was made from"
    )]
    HasGradients {
        /// What gives it away.
        evidence: String,
    },
    /// Nothing that is trained reaches the loss.
    #[error(
        "no trained initializer reaches the loss {loss:?}, so there is nothing to differentiate for; 'per-inject inspect' shows what counts as trained, and --wrt chooses"
    )]
    NothingTrained {
        /// The loss.
        loss: String,
    },
    /// Nodes between parameters and loss whose gradient is not known.
    #[error("the gradient of {} of this graph's nodes is not known: {}", nodes.len(), list(nodes))]
    Undifferentiable {
        /// Every one of them.
        nodes: Vec<Undifferentiable>,
    },
    /// A group of parameters that does not fit.
    #[error("--group: {source} (it chooses among the parameters: {parameters})")]
    Group {
        /// What is wrong with its selector.
        source: SelectError,
        /// What there is, as a list.
        parameters: String,
    },
    /// A group sets what its optimiser lacks.
    #[error("--group sets {setting}, which {optimizer} does not have: it has {known}")]
    NoSuchSetting {
        /// What is set.
        setting: &'static str,
        /// The optimiser.
        optimizer: &'static str,
        /// What it has.
        known: String,
    },
    /// An option of the step where there is none.
    #[error("{option} is about a step, and without an optimizer there is none: choose one with --optimizer")]
    NoStep {
        /// The option.
        option: &'static str,
    },
    /// A number that makes no sense.
    #[error("{what} is {value}, and has to be {expected}")]
    Number {
        /// The option or setting.
        what: String,
        /// Its value.
        value: String,
        /// What it could be.
        expected: &'static str,
    },
    /// Several nodes update one running statistic.
    #[error(
        "the running statistic {statistic:?} is updated by {} and by {}, each from what it was before the step, so what it becomes is not defined; give each node a copy of its own",
        nodes[0], nodes[1]
    )]
    SharedStatistic {
        /// The initializer.
        statistic: String,
        /// Two of the nodes.
        nodes: [String; 2],
    },
    /// A name that the step graph needs is the model's own.
    #[error(
        "the model has a value {name:?} of its own, which is what the step graph calls {what}; rename it in the model first"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// What it would be.
        what: &'static str,
    },
}

impl From<GraphError> for DifferentiateError {
    fn from(error: GraphError) -> Self {
        DifferentiateError::Analysis(error.into())
    }
}

/// The oldest operator set that gradients are written in.
pub const OLDEST: i64 = 9;

/// A node whose gradient is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undifferentiable {
    /// How messages name it.
    pub node: String,
    /// Why.
    pub reason: String,
}

fn list(nodes: &[Undifferentiable]) -> String {
    by_reason(nodes.iter().map(|n| (n.node.as_str(), n.reason.as_str())))
}
