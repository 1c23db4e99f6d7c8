//! What a model holds, in the words that an injection needs: its kind, its loss, what can be tapped, what is trained.

use serde::Serialize;

use crate::analysis::{Analysis, AnalysisError};
use crate::graph::backward::requests;
use crate::graph::kind::Kind;
use crate::graph::types::{Dim, TensorType};
use crate::graph::warn::warnings;
use crate::graph::work::Work;
use crate::graph::{Graph, GraphError};
use crate::hoist::{Known, known};
use crate::inject::gradient::locate;
use crate::inject::layers::{describe, resolve};
use crate::inject::report::{ModelSummary, Skipped};
use crate::inject::{Estimator, Options};
use crate::lower::{Rewriting, survey, trains_in_a_body};
use crate::record::{ROOT, Record};
use crate::regularizer::{Exact, Regularizer, Sampled};
use crate::select::{SelectError, Selector, Tap};
use crate::step::Step;
use crate::wire::Model;

/// Version of the JSON layout.
pub const SCHEMA: &str = "per-inject.inspect/1";

/// What a model holds. Serialised it follows `schemas/inspect.schema.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Which layout this is: [`SCHEMA`].
    pub schema: &'static str,
    /// The file.
    pub model: ModelSummary,
    /// `forward + loss`, `forward only`, `forward + backward` or `training_info`.
    pub kind: &'static str,
    /// What else is to be said about the kind.
    pub kind_detail: String,
    /// Outputs that can be the loss.
    pub losses: Vec<NamedValue>,
    /// Activations, in execution order.
    pub taps: Vec<TapReport>,
    /// Activations that no selector reaches, with the reason.
    pub hidden: Vec<Skipped>,
    /// Nodes that come close to an activation, with what differs.
    pub near_misses: Vec<Skipped>,
    /// Initializers with their roles.
    pub initializers: Vec<InitializerReport>,
    /// What ONNX Runtime's training makes of it; `None` where the graph holds its backward pass already.
    pub for_ort_training: Option<ForOrtTraining>,
    /// Injections that the model holds already.
    pub injections: Vec<Record>,
    /// What can make it train wrongly.
    pub warnings: Vec<String>,
    /// Multiply-adds of one forward pass, as far as shapes are known.
    pub multiply_adds: f64,
    /// Whether some dimension was unknown and counted as 1.
    pub per_sample: bool,
}

/// What `--for ort-training` would do.
#[derive(Debug, Default, Clone, Serialize)]
pub struct ForOrtTraining {
    /// Nodes that become others.
    pub rewritten: Vec<Rewriting>,
    /// What changes about the model as a whole.
    pub model_changes: Vec<String>,
    /// Nodes that ONNX Runtime's training refuses and for which there is no exact rewriting, with the reason.
    pub refused: Vec<Skipped>,
    /// What stands in the way of the model as a whole; then nothing is known of its nodes.
    pub problem: Option<String>,
}

/// A value with its type.
#[derive(Debug, Clone, Serialize)]
pub struct NamedValue {
    /// Its name.
    pub name: String,
    /// Element type and shape.
    pub shape: String,
}

/// One activation.
#[derive(Debug, Clone, Serialize)]
pub struct TapReport {
    /// Its position among `all`, counted from 1: what `#` selects by.
    pub position: usize,
    /// The node that makes it.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The activation, in the selector's words.
    pub activation: String,
    /// How many nodes it is made of.
    pub nodes: usize,
    /// The value.
    pub tensor: String,
    /// Element type and shape.
    pub shape: String,
    /// The view that `auto` takes.
    pub view: &'static str,
    /// Values in a row.
    pub d: Option<u64>,
    /// Multiply-adds of the sampled estimator with 256 slices, as a share of the model's forward pass.
    pub sampled_share: Option<f64>,
    /// The same of the exact estimator.
    pub exact_share: Option<f64>,
    /// Why it cannot be regularised; `None` when it can.
    pub problem: Option<String>,
}

