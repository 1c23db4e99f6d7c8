//! What an injection did or would do, for people and for programs. Serialised it follows `schemas/report.schema.json`.

use serde::Serialize;

use crate::lower::Rewriting;
use crate::wire::Model;

/// Version of the JSON layout.
pub const SCHEMA: &str = "per-inject.report/1";

/// The report of one injection.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which layout this is: [`SCHEMA`].
    pub schema: &'static str,
    /// The input.
    pub model: ModelSummary,
    /// `loss` where the term is added to the loss, `gradient` where its gradient is added to the gradients that the graph computes,
    /// `training_info` where it is added to the losses of algorithm graphs, `output` where it is an output of its own.
    pub form: &'static str,
    /// The losses that the term was added to: one, none, or in `training_info` one for each algorithm graph.
    pub losses: Vec<LossReport>,
    /// `sampled` or `exact`.
    pub estimator: &'static str,
    /// Slices of the sampled and structured estimators, as they were asked for.
    pub slices: Option<u64>,
    /// Whether layers whose rows are as long read the same slices.
    pub share_slices: bool,
    /// `mean` or `sum`.
    pub reduction: &'static str,
    /// The initializers that hold λ, with their values.
    pub coefficients: Vec<Coefficient>,
    /// The regularised layers, in execution order.
    pub layers: Vec<LayerReport>,
    /// Selected activations that were left alone.
    pub skipped: Vec<Skipped>,
    /// The pipeline that the graph was rewritten for.
    pub target: Option<&'static str>,
    /// Nodes that others took the place of, in file order.
    pub rewritten: Vec<Rewriting>,
    /// What else that pipeline needed: operator set, IR version, outputs.
    pub model_changes: Vec<String>,
    /// What deserves a second look.
    pub warnings: Vec<String>,
    /// Names of added graph outputs.
    pub outputs: Vec<String>,
    /// Name of the graph inputs added.
    pub inputs: Vec<String>,
    /// Number of parts added.
    pub added: crate::record::Added,
    /// Cost of one step, forward, as far as shapes are known.
    pub cost: CostReport,
}

/// The input model.
#[derive(Debug, Clone, Serialize)]
pub struct ModelSummary {
    /// Its path as given.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// IR version.
    pub ir_version: i64,
    /// Version of the default operator set.
    pub opset: i64,
    /// Who wrote it.
    pub producer: String,
    /// Nodes of its main graph.
    pub nodes: usize,
}

impl From<&Model> for ModelSummary {
    fn from(model: &Model) -> Self {
        ModelSummary {
            path: model.file.display_name().display().to_string(),
            bytes: model.file.bytes.len() as u64,
            ir_version: model.ir_version,
            opset: model.opset(),
            producer: model.producer.clone(),
            nodes: model.graph.nodes.len(),
        }
    }
}

/// A loss.
#[derive(Debug, Clone, Serialize)]
pub struct LossReport {
    /// The `training_info` whose algorithm graph computes it; `None` for the main graph.
    pub training_info: Option<usize>,
    /// The name under which the sum of task loss and term is found, as before.
    pub name: String,
    /// The name of the task loss alone, now.
    pub task: String,
}

/// One λ.
#[derive(Debug, Clone, Serialize)]
pub struct Coefficient {
    /// The initializer that holds it, or the input that takes it.
    pub initializer: String,
    /// Its value.
    pub value: f64,
    /// The item of `--coef` that it came from; `None` for the common one.
    pub item: Option<String>,
}

/// One regularised layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Name of the layer; its nodes are called `per_inject/<name>/…`.
    pub name: String,
    /// The node that makes the tapped value, if one does.
    pub node: Option<String>,
    /// Its operator.
    pub op: Option<String>,
    /// The activation, in the selector's words.
    pub activation: Option<String>,
    /// The tapped value.
    pub tensor: String,
    /// The `training_info` whose algorithm graph regularises it; `None` for the main graph.
    pub training_info: Option<usize>,
    /// The gradient of the tapped value that the term's is added to, by its name; `None` but in the gradient form.
    pub gradient: Option<String>,
    /// Its type and shape.
    pub shape: String,
    /// `flatten`, `channel` or `last`.
    pub view: &'static str,
    /// Rows in one step; `null` where the shape does not say.
    pub rows: Option<u64>,
    /// Values in a row; `null` where only the running graph knows.
    pub d: Option<u64>,
    /// λ of this layer.
    pub coef: f64,
    /// Seed of its random numbers.
    pub seed: Option<u32>,
    /// Nodes added for it.
    pub nodes: usize,
    /// What it costs.
    pub cost: LayerCost,
}

/// Cost of a layer's term in one step, forward. Dimensions that the shape leaves open count as 1.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LayerCost {
    /// Multiply-adds.
    pub multiply_adds: f64,
    /// Bytes of Θ and of the projections.
    pub bytes: f64,
    /// Normal numbers drawn.
    pub random_numbers: f64,
}

/// Cost of the whole.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct CostReport {
    /// Multiply-adds of the model's own forward pass, as far as shapes are known.
    pub model_multiply_adds: f64,
    /// Multiply-adds of all terms.
    pub term_multiply_adds: f64,
    /// Bytes of all Θ and projections.
    pub term_bytes: f64,
    /// Normal numbers drawn.
    pub random_numbers: f64,
    /// Whether some dimension was unknown and counted as 1, so that the numbers are per sample rather than per step.
    pub per_sample: bool,
}

/// A selected activation that was left alone.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    /// Which one.
    pub what: String,
    /// Why.
    pub reason: String,
}
