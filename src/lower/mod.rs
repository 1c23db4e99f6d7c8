//! Lowering: a forward graph rewritten in the operators that a training pipeline can differentiate.
//!
//! The pipeline is ONNX Runtime training 1.19.2 (`onnxruntime.training.artifacts.generate_artifacts`). Its gradient builder has rules
//! for some eighty operators, wants several of them in one form only, and fails on the rest, now and then without a word. Each
//! [`Rule`] turns one node into nodes that it takes and that compute the same function: outputs keep their names, so readers, taps and
//! graph outputs stay what they were, and parameters keep names, shapes and values. A rule is used only where the node is on the
//! path of a gradient, or where the runtime could not run it at all.

mod error;
pub(crate) mod inline;
mod model;
pub(crate) mod path;
pub(crate) mod registry;
pub(crate) mod rules;

pub(crate) use crate::rewrite::{builder, site};
pub(crate) use error::by_reason;
pub use error::{LowerError, Unlowered};
pub use registry::Rule;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::analysis::{Analysis, AnalysisError};
use crate::graph::{NodeId, ValueId};
use crate::hoist::known;
use crate::naming::LayerNames;
use crate::onnx::{NodeProto, TensorProto, ValueInfoProto};
use crate::patch::{Change, Part, Rename, Replacement, Substitute};
use crate::record::{LOWERED, RecordedActivation, Replaced, Standin};
use crate::regularizer::emit::Emission;
use crate::select::Found;
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

/// Why the pipeline does not train all that is trained: some of it stands in the body of an If, Loop or Scan. The start of a sentence.
pub fn trains_in_a_body(analysis: &Analysis) -> Option<String> {
    let inner = known(analysis).into_iter().find(|k| k.is_trained)?.inner;
    Some(format!(
        "the initializer {:?} of the body {} is trained, and generate_artifacts trains those of the main graph alone",
        inner.name, inner.body
    ))
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
    /// The activations among it, for the record.
    pub activations: Vec<RecordedActivation>,
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
    let (lowering, nodes) = survey(analysis, loss, root)?;
    if nodes.is_empty() { Ok(lowering) } else { Err(LowerError::Unlowered { nodes }) }
}

/// As [`lower`], with the nodes that cannot be rewritten beside the changes for all others.
///
/// # Errors
///
/// What stands in the way of the model as a whole.
pub fn survey(
    analysis: &Analysis,
    loss: Option<ValueId>,
    root: &str,
) -> Result<(Lowering, Vec<Unlowered>), LowerError> {
    let mut lowering = model::lower(analysis, loss)?;
    let path = path::path(analysis, loss);
    let unlowered = match inline::inline(analysis, &path, root)? {
        None => {
            let origin: Vec<usize> = (0..analysis.graph.nodes.len()).collect();
            let is_call = vec![false; origin.len()];
            rewrite(analysis, analysis, &path, &origin, &is_call, root, &mut lowering)?
        }
        Some(inlined) => {
            let mut inner = Analysis::of(&inlined.model).map_err(AnalysisError::from)?;
            inner.trained.clone_from(&analysis.trained);
            let loss = loss.and_then(|loss| inner.graph.find(analysis.graph.name(loss)));
            let path = path::path(&inner, loss);
            rewrite(analysis, &inner, &path, &inlined.origin, &inlined.is_call, root, &mut lowering)?
        }
    };
    lowering.activations = rewritten_activations(analysis, &lowering.changes);
    Ok((lowering, unlowered))
}

/// The activations that lose a node. Spelt out for a pipeline, they are none that patterns know.
fn rewritten_activations(analysis: &Analysis, changes: &[Change]) -> Vec<RecordedActivation> {
    let part = |r: &Replacement| if let Part::Node(i) = r.part { Some(i) } else { None };
    let gone: HashSet<usize> = changes.iter().flat_map(|c| &c.replacements).filter_map(part).collect();
    let name = |value: ValueId| analysis.graph.name(value).to_owned();
    let found = analysis.catalog.found.iter().filter(|f| f.members.iter().any(|m| gone.contains(&m.index())));
    let record = |found: &Found| {
        let made = found.members.iter().flat_map(|m| analysis.graph.outputs_of(*m)).flatten().copied();
        RecordedActivation {
            activation: found.activation.name().to_owned(),
            tensor: name(found.value),
            input: found.input.map(name),
            parts: made.filter(|v| *v != found.value).map(name).collect(),
        }
    };
    found.map(record).collect()
}

/// Why a call becomes the body of its function.
const CALL: &str = "it calls a function of the model, and ONNX Runtime training does not look inside";

