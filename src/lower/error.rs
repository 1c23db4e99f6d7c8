//! Why a model cannot be lowered.

use thiserror::Error;

use super::site::Site;
use crate::analysis::AnalysisError;
use crate::wire::WireError;

/// A refusal; nothing was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LowerError {
    /// The file's bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The graph with its functions' bodies in it.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// Nodes that the target does not take and for which there is no exact rewriting.
    #[error(
        "{} of this graph's nodes cannot be rewritten for ONNX Runtime training 1.19.2: {}", nodes.len(), list(nodes)
    )]
    Unlowered {
        /// Every one of them.
        nodes: Vec<Unlowered>,
    },
    /// The operator set.
    #[error("--for ort-training: the model imports operator set {found}, {problem}")]
    Opset {
        /// Its version.
        found: i64,
        /// What is the matter, and what to do.
        problem: String,
    },
    /// Initializers that are inputs as well, and cannot be taken from among them.
    #[error(
        "--for ort-training: the initializers {names} are inputs as well, which generate_artifacts refuses, and the file has no other \
         inputs or spreads them; export it with keep_initializers_as_inputs=False"
    )]
    Inputs {
        /// Their names.
        names: String,
    },
    /// An output of which not even the rank is known.
    #[error(
        "--for ort-training: the rank of output {output:?} is unknown, and generate_artifacts wants every output's shape; declare it \
         in the model (onnx.shape_inference often can)"
    )]
    OutputWithoutShape {
        /// The output.
        output: String,
    },
}

/// A node that cannot be rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlowered {
    /// How messages name it.
    pub node: String,
    /// Why.
    pub reason: String,
}

impl Unlowered {
    pub(super) fn new(site: &Site, reason: String) -> Self {
        Unlowered { node: site.analysis.graph.describe(site.id), reason }
    }
}

fn list(nodes: &[Unlowered]) -> String {
    by_reason(nodes.iter().map(|n| (n.node.as_str(), n.reason.as_str())))
}

/// Nodes, each with a reason, by their reasons, in the order in which those come first.
pub(crate) fn by_reason<'n>(nodes: impl Iterator<Item = (&'n str, &'n str)>) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (node, reason) in nodes {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(node),
            None => reasons.push((reason, vec![node])),
        }
    }
    let each: Vec<String> = reasons.iter().map(|(reason, names)| format!("{}: {reason}", names.join(", "))).collect();
    each.join("; ")
}
