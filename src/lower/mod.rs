//! Lowering: a forward graph rewritten in the operators that a training pipeline can differentiate.
//!
//! The pipeline is ONNX Runtime training 1.19.2 (`onnxruntime.training.artifacts.generate_artifacts`). Its gradient builder has rules
//! for some eighty operators, wants several of them in one form only, and fails on the rest, now and then without a word. Each
//! [`Rule`] turns one node into nodes that it takes and that compute the same function: outputs keep their names, so readers, taps and
//! graph outputs stay what they were, and parameters keep names, shapes and values. A rule is used only where the node is on the
//! path of a gradient, or where the runtime could not run it at all.

mod builder;
mod error;
mod model;
mod path;
mod registry;
mod rules;
mod site;

pub use error::{LowerError, Unlowered};
pub use registry::Rule;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::Analysis;
use crate::graph::{NodeId, ValueId};
use crate::inject::naming::LayerNames;
use crate::onnx::{NodeProto, TensorProto};
use crate::patch::{Change, Part, Replacement, Substitute};
use crate::record::{LOWERED, Replaced, Standin};
use crate::wire::record_bytes;
use builder::Builder;
use path::Path;
use site::Site;

/// What a graph is lowered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// ONNX Runtime training 1.19.2.
    OrtTraining,
}

impl Target {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::OrtTraining => "ort-training",
        }
    }
}

/// One node that became others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rewriting {
    /// How messages name the node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why.
    pub because: String,
    /// How many nodes stand in its place.
    pub nodes: usize,
}

/// What has to change for the target.
#[derive(Debug, Default)]
pub struct Lowering {
    /// The edits, one for each node and each property of the model.
    pub changes: Vec<Change>,
    /// Constants that they read, by name.
    pub constants: BTreeMap<String, TensorProto>,
    /// The nodes that became others, in file order.
    pub rewritten: Vec<Rewriting>,
    /// What changes about the model as a whole, as sentences.
    pub model: Vec<String>,
    /// What was replaced, for the record.
    pub replaced: Vec<Replaced>,
    /// The operator set of the result.
    pub opset: i64,
    /// The IR version of the result.
    pub ir_version: i64,
}

/// What a model needs for the target. `loss` is where gradients come from; without one, every floating-point output could be.
///
/// # Errors
///
/// All nodes that cannot be rewritten at once, each with the reason.
pub fn lower(analysis: &Analysis, loss: Option<ValueId>, root: &str) -> Result<Lowering, LowerError> {
    let mut lowering = model::lower(analysis, loss)?;
    let path = Path::of(analysis, loss);
    let mut names = LayerNames::default();
    let mut unlowered = Vec::new();
    for i in 0..analysis.graph.nodes.len() {
        let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
        let site = Site::new(analysis, &path, id);
        match registry::rule(&site) {
            Some(rule) => {
                let name = names.name(&analysis.graph, Some(id), "");
                let mut builder = Builder::new(lowering.opset, root, &format!("{LOWERED}{name}"), site.parameters());
                match site::is_reasonable(&site).and_then(|()| (rule.rewrite)(&site, &mut builder)) {
                    Ok(outputs) => replace(&site, rule, builder, &outputs, &name, &mut lowering)?,
                    Err(refusal) => unlowered.push(Unlowered::new(&site, refusal.0)),
                }
            }
            None => unlowered.extend(path::refusal(&site).map(|reason| Unlowered::new(&site, reason))),
        }
    }
    if unlowered.is_empty() { Ok(lowering) } else { Err(LowerError::Unlowered { nodes: unlowered }) }
}

/// Puts what a rule wrote in the place of its node.
fn replace(
    site: &Site,
    rule: &Rule,
    builder: Builder,
    outputs: &[builder::Made],
    name: &str,
    lowering: &mut Lowering,
) -> Result<(), LowerError> {
    let part = Part::Node(site.id.index());
    let mut emission = builder.finish(&site.node.output, outputs);
    lowering.constants.append(&mut emission.constants);
    lowering.rewritten.push(Rewriting {
        node: site.analysis.graph.describe(site.id),
        op: site.node.op_type().to_owned(),
        because: rule.because.to_owned(),
        nodes: emission.nodes.len(),
    });
    lowering.replaced.push(Replaced::new(Standin::Nodes(name.to_owned()), &record_bytes(site.analysis.model, part)?));
    lowering.changes.push(Change {
        reason: format!("{}: {}", site.analysis.graph.describe(site.id), rule.because),
        value_info: emission.value_info.into(),
        replacements: vec![Replacement { part, with: Substitute::Nodes(emission.nodes.into()) }],
        ..Change::default()
    });
    Ok(())
}

impl Lowering {
    /// Whether the model can stay as it is.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Applies renames to the nodes that stand in for original ones, and returns those that are left for the file itself.
    pub fn rename(&mut self, renames: Vec<crate::patch::Rename>) -> Vec<crate::patch::Rename> {
        let mut position = BTreeMap::new();
        for (i, change) in self.changes.iter().enumerate() {
            for replacement in &change.replacements {
                if let Part::Node(node) = replacement.part {
                    position.insert(node, i);
                }
            }
        }
        let mut left = Vec::new();
        for rename in renames {
            let target = rename.place.first().and_then(|(_, node)| position.get(node));
            match target.map(|i| &mut self.changes[*i].replacements[0].with) {
                Some(Substitute::Nodes(nodes)) => {
                    let swap = |name: &mut String| {
                        if *name == rename.from {
                            name.clone_from(&rename.to);
                        }
                    };
                    let renamed = |mut node: NodeProto| {
                        node.input.iter_mut().chain(&mut node.output).for_each(swap);
                        node
                    };
                    *nodes = nodes.iter().map(renamed).collect();
                }
                _ => left.push(rename),
            }
        }
        left
    }
}