/// Rewrites the nodes of `analysis`, which stand for those of `original` at `origin`; returns those that cannot be.
fn rewrite(
    original: &Analysis,
    analysis: &Analysis,
    path: &Path,
    origin: &[usize],
    is_call: &[bool],
    root: &str,
    lowering: &mut Lowering,
) -> Result<Vec<Unlowered>, LowerError> {
    let mut names = LayerNames::default();
    let mut unlowered = Vec::new();
    let mut from = 0;
    for same in origin.chunk_by(|a, b| a == b) {
        let group = from..from + same.len();
        from = group.end;
        let old = same[0];
        let mut written = Written { because: if is_call[old] { CALL } else { "" }, ..Written::default() };
        // Only what is rewritten takes a name.
        let mut name = None;
        let mut name_of = |names: &mut LayerNames| {
            let old = NodeId(u32::try_from(old).unwrap_or(u32::MAX));
            name.get_or_insert_with(|| names.name(&original.graph, Some(old), "")).clone()
        };
        for i in group {
            let site = Site::new(analysis, path, NodeId(u32::try_from(i).unwrap_or(u32::MAX)));
            let Some(rule) = registry::rule(&site) else {
                unlowered.extend(path::refusal(&site).map(|reason| Unlowered::new(&site, reason)));
                if is_call[old] {
                    written.nodes.push(site.node.clone());
                }
                continue;
            };
            let mut prefix = format!("{LOWERED}{}", name_of(&mut names));
            if is_call[old] {
                prefix = format!("{prefix}/{i}");
            } else {
                written.because = rule.because;
            }
            let mut builder = Builder::new(lowering.opset, root, &prefix, site.parameters());
            match site::is_reasonable(&site).and_then(|()| (rule.rewrite)(&site, &mut builder)) {
                Ok(outputs) => written.add(builder.finish(&site.node.output, &outputs)),
                Err(refusal) => unlowered.push(Unlowered::new(&site, refusal.0)),
            }
        }
        if written.nodes.is_empty() {
            continue;
        }
        let name = name_of(&mut names);
        if is_call[old] {
            // What stands for one node is known by its name: one level below the node's.
            for (k, node) in written.nodes.iter_mut().enumerate() {
                node.name = Some(format!("{root}{LOWERED}{name}/{k}_{}", node.op_type().to_ascii_lowercase()));
            }
        }
        replace(original, old, written, name, lowering)?;
    }
    Ok(unlowered)
}

/// What stands in for one node.
#[derive(Default)]
struct Written {
    because: &'static str,
    nodes: Vec<NodeProto>,
    value_info: Vec<ValueInfoProto>,
    constants: BTreeMap<String, TensorProto>,
}

impl Written {
    fn add(&mut self, mut emission: Emission) {
        self.nodes.append(&mut emission.nodes);
        self.value_info.append(&mut emission.value_info);
        self.constants.append(&mut emission.constants);
    }
}

fn replace(
    original: &Analysis,
    old: usize,
    mut written: Written,
    name: String,
    lowering: &mut Lowering,
) -> Result<(), LowerError> {
    let part = Part::Node(old);
    let id = NodeId(u32::try_from(old).unwrap_or(u32::MAX));
    let node = original.graph.describe(id);
    lowering.constants.append(&mut written.constants);
    lowering.replaced.push(Replaced::new(Standin::Nodes(name), &record_bytes(original.model, part)?));
    lowering.changes.push(Change {
        reason: format!("{node}: {}", written.because),
        value_info: written.value_info.into(),
        replacements: vec![Replacement { part, with: Substitute::Nodes(written.nodes.clone().into()) }],
        ..Change::default()
    });
    lowering.rewritten.push(Rewriting {
        node,
        op: original.graph.node(id).op_type().to_owned(),
        because: written.because.to_owned(),
        nodes: written.nodes.len(),
    });
    Ok(())
}

impl Lowering {
    /// Whether the model can stay as it is.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Applies renames to the nodes that stand in for original ones, and returns those that are left for the file itself.
    pub fn rename(&mut self, renames: Vec<Rename>) -> Vec<Rename> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attributes;
    use crate::graph::testing::{Net, open_model};
    use crate::wire::{Model, splice};

    /// The graph `h = x·w`, the given node from h to y, and a loss of it.
    fn around(op: &str, attributes: Vec<crate::onnx::AttributeProto>) -> Model {
        Net::new()
            .input("x", 1, "N 4")
            .weight("w", &[4, 6])
            .node("MatMul", &["x", "w"], &["h"], vec![])
            .node(op, &["h"], &["y"], attributes)
            .node("ReduceMean", &["y"], &["loss"], vec![Net::int("keepdims", 0)])
            .output("loss", 1, Some(""))
            .build()
    }

