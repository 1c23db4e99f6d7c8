//! Injection: a model and [`Options`] → a [`Patch`] and a [`Report`]. Nothing is written here.

mod error;
pub(crate) mod gradient;
pub(crate) mod layers;
mod loss;
pub(crate) mod naming;
mod options;
pub mod report;
mod seed;
mod template;
mod term;
mod warnings;

pub use error::InjectError;
pub use options::{At, Estimator, Form, Options, Outputs};
pub use report::Report;

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::analysis::Analysis;
use crate::graph::ValueId;
use crate::graph::kind::Kind;
use crate::graph::work::Work;
use crate::lower::{Lowering, Target, lower};
use crate::onnx::{NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use crate::patch::{Anchor, Change, Encoded, Patch, Rename};
use crate::record::{self, Original, Record, RecordedLayer, Renamed, Replaced};
use crate::regularizer::emit::{Elem, Emitter, Tensor};
use crate::regularizer::{Exact, Layer, Reduction, Regularizer, Sampled};
use crate::select::{SelectError, Selector};
use crate::wire::fields::{graph as graph_field, node as node_field};
use crate::wire::{Model, narrowed, structure_digest};
use layers::Chosen;
use report::{CostReport, LayerCost, LayerReport, LossReport, ModelSummary};
use template::{Draws, Emitted, Filled, Filling, Template};
use term::{Term, write_term};
use warnings::warnings;

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
    let alone = options.is_lowering_alone();
    Record::all(model).map_err(|problem| InjectError::BadRecord { problem })?;
    // The digest reads the whole file but its weights, which takes as long as a good part of the analysis.
    let (analysis, digest) = rayon::join(
        || Analysis::with_overrides(model, options.wrt.as_deref(), options.freeze.as_deref()),
        || structure_digest(model),
    );
    let analysis = analysis?;
    let destination = destination(&analysis, options)?;
    let loss = match destination {
        Destination::Loss => match loss::choose(&analysis, options) {
            // A graph that gets its loss later can be rewritten all the same.
            Err(InjectError::NoLoss { .. }) if options.target.is_some() && alone => None,
            loss => Some(loss?),
        },
        Destination::Gradients if options.loss_term => Some(loss::choose_output(&analysis, options)?),
        Destination::Output | Destination::Gradients => None,
    };

    let selector: Option<Selector> =
        if alone { None } else { Some(options.layers.parse().map_err(SelectError::from)?) };
    let taps = match &selector {
        Some(selector) => selector.select(&analysis.graph, &analysis.catalog)?,
        None => Vec::new(),
    };
    let (taps, led_to) = match destination {
        Destination::Gradients => (gradient::forward_only(&analysis, taps), None),
        Destination::Loss | Destination::Output => (taps, loss.as_ref().map(|l| l.value)),
    };
    let selected = taps.len();
    let (mut chosen, mut skipped) = layers::resolve(&analysis, taps, options, led_to);
    let mut places = Vec::new();
    if destination == Destination::Gradients {
        (chosen, places) = gradient::locate(&analysis, chosen, &mut skipped);
    }
    let out_of_reach = selector.iter().flat_map(|s| s.out_of_reach(&analysis.catalog));
    skipped.extend(out_of_reach.map(|h| report::Skipped { what: h.description.clone(), reason: h.reason.clone() }));
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
    let drawn_by = drawn_by(&chosen, options);
    let injection = Injection {
        analysis: &analysis,
        digest,
        options,
        destination,
        loss,
        chosen,
        places,
        skipped,
        coefficients,
        drawn_by,
    };
    injection.check_coefficients()?;
    injection.plan()
}

/// What the term is joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// The loss.
    Loss,
    /// Nothing: it is an output.
    Output,
    /// The gradients of the layers.
    Gradients,
}

impl Destination {
    fn name(self) -> &'static str {
        match self {
            Destination::Loss => "loss",
            Destination::Output => "output",
            Destination::Gradients => "gradient",
        }
    }
}

