//! From a model to what a training run loads: a step graph and a graph to evaluate with, both of which take state and random numbers as
//! inputs.

use std::collections::{BTreeSet, HashSet};

use super::edit::{applied, as_inputs, changed};
use super::error::{TrainError, TrainResult};
use super::metrics::{self, Metric};
use super::noise::{self, Draw};
use crate::analysis::Analysis;
use crate::autodiff::{self, Clip, GRADIENT_NORM, Group, LossScale, Optimizer};
use crate::engine::{Carried, Device};
use crate::graph::{Attributes, Graph};
use crate::hoist::hoist;
use crate::inject;
use crate::lower::Target;
use crate::onnx::NodeProto;
use crate::patch::{Change, Part, Replacement, Substitute};
use crate::record::Record;
use crate::weights::initializers::{IRREPLACEABLE, is_replaceable};
use crate::wire::{Model, tensor_at};

/// What decides the graphs.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// The regulariser; `None` for none.
    pub regularizer: Option<inject::Options>,
    /// How parameters change.
    pub optimizer: Optimizer,
    /// Parameters with settings of their own.
    pub groups: Vec<Group>,
    /// What keeps gradients small.
    pub clip: Option<Clip>,
    /// Whether gradients are summed over several batches before parameters change.
    pub accumulate: bool,
    /// What the loss is multiplied by on the way back.
    pub loss_scale: LossScale,
    /// The loss; `None` for the only output that can be it.
    pub loss: Option<String>,
    /// Selector of initializers that are trained whatever their role.
    pub wrt: Option<String>,
    /// Selector of initializers that are not trained whatever their role.
    pub freeze: Option<String>,
    /// The initializers that are trained, by name, all of the main graph: then neither roles nor selectors decide.
    pub trained: Option<BTreeSet<String>>,
    /// What is measured beside the loss.
    pub metric: Metric,
    /// Where the step graph runs.
    pub device: Device,
}

/// Where the numbers of a step or of an evaluation come out.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// What is minimised.
    pub loss: String,
    /// The loss without the regulariser; the same where there is none.
    pub task: String,
    /// PER of each layer, without λ: name of the layer, and output.
    pub layers: Vec<(String, String)>,
    /// How many labels were right, and how many there were.
    pub counts: Option<(String, String)>,
    /// The norm of all gradients.
    pub gradient_norm: Option<String>,
}

impl Outputs {
    /// All of them, without those that are not there.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.loss.clone()];
        if self.task != self.loss {
            names.push(self.task.clone());
        }
        names.extend(self.layers.iter().map(|(_, output)| output.clone()));
        if let Some((correct, labels)) = &self.counts {
            names.extend([correct.clone(), labels.clone()]);
        }
        names.extend(self.gradient_norm.clone());
        names
    }
}

/// What goes into a graph beside data, and what comes out of it.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Random numbers that it is fed.
    pub draws: Vec<Draw>,
    /// Numbers that come out.
    pub outputs: Outputs,
}

/// A coefficient that is an input.
#[derive(Debug, Clone)]
pub struct Coefficient {
    /// The input.
    pub input: String,
    /// The item of `--coef` that it is for; `None` is the common one.
    pub item: Option<String>,
    /// Its value where nothing changes it.
    pub value: f64,
}

/// What a run feeds and reads, whatever engine makes its steps.
#[derive(Debug, Default)]
pub struct Interface {
    /// Of a step.
    pub step: Traffic,
    /// Of an evaluation.
    pub evaluation: Traffic,
    /// The forward pass with the regulariser, as it draws by itself: what is asked for the shapes of draws. `None` where they are known.
    pub forward: Option<Model>,
    /// Of the state, what are initializers of the model.
    pub stored: Vec<String>,
    /// The coefficients λ that are inputs.
    pub coefficients: Vec<Coefficient>,
    /// What is measured beside the loss.
    pub metric: Metric,
    /// What was injected.
    pub injection: Option<inject::Report>,
    /// What deserves a second look.
    pub warnings: Vec<String>,
}

