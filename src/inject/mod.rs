//! Injection: a model and [`Options`] → a [`Patch`] and a [`Report`]. Nothing is written here.

mod error;
pub(crate) mod gradient;
pub(crate) mod layers;
mod loss;
mod naming;
mod options;
pub mod report;
mod seed;
mod term;
mod training_info;

pub use error::InjectError;
pub use options::{At, Estimator, Form, Options, Outputs};
pub use report::Report;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::analysis::Analysis;
use crate::graph::NodeId;
use crate::graph::backward::requests;
use crate::graph::kind::Kind;
use crate::graph::work::Work;
use crate::onnx::{NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use crate::patch::{Anchor, Change, Encoded, Patch, Rename};
use crate::record::{self, Original, Record, RecordedLayer, RecordedStep, Renamed};
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

/// Plans an injection into a model's main graph: total = task loss + Σ λ·PER, or in a graph that holds its backward pass
/// λ·∂PER/∂h added to the gradient of each layer's h.
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
    Record::all(model).map_err(|problem| InjectError::BadRecord { problem })?;
    if training_info::is_meant(model, options)? {
        return training_info::plan(model, options);
    }
    let analysis = Analysis::with_overrides(model, options.wrt.as_deref(), options.freeze.as_deref())?;
    let (root, number) = naming::free_root(model, &analysis.graph);
    let place = Place { root: &root, number, first: 0 };
    let Draft { patch, mut report, task_loss, gradients, .. } = draft(&analysis, options, &place)?;
    report.added = added(&patch.changes);
    let joined = Joined { task_loss, gradients, steps: Vec::new() };
    finish(model, options, (&root, number), patch, report, joined)
}

/// Where an injection stands among others.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// What its names start with.
    root: &'a str,
    /// Which injection into the model it is, from 1.
    number: usize,
    /// How many layers it has elsewhere already.
    first: usize,
}

/// An edit of one graph, without the record of it.
struct Draft {
    patch: Patch,
    report: Report,
    /// The node that makes the loss.
    loss_producer: Option<NodeId>,
    task_loss: Option<Renamed>,
    gradients: Vec<Renamed>,
}

/// What the record remembers of how the term was joined to the model.
struct Joined {
    task_loss: Option<Renamed>,
    gradients: Vec<Renamed>,
    steps: Vec<RecordedStep>,
}

/// The plan with its record; without layers, nothing at all.
fn finish(
    model: &Model,
    options: &Options,
    (root, number): (&str, usize),
    mut patch: Patch,
    report: Report,
    joined: Joined,
) -> Result<Plan, InjectError> {
    if report.layers.is_empty() {
        return Ok(Plan { patch: Patch::default(), report });
    }
    let record = record(model, options, root, &patch, &report, joined)?;
    let value = serde_json::to_string(&record).unwrap_or_default();
    patch.changes.push(Change {
        reason: "record of this injection, for strip".into(),
        metadata: vec![StringStringEntryProto { key: Some(Record::key(number)), value: Some(value) }],
        ..Change::default()
    });
    Ok(Plan { patch, report })
}

/// Plans the injection into one graph.
fn draft(analysis: &Analysis, options: &Options, place: &Place) -> Result<Draft, InjectError> {
    let target = target(analysis, options)?;
    let loss = match target {
        Target::Loss => Some(loss::choose(analysis, options)?),
        Target::Gradients if options.loss_term => Some(loss::choose_output(analysis, options)?),
        Target::Output | Target::Gradients => None,
    };

    let selector: Selector = options.layers.parse().map_err(SelectError::from)?;
    let taps = selector.select(&analysis.graph, &analysis.catalog)?;
    let (taps, led_to) = match target {
        Target::Gradients => (gradient::forward_only(analysis, taps), None),
        Target::Loss | Target::Output => (taps, loss.as_ref().map(|l| l.value)),
    };
    let selected = taps.len();
    let (mut chosen, mut skipped) = layers::resolve(analysis, taps, options, led_to);
    let mut places = Vec::new();
    if target == Target::Gradients {
        (chosen, places) = gradient::locate(analysis, chosen, &mut skipped);
    }
    if let Some(first) = skipped.first() {
        if options.strict {
            return Err(InjectError::Strict { what: first.what.clone(), reason: first.reason.clone() });
        }
        if chosen.is_empty() {
            let first = format!("{}: {}", first.what, first.reason);
            return Err(InjectError::NothingLeft { count: selected, first });
        }
    }
    let coefficients = coefficients(analysis, &chosen, options)?;
    if options.coef.is_none()
        && !options.as_output
        && let Some(i) = coefficients.iter().position(|c| *c == 0)
    {
        return Err(match options.coef_overrides.as_slice() {
            [] => InjectError::NoCoefficient,
            _ => InjectError::NoCoefficientFor { layer: layers::describe(analysis, &chosen[i].tap) },
        });
    }
    Injection { analysis, options, target, loss, chosen, places, skipped, coefficients, first: place.first }
        .draft(place)
}

