//! Injection: a model and [`Options`] → a [`Patch`] and a [`Report`]. Nothing is written here.

mod account;
mod assemble;
mod destination;
mod error;
pub(crate) mod gradient;
pub(crate) mod layers;
pub(crate) mod loss;
mod options;
pub mod report;
mod seed;
mod term;
mod training_info;
mod warnings;

pub use error::InjectError;
pub use options::{At, Estimator, Form, Options, Outputs};
pub use report::Report;

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::analysis::Analysis;
use crate::graph::kind::Kind;
use crate::graph::work::Work;
use crate::graph::{NodeId, ValueId};
use crate::lower::{Lowering, Target, lower};
use crate::naming;
use crate::onnx::{NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use crate::patch::{Change, Encoded, Patch};
use crate::record::{Record, RecordedActivation, RecordedStep, Renamed, Replaced};
use crate::regularizer::emit::{Elem, Emitter, Tensor};
use crate::regularizer::template::{self, Draws, Emitted, Filled, Filling, Template};
use crate::regularizer::{Exact, Layer, Regularizer, Sampled};
use crate::select::{SelectError, Selector};
use crate::wire::fields::graph as graph_field;
use crate::wire::{Model, structure_digest};
use account::added;
use destination::Destination;
use layers::Chosen;
use term::write_term;
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
    Record::all(model).map_err(|problem| InjectError::BadRecord { problem })?;
    if training_info::is_meant(model, options)? {
        return training_info::plan(model, options);
    }
    // The digest reads the whole file but its weights, which takes as long as a good part of the analysis.
    let (analysis, digest) = rayon::join(
        || {
            let (named, wrt, freeze) = (options.trained.as_ref(), options.wrt.as_deref(), options.freeze.as_deref());
            Analysis::decided(model, named, wrt, freeze)
        },
        || structure_digest(model),
    );
    let analysis = analysis?;
    let (root, number) = naming::free_root(model, &analysis.graph);
    let place = Place { root: &root, number, first: 0 };
    let Draft { patch, mut report, joined, .. } = draft(&analysis, options, &place)?;
    report.added = added(&patch.changes);
    // Freeing the analysis of a large graph takes a while.
    let (finished, ()) =
        rayon::join(|| finish(model, options, &place, patch, report, joined, digest), || drop(analysis));
    finished
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
    joined: Joined,
}

/// What the record remembers of how the model was changed, beside what was added.
#[derive(Debug, Default)]
struct Joined {
    task_loss: Option<Renamed>,
    gradients: Vec<Renamed>,
    replaced: Vec<Replaced>,
    activations: Vec<RecordedActivation>,
    steps: Vec<RecordedStep>,
}

/// The plan with its record; where nothing changes, nothing at all.
fn finish(
    model: &Model,
    options: &Options,
    place: &Place,
    mut patch: Patch,
    report: Report,
    joined: Joined,
    digest: String,
) -> Result<Plan, InjectError> {
    if patch.changes.is_empty() {
        return Ok(Plan { patch, report });
    }
    let record = account::record(model, options, place.root, &patch, &report, joined, digest)?;
    let value = serde_json::to_string(&record).unwrap_or_default();
    patch.changes.push(Change {
        reason: "record of this injection, for strip".into(),
        metadata: vec![StringStringEntryProto { key: Some(naming::key(place.number)), value: Some(value) }],
        ..Change::default()
    });
    Ok(Plan { patch, report })
}