/// The graphs of a training run whose steps are differentiated here. Their state are inputs, and their initializers are not among them.
#[derive(Debug)]
pub struct Graphs {
    /// One step.
    pub step: Model,
    /// The forward pass as inference has it: batch statistics are the running ones, and Dropout does nothing.
    pub evaluation: Model,
    /// What a step replaces: parameters, running statistics, state of the optimiser.
    pub carried: Vec<Carried>,
    /// What was differentiated.
    pub report: autodiff::Report,
    /// What is fed and read.
    pub interface: Interface,
}

/// The forward pass of a run: with what is measured, and with the regulariser.
pub(super) struct Forward {
    /// As it draws by itself.
    pub model: Model,
    /// What is minimised.
    pub loss: String,
    /// What comes out; draws are not filled in.
    pub interface: Interface,
    /// What comes out of it, the norm of gradients aside.
    pub outputs: Outputs,
}

/// Puts the measurements and the regulariser into a model; rewrites it for another pipeline where `target` is one.
pub(super) fn forward(model: &Model, recipe: &Recipe, target: Option<Target>) -> TrainResult<Forward> {
    let loss = {
        let (named, wrt, freeze) = (recipe.trained.as_ref(), recipe.wrt.as_deref(), recipe.freeze.as_deref());
        let analysis = Analysis::decided(model, named, wrt, freeze)?;
        let choice = inject::Options { loss: recipe.loss.clone(), ..inject::Options::default() };
        analysis.graph.name(inject::loss::choose(&analysis, &choice)?.value).to_owned()
    };
    let mut outputs = Outputs { loss: loss.clone(), task: loss.clone(), ..Outputs::default() };
    let (measured, metric) = measure(model, recipe, &mut outputs)?;
    let mut interface = Interface { metric, ..Interface::default() };
    let options = match (&recipe.regularizer, target) {
        (None, None) => return Ok(Forward { model: measured, loss, interface, outputs }),
        // For another pipeline coefficients become inputs when the graph is finished.
        (Some(options), target) => {
            inject::Options { target, coef_input: options.coef_input && target.is_none(), ..options.clone() }
        }
        (None, target) => inject::Options {
            layers: "none".into(),
            wrt: recipe.wrt.clone(),
            freeze: recipe.freeze.clone(),
            trained: recipe.trained.clone(),
            target,
            ..inject::Options::default()
        },
    };
    let (model, report) = regularised(&measured, &options, &loss, &mut outputs)?;
    let become_inputs = target.is_some() && recipe.regularizer.as_ref().is_some_and(|o| o.coef_input);
    let inputs = report.coefficients.iter().filter(|c| become_inputs || report.inputs.contains(&c.initializer));
    let coefficient = |c: &inject::report::Coefficient| Coefficient {
        input: c.initializer.clone(),
        item: c.item.clone(),
        value: c.value,
    };
    interface.coefficients = inputs.map(coefficient).collect();
    interface.warnings.clone_from(&report.warnings);
    interface.injection = Some(report);
    Ok(Forward { model, loss, interface, outputs })
}

/// What to say of nodes that go on drawing themselves.
pub(super) fn warnings_of(left: &[String]) -> impl Iterator<Item = String> + '_ {
    left.iter().map(|why| format!("{why}, so a resumed run draws other numbers there than an uninterrupted one"))
}

