//! Injection: a model and [`Options`] → a [`Patch`] and a [`Report`]. Nothing is written here.

mod error;
pub(crate) mod layers;
mod loss;
pub(crate) mod naming;
mod options;
pub mod report;
mod seed;
mod term;

pub use error::InjectError;
pub use options::{At, Estimator, Options, Outputs};
pub use report::Report;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::analysis::Analysis;
use crate::graph::ValueId;
use crate::graph::work::Work;
use crate::lower::{Lowering, Target, lower};
use crate::onnx::{NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use crate::patch::{Anchor, Change, Encoded, Patch, Rename};
use crate::record::{self, Original, Record, RecordedLayer, Renamed, Replaced};
use crate::regularizer::emit::{Emission, Emitter, Tensor};
use crate::regularizer::{Exact, Reduction, Regularizer, Sampled, View};
use crate::select::{SelectError, Selector};
use crate::wire::fields::{graph as graph_field, node as node_field};
use crate::wire::{Model, narrowed, structure_digest};
use layers::Chosen;
use report::{CostReport, LayerCost, LayerReport, LossReport, ModelSummary};
use term::{Term, write_term};

/// What an injection would do.
#[derive(Debug)]
pub struct Plan {
    /// The edit.
    pub patch: Patch,
    /// The same for people.
    pub report: Report,
}

/// Plans an injection into a model's main graph, in the loss form: total = task loss + Σ λ·PER.
///
/// # Errors
///
/// Every refusal is an [`InjectError`] with a sentence that names what was found and what to do.
pub fn plan(model: &Model, options: &Options) -> Result<Plan, InjectError> {
    check_numbers(options)?;
    if model.graph.nodes.is_empty() {
        return Err(InjectError::NoNodes);
    }
    // Without any import the specification means version 1.
    if !model.opset_imports.is_empty() && !model.opset_imports.iter().any(|o| matches!(o.domain(), "" | "ai.onnx")) {
        let found: Vec<String> =
            model.opset_imports.iter().map(|o| format!("{:?} {}", o.domain(), o.version())).collect();
        return Err(InjectError::NoOperators { found: found.join(", ") });
    }
    let defaults: Vec<i64> =
        model.opset_imports.iter().filter(|o| matches!(o.domain(), "" | "ai.onnx")).map(|o| o.version()).collect();
    if let [first, rest @ ..] = defaults.as_slice()
        && let Some(other) = rest.iter().find(|v| *v != first)
    {
        return Err(InjectError::TwoOpsets { first: *first, second: *other });
    }
    let alone = options.is_lowering_alone();
    Record::all(model).map_err(|problem| InjectError::BadRecord { problem })?;
    let analysis = Analysis::with_overrides(model, options.wrt.as_deref(), options.freeze.as_deref())?;
    let loss = match loss::choose(&analysis, options) {
        _ if options.as_output => None,
        // A graph that gets its loss later can be rewritten all the same.
        Err(InjectError::NoLoss { .. }) if options.target.is_some() && alone => None,
        loss => Some(loss?),
    };

    let taps = if alone {
        Vec::new()
    } else {
        let selector: Selector = options.layers.parse().map_err(SelectError::from)?;
        selector.select(&analysis.graph, &analysis.catalog)?
    };
    let selected = taps.len();
    let (chosen, skipped) = layers::resolve(&analysis, taps, options, loss.as_ref().map(|l| l.value));
    if let Some(first) = skipped.first() {
        if options.strict {
            return Err(InjectError::Strict { what: first.what.clone(), reason: first.reason.clone() });
        }
        if chosen.is_empty() {
            let first = format!("{}: {}", first.what, first.reason);
            return Err(InjectError::NothingLeft { count: selected, first });
        }
    }
    let coefficients = coefficients(&analysis, &chosen, options)?;
    if options.coef.is_none()
        && !options.as_output
        && let Some(i) = coefficients.iter().position(|c| *c == 0)
    {
        return Err(match options.coef_overrides.as_slice() {
            [] => InjectError::NoCoefficient,
            _ => InjectError::NoCoefficientFor { layer: layers::describe(&analysis, &chosen[i].tap) },
        });
    }
    Injection { analysis: &analysis, options, loss, chosen, skipped, coefficients }.plan()
}

fn check_numbers(options: &Options) -> Result<(), InjectError> {
    let given = options.coef.iter().chain(options.coef_overrides.iter().map(|(_, v)| v));
    for value in given {
        let single = *value as f32;
        let is_lost = !single.is_finite() || (single == 0.0 && *value > 0.0);
        if !value.is_finite() || *value < 0.0 || is_lost {
            return Err(InjectError::BadCoefficient { value: *value });
        }
    }
    if options.estimator == Estimator::Sampled && !(1..=1 << 24).contains(&options.slices) {
        return Err(InjectError::BadSlices { slices: options.slices });
    }
    if options.as_output && options.outputs.task {
        return Err(InjectError::NoTaskLoss);
    }
    Ok(())
}

/// λ of every chosen layer: 0 is the common one, k + 1 the k-th override.
fn coefficients(analysis: &Analysis, chosen: &[Chosen], options: &Options) -> Result<Vec<usize>, InjectError> {
    let taps: Vec<_> = chosen.iter().map(|c| c.tap.clone()).collect();
    let mut which = vec![0; chosen.len()];
    for (k, (item, value)) in options.coef_overrides.iter().enumerate() {
        let (item, value) = (item.clone(), *value);
        let selector: Selector = match item.parse() {
            Ok(selector) => selector,
            Err(source) => return Err(InjectError::CoefficientItem { item, value, source }),
        };
        let matches = selector.matches(&analysis.graph, &taps);
        if !matches.contains(&true) {
            let layers = taps.len();
            return Err(InjectError::CoefficientUnused { item, value, layers });
        }
        for (slot, hit) in which.iter_mut().zip(matches) {
            if hit {
                *slot = k + 1;
            }
        }
    }
    Ok(which)
}

struct Injection<'a> {
    analysis: &'a Analysis<'a>,
    options: &'a Options,
    loss: Option<loss::Loss>,
    chosen: Vec<Chosen>,
    skipped: Vec<report::Skipped>,
    /// By chosen layer: 0, or which override.
    coefficients: Vec<usize>,
}