/// Plans the injection into one graph.
fn draft(analysis: &Analysis, options: &Options, place: &Place) -> Result<Draft, InjectError> {
    let alone = options.is_lowering_alone();
    if let (Some(target), Kind::ForwardBackward { evidence }) = (options.target, &analysis.kind) {
        return Err(InjectError::TargetDifferentiated { target: target.name(), evidence: evidence.clone() });
    }
    let destination = Destination::of(analysis, options)?;
    let loss = match destination {
        Destination::Loss => match loss::choose(analysis, options) {
            // A graph that gets its loss later can be rewritten all the same.
            Err(InjectError::NoLoss { .. }) if options.target.is_some() && alone => None,
            Err(InjectError::NoLoss { .. }) if !analysis.model.training_info.is_empty() => {
                return Err(match options.target {
                    Some(target) => InjectError::TargetTrainingInfo { target: target.name() },
                    None => InjectError::TrainingInfo { entries: analysis.model.training_info.len() },
                });
            }
            loss => Some(loss?),
        },
        Destination::Gradients if options.loss_term => Some(loss::choose_output(analysis, options)?),
        Destination::Output | Destination::Gradients => None,
    };

    let selector: Option<Selector> =
        if alone { None } else { Some(options.layers.parse().map_err(SelectError::from)?) };
    let taps = match &selector {
        Some(selector) => selector.select(&analysis.graph, &analysis.catalog)?,
        None => Vec::new(),
    };
    let (taps, led_to) = match destination {
        Destination::Gradients => (gradient::forward_only(analysis, taps), None),
        Destination::Loss | Destination::Output => (taps, loss.as_ref().map(|l| l.value)),
    };
    let selected = taps.len();
    let (mut chosen, mut skipped) = layers::resolve(analysis, taps, options, led_to);
    let mut places = Vec::new();
    if destination == Destination::Gradients {
        (chosen, places) = gradient::locate(analysis, chosen, &mut skipped);
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
    let drawn_by = drawn_by(&chosen, options);
    let first = place.first;
    let injection =
        Injection { analysis, options, destination, loss, chosen, places, skipped, coefficients, drawn_by, first };
    injection.check_coefficients()?;
    injection.draft(place)
}

fn check_numbers(options: &Options) -> Result<(), InjectError> {
    let given = options.coef.iter().chain(options.coef_overrides.iter().map(|(_, v)| v));
    for value in given {
        if !value.is_finite() || *value < 0.0 {
            return Err(InjectError::BadCoefficient { value: *value });
        }
    }
    if options.estimator.draws() && !(1..=1 << 24).contains(&options.slices) {
        return Err(InjectError::BadSlices { slices: options.slices });
    }
    Ok(())
}

/// The layer whose slices each layer reads: itself, or with shared slices the first one whose rows are as long.
fn drawn_by(chosen: &[Chosen], options: &Options) -> Vec<usize> {
    let is_shared = options.share_slices && options.estimator.draws();
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
    /// λ is stored in the arithmetic of the term, which may not hold it.
    fn check_coefficients(&self) -> Result<(), InjectError> {
        let is_lost = |value: f64| !(value as f32).is_finite() || (value as f32 == 0.0 && value != 0.0);
        let mut used = (0..self.chosen.len()).map(|i| self.coef_of(i));
        match used.find(|value| is_lost(*value)).filter(|_| term::arithmetic(self) == Elem::F32) {
            Some(value) => Err(InjectError::CoefficientLost { value, becomes: value as f32 }),
            None => Ok(()),
        }
    }

    fn draft(self, place: &Place) -> Result<Draft, InjectError> {
        let (model, graph, root) = (self.analysis.model, &self.analysis.graph, place.root);
        let mut lowering = match self.options.target {
            Some(Target::OrtTraining) => lower(self.analysis, self.differentiated(), root)?,
            None => Lowering { opset: model.opset(), ir_version: model.ir_version, ..Lowering::default() },
        };
        let opset = lowering.opset;
        let (written, mut constants, draws) = self.write_layers(opset, root, place.number)?;
        constants.append(&mut lowering.constants);
        let anchor = self.anchor()?;

        let (term, (layers, work)) = rayon::join(
            || write_term(&self, opset, root, &written),
            || {
                let layers = self.layer_reports(&written);
                (layers, Work::of(graph, &self.analysis.types, &self.analysis.backward))
            },
        );
        let mut report = self.report(&term, layers, work);
        report.rewritten = std::mem::take(&mut lowering.rewritten);
        report.model_changes = std::mem::take(&mut lowering.model);
        let loss_producer = self.loss.as_ref().map(|l| l.producer.0);
        if self.chosen.is_empty() && lowering.is_empty() {
            return Ok(Draft { patch: Patch::default(), report, loss_producer, joined: Joined::default() });
        }
        let renamed = |(place, layer): (&gradient::Place, &Written)| {
            Some(Renamed { from: place.name().to_owned(), to: layer.sum.clone()? })
        };
        let losses = self.loss.as_ref().zip(report.losses.first());
        let joined = Joined {
            task_loss: losses
                .map(|(loss, names)| Renamed { from: graph.name(loss.value).to_owned(), to: names.task.clone() }),
            gradients: self.places.iter().zip(&written).filter_map(renamed).collect(),
            replaced: std::mem::take(&mut lowering.replaced),
            activations: std::mem::take(&mut lowering.activations),
            steps: Vec::new(),
        };
        let patch = self.assemble(root, written, (constants, draws), term, anchor, lowering);
        report.warnings = warnings(&self, &report);
        Ok(Draft { patch, report, loss_producer, joined })
    }

    /// The regulariser, with the seed of layer number `i`.
    fn regularizer(&self, injection: usize, i: usize) -> Box<dyn Regularizer> {
        match self.options.estimator {
            Estimator::Exact => Box::new(Exact { for_ort_training: self.options.target == Some(Target::OrtTraining) }),
            Estimator::Sampled | Estimator::Structured => Box::new(Sampled {
                slices: self.options.slices,
                seed: self.seed(injection, i),
                shared: self.options.share_slices,
                structured: self.options.estimator == Estimator::Structured,
            }),
        }
    }

    /// The seed of layer number `i`, where one is asked for and of use.
    fn seed(&self, injection: usize, i: usize) -> Option<u32> {
        let seed = self.options.seed.filter(|_| self.options.estimator.draws())?;
        Some(seed::layer_seed(seed, injection, self.first + self.drawn_by[i]))
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
            let tapped = self.chosen[i].layer.h.name.clone();
            let gradient = self.places.get(i).map_or("", gradient::Place::name).to_owned();
            let filling = Filling { prefix: format!("{root}{name}/"), tapped, gradient, seed };
            let Filled { nodes, value_info, emitted: Emitted { per, sum } } = templates[template_of[i]].fill(filling);
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
}
