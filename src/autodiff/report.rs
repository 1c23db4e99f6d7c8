//! What a step graph is driven by: the report, which the file's metadata holds as well.

use std::collections::BTreeMap;

use serde::Serialize;

/// Version of the JSON layout, `schemas/step.schema.json`.
pub const SCHEMA: &str = "per-inject.step/1";

/// The names of a step graph, by what they are for. As JSON it stands in the file's `metadata_props` under [`STEP_KEY`].
///
/// [`STEP_KEY`]: crate::record::STEP_KEY
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which layout this is: [`SCHEMA`].
    pub schema: &'static str,
    /// The loss, an output.
    pub loss: String,
    /// The optimiser.
    pub optimizer: &'static str,
    /// What is trained, in file order.
    pub parameters: Vec<Parameter>,
    /// Running statistics: input and successor.
    pub statistics: Vec<Successor>,
    /// Counters that a step hands on, int64 scalars, 0 before the first step: `step`, `accumulated`.
    pub counters: Vec<Successor>,
    /// Inputs that a loop decides about.
    pub inputs: Inputs,
    /// Outputs that tell about the step.
    pub outputs: Outputs,
    /// Trained initializers that the loss does not depend on.
    pub unreached: Vec<String>,
    /// Nodes of the forward pass.
    pub forward_nodes: usize,
    /// Nodes added for the backward pass and the optimiser.
    pub added_nodes: usize,
}

/// A trained parameter of a step graph.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Parameter {
    /// Its name: that of the initializer and input.
    pub name: String,
    /// Where it stands in the model, where that is a body of If, Loop or Scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_body: Option<OfBody>,
    /// Output: its gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient: Option<String>,
    /// Output: what it is after the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What belongs to it from step to step, zeros before the first: the optimiser's state and the sum of gradients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<Successor>,
    /// The optimiser's constants for it, in the words of `--group`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<&'static str, f64>,
}

/// Where an initializer of a body stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfBody {
    /// The body: `If@1/then_branch`, by operator, position and attribute of its node, behind those around it.
    pub body: String,
    /// Its name there.
    pub initializer: String,
}

/// An input, and the output that takes its place in the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Successor {
    /// The input.
    pub name: String,
    /// The output.
    pub next: String,
}

/// Inputs of a step graph beside the model's own and what is handed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inputs {
    /// η, a float32 scalar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<&'static str>,
    /// Whether to step with what was accumulated, a bool scalar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply: Option<&'static str>,
    /// What the loss is multiplied by on the way back, a float32 scalar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<&'static str>,
}

/// Outputs of a step graph beside the model's own and what is handed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outputs {
    /// √Σg² over all parameters before clipping, a float32 scalar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<&'static str>,
    /// Whether every gradient was finite, a bool scalar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradients_finite: Option<&'static str>,
}
