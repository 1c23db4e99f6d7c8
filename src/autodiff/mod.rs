//! A forward + loss graph → one step graph of standard operators: forward, backward and optimiser, which any ONNX Runtime runs.
//!
//! Reverse mode over the graph (`reverse.rs`); one [`Rule`] for each operator or family. The forward nodes stay what they are,
//! but for outputs that a gradient reads and that were left out, and for what is faster on the device in other nodes; the backward pass is put
//! behind them. Parameters become inputs that have
//! their initializers as defaults, so the file still holds the weights. Those of bodies are moved to the main graph first.
//!
//! | name | what it is |
//! |---|---|
//! | `<parameter>_grad` | output: the gradient of the loss (optimiser `none`) |
//! | `<parameter>_next` | output: the parameter after the step |
//! | `<parameter>_momentum`, `_mean`, `_square` | input: the optimiser's state, zeros before the first step; output with `_next` |
//! | `<statistic>_next` | output: a running statistic of BatchNormalization after the step |
//! | `learning_rate` | input, a float32 scalar |
//! | `step`, `step_next` | input and output, int64 scalars: how many steps were made before and after, 0 at first (Adam and AdamW) |
//! | `gradient_norm` | output, a float32 scalar: √Σg² over all parameters before clipping (on request, and where norms are clipped) |
//! | `loss_scale` | input, a float32 scalar: what the loss is multiplied by on the way back (on request) |
//! | `gradients_finite` | output, a bool scalar, with any loss scale. Where it is false nothing changes: every `…_next` is its input |
//! | `<parameter>_sum`, `accumulated` | accumulation: the sum of gradients since the last step and (an int64 scalar) their number, zeros at first; outputs with `_next` |
//! | `apply` | accumulation: input, a bool scalar. Where it is true, the step is made with the mean of the sum, this run's gradient included, and sum and number become 0 again; else only they change |
//!
//! So a loop in any language feeds each `…_next` as its input in the next run, parameters from the second run on, and a batch. Which names
//! there are, by what they are for, is the [`Report`], which the metadata of the file holds as JSON under
//! [`STEP_KEY`](crate::record::STEP_KEY). States of half-precision parameters are float32. A step is: gradients, divided by the loss scale; their
//! sum and its mean; norm; clipping; weight decay; the optimiser. Accumulation costs one addition and a choice per parameter, without If.

mod adjoint;
mod composite;
mod error;
mod expand;
pub mod operators;
mod optimizer;
mod prepare;
mod raise;
mod report;
mod reverse;
mod rule;
mod rules;
mod shape;

pub use crate::hoist::HoistError;
pub use error::{DifferentiateError, Undifferentiable};
pub use optimizer::{
    ACCUMULATED, APPLY, Clip, GRADIENT_NORM, GRADIENTS_FINITE, Group, GroupError, LEARNING_RATE, LOSS_SCALE, LossScale,
    Optimizer, STEP, Setting,
};
pub use report::{Inputs, OfBody, Outputs, Parameter, Report, SCHEMA, Successor};
pub use rule::Rule;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::analysis::Analysis;
use crate::engine::Device;
use crate::graph::kind::Kind;
use crate::graph::{Attributes, NodeId, ValueId};
use crate::hoist::{self, Hoisting, Moved};
use crate::inject::{self, InjectError};
use crate::naming;
use crate::onnx::{NodeProto, StringStringEntryProto, ValueInfoProto};
use crate::patch::{Change, Part, Patch, Place, Replacement, Substitute};
use crate::record::{self, Added, LOWERED, Original, Record, Replaced, Standin};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, is_half};
use crate::rewrite::path::Path;
use crate::wire::{Model, narrowed, record_bytes, structure_digest_without};
use prepare::Prepared;
use reverse::{Goal, Reversed, reverse, with_saved};