/// One initializer.
#[derive(Debug, Clone, Serialize)]
pub struct InitializerReport {
    /// Its name.
    pub name: String,
    /// Element type and shape.
    pub shape: String,
    /// The body of If, Loop or Scan that it stands in; `None` for those of the main graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What it is for.
    pub role: String,
    /// Whether it is trained.
    pub trained: bool,
    /// What decided that.
    pub because: String,
}

/// Inspects a model. `wrt` and `freeze` are selectors over initializers, as for an injection.
pub fn inspect(model: &Model, wrt: Option<&str>, freeze: Option<&str>) -> Result<Inspection, AnalysisError> {
    Ok(report(&Analysis::with_overrides(model, wrt, freeze)?))
}

/// As [`inspect`], of a model that is analysed already.
pub fn report(analysis: &Analysis) -> Inspection {
    let model = analysis.model;
    let work = Work::of(&analysis.graph, &analysis.types, &analysis.backward);
    let (kind, kind_detail) = (analysis.kind.name(), kind_detail(analysis));
    let candidates = analysis.loss_candidates();
    let initializer = |(r, trained): (&crate::graph::role::InitializerRole, &bool)| InitializerReport {
        name: analysis.graph.name(r.value).into(),
        shape: analysis.types.get(r.value).to_string(),
        body: None,
        role: r.role.name().into(),
        trained: *trained,
        because: r.because.explain(&analysis.graph),
    };
    let (injections, unreadable) = match Record::all(model) {
        Ok(records) => (records.into_iter().map(|(_, r)| r).collect(), None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    Inspection {
        schema: SCHEMA,
        model: ModelSummary::from(model),
        kind,
        kind_detail,
        losses: candidates
            .iter()
            .map(|v| NamedValue { name: analysis.graph.name(*v).into(), shape: analysis.types.get(*v).to_string() })
            .collect(),
        taps: taps(analysis, work.multiply_adds, &candidates),
        hidden: analysis
            .catalog
            .hidden
            .iter()
            .map(|h| Skipped { what: h.description.clone(), reason: h.reason.clone() })
            .collect(),
        near_misses: analysis
            .catalog
            .near_misses
            .iter()
            .map(|m| Skipped {
                what: format!("{}, nearly {}", analysis.graph.describe(m.node), m.activation.name()),
                reason: m.reason.clone(),
            })
            .collect(),
        for_ort_training: for_ort_training(analysis, &candidates),
        initializers: analysis
            .roles
            .iter()
            .zip(&analysis.trained)
            .map(initializer)
            .chain(known(analysis).into_iter().map(of_body))
            .collect(),
        injections,
        warnings: warnings(&analysis.graph, model, &analysis.types, &analysis.roles, &analysis.reach, &analysis.kind)
            .iter()
            .map(ToString::to_string)
            .chain(unreadable)
            .collect(),
        multiply_adds: work.multiply_adds,
        per_sample: work.open_dimensions,
    }
}

fn of_body(known: Known<'_>) -> InitializerReport {
    let Known { inner, role, because, is_trained } = known;
    let dims = inner.tensor.dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Unknown, Dim::Known)).collect();
    InitializerReport {
        shape: TensorType { elem: inner.tensor.data_type(), dims: Some(dims) }.to_string(),
        name: inner.name,
        body: Some(inner.body),
        role: role.name().into(),
        trained: is_trained,
        because,
    }
}

/// Only looks: what is written in the nodes' places is thrown away.
fn for_ort_training(analysis: &Analysis, losses: &[crate::graph::ValueId]) -> Option<ForOrtTraining> {
    if !matches!(analysis.kind, Kind::ForwardLoss { .. } | Kind::ForwardOnly) {
        return None;
    }
    // Of several losses, or none, a gradient may come from every output.
    let loss = if let [loss] = losses { Some(*loss) } else { None };
    if let Some(problem) = trains_in_a_body(analysis) {
        return Some(ForOrtTraining { problem: Some(problem), ..ForOrtTraining::default() });
    }
    Some(match survey(analysis, loss, ROOT) {
        Ok((lowering, refused)) => ForOrtTraining {
            rewritten: lowering.rewritten,
            model_changes: lowering.model,
            refused: refused.into_iter().map(|n| Skipped { what: n.node, reason: n.reason }).collect(),
            problem: None,
        },
        Err(problem) => ForOrtTraining { problem: Some(problem.to_string()), ..ForOrtTraining::default() },
    })
}