/// What the term is joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The loss.
    Loss,
    /// Nothing: it is an output.
    Output,
    /// The gradients of the layers.
    Gradients,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Loss => "loss",
            Target::Output => "output",
            Target::Gradients => "gradient",
        }
    }
}

/// What is asked for, as far as the graph has it.
fn target(analysis: &Analysis, options: &Options) -> Result<Target, InjectError> {
    let target = match (&analysis.kind, options.form) {
        (_, Form::Gradient) if options.as_output => return Err(InjectError::GradientAsOutput),
        (_, Form::Auto | Form::Loss) if options.as_output => Target::Output,
        (Kind::ForwardBackward { evidence }, Form::Loss) => {
            return Err(InjectError::HoldsBackward { evidence: evidence.clone() });
        }
        (Kind::ForwardBackward { .. }, _) => Target::Gradients,
        (_, Form::Auto | Form::Loss) => Target::Loss,
        (kind, Form::Gradient) => return Err(InjectError::NoBackward { found: kind.name() }),
    };
    let touches_loss = target == Target::Loss || (target == Target::Gradients && options.loss_term);
    match (&options.loss, target) {
        _ if options.loss_term && target != Target::Gradients => Err(InjectError::LossTermAnyway),
        (Some(name), Target::Gradients) if !touches_loss => Err(InjectError::LossUntouched { name: name.clone() }),
        _ if options.outputs.task && !touches_loss => Err(InjectError::NoTaskLoss),
        _ => Ok(target),
    }
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
    target: Target,
    loss: Option<loss::Loss>,
    chosen: Vec<Chosen>,
    /// By chosen layer: where its gradient is. Empty but for [`Target::Gradients`].
    places: Vec<gradient::Place>,
    skipped: Vec<report::Skipped>,
    /// By chosen layer: 0, or which override.
    coefficients: Vec<usize>,
    /// How many layers come before these in other graphs.
    first: usize,
}

/// One layer, written.
struct Written {
    name: String,
    seed: Option<u32>,
    /// The value of PER; in the gradient form only where something asks for it.
    per: Option<Tensor>,
    /// In the gradient form, what the readers of the layer's gradient shall read.
    sum: Option<String>,
    nodes: Encoded<NodeProto, { graph_field::NODE }>,
    value_info: Encoded<ValueInfoProto, { graph_field::VALUE_INFO }>,
}

/// The constants that all layers share, by name.
type Constants = BTreeMap<String, TensorProto>;