/// Makes the graphs.
///
/// # Errors
/// When the regulariser cannot be put in or the graph cannot be differentiated; each error says why.
pub fn build(model: &Model, recipe: &Recipe) -> TrainResult<Graphs> {
    let hoisted = hoisted(model, recipe)?;
    let (model, recipe) = hoisted.as_ref().map_or((model, recipe), |(model, recipe)| (model, recipe));
    let Forward { model: forward, loss, mut interface, outputs } = forward(model, recipe, None)?;
    let fed = noise::feed(&forward)?;
    interface.warnings.extend(warnings_of(&fed.left));
    let options = autodiff::Options {
        loss: Some(loss),
        wrt: recipe.wrt.clone(),
        freeze: recipe.freeze.clone(),
        trained: recipe.trained.clone(),
        optimizer: recipe.optimizer,
        groups: recipe.groups.clone(),
        clip: recipe.clip,
        accumulate: recipe.accumulate,
        loss_scale: recipe.loss_scale,
        device: recipe.device,
        gradient_norm: true,
        ..autodiff::Options::default()
    };
    let made = autodiff::differentiate(&fed.model, &options)?;
    let report = made.report;
    let step = applied(&fed.model, &made.patch)?;

    let mut carried = Vec::new();
    let mut stored = Vec::new();
    for parameter in &report.parameters {
        if let Some(next) = &parameter.next {
            carried.push(Carried { input: parameter.name.clone(), output: next.clone() });
            stored.push(parameter.name.clone());
        }
        let states = parameter.state.iter().map(|s| Carried { input: s.name.clone(), output: s.next.clone() });
        carried.extend(states);
    }
    for statistic in &report.statistics {
        carried.push(Carried { input: statistic.name.clone(), output: statistic.next.clone() });
        stored.push(statistic.name.clone());
    }
    let names: HashSet<&str> = stored.iter().map(String::as_str).collect();
    let step = as_inputs(&step, &names)?;

    let inference = noise::feed(&inference(&forward)?)?;
    let evaluation = as_inputs(&inference.model, &names)?;
    let asks = fed.draws.iter().chain(&inference.draws).any(|d| d.asks_for().is_some());
    let trained = Outputs { gradient_norm: Some(GRADIENT_NORM.to_owned()), ..outputs.clone() };
    let interface = Interface {
        step: Traffic { draws: fed.draws, outputs: trained },
        evaluation: Traffic { draws: inference.draws, outputs },
        forward: Some(forward).filter(|_| asks),
        stored,
        ..interface
    };
    Ok(Graphs { step, evaluation, carried, report, interface })
}

/// The model with the trained initializers of bodies in its main graph, where a step and an evaluation share them, and a recipe that trains
/// the same; `None` where bodies hold none.
fn hoisted(model: &Model, recipe: &Recipe) -> TrainResult<Option<(Model, Recipe)>> {
    let analysis = Analysis::with_overrides(model, recipe.wrt.as_deref(), recipe.freeze.as_deref())?;
    let Some(hoisting) = hoist(&analysis)? else { return Ok(None) };
    // What cannot go back into the file is not trained for nothing.
    for moved in hoisting.moved.iter().filter(|m| m.is_trained) {
        if !is_replaceable(&tensor_at(model, &moved.place)?) {
            return Err(TrainError::Weights { name: moved.name.clone(), problem: IRREPLACEABLE.into() });
        }
    }
    let own = analysis.trained_values().into_iter().map(|v| analysis.graph.name(v));
    let moved = hoisting.moved.iter().filter(|m| m.is_trained).map(|m| m.name.as_str());
    let trained: Option<BTreeSet<String>> = Some(own.chain(moved).map(str::to_owned).collect());
    let regularizer = recipe.regularizer.clone().map(|o| inject::Options { trained: trained.clone(), ..o });
    let recipe = Recipe { trained, regularizer, ..recipe.clone() };
    Ok(Some((changed(model, hoisting.change)?, recipe)))
}