/// What is asked for, as far as the graph has it.
fn destination(analysis: &Analysis, options: &Options) -> Result<Destination, InjectError> {
    let destination = match (&analysis.kind, options.form) {
        (_, Form::Gradient) if options.as_output => return Err(InjectError::GradientAsOutput),
        (_, Form::Auto | Form::Loss) if options.as_output => Destination::Output,
        (Kind::ForwardBackward { evidence }, Form::Loss) => {
            return Err(InjectError::HoldsBackward { evidence: evidence.clone() });
        }
        (Kind::ForwardBackward { .. }, _) => Destination::Gradients,
        (_, Form::Auto | Form::Loss) => Destination::Loss,
        (kind, Form::Gradient) => return Err(InjectError::NoBackward { found: kind.name() }),
    };
    let touches_loss = destination == Destination::Loss || (destination == Destination::Gradients && options.loss_term);
    match (&options.loss, destination) {
        _ if options.loss_term && destination != Destination::Gradients => Err(InjectError::LossTermAnyway),
        (Some(name), Destination::Gradients) if !touches_loss => Err(InjectError::LossUntouched { name: name.clone() }),
        _ if options.outputs.task && !touches_loss => Err(InjectError::NoTaskLoss),
        _ => Ok(destination),
    }
}

fn check_numbers(options: &Options) -> Result<(), InjectError> {
    let given = options.coef.iter().chain(options.coef_overrides.iter().map(|(_, v)| v));
    for value in given {
        if !value.is_finite() || *value < 0.0 {
            return Err(InjectError::BadCoefficient { value: *value });
        }
    }
    if options.estimator == Estimator::Sampled && !(1..=1 << 24).contains(&options.slices) {
        return Err(InjectError::BadSlices { slices: options.slices });
    }
    Ok(())
}

