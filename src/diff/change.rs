//! What a difference is made of. Serialised it follows `schemas/diff.schema.json`.
//!
//! Everything is owned, so that a difference outlives the models, and names are as the models have them: whoever shows them escapes
//! them. `a` is always the first model (before), `b` the second (after). All lists are sorted: by position in `b`, what is only in
//! `a` by position in `a`, and what has no position by name.

use serde::Serialize;

use super::matching::Matching;
use crate::inject::report::ModelSummary;

/// Version of the JSON layout.
pub const SCHEMA: &str = "per-inject.diff/1";

/// The difference of two models.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    /// Which layout this is: [`SCHEMA`].
    pub schema: &'static str,
    /// The first model.
    pub a: ModelSummary,
    /// The second model.
    pub b: ModelSummary,
    /// What was left out: `names`, `docs`, `shapes`, `weights`.
    pub ignored: Vec<&'static str>,
    /// Whether nothing is reported but nodes that stand elsewhere in the list ([`NodesDiff::moved`]).
    pub equal: bool,
    /// How much there is of each kind in the main graph.
    pub summary: Summary,
    /// What changed about the model as a whole.
    pub model: Vec<Property>,
    /// The main graph.
    #[serde(flatten)]
    pub graph: GraphDiff,
    /// Local functions.
    pub functions: FunctionsDiff,
    /// Training steps, by their position in `training_info`.
    pub training_info: Vec<TrainingDiff>,
    /// What per-inject itself added or took out, in groups; parts of the main graph name theirs by its position here.
    pub folds: Vec<Fold>,
    /// What could not be compared, and why, as sentences.
    pub warnings: Vec<String>,
    /// Which node and value of the main graphs correspond.
    #[serde(skip)]
    pub matching: Matching,
}

/// Numbers of changes in the main graph, its bodies not included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Nodes.
    pub nodes: Counts,
    /// Initializers; none of them moves.
    pub initializers: Counts,
    /// Graph inputs.
    pub inputs: Counts,
    /// Graph outputs.
    pub outputs: Counts,
    /// Values that nodes make, by what they are called now.
    pub values_renamed: usize,
    /// Nodes that correspond, changed or not.
    pub nodes_matched: usize,
}

/// Numbers of one kind of part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Only in `b`.
    pub added: usize,
    /// Only in `a`.
    pub removed: usize,
    /// In both, and different.
    pub changed: usize,
    /// In both, under another name.
    pub renamed: usize,
    /// In both, elsewhere in the list.
    pub moved: usize,
}

/// A named property of a model, a graph or a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Property {
    /// Which one: `ir_version`, `producer_name`, `doc_string`, `opset_import`, `metadata` …
    pub what: &'static str,
    /// Of several its key: an operator set's domain, a metadata key. Else empty.
    pub key: String,
    /// What it was; `None` where there was none.
    pub from: Option<String>,
    /// What it is now; `None` where there is none any more.
    pub to: Option<String>,
    /// The group of [`Diff::folds`] that it belongs to.
    pub fold: Option<usize>,
}

/// The difference of two graphs, bodies or functions.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GraphDiff {
    /// Name, doc string, metadata and such of the graph itself.
    pub properties: Vec<Property>,
    /// Nodes.
    pub nodes: NodesDiff,
    /// Initializers.
    pub initializers: InitializersDiff,
    /// Graph inputs.
    pub inputs: ValuesDiff,
    /// Graph outputs.
    pub outputs: ValuesDiff,
    /// Declared types of inner values.
    pub value_info: ValuesDiff,
    /// Values made by nodes that correspond, under other names; and what has other names in bodies in which nothing else differs, with
    /// its path in front.
    pub values_renamed: Vec<Renamed>,
}