/// What to differentiate for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// The loss; `None` for the only output that can be it.
    pub loss: Option<String>,
    /// Selector of initializers that are trained whatever their role.
    pub wrt: Option<String>,
    /// Selector of initializers that are not trained whatever their role.
    pub freeze: Option<String>,
    /// The initializers that are trained, by name, all of the main graph: then neither roles nor selectors decide.
    pub trained: Option<BTreeSet<String>>,
    /// How parameters change.
    pub optimizer: Optimizer,
    /// Parameters with settings of their own.
    pub groups: Vec<Group>,
    /// What keeps gradients small.
    pub clip: Option<Clip>,
    /// Whether the norm of all gradients together is an output, [`GRADIENT_NORM`]; with [`Clip::Norm`] it always is.
    pub gradient_norm: bool,
    /// Whether gradients of several runs are summed before a step.
    pub accumulate: bool,
    /// What the loss is multiplied by on the way back.
    pub loss_scale: LossScale,
    /// The operator set that the model is raised to before, where gradients need a newer one than its own.
    pub opset: Option<i64>,
    /// Where the step graph is to run. It is right everywhere; on the CPU some convolutions are faster in parts.
    pub device: Device,
}

/// A step graph as an edit of the forward graph.
#[derive(Debug)]
pub struct Differentiation {
    /// The edit.
    pub patch: Patch,
    /// What it does.
    pub report: Report,
}

/// Differentiates a forward + loss graph.
///
/// # Errors
///
/// See [`DifferentiateError`]; nodes whose gradient is not known are all named at once.
pub fn differentiate(model: &Model, options: &Options) -> Result<Differentiation, DifferentiateError> {
    if model.opset() < error::OLDEST {
        return Err(DifferentiateError::Opset { found: model.opset() });
    }
    if model.ir_version < 4 {
        return Err(DifferentiateError::IrVersion { found: model.ir_version });
    }
    let (named, wrt, freeze) = (options.trained.as_ref(), options.wrt.as_deref(), options.freeze.as_deref());
    let given = Analysis::decided(model, named, wrt, freeze)?;
    let hoisting = hoist::hoist(&given)?;
    let without = hoisting.as_ref().map(|h| model.with_nodes(&h.change)).transpose()?;
    let analysis = match (&hoisting, &without) {
        (Some(hoisting), Some(model)) => {
            let moved = hoisting.moved.iter().map(|m| m.is_trained);
            let trained: Vec<bool> = given.trained.into_iter().chain(moved).collect();
            Analysis::with_trained(model, &trained)?
        }
        _ => given,
    };
    if let Kind::ForwardBackward { evidence } = &analysis.kind {
        return Err(DifferentiateError::HasGradients { evidence: evidence.clone() });
    }
    if model.metadata.iter().any(|m| m.key() == record::STEP_KEY) {
        let evidence = format!("its metadata has an entry {:?}", record::STEP_KEY);
        return Err(DifferentiateError::HasGradients { evidence });
    }
    let choice = inject::Options { loss: options.loss.clone(), ..inject::Options::default() };
    let loss = inject::loss::choose(&analysis, &choice).map_err(|problem| match problem {
        InjectError::NoLoss { found } => DifferentiateError::NoLoss { found },
        problem => problem.into(),
    })?;
    let loss = loss.value;
    let (root, number) = naming::free_root(model, &analysis.graph);
    let raised = options.opset.map(|to| raise::raise(&analysis, to, &root)).transpose()?.flatten();
    let start = prepare::Start { raised, changed: hoisting.as_ref().map(|h| &h.nodes) };
    let prepared = prepare::prepare(&analysis, &analysis.trained_values(), &[loss], &root, start)?;
    let inner = match &prepared {
        None => None,
        Some(prepared) => {
            let mut inner = Analysis::of(&prepared.model)?;
            inner.trained = prepare::trained(&analysis, &inner);
            Some(inner)
        }
    };
    let working = inner.as_ref().unwrap_or(&analysis);
    let loss = prepare::same_value(&analysis, loss, working);
    let path = Path::following(working, Some(loss), rule::stops);
    let (one, seed) = reverse::seed(working, loss, &root, options.loss_scale, takes_rate(options, working));
    // On a GPU a convolution stays one: cuDNN has such algorithms itself.
    let tiles = options.device == Device::Cpu;
    let goal = Goal { from: working.trained_values(), seeds: vec![(loss, one)], is_repeated: false, tiles };
    let mut reversed =
        reverse(working, &path, goal, &root).map_err(|nodes| DifferentiateError::Undifferentiable { nodes })?;
    reversed.add_first(seed);
    if reversed.gradients.is_empty() {
        return Err(DifferentiateError::NothingTrained { loss: working.graph.name(loss).into() });
    }
    let (hoisting, prepared) = (hoisting.as_ref(), prepared.as_ref());
    Draft { model, analysis: working, hoisting, prepared, options, root: &root, number, loss }.finish(reversed)
}