/// The layer whose slices each layer reads: itself, or with shared slices the first one whose rows are as long.
fn drawn_by(chosen: &[Chosen], options: &Options) -> Vec<usize> {
    let is_shared = options.share_slices && options.estimator == Estimator::Sampled;
    let mut firsts = HashMap::new();
    let first = |(i, c): (usize, &Chosen)| match c.layer.row_length().filter(|_| is_shared) {
        Some(d) => *firsts.entry((d, c.layer.elem())).or_insert(i),
        None => i,
    };
    chosen.iter().enumerate().map(first).collect()
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
    /// [`structure_digest`] of the model.
    digest: String,
    options: &'a Options,
    destination: Destination,
    loss: Option<loss::Loss>,
    chosen: Vec<Chosen>,
    /// By chosen layer: where its gradient is. Empty but for [`Destination::Gradients`].
    places: Vec<gradient::Place>,
    skipped: Vec<report::Skipped>,
    /// By chosen layer: 0, or which override.
    coefficients: Vec<usize>,
    /// By chosen layer: whose slices it reads, its own or those of an earlier one.
    drawn_by: Vec<usize>,
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
    /// λ is stored in the arithmetic of the term, which may not hold it.
    fn check_coefficients(&self) -> Result<(), InjectError> {
        let is_lost = |value: f64| !(value as f32).is_finite() || (value as f32 == 0.0 && value != 0.0);
        let mut used = (0..self.chosen.len()).map(|i| self.coef_of(i));
        match used.find(|value| is_lost(*value)).filter(|_| term::arithmetic(self) == Elem::F32) {
            Some(value) => Err(InjectError::CoefficientLost { value, becomes: value as f32 }),
            None => Ok(()),
        }
    }

    fn plan(self) -> Result<Plan, InjectError> {
        let (model, graph) = (self.analysis.model, &self.analysis.graph);
        let (root, injection) = naming::free_root(model, graph);
        let mut lowering = match self.options.target {
            Some(Target::OrtTraining) => lower(self.analysis, self.differentiated(), &root)?,
            None => Lowering { opset: model.opset(), ir_version: model.ir_version, ..Lowering::default() },
        };
        let opset = lowering.opset;
        let (written, mut constants, draws) = self.write_layers(opset, &root, injection)?;
        constants.append(&mut lowering.constants);
        let anchor = self.anchor()?;

        let term = write_term(&self, opset, &root, &written);
        let work = Work::of(graph, &self.analysis.types, &self.analysis.backward);
        let mut report = self.report(&written, &term, work);
        report.rewritten = std::mem::take(&mut lowering.rewritten);
        report.model_changes = std::mem::take(&mut lowering.model);
        if self.chosen.is_empty() && lowering.is_empty() {
            return Ok(Plan { patch: Patch::default(), report });
        }
        let renamed = |(place, layer): (&gradient::Place, &Written)| {
            Some(Renamed { from: place.name().to_owned(), to: layer.sum.clone()? })
        };
        let gradients = self.places.iter().zip(&written).filter_map(renamed).collect();
        let replaced = std::mem::take(&mut lowering.replaced);
        let mut patch = self.assemble(&root, written, (constants, draws), term, anchor, lowering);
        report.added = added(&patch);
        let record = self.record(&root, &patch, &report, gradients, replaced)?;
        let value = serde_json::to_string(&record).unwrap_or_default();
        patch.changes.push(Change {
            reason: "record of this injection, for strip".into(),
            metadata: vec![StringStringEntryProto { key: Some(Record::key(injection)), value: Some(value) }],
            ..Change::default()
        });
        report.warnings = warnings(&self, &report);
        Ok(Plan { patch, report })
    }

    /// The regulariser, with the seed of layer number `i`.
    fn regularizer(&self, injection: usize, i: usize) -> Box<dyn Regularizer> {
        match self.options.estimator {
            Estimator::Exact => Box::new(Exact),
            Estimator::Sampled => Box::new(Sampled {
                slices: self.options.slices,
                seed: self.seed(injection, i),
                shared: self.options.share_slices,
            }),
        }
    }

    /// The seed of layer number `i`, where one is asked for and of use.
    fn seed(&self, injection: usize, i: usize) -> Option<u32> {
        let seed = self.options.seed.filter(|_| self.options.estimator == Estimator::Sampled)?;
        Some(seed::layer_seed(seed, injection, self.drawn_by[i]))
    }

    /// Layers that differ in nothing but names share a [`Template`].
    fn write_layers(
        &self,
        opset: i64,
        root: &str,
        injection: usize,
    ) -> Result<(Vec<Written>, Constants, Draws), InjectError> {
        let mut names = naming::LayerNames::default();
        let named: Vec<String> =
            self.chosen.iter().map(|c| names.name(&self.analysis.graph, c.tap.node, &c.layer.h.name)).collect();
        let mut alike = HashMap::with_hasher(foldhash::fast::RandomState::default());
        let mut firsts = Vec::new();
        let template_of: Vec<usize> = (0..self.chosen.len())
            .map(|i| {
                let Layer { h, view, batch_axis, reduction } = &self.chosen[i].layer;
                let gradient = self.places.get(i).map(|p| (p.gradient.as_ref().map(|g| &g.ty), self.coefficients[i]));
                *alike.entry((&h.ty, *view, *batch_axis, *reduction, gradient)).or_insert_with(|| {
                    firsts.push(i);
                    firsts.len() - 1
                })
            })
            .collect();
        let template = |i: &usize| {
            let (layer, regularizer) = (&self.chosen[*i].layer, self.regularizer(injection, *i));
            regularizer.check(opset, layer).map_err(|source| InjectError::Unsupported {
                layer: named[*i].clone(),
                estimator: regularizer.name(),
                source,
                advice: "--estimator exact does without, or convert the model to 13 or later with onnx.version_converter",
            })?;
            let layer = template::stand_in(layer);
            let write = |e: &mut Emitter| match self.places.get(*i) {
                None => Emitted { per: Some(regularizer.emit(e, &layer)), sum: None },
                Some(place) => {
                    let gradient = place.gradient.as_ref().map(template::stand_in_gradient);
                    gradient::write(self, e, &*regularizer, root, &layer, self.coefficients[*i], gradient.as_ref())
                }
            };
            // What is an output is declared there.
            Ok(Template::of(opset, root, !self.options.outputs.layers, write)?)
        };
        let mut templates = firsts.par_iter().map(template).collect::<Result<Vec<_>, InjectError>>()?;
        let write = |(i, name): (usize, String)| {
            let seed = self.seed(injection, i);
            let tapped = &self.chosen[i].layer.h.name;
            let gradient = self.places.get(i).map_or("", gradient::Place::name);
            let filling = Filling { prefix: &format!("{root}{name}/"), tapped, gradient, seed };
            let Filled { nodes, value_info, emitted: Emitted { per, sum } } = templates[template_of[i]].fill(&filling);
            Written { name, seed, per, sum, nodes, value_info }
        };
        let mut written = Vec::new();
        named.into_par_iter().enumerate().map(write).collect_into_vec(&mut written);
        let constants = templates.iter_mut().flat_map(|t| std::mem::take(&mut t.constants)).collect();
        let draws = templates.into_iter().flat_map(|t| t.draws).collect();
        Ok((written, constants, draws))
    }

    /// Whether the values of PER are computed: always, but in the gradient form only for the loss or for outputs.
    fn wants_values(&self) -> bool {
        let outputs = self.options.outputs;
        self.destination != Destination::Gradients || self.loss.is_some() || outputs.per || outputs.layers
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
        (mut constants, draws): (Constants, Draws),
        mut term: Term,
        anchor: Anchor,
        mut lowering: Lowering,
    ) -> Patch {
        let mut changes = Vec::with_capacity(written.len() + 2);
        let is_regularised = !written.is_empty();
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
        let constants = self.constants(root, constants, &term, first, lowering.ir_version);
        changes.insert(0, constants);
        if !draws.is_empty() {
            let (nodes, value_info): (Vec<_>, Vec<_>) = draws.into_values().unzip();
            changes.insert(
                1,
                Change {
                    reason: format!("slices that layers share, under {root}slices/"),
                    at: first,
                    nodes: nodes.into(),
                    value_info: value_info.into_iter().flatten().collect::<Vec<_>>().into(),
                    ..Change::default()
                },
            );
        }
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
            let made: Vec<_> = constants.into_values().flat_map(|tensor| term::constant_nodes(tensor, opset)).collect();
            change.value_info = made.iter().map(|(_, declared)| declared.clone()).collect();
            change.nodes = made.into_iter().map(|(node, _)| node).collect();
        }
        change
    }

    /// The term, the sum with the task loss, and the outputs.
    fn closing(&self, term: Term, anchor: Anchor) -> Change {
        let graph = &self.analysis.graph;
        let mut change = Change {
            reason: match (&self.loss, self.destination) {
                (Some(loss), _) => format!("λ·ΣPER, added to the loss {:?}", graph.name(loss.value)),
                (None, Destination::Gradients) => "values of PER".into(),
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
            let regularizer = self.regularizer(1, i);
            let d = chosen.layer.row_length();
            let rows = chosen.layer.row_count();
            let all_known =
                chosen.layer.h.ty.dims.as_ref().is_some_and(|dims| dims.iter().all(|d| d.known().is_some()));
            cost.per_sample |= !all_known;
            let c = regularizer.cost(&chosen.layer);
            cost.term_multiply_adds += c.multiply_adds;
            cost.term_bytes += c.bytes;
            let random_numbers = if self.drawn_by[i] == i { c.random_numbers } else { 0.0 };
            cost.random_numbers += random_numbers;
            layers.push(LayerReport {
                name: w.name.clone(),
                node: chosen.tap.node.map(|n| graph.node(n).name().to_owned()).filter(|n| !n.is_empty()),
                op: chosen.tap.node.map(|n| graph.node(n).op_type().to_owned()),
                activation: chosen.tap.activation.map(|a| a.name().to_owned()),
                tensor: chosen.layer.h.name.clone(),
                gradient: self.places.get(i).map(|p| p.name().to_owned()),
                shape: chosen.layer.h.ty.to_string(),
                view: chosen.layer.view.name(),
                rows: all_known.then_some(rows as u64),
                d,
                coef: self.coef_of(i),
                seed: w.seed,
                nodes: w.nodes.len(),
                cost: LayerCost { multiply_adds: c.multiply_adds, bytes: c.bytes, random_numbers },
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
            form: self.destination.name(),
            loss: self
                .loss
                .as_ref()
                .zip(term.task.clone().filter(|_| !self.chosen.is_empty()))
                .map(|(loss, task)| LossReport { name: graph.name(loss.value).to_owned(), task }),
            estimator: self.options.estimator.name(),
            slices: (self.options.estimator == Estimator::Sampled).then_some(self.options.slices),
            share_slices: self.options.share_slices && self.options.estimator == Estimator::Sampled,
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
        gradients: Vec<Renamed>,
        replaced: Vec<Replaced>,
    ) -> Result<Record, InjectError> {
        let (model, graph) = (self.analysis.model, &self.analysis.graph);
        Ok(Record {
            widths: narrowed(model, patch)?,
            record: record::VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            arguments: self.options.arguments(),
            root: root.into(),
            original: Original { structure: self.digest.clone(), size: model.file.bytes.len() as u64 },
            task_loss: self
                .loss
                .as_ref()
                .zip(report.loss.as_ref())
                .map(|(loss, names)| Renamed { from: graph.name(loss.value).to_owned(), to: names.task.clone() }),
            gradients,
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