/// Differences between two node lists.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NodesDiff {
    /// Only in `b`.
    pub added: Vec<NodeRef>,
    /// Only in `a`.
    pub removed: Vec<NodeRef>,
    /// In both, with other attributes, inputs, outputs or bodies.
    pub changed: Vec<NodeChange>,
    /// In both, under another name.
    pub renamed: Vec<Renamed>,
    /// In both, and the order among the others is another one. What the graph computes is the same.
    pub moved: Vec<Moved>,
}

/// A node with its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRef {
    /// Its position in its graph's node list.
    pub position: usize,
    /// Its name, often empty.
    pub name: String,
    /// Operator.
    pub op: String,
    /// The operator's domain; empty for ONNX's own.
    pub domain: String,
    /// Names of its inputs; empty where an optional one is left out.
    pub inputs: Vec<String>,
    /// Names of its outputs; empty where an optional one is left out.
    pub outputs: Vec<String>,
    /// Its attributes, by name.
    pub attributes: Vec<AttributeText>,
    /// The nodes that make its inputs, each once, in input order.
    pub producers: Vec<Neighbour>,
    /// The first nodes that read its outputs, at most [`MOST_NEIGHBOURS`].
    pub consumers: Vec<Neighbour>,
    /// How many nodes read its outputs.
    pub consumer_count: usize,
    /// The group of [`Diff::folds`] that it belongs to.
    pub fold: Option<usize>,
}

/// A node lists so many neighbours on each side.
pub const MOST_NEIGHBOURS: usize = 8;

/// A node beside another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// Its position in its graph's node list.
    pub position: usize,
    /// Its name, often empty.
    pub name: String,
    /// Operator.
    pub op: String,
    /// The value between the two.
    pub tensor: String,
}

/// An attribute in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttributeText {
    /// Its name.
    pub name: String,
    /// Its value, shortened where it is long: `[1, 1]`, `"SAME_UPPER"`, `float[3, 3] {0.5, …}`, `a graph of 4 nodes`.
    pub value: String,
}

/// A node that is in both graphs and not the same.
#[derive(Debug, Clone, Serialize)]
pub struct NodeChange {
    /// As it was.
    pub a: NodeRef,
    /// As it is.
    pub b: NodeRef,
    /// What differs, at least one thing.
    pub changes: Vec<Change>,
    /// The group of [`Diff::folds`] that the change belongs to.
    pub fold: Option<usize>,
}

/// One thing that differs between corresponding nodes.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// An attribute.
    Attribute {
        /// Its name.
        name: String,
        /// Its value before; `None` where it was not set.
        from: Option<String>,
        /// Its value now; `None` where it is not set.
        to: Option<String>,
    },
    /// An input reads a value that does not correspond to the one it read.
    Input {
        /// Which input.
        slot: usize,
        /// The value's name in `a`; `None` where the input was left out.
        from: Option<String>,
        /// The value's name in `b`; `None` where the input is left out.
        to: Option<String>,
    },
    /// An output that is made on one side only.
    Output {
        /// Which output.
        slot: usize,
        /// Its name in `a`; `None` where it was left out.
        from: Option<String>,
        /// Its name in `b`; `None` where it is left out.
        to: Option<String>,
    },
    /// The doc string.
    Doc {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// A metadata entry of the node.
    Metadata {
        /// Its key.
        key: String,
        /// Before.
        from: Option<String>,
        /// Now.
        to: Option<String>,
    },
    /// A body of an If, Loop or Scan.
    Body {
        /// The attribute that holds it.
        attribute: String,
        /// Where it stands, from the outermost graph on: `loop_1/body`, `loop_1/body/if_2/then_branch`.
        path: String,
        /// What differs inside.
        diff: Box<GraphDiff>,
    },
}

/// Differences between two lists of initializers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct InitializersDiff {
    /// Only in `b`.
    pub added: Vec<InitializerRef>,
    /// Only in `a`.
    pub removed: Vec<InitializerRef>,
    /// In both, with another type, shape or value.
    pub changed: Vec<InitializerChange>,
    /// In both, under another name.
    pub renamed: Vec<Renamed>,
}