fn kind_detail(analysis: &Analysis) -> String {
    match &analysis.kind {
        Kind::ForwardLoss { candidates } if candidates.len() > 1 => {
            "more than one output could be the loss; choose with --loss".into()
        }
        Kind::ForwardLoss { .. } => String::new(),
        Kind::ForwardOnly => "no output can be a loss; --as-output adds the term as an output".into(),
        Kind::ForwardBackward { evidence } => match analysis.trained_inputs().len() {
            0 => evidence.clone(),
            n => format!("{evidence}; the gradients of {n} inputs are computed"),
        },
        Kind::TrainingInfo { entries } => {
            let losses = losses_of_steps(analysis.model, *entries);
            let losses =
                if losses.is_empty() { "no Gradient node says what a loss is".into() } else { losses.join(", ") };
            format!("{entries} algorithm graph(s); {losses}")
        }
    }
}

/// What the Gradient nodes of each training step differentiate.
fn losses_of_steps(model: &Model, entries: usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in 0..entries {
        let Ok(step) = Step::of(model, entry, ROOT) else { continue };
        let Ok(graph) = Graph::of(&step.model) else { continue };
        found.extend(requests(&graph).iter().map(|r| format!("the loss of training_info {entry} is {:?}", r.of)));
    }
    found
}

fn taps(analysis: &Analysis, work: f64, losses: &[crate::graph::ValueId]) -> Vec<TapReport> {
    let Ok(all) =
        "all".parse::<Selector>().map_err(SelectError::from).and_then(|s| s.select(&analysis.graph, &analysis.catalog))
    else {
        return Vec::new();
    };
    let options = Options { estimator: Estimator::Exact, ..Options::default() };
    let share = |cost: f64| (work > 0.0).then_some(cost / work);
    let report = |(i, tap): (usize, &Tap)| {
        let (chosen, skipped) = resolve(analysis, vec![tap.clone()], &options, None);
        let layer = chosen.first().map(|c| &c.layer);
        let d = layer.and_then(|l| l.row_length());
        let sized = layer.filter(|_| d.is_some());
        let found = analysis.catalog.at(tap.value);
        TapReport {
            position: i + 1,
            node: tap.node.map(|n| analysis.graph.node(n).name().to_owned()).unwrap_or_default(),
            op: tap.node.map(|n| analysis.graph.node(n).op_type().to_owned()).unwrap_or_default(),
            activation: tap.activation.map(|a| a.name().to_owned()).unwrap_or_default(),
            nodes: found.map_or(1, |f| f.members.len()),
            tensor: analysis.graph.name(tap.value).into(),
            shape: analysis.types.get(tap.value).to_string(),
            view: layer.map_or("", |l| l.view.name()),
            d,
            sampled_share: sized.and_then(|l| {
                share(Sampled { slices: 256, seed: None, shared: false, structured: false }.cost(l).multiply_adds)
            }),
            exact_share: sized.and_then(|l| share(Exact::default().cost(l).multiply_adds)),
            problem: skipped.first().map(|s| s.reason.clone()),
        }
    };
    let mut taps: Vec<TapReport> = all.iter().enumerate().map(report).collect();
    // Gradient paths are followed once for all of them.
    let skipped = match losses {
        _ if analysis.backward.is_there() => {
            let (chosen, mut skipped) = resolve(analysis, all.clone(), &options, None);
            locate(analysis, chosen, &mut skipped);
            skipped
        }
        [loss] => resolve(analysis, all.clone(), &options, Some(*loss)).1,
        _ => Vec::new(),
    };
    if !skipped.is_empty() {
        for (tap, report) in all.iter().zip(&mut taps) {
            let what = describe(analysis, tap);
            let problem = skipped.iter().find(|s| s.what == what).map(|s| s.reason.clone());
            report.problem = report.problem.take().or(problem);
        }
    }
    taps
}

/// As [`inspect`], for callers that only want to know whether the graph is one.
pub fn check(model: &Model) -> Result<(), GraphError> {
    Analysis::of(model).map(|_| ())
}