    fn lowered(model: &Model) -> Result<Lowering, LowerError> {
        let analysis = Analysis::of(model).unwrap();
        lower(&analysis, analysis.graph.find("loss"), "per_inject/")
    }

    #[test]
    fn every_rule_is_for_an_operator_and_says_why() {
        for rule in registry::all() {
            assert!(!rule.ops.is_empty() && !rule.because.is_empty());
            assert!(
                !rule.because.ends_with('.') && !rule.because.starts_with(char::is_uppercase)
                    || rule.because.starts_with("ONNX")
            );
        }
    }

    #[test]
    fn what_stands_in_makes_the_same_values_in_order_and_names_nothing_twice() {
        for name in [
            "cnn11_elu.ts17",
            "cnn11_elu.dyn",
            "gpt_gelu.ts17",
            "gpt_gelu.dyn",
            "fixup_resnet20.ts17",
            "seq_lstm_lm.ts17",
        ] {
            let model = open_model(name);
            let lowering = lowered(&model).unwrap();
            let mut made = HashSet::new();
            for change in &lowering.changes {
                let [Replacement { part: Part::Node(i), with: Substitute::Nodes(nodes) }] =
                    change.replacements.as_slice()
                else {
                    continue;
                };
                let outputs: HashSet<String> = nodes.iter().flat_map(|n| n.output).filter(|o| !o.is_empty()).collect();
                assert!(model.graph.nodes[*i].output.iter().all(|o| o.is_empty() || outputs.contains(o)), "{name}");
                let mut known: HashSet<String> = model.graph.nodes[*i].input.iter().cloned().collect();
                for node in nodes.iter() {
                    assert!(node.name().starts_with("per_inject/lower/"));
                    for input in node.input.iter().filter(|n| !n.is_empty()) {
                        assert!(known.contains(input) || lowering.constants.contains_key(input), "{name}: {input}");
                    }
                    for output in node.output.iter().filter(|n| !n.is_empty()) {
                        assert!(made.insert(output.clone()), "{name} makes {output} twice");
                        known.insert(output.clone());
                    }
                }
            }
            assert!(!made.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_second_output_of_a_cross_entropy_is_added_and_a_transposition_written_out() {
        let model = around("Transpose", vec![]);
        let lowering = lowered(&model).unwrap();
        let Substitute::Nodes(nodes) = &lowering.changes[0].replacements[0].with else { panic!() };
        let written: Vec<NodeProto> = nodes.iter().collect();
        assert_eq!(written[0].ints("perm"), Some([1, 0].as_slice()));
        assert_eq!(written[0].output, ["y"]);
        let Substitute::Nodes(nodes) = &lowered(&open_model("mlp_relu.ts13")).unwrap().changes[0].replacements[0].with
        else {
            panic!()
        };
        assert_eq!(nodes.iter().next().unwrap().output.len(), 2);
    }

    #[test]
    fn an_operator_without_a_rewriting_is_refused_by_name() {
        let error = lowered(&around("Hardmax", vec![])).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("node 1 (Hardmax): no gradient of Hardmax is registered"), "{error}");
    }

    #[test]
    fn numbers_that_no_model_has_are_refused_before_anything_is_computed_with_them() {
        for (op, attribute) in [("AveragePool", "kernel_shape"), ("LpPool", "strides"), ("ReduceProd", "axes")] {
            let model = around(op, vec![crate::graph::testing::ints(attribute, &[i64::MAX, i64::MIN])]);
            assert!(lowered(&model).is_err(), "{op}");
        }
    }

    #[test]
    fn a_rename_goes_into_what_stands_in() {
        let model = around("Elu", vec![]);
        let mut lowering = lowered(&model).unwrap();
        let rename = |node: usize, field: u32, name: &str| Rename {
            place: vec![(1, node), (field, 0)],
            from: name.into(),
            to: "renamed".into(),
        };
        // The node itself is replaced; its reader is not.
        let left = lowering.rename(vec![rename(1, 2, "y"), rename(2, 1, "y")]);
        assert_eq!(left, [rename(2, 1, "y")]);
        let patch = crate::patch::Patch {
            changes: lowering.changes.into_iter().chain([Change { renames: left, ..Change::default() }]).collect(),
            ..Default::default()
        };
        let changed = splice(&model, &patch).unwrap().to_vec(&model.file.bytes);
        let changed = Model::from_bytes(changed).unwrap();
        let made: Vec<&str> = changed.graph.nodes.iter().flat_map(|n| &n.output).map(String::as_str).collect();
        assert!(made.contains(&"renamed") && !made.contains(&"y"));
    }
}