/// An initializer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitializerRef {
    /// Its position in its list.
    pub position: usize,
    /// Its name.
    pub name: String,
    /// Element type and shape: `float[64, 3, 3, 3]`.
    #[serde(rename = "type")]
    pub ty: String,
    /// The group of [`Diff::folds`] that it belongs to.
    pub fold: Option<usize>,
}

/// An initializer that is in both graphs and not the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitializerChange {
    /// As it was.
    pub a: InitializerRef,
    /// As it is.
    pub b: InitializerRef,
    /// How far the elements are apart; `None` where shapes differ, or no element does, or they could not be read.
    pub values: Option<ValuesChange>,
    /// Why the elements could not be compared; `None` where they were.
    pub problem: Option<String>,
}

/// How far the elements of two tensors of one shape are apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ValuesChange {
    /// How many elements each has.
    pub elements: u64,
    /// How many of them differ. A NaN equals a NaN, and −0 equals 0.
    pub different: u64,
    /// Largest |b − a| over pairs of finite elements; `None` where there is none, or for strings.
    pub max_abs: Option<f64>,
    /// Mean |b − a| over pairs of finite elements.
    pub mean_abs: Option<f64>,
    /// a·b / (‖a‖ ‖b‖) over pairs of finite elements; `None` where a norm is 0.
    pub cosine: Option<f64>,
}

/// Differences between two lists of declared values.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ValuesDiff {
    /// Only in `b`.
    pub added: Vec<ValueRef>,
    /// Only in `a`.
    pub removed: Vec<ValueRef>,
    /// In both, with another type, another doc string, or made by something else.
    pub changed: Vec<ValueChange>,
    /// In both, under another name. Always empty for value_info: see [`GraphDiff::values_renamed`].
    pub renamed: Vec<Renamed>,
    /// In both, and the order among the others is another one. Always empty for value_info, whose order means nothing.
    pub moved: Vec<Moved>,
}

/// A declared value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueRef {
    /// Its position in its list.
    pub position: usize,
    /// Its name.
    pub name: String,
    /// Its declared type: `float[N, 3, 224, 224]`.
    #[serde(rename = "type")]
    pub ty: String,
    /// The group of [`Diff::folds`] that it belongs to.
    pub fold: Option<usize>,
}

/// A declared value that is in both graphs and not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// As it was.
    pub a: ValueRef,
    /// As it is.
    pub b: ValueRef,
    /// What makes it, before and now, where these do not correspond.
    pub source: Option<SourceChange>,
    /// Its doc string, before and now, where these differ.
    pub doc: Option<DocChange>,
    /// The group of [`Diff::folds`] that the change belongs to.
    pub fold: Option<usize>,
}

/// What makes a graph output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceChange {
    /// The node, input or initializer before, in words.
    pub from: String,
    /// The same now.
    pub to: String,
}

/// A doc string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocChange {
    /// Before.
    pub from: String,
    /// Now.
    pub to: String,
}

/// Another name for the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renamed {
    /// Its position in `b`; for values that of the node which makes it.
    pub position: usize,
    /// Its name in `a`.
    pub from: String,
    /// Its name in `b`.
    pub to: String,
    /// The group of [`Diff::folds`] that it belongs to.
    pub fold: Option<usize>,
}

/// Another place for the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Its name in `b`.
    pub name: String,
    /// Its position in `a`.
    pub from: usize,
    /// Its position in `b`.
    pub to: usize,
}

/// Differences between local functions.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FunctionsDiff {
    /// Only in `b`: `domain::name`, with `:overload` where there is one.
    pub added: Vec<String>,
    /// Only in `a`.
    pub removed: Vec<String>,
    /// In both, and not the same.
    pub changed: Vec<FunctionChange>,
}

/// A local function that is in both models and not the same.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionChange {
    /// `domain::name`, with `:overload` where there is one.
    pub function: String,
    /// What differs inside; operator sets, attributes and doc string are among the properties.
    pub diff: GraphDiff,
}