/// The model with its labels counted, where it shows them.
fn measure(model: &Model, recipe: &Recipe, outputs: &mut Outputs) -> TrainResult<(Model, Metric)> {
    let unchanged = |metric| Ok((changed(model, Change::default())?, metric));
    if recipe.metric == Metric::None {
        return unchanged(Metric::None);
    }
    let graph = Graph::of(model)?;
    // Of a model with a term in its loss already, the loss of the task has another name.
    let records = Record::all(model).unwrap_or_default();
    let renamed = records.iter().filter_map(|(_, record)| record.task_loss.as_ref()).map(|task| task.to.as_str());
    let mut losses = std::iter::once(outputs.loss.as_str()).chain(renamed);
    let Some(counted) = losses.find_map(|loss| metrics::count(model, &graph, loss)) else {
        return match recipe.metric {
            Metric::Accuracy => Err(super::TrainError::Options(format!(
                "the accuracy cannot be told: {:?} is not made by SoftmaxCrossEntropyLoss or NegativeLogLikelihoodLoss, whose inputs \
                 are scores and labels; leave --metric out",
                outputs.loss
            ))),
            Metric::Auto => unchanged(Metric::None),
            metric => unchanged(metric),
        };
    };
    outputs.counts = Some((counted.correct, counted.labels));
    let metric = if recipe.metric == Metric::Auto { counted.metric } else { recipe.metric };
    Ok((changed(model, counted.change)?, metric))
}

/// The model with the regulariser. Where every coefficient is 0 it is measured and joins no loss.
fn regularised(
    model: &Model,
    options: &inject::Options,
    loss: &str,
    outputs: &mut Outputs,
) -> TrainResult<(Model, inject::Report)> {
    let weighs = options.coef.is_none_or(|c| c != 0.0) || options.coef_overrides.iter().any(|(_, c)| *c != 0.0);
    let options = inject::Options {
        loss: weighs.then(|| loss.to_owned()),
        as_output: !weighs,
        coef_input: options.coef_input && weighs,
        outputs: inject::Outputs { task: weighs, per: false, layers: true },
        ..options.clone()
    };
    let plan = inject::plan(model, &options)?;
    let report = plan.report;
    if let Some(first) = report.losses.first() {
        outputs.task.clone_from(&first.task);
    }
    // Those of the layers come last, in their order.
    let first = report.outputs.len().saturating_sub(report.layers.len());
    let names = report.layers.iter().map(|l| l.name.clone());
    outputs.layers = names.zip(report.outputs.iter().skip(first).cloned()).collect();
    Ok((applied(model, &plan.patch)?, report))
}

/// The forward pass as inference has it.
pub(super) fn inference(model: &Model) -> TrainResult<Model> {
    let graph = Graph::of(model)?;
    let mut change = Change { reason: "inference".into(), ..Change::default() };
    for (i, node) in graph.nodes.iter().enumerate() {
        let output = |slot: usize| node.output.get(slot).filter(|o| !o.is_empty());
        let nodes = match node.op_type() {
            "BatchNormalization" if node.int("training_mode") == Some(1) || output(1).is_some() => {
                let mut nodes = vec![NodeProto {
                    output: node.output.iter().take(1).cloned().collect(),
                    attribute: node.attribute.iter().filter(|a| a.name() != "training_mode").cloned().collect(),
                    ..node.clone()
                }];
                // What the statistics become, where somebody reads it: they stay what they are.
                for (slot, input) in [(1, 3), (2, 4)] {
                    let copied = output(slot).zip(node.input.get(input));
                    nodes.extend(copied.map(|(output, input)| NodeProto {
                        op_type: Some("Identity".into()),
                        input: vec![input.clone()],
                        output: vec![output.clone()],
                        ..NodeProto::default()
                    }));
                }
                nodes
            }
            // Without its third input it is in inference mode.
            "Dropout" if node.input.len() > 2 => {
                vec![NodeProto { input: node.input.iter().take(1).cloned().collect(), ..node.clone() }]
            }
            _ => continue,
        };
        change.replacements.push(Replacement { part: Part::Node(i), with: Substitute::Nodes(nodes.into()) });
    }
    changed(model, change)
}