impl Injection<'_> {
    fn draft(self, place: &Place) -> Result<Draft, InjectError> {
        let (model, graph, root) = (self.analysis.model, &self.analysis.graph, place.root);
        let opset = model.opset();
        let (written, constants) = self.write_layers(opset, root, place.number)?;
        let anchor = self.anchor()?;

        let term = write_term(&self, opset, root, &written);
        let work = Work::of(graph, &self.analysis.types, &self.analysis.backward);
        let mut report = self.report(&written, &term, work);
        let loss_producer = self.loss.as_ref().map(|l| l.producer.0);
        if self.chosen.is_empty() {
            return Ok(Draft {
                patch: Patch::default(),
                report,
                loss_producer,
                task_loss: None,
                gradients: Vec::new(),
            });
        }
        let renamed = |(place, layer): (&gradient::Place, &Written)| {
            Some(Renamed { from: place.name().to_owned(), to: layer.sum.clone()? })
        };
        let gradients = self.places.iter().zip(&written).filter_map(renamed).collect();
        let losses = self.loss.as_ref().zip(term.task.clone());
        let task_loss = losses.map(|(loss, to)| Renamed { from: graph.name(loss.value).to_owned(), to });
        let patch = self.assemble(root, written, constants, term, anchor);
        report.warnings = warnings(&self, &report);
        Ok(Draft { patch, report, loss_producer, task_loss, gradients })
    }

    /// The regulariser of layer number `i`.
    fn regularizer(&self, injection: usize, i: usize) -> (Box<dyn Regularizer>, Option<u32>) {
        match self.options.estimator {
            Estimator::Exact => (Box::new(Exact), None),
            Estimator::Sampled => {
                let seed = self.options.seed.map(|s| seed::layer_seed(s, injection, self.first + i));
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
            let (sum, per) = match self.places.get(i) {
                None => (None, Some(regularizer.emit(&mut emitter, &chosen.layer))),
                Some(place) => {
                    let (sum, per) = gradient::write(self, &mut emitter, &*regularizer, root, i, place);
                    (Some(sum), per)
                }
            };
            let Emission { nodes, constants: mine, mut value_info } = emitter.finish();
            if let Some(per) = per.as_ref().filter(|_| self.options.outputs.layers) {
                // What is an output is declared there.
                value_info.retain(|v| v.name() != per.name);
            }
            let mut shared = constants.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, tensor) in mine {
                shared.entry(name).or_insert(tensor);
            }
            drop(shared);
            // Encoded at once: hundreds of thousands of nodes would fill the memory as structures.
            Ok(Written { name, seed, per, sum, nodes: nodes.into(), value_info: value_info.into() })
        };
        let written =
            self.chosen.par_iter().zip(named).enumerate().map(write).collect::<Result<Vec<_>, InjectError>>()?;
        Ok((written, constants.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Whether the values of PER are computed: always, but in the gradient form only for the loss or for outputs.
    fn wants_values(&self) -> bool {
        let outputs = self.options.outputs;
        self.target != Target::Gradients || self.loss.is_some() || outputs.per || outputs.layers
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
    ) -> Patch {
        let mut changes = Vec::with_capacity(written.len() + 2);
        for (i, (layer, chosen)) in written.into_iter().zip(&self.chosen).enumerate() {
            let change = Change {
                reason: format!("PER of {:?}, layer {}", chosen.layer.h.name, layer.name),
                nodes: layer.nodes,
                value_info: layer.value_info,
                at: anchor,
                ..Change::default()
            };
            changes.push(match self.places.get(i) {
                None => change,
                Some(place) => Change {
                    reason: format!(
                        "gradient of PER of {:?}, layer {}, added to {:?}",
                        chosen.layer.h.name,
                        layer.name,
                        place.name()
                    ),
                    at: place.anchor(),
                    renames: place.renames(self.analysis, layer.sum.as_deref().unwrap_or_default()),
                    ..change
                },
            });
        }
        constants.append(&mut term.emission.constants);
        // What is a node has to come before the first layer that reads it.
        let first = self.places.iter().map(gradient::Place::anchor).min().unwrap_or(anchor);
        let constants = self.constants(root, constants, &term, first);
        changes.insert(0, constants);
        changes.push(self.closing(term, anchor));
        Patch { changes, ..Patch::default() }
    }

    /// Shared constants and the coefficients.
    fn constants(&self, root: &str, constants: Constants, term: &Term, anchor: Anchor) -> Change {
        let mut change = Change {
            reason: format!("constants of all layers, under {root}const/, and the coefficients"),
            at: anchor,
            initializers: term.coefficients.clone(),
            inputs: term.inputs.clone(),
            ..Change::default()
        };
        if self.analysis.model.ir_version >= 4 {
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
            reason: match (&self.loss, self.target) {
                (Some(loss), _) => format!("λ·ΣPER, added to the loss {:?}", graph.name(loss.value)),
                (None, Target::Gradients) => "values of PER".into(),
                (None, _) => format!("λ·ΣPER, as the output {:?}", term.result),
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
                training_info: None,
                gradient: self.places.get(i).map(|p| p.name().to_owned()),
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
            form: self.target.name(),
            loss: self
                .loss
                .as_ref()
                .zip(term.task.clone())
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
            warnings: Vec::new(),
            outputs: term.outputs.iter().map(|v| v.name().to_owned()).collect(),
            inputs: term.inputs.iter().map(|v| v.name().to_owned()).collect(),
            added: record::Added::default(),
            cost,
        }
    }
}

fn record(
    model: &Model,
    options: &Options,
    root: &str,
    patch: &Patch,
    report: &Report,
    joined: Joined,
) -> Result<Record, InjectError> {
    let of_a_step = |o: &String| joined.steps.iter().any(|s| s.outputs.contains(o));
    Ok(Record {
        widths: narrowed(model, patch)?,
        record: record::VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        arguments: options.arguments(),
        root: root.into(),
        original: Original { structure: structure_digest(model), size: model.file.bytes.len() as u64 },
        outputs: report.outputs.iter().filter(|o| !o.starts_with(root) && !of_a_step(o)).cloned().collect(),
        task_loss: joined.task_loss,
        gradients: joined.gradients,
        steps: joined.steps,
        added: report.added,
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

fn added(changes: &[Change]) -> record::Added {
    let count = |of: fn(&Change) -> usize| changes.iter().map(of).sum();
    record::Added {
        nodes: count(|c| c.nodes.len()),
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
    let asked = || !requests(&injection.analysis.graph).is_empty();
    if !injection.analysis.has_trainable() && injection.target == Target::Loss && !asked() {
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