/// A training step that is not the same.
#[derive(Debug, Clone, Serialize)]
pub struct TrainingDiff {
    /// Its position in `training_info`.
    pub position: usize,
    /// `added`, `removed` or `changed`.
    pub status: &'static str,
    /// Bindings of state to what the step computes.
    pub bindings: Vec<Property>,
    /// The initialization graph.
    pub initialization: GraphDiff,
    /// The algorithm graph.
    pub algorithm: GraphDiff,
}

/// Parts that per-inject added together, recognised by the record in the model's metadata.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fold {
    /// Whether the injection is in `b` (`added`) or in `a` (`removed`).
    pub side: FoldSide,
    /// Which injection of that model, from 1.
    pub injection: usize,
    /// What it is.
    pub kind: FoldKind,
    /// One line: `PER at relu_3: 12 nodes, exact, flatten, d = 16384, λ = 3e-5`.
    pub title: String,
    /// The layer's name for a layer, that of the node for a rewriting; else empty.
    pub name: String,
    /// How many nodes.
    pub nodes: usize,
    /// How many initializers.
    pub initializers: usize,
}

/// Which model holds an injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FoldSide {
    /// `b` has it.
    Added,
    /// `a` had it.
    Removed,
}

/// What a group of parts is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FoldKind {
    /// The term of one layer.
    Layer,
    /// The sum of the terms, λ, constants that layers share, and the sum with the loss.
    Sum,
    /// What stands in the place of one node.
    Rewriting,
    /// The record in the metadata, and what else changed about the model as a whole.
    Record,
}

impl GraphDiff {
    /// Whether nothing is reported but what stands elsewhere in a list of nodes.
    pub fn is_empty(&self) -> bool {
        self.is_renamed_at_most() && self.properties.is_empty() && self.all_renamed().next().is_none()
    }

    /// Whether nothing differs but names, and what stands elsewhere in a list of nodes.
    pub fn is_renamed_at_most(&self) -> bool {
        let (nodes, tensors) = (&self.nodes, &self.initializers);
        let values =
            |v: &ValuesDiff| v.added.is_empty() && v.removed.is_empty() && v.changed.is_empty() && v.moved.is_empty();
        self.properties.iter().all(|p| p.what == "name")
            && nodes.added.is_empty()
            && nodes.removed.is_empty()
            && nodes.changed.is_empty()
            && tensors.added.is_empty()
            && tensors.removed.is_empty()
            && tensors.changed.is_empty()
            && [&self.inputs, &self.outputs, &self.value_info].into_iter().all(values)
    }

    /// Everything that has another name.
    pub(super) fn all_renamed(&self) -> impl Iterator<Item = &Renamed> {
        let (inputs, outputs) = (&self.inputs.renamed, &self.outputs.renamed);
        let lists = [&self.nodes.renamed, &self.initializers.renamed, inputs, outputs, &self.values_renamed];
        lists.into_iter().flatten()
    }

    /// Whether what is computed from what differs: names, docs, declared types and the order of lists set aside.
    pub fn is_structural(&self) -> bool {
        let (nodes, initializers) = (&self.nodes, &self.initializers);
        let interface = |v: &ValuesDiff| {
            !v.added.is_empty()
                || !v.removed.is_empty()
                || v.changed.iter().any(|c| c.source.is_some() || c.a.ty != c.b.ty)
        };
        let is_structure = |c: &Change| !matches!(c, Change::Doc { .. } | Change::Metadata { .. });
        !nodes.added.is_empty()
            || !nodes.removed.is_empty()
            || nodes.changed.iter().any(|c| c.changes.iter().any(is_structure))
            || !initializers.added.is_empty()
            || !initializers.removed.is_empty()
            || !initializers.changed.is_empty()
            || interface(&self.inputs)
            || interface(&self.outputs)
    }
}