/// Whether the cotangent of the loss is η: see [`optimizer::takes_rate`]. In half precision it would make gradients vanish.
fn takes_rate(options: &Options, analysis: &Analysis) -> bool {
    optimizer::takes_rate(options) && !analysis.graph.values().any(|v| is_half(analysis.types.get(v).elem))
}

struct Draft<'a> {
    /// The original.
    model: &'a Model,
    /// What is differentiated: the original, or what stands for it.
    analysis: &'a Analysis<'a>,
    /// What was moved out of bodies first.
    hoisting: Option<&'a Hoisting>,
    prepared: Option<&'a Prepared>,
    options: &'a Options,
    root: &'a str,
    number: usize,
    loss: ValueId,
}

impl Draft<'_> {
    fn finish(self, mut reversed: Reversed) -> Result<Differentiation, DifferentiateError> {
        let graph = &self.analysis.graph;
        let model = self.model;
        let trained = self.analysis.roles.iter().zip(&self.analysis.trained).filter(|(_, t)| **t).map(|(r, _)| r.value);
        let (reached, unreached): (Vec<ValueId>, Vec<ValueId>) =
            trained.partition(|value| reversed.gradients.contains_key(value));
        let named: Vec<(ValueId, Tensor, Tensor)> =
            reached.iter().map(|v| (*v, self.tensor(*v), self.gradient(&reversed, *v))).collect();
        let mut builder = Builder::new(self.analysis.model.opset(), self.root, "step", Vec::new());
        let takes_rate = takes_rate(self.options, self.analysis);
        let written = optimizer::write(&mut builder, self.options, &named, takes_rate)?;
        let statistics = self.statistics()?;
        let mut results = written.results;
        for (successor, new) in &statistics {
            let old = Tensor { name: successor.name.clone(), ty: new.ty.clone() };
            let allowed = |finite| optimizer::where_allowed(&mut builder, finite, new, &old);
            results.push((successor.next.clone(), written.is_finite.as_ref().map_or(new.clone(), allowed)));
        }
        let names: Vec<String> = results.iter().map(|(name, _)| name.clone()).collect();
        self.check_names(&names, &written.inputs)?;
        reversed.add(builder.finish(&[], &[]));
        reversed.without_unread(&results.iter().map(|(_, t)| t.name.as_str()).collect());
        name_results(&mut reversed, self.analysis.model.opset(), self.root, &results);

        let mut changes = Vec::new();
        let mut replaced = Vec::new();
        let again = with_saved(self.analysis, &reversed.saved, &reversed.remade);
        self.stand_ins(again, &mut changes, &mut replaced)?;
        self.raise(&mut changes, &mut replaced)?;
        let inputs = self.inputs(&named, &statistics, &written.inputs, &mut replaced);
        let outputs: Vec<ValueInfoProto> =
            results.iter().map(|(name, tensor)| tensor.ty.declare(name).unwrap_or_else(|| bare(name))).collect();
        let mut added = Added {
            nodes: reversed.nodes.len() + changes.iter().map(Change::added_nodes).sum::<usize>(),
            initializers: reversed.constants.len(),
            inputs: 0,
            outputs: outputs.len(),
        };
        if let Some(prepared) = self.prepared {
            added.initializers +=
                prepared.constants.iter().filter(|c| !reversed.constants.contains_key(c.name())).count();
            for tensor in &prepared.constants {
                reversed.constants.entry(tensor.name().to_owned()).or_insert_with(|| tensor.clone());
            }
            reversed.value_info.extend(prepared.value_info.iter().cloned());
        }
        if let Some(Change { reason, initializers, .. }) = self.hoisting.map(|h| &h.change) {
            added.initializers += initializers.len();
            let (reason, initializers) = (reason.clone(), initializers.clone());
            changes.push(Change { reason, initializers, ..Change::default() });
        }
        changes.push(Change {
            reason: format!("the gradient of {:?} and the step that it leads to", graph.name(self.loss)),
            nodes: reversed.nodes.into(),
            value_info: reversed.value_info.into(),
            initializers: reversed.constants.into_values().collect(),
            inputs,
            outputs,
            ..Change::default()
        });
        let report = Report {
            schema: SCHEMA,
            loss: graph.name(self.loss).to_owned(),
            optimizer: self.options.optimizer.name(),
            parameters: written.parameters.into_iter().map(|p| self.with_origin(p)).collect(),
            statistics: statistics.into_iter().map(|(s, _)| s).collect(),
            counters: written.counters,
            inputs: written.decided,
            outputs: written.told,
            unreached: unreached.into_iter().map(|v| graph.name(v).to_owned()).collect(),
            forward_nodes: model.graph.nodes.len(),
            added_nodes: added.nodes,
        };
        let mut patch = Patch { changes, ..Patch::default() };
        self.remember(&mut patch, added, replaced, names, &report)?;
        Ok(Differentiation { patch, report })
    }

    /// What was moved out of bodies.
    fn moved(&self) -> &[Moved] {
        self.hoisting.map(|h| h.moved.as_slice()).unwrap_or_default()
    }

    /// With where it stands in the model, where that is a body.
    fn with_origin(&self, parameter: Parameter) -> Parameter {
        let moved = self.moved().iter().find(|m| m.name == parameter.name);
        let of_body = moved.map(|m| OfBody { body: m.body.clone(), initializer: m.own.clone() });
        Parameter { of_body, ..parameter }
    }

    /// The gradient of a parameter, as the optimiser takes it.
    fn gradient(&self, reversed: &Reversed, value: ValueId) -> Tensor {
        let gradient = &reversed.gradients[&value];
        if self.options.optimizer == Optimizer::None { gradient.clone() } else { reversed.in_full(gradient) }
    }

    fn tensor(&self, value: ValueId) -> Tensor {
        Tensor { name: self.analysis.graph.name(value).to_owned(), ty: self.analysis.types.get(value).clone() }
    }

    /// Running statistics that BatchNormalization nodes in training mode update, with what they become.
    ///
    /// # Errors
    ///
    /// Two nodes that update the same one: which goes first is not said, and both read what it was before.
    fn statistics(&self) -> Result<Vec<(Successor, Tensor)>, DifferentiateError> {
        let graph = &self.analysis.graph;
        let mut found: Vec<(Successor, Tensor)> = Vec::new();
        let mut owners: HashMap<ValueId, NodeId> = HashMap::new();
        for id in graph.topological_order() {
            let node = graph.node(*id);
            if node.op_type() != "BatchNormalization" || node.int("training_mode").unwrap_or(0) == 0 {
                continue;
            }
            for (slot, output) in [(3, 1), (4, 2)] {
                let (Some(old), Some(new)) = (graph.input(*id, slot), graph.output(*id, output)) else { continue };
                if graph.initializer(old).is_some() {
                    if let Some(first) = owners.insert(old, *id) {
                        let statistic = graph.name(old).to_owned();
                        let nodes = [first, *id].map(|n| graph.describe(n));
                        return Err(DifferentiateError::SharedStatistic { statistic, nodes });
                    }
                    let name = graph.name(old).to_owned();
                    let next = Tensor { ty: self.analysis.types.get(old).clone(), ..self.tensor(new) };
                    found.push((Successor { next: format!("{name}_next"), name }, next));
                }
            }
        }
        Ok(found)
    }

    fn check_names(&self, outputs: &[String], inputs: &[(String, Tensor)]) -> Result<(), DifferentiateError> {
        let mut seen = HashSet::new();
        let all = outputs.iter().map(|n| (n, "an output")).chain(inputs.iter().map(|(n, _)| (n, "an input")));
        for (name, what) in all {
            if self.analysis.graph.find(name).is_some() || !seen.insert(name) {
                return Err(DifferentiateError::NameTaken { name: name.clone(), what });
            }
        }
        Ok(())
    }

    /// Forward nodes that others stand for, or that make more outputs now.
    fn stand_ins(
        &self,
        again: Vec<(NodeId, Vec<NodeProto>)>,
        changes: &mut Vec<Change>,
        replaced: &mut Vec<Replaced>,
    ) -> Result<(), DifferentiateError> {
        let (graph, root) = (&self.analysis.graph, self.root);
        let mut groups = BTreeMap::new();
        let mut names = BTreeMap::new();
        let is_itself = |i: usize| self.prepared.is_none_or(|p| !p.names.contains_key(&p.origin[i]));
        let origin = |i: usize| self.prepared.map_or(i, |p| p.origin[i]);
        if let Some(prepared) = self.prepared {
            let mut nodes: Vec<Vec<NodeProto>> = graph.nodes.iter().map(|node| vec![node.clone()]).collect();
            for (id, others) in &again {
                nodes[id.index()].clone_from(others);
            }
            groups = prepare::stand_ins(prepared, root, &nodes);
            names.clone_from(&prepared.names);
        }
        let mut layers = naming::LayerNames::default();
        let mut taken: HashSet<String> = names.values().cloned().collect();
        for (id, nodes) in again.into_iter().filter(|(id, _)| is_itself(id.index())) {
            let mut name = layers.name(graph, Some(id), "");
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            let is_alone = nodes.len() == 1;
            let called = nodes.into_iter().enumerate().map(|(i, node)| {
                let op = node.op_type().to_ascii_lowercase();
                let own = if is_alone { op } else { format!("{i}_{op}") };
                NodeProto { name: Some(format!("{root}{LOWERED}{name}/{own}")), ..node }
            });
            groups.insert(origin(id.index()), called.collect());
            names.insert(origin(id.index()), name);
        }
        for (old, nodes) in groups {
            let part = Part::Node(old);
            replaced.push(Replaced::new(Standin::Nodes(names[&old].clone()), &record_bytes(self.model, part)?));
            changes.push(Change {
                reason: format!("node {old}: spelt out, or with outputs that a gradient reads"),
                replacements: vec![Replacement { part, with: Substitute::Nodes(nodes.into()) }],
                ..Change::default()
            });
        }
        Ok(())
    }

    /// The operator set, where another one takes its place.
    fn raise(&self, changes: &mut Vec<Change>, replaced: &mut Vec<Replaced>) -> Result<(), DifferentiateError> {
        let raised = self.analysis.model.opset_imports.iter().enumerate();
        for (at, with) in raised.filter(|(at, with)| self.model.opset_imports.get(*at) != Some(*with)) {
            let part = Part::OpsetImport(at);
            let standin = Standin::OpsetImport(with.domain().to_owned());
            replaced.push(Replaced::new(standin, &record_bytes(self.model, part)?));
            changes.push(Change {
                reason: format!("operator set {} → {}, as asked", self.model.opset(), with.version()),
                replacements: vec![Replacement { part, with: Substitute::OpsetImport(with.clone()) }],
                ..Change::default()
            });
        }
        Ok(())
    }

    /// The inputs to add; the record gets those that there were.
    fn inputs(
        &self,
        parameters: &[(ValueId, Tensor, Tensor)],
        statistics: &[(Successor, Tensor)],
        others: &[(String, Tensor)],
        replaced: &mut Vec<Replaced>,
    ) -> Vec<ValueInfoProto> {
        let (graph, model) = (&self.analysis.graph, self.model);
        let declare = |name: &str, tensor: &Tensor| tensor.ty.declare(name).unwrap_or_else(|| bare(name));
        let mut inputs: Vec<ValueInfoProto> = parameters
            .iter()
            .filter(|(value, _, _)| !graph.is_input(*value))
            .map(|(_, tensor, _)| declare(&tensor.name, tensor))
            .collect();
        let mut declared: HashSet<&str> = parameters.iter().map(|(_, tensor, _)| tensor.name.as_str()).collect();
        for (successor, tensor) in statistics {
            let is_input = graph.find(&successor.name).is_some_and(|v| graph.is_input(v));
            if !is_input && declared.insert(&successor.name) {
                inputs.push(declare(&successor.name, tensor));
            }
        }
        inputs.extend(others.iter().map(|(name, tensor)| declare(name, tensor)));
        let originals: Vec<_> =
            (0..model.graph.inputs.len()).filter_map(|i| record_bytes(model, Part::Input(i)).ok()).collect();
        replaced.push(Replaced::new(Standin::Inputs, &originals.concat()));
        inputs
    }

    /// Leaves a record for strip.
    fn remember(
        &self,
        patch: &mut Patch,
        added: Added,
        replaced: Vec<Replaced>,
        outputs: Vec<String>,
        report: &Report,
    ) -> Result<(), DifferentiateError> {
        let model = self.model;
        let places: Vec<Place> = self.moved().iter().map(|m| m.place.clone()).collect();
        let names = self.prepared.map(|p| &p.names);
        let hoisted = |m: &Moved| {
            let node = m.place.first().and_then(|(_, position)| names?.get(position)).ok_or_else(|| m.lost())?;
            Ok(record::Hoisted { name: m.name.clone(), node: node.clone(), place: m.place.clone() })
        };
        let hoisted = self.moved().iter().map(hoisted).collect::<Result<_, hoist::HoistError>>()?;
        let record = Record {
            record: record::VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            arguments: vec![record::DIFFERENTIATE.into(), format!("--optimizer={}", report.optimizer)],
            root: self.root.into(),
            original: Original {
                structure: structure_digest_without(model, &places)?,
                size: model.file.bytes.len() as u64,
            },
            task_loss: None,
            gradients: Vec::new(),
            steps: Vec::new(),
            outputs,
            added,
            layers: Vec::new(),
            replaced,
            hoisted,
            activations: Vec::new(),
            widths: narrowed(model, patch)?,
        };
        let value = serde_json::to_string(&record).unwrap_or_default();
        let names = serde_json::to_string(report).unwrap_or_default();
        patch.changes.push(Change {
            reason: "record of the differentiation, for strip, and its names, for whoever drives it".into(),
            metadata: vec![
                StringStringEntryProto { key: Some(naming::key(self.number)), value: Some(value) },
                StringStringEntryProto { key: Some(record::STEP_KEY.into()), value: Some(names) },
            ],
            ..Change::default()
        });
        Ok(())
    }
}

/// Gives what was made the names of the outputs. What is no node's of the backward pass, or is two outputs, is copied.
fn name_results(reversed: &mut Reversed, opset: i64, root: &str, results: &[(String, Tensor)]) {
    let own: HashSet<&str> = reversed.nodes.iter().flat_map(|n| &n.output).map(String::as_str).collect();
    let mut renames: HashMap<String, String> = HashMap::new();
    let mut copies = Builder::new(opset, root, "outputs", Vec::new());
    for (name, tensor) in results {
        let is_free = own.contains(tensor.name.as_str()) && !renames.contains_key(&tensor.name);
        let made = if is_free { tensor.clone() } else { copies.unary("Identity", tensor) };
        renames.insert(made.name, name.clone());
    }
    reversed.add(copies.finish(&[], &[]));
    for name in reversed.nodes.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
        if let Some(new) = renames.get(name) {
            name.clone_from(new);
        }
    }
    reversed.value_info.retain(|v| !renames.contains_key(v.name()));
}

fn bare(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}