/// One layer, written.
struct Written {
    name: String,
    seed: Option<u32>,
    per: Tensor,
    nodes: Encoded<NodeProto, { graph_field::NODE }>,
    value_info: Encoded<ValueInfoProto, { graph_field::VALUE_INFO }>,
}

/// The constants that all layers share, by name.
type Constants = BTreeMap<String, TensorProto>;

impl Injection<'_> {
    fn plan(self) -> Result<Plan, InjectError> {
        let (model, graph) = (self.analysis.model, &self.analysis.graph);
        let (root, injection) = naming::free_root(model, graph);
        let mut lowering = match self.options.target {
            Some(Target::OrtTraining) => lower(self.analysis, self.differentiated(), &root)?,
            None => Lowering { opset: model.opset(), ir_version: model.ir_version, ..Lowering::default() },
        };
        let opset = lowering.opset;
        let (written, mut constants) = self.write_layers(opset, &root, injection)?;
        constants.append(&mut lowering.constants);
        let anchor = self.anchor()?;

        let term = write_term(&self, opset, &root, &written);
        let work = Work::of(graph, &self.analysis.types);
        let mut report = self.report(&written, &term, work);
        report.rewritten = std::mem::take(&mut lowering.rewritten);
        report.model_changes = std::mem::take(&mut lowering.model);
        if self.chosen.is_empty() && lowering.is_empty() {
            return Ok(Plan { patch: Patch::default(), report });
        }
        let replaced = std::mem::take(&mut lowering.replaced);
        let mut patch = self.assemble(&root, written, constants, term, anchor, lowering);
        report.added = added(&patch);
        let record = self.record(&root, &patch, &report, replaced)?;
        let value = serde_json::to_string(&record).unwrap_or_default();
        patch.changes.push(Change {
            reason: "record of this injection, for strip".into(),
            metadata: vec![StringStringEntryProto { key: Some(Record::key(injection)), value: Some(value) }],
            ..Change::default()
        });
        report.warnings = warnings(&self, &report);
        Ok(Plan { patch, report })
    }

    /// The regulariser of layer number `i`.
    fn regularizer(&self, injection: usize, i: usize) -> (Box<dyn Regularizer>, Option<u32>) {
        match self.options.estimator {
            Estimator::Exact => (Box::new(Exact), None),
            Estimator::Sampled => {
                let seed = self.options.seed.map(|s| seed::layer_seed(s, injection, i));
                (Box::new(Sampled { slices: self.options.slices, seed }), seed)
            }
        }
    }

    fn write_layers(&self, opset: i64, root: &str, injection: usize) -> Result<(Vec<Written>, Constants), InjectError> {
        let constants = Mutex::new(Constants::new());
        let mut names = naming::LayerNames::default();
        let named: Vec<String> =
            self.chosen.iter().map(|c| names.name(&self.analysis.graph, c.tap.node, &c.layer.h.name)).collect();
        let write = |(i, (chosen, name)): (usize, (&Chosen, String))| {
            let (regularizer, seed) = self.regularizer(injection, i);
            regularizer.check(opset, &chosen.layer).map_err(|source| InjectError::Unsupported {
                layer: name.clone(),
                estimator: regularizer.name(),
                source,
                advice: "--estimator exact does without, or convert the model to 13 or later with onnx.version_converter",
            })?;
            let mut emitter = Emitter::new(opset, root, &name);
            let per = regularizer.emit(&mut emitter, &chosen.layer);
            let Emission { nodes, constants: mine, mut value_info } = emitter.finish();
            if self.options.outputs.layers {
                // What is an output is declared there.
                value_info.retain(|v| v.name() != per.name);
            }
            let mut shared = constants.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, tensor) in mine {
                shared.entry(name).or_insert(tensor);
            }
            drop(shared);
            // Encoded at once: hundreds of thousands of nodes would fill the memory as structures.
            Ok(Written { name, seed, per, nodes: nodes.into(), value_info: value_info.into() })
        };
        let written =
            self.chosen.par_iter().zip(named).enumerate().map(write).collect::<Result<Vec<_>, InjectError>>()?;
        Ok((written, constants.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// What gradients are taken of: the loss, or the output that the sum reaches.
    fn differentiated(&self) -> Option<ValueId> {
        let loss = self.loss.as_ref()?;
        Some(loss.reached.first().copied().unwrap_or(loss.value))
    }

    /// Behind all nodes; but where a node must read the sum, right behind the last tapped value.
    fn anchor(&self) -> Result<Anchor, InjectError> {
        let Some(loss) = self.loss.as_ref().filter(|l| !l.total_readers.is_empty()) else { return Ok(Anchor::End) };
        let graph = &self.analysis.graph;
        let first_reader = loss.total_readers.iter().min().copied();
        let mut last = loss.producer.0;
        for chosen in &self.chosen {
            let Some((producer, _)) = graph.producer(chosen.value) else { continue };
            if let Some(reader) = first_reader.filter(|r| *r <= producer) {
                return Err(InjectError::LossTooEarly {
                    loss: graph.name(loss.value).into(),
                    consumer: graph.describe(reader),
                    tensor: graph.name(chosen.value).into(),
                });
            }
            last = last.max(producer);
        }
        Ok(Anchor::After(last.index()))
    }

    fn assemble(
        &self,
        root: &str,
        written: Vec<Written>,
        mut constants: Constants,
        mut term: Term,
        anchor: Anchor,
        mut lowering: Lowering,
    ) -> Patch {
        let mut changes = Vec::with_capacity(written.len() + 2);
        let is_regularised = !written.is_empty();
        for (layer, chosen) in written.into_iter().zip(&self.chosen) {
            changes.push(Change {
                reason: format!("PER of {:?}, layer {}", chosen.layer.h.name, layer.name),
                nodes: layer.nodes,
                value_info: layer.value_info,
                at: anchor,
                ..Change::default()
            });
        }
        constants.append(&mut term.emission.constants);
        let constants = self.constants(root, constants, &term, anchor, lowering.ir_version);
        changes.insert(0, constants);
        if is_regularised {
            let mut closing = self.closing(term, anchor);
            closing.renames = lowering.rename(closing.renames);
            changes.push(closing);
        }
        lowering.changes.append(&mut changes);
        Patch { changes: lowering.changes, ..Patch::default() }
    }

    /// Shared constants and the coefficients.
    fn constants(&self, root: &str, constants: Constants, term: &Term, anchor: Anchor, ir_version: i64) -> Change {
        let mut change = Change {
            reason: format!("constants, under {root}const/, and the coefficients"),
            at: anchor,
            initializers: term.coefficients.clone(),
            inputs: term.inputs.clone(),
            ..Change::default()
        };
        if ir_version >= 4 {
            change.initializers.extend(constants.into_values());
        } else {
            // Before IR version 4 an initializer has to be a graph input as well; a Constant node does not.
            let opset = self.analysis.model.opset();
            change.nodes = constants.into_values().flat_map(|tensor| term::constant_nodes(tensor, opset)).collect();
        }
        change
    }

    /// The term, the sum with the task loss, and the outputs.
    fn closing(&self, term: Term, anchor: Anchor) -> Change {
        let graph = &self.analysis.graph;
        let mut change = Change {
            reason: match &self.loss {
                Some(loss) => format!("λ·ΣPER, added to the loss {:?}", graph.name(loss.value)),
                None => format!("λ·ΣPER, as the output {:?}", term.result),
            },
            nodes: term.emission.nodes.into(),
            value_info: term.emission.value_info.into(),
            outputs: term.outputs,
            at: anchor,
            ..Change::default()
        };
        if let (Some(loss), Some(task)) = (&self.loss, &term.task) {
            let from = graph.name(loss.value).to_owned();
            let rename = |place| Rename { place, from: from.clone(), to: task.clone() };
            let (producer, slot) = loss.producer;
            let output = vec![(graph_field::NODE, producer.index()), (node_field::OUTPUT, slot as usize)];
            change.renames.push(rename(output));
            change.renames.extend(loss.task_readers.iter().map(|u| rename(graph.place_of_use(*u))));
        }
        change
    }

    fn coef_of(&self, layer: usize) -> f64 {
        match self.coefficients[layer] {
            0 => self.options.coef.unwrap_or(1.0),
            k => self.options.coef_overrides[k - 1].1,
        }
    }

    fn report(&self, written: &[Written], term: &Term, work: Work) -> Report {
        let (model, graph) = (self.analysis.model, &self.analysis.graph);
        let mut cost = CostReport {
            model_multiply_adds: work.multiply_adds,
            per_sample: work.open_dimensions,
            ..CostReport::default()
        };
        let mut layers = Vec::with_capacity(written.len());
        for (i, (w, chosen)) in written.iter().zip(&self.chosen).enumerate() {
            let (regularizer, _) = self.regularizer(1, i);
            let d = chosen.layer.row_length();
            let rows = chosen.layer.row_count(1.0);
            let all_known =
                chosen.layer.h.ty.dims.as_ref().is_some_and(|dims| dims.iter().all(|d| d.known().is_some()));
            cost.per_sample |= !all_known;
            let c = regularizer.cost(rows, d.map_or(1.0, |d| d as f64));
            cost.term_multiply_adds += c.multiply_adds;
            cost.term_bytes += c.bytes;
            cost.random_numbers += c.random_numbers;
            layers.push(LayerReport {
                name: w.name.clone(),
                node: chosen.tap.node.map(|n| graph.node(n).name().to_owned()).filter(|n| !n.is_empty()),
                op: chosen.tap.node.map(|n| graph.node(n).op_type().to_owned()),
                activation: chosen.tap.activation.map(|a| a.name().to_owned()),
                tensor: chosen.layer.h.name.clone(),
                shape: chosen.layer.h.ty.to_string(),
                view: chosen.layer.view.name(),
                rows: all_known.then_some(rows as u64),
                d,
                coef: self.coef_of(i),
                seed: w.seed,
                nodes: w.nodes.len(),
                cost: LayerCost { multiply_adds: c.multiply_adds, bytes: c.bytes, random_numbers: c.random_numbers },
            });
        }
        Report {
            schema: report::SCHEMA,
            model: ModelSummary {
                path: model.file.display_name().display().to_string(),
                bytes: model.file.bytes.len() as u64,
                ir_version: model.ir_version,
                opset: model.opset(),
                producer: model.producer.clone(),
                nodes: graph.nodes.len(),
            },
            loss: self
                .loss
                .as_ref()
                .zip(term.task.clone().filter(|_| !self.chosen.is_empty()))
                .map(|(loss, task)| LossReport { name: graph.name(loss.value).to_owned(), task }),
            estimator: self.options.estimator.name(),
            slices: (self.options.estimator == Estimator::Sampled).then_some(self.options.slices),
            reduction: match self.options.reduction {
                Reduction::Mean => "mean",
                Reduction::Sum => "sum",
            },
            coefficients: term.named.clone(),
            layers,
            skipped: self.skipped.clone(),
            target: self.options.target.map(Target::name),
            rewritten: Vec::new(),
            model_changes: Vec::new(),
            warnings: Vec::new(),
            outputs: term.outputs.iter().map(|v| v.name().to_owned()).collect(),
            inputs: term.inputs.iter().map(|v| v.name().to_owned()).collect(),
            added: record::Added::default(),
            cost,
        }
    }

    fn record(
        &self,
        root: &str,
        patch: &Patch,
        report: &Report,
        replaced: Vec<Replaced>,
    ) -> Result<Record, InjectError> {
        let (model, graph) = (self.analysis.model, &self.analysis.graph);
        Ok(Record {
            widths: narrowed(model, patch)?,
            record: record::VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            arguments: self.options.arguments(),
            root: root.into(),
            original: Original { structure: structure_digest(model), size: model.file.bytes.len() as u64 },
            task_loss: self
                .loss
                .as_ref()
                .zip(report.loss.as_ref())
                .map(|(loss, names)| Renamed { from: graph.name(loss.value).to_owned(), to: names.task.clone() }),
            outputs: report.outputs.iter().filter(|o| !o.starts_with(root)).cloned().collect(),
            added: added(patch),
            replaced,
            layers: report
                .layers
                .iter()
                .map(|l| RecordedLayer {
                    name: l.name.clone(),
                    tensor: l.tensor.clone(),
                    estimator: report.estimator.into(),
                    view: l.view.into(),
                    coef: l.coef,
                })
                .collect(),
        })
    }
}

fn added(patch: &Patch) -> record::Added {
    let count = |of: fn(&Change) -> usize| patch.changes.iter().map(of).sum();
    record::Added {
        nodes: count(Change::added_nodes),
        initializers: count(|c| c.initializers.len()),
        inputs: count(|c| c.inputs.len()),
        outputs: count(|c| c.outputs.len()),
    }
}

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

fn warnings(injection: &Injection, report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    let sampled = injection.options.estimator == Estimator::Sampled;
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
    if !injection.analysis.has_trainable() && injection.loss.is_some() {
        out.push(
            "no initializer is trainable, so nothing says which layers can learn; are the parameters graph inputs?"
                .into(),
        );
    }
    if let Some(loss) = injection.loss.as_ref().filter(|l| l.reached.len() > 1) {
        let names: Vec<&str> = loss.reached.iter().map(|v| injection.analysis.graph.name(*v)).collect();
        out.push(format!(
            "the term reaches {} outputs, each of which changes with it: {}",
            names.len(),
            names.join(", ")
        ));
    }
    if injection.options.target.is_some() && report.loss.is_some() && !injection.options.outputs.task {
        out.push(
            "the eval_model that generate_artifacts makes has the term in its loss, too: --outputs task makes the task loss an \
             output behind it; or make the eval_model of the same graph rewritten with --coef 0, which has the same parameters"
                .into(),
        );
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
