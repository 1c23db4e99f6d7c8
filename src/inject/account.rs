//! What was done: the report for people, and the record that the model keeps for strip.

use rayon::prelude::*;

use super::layers::Chosen;
use super::report::{self, CostReport, LayerCost, LayerReport, LossReport, ModelSummary, Report};
use super::term::Term;
use super::{InjectError, Injection, Joined, Options, Written};
use crate::graph::work::Work;
use crate::lower::Target;
use crate::patch::{Change, Patch};
use crate::record::{self, Original, Record, RecordedLayer};
use crate::regularizer::Reduction;
use crate::wire::{Model, narrowed};

impl Injection<'_> {
    pub(super) fn coef_of(&self, layer: usize) -> f64 {
        match self.coefficients[layer] {
            0 => self.options.coef.unwrap_or(1.0),
            k => self.options.coef_overrides[k - 1].1,
        }
    }

    /// What is said of each layer.
    pub(super) fn layer_reports(&self, written: &[Written]) -> Vec<LayerReport> {
        let graph = &self.analysis.graph;
        let report = |(i, (w, chosen)): (usize, (&Written, &Chosen))| {
            let cost = self.regularizer(1, i).cost(&chosen.layer);
            let random_numbers = if self.drawn_by[i] == i { cost.random_numbers } else { 0.0 };
            let all_known =
                chosen.layer.h.ty.dims.as_ref().is_some_and(|dims| dims.iter().all(|d| d.known().is_some()));
            LayerReport {
                name: w.name.clone(),
                node: chosen.tap.node.map(|n| graph.node(n).name().to_owned()).filter(|n| !n.is_empty()),
                op: chosen.tap.node.map(|n| graph.node(n).op_type().to_owned()),
                activation: chosen.tap.activation.map(|a| a.name().to_owned()),
                tensor: chosen.layer.h.name.clone(),
                training_info: None,
                gradient: self.places.get(i).map(|p| p.name().to_owned()),
                shape: chosen.layer.h.ty.to_string(),
                view: chosen.layer.view.name(),
                rows: all_known.then_some(chosen.layer.row_count() as u64),
                d: chosen.layer.row_length(),
                coef: self.coef_of(i),
                seed: w.seed,
                nodes: w.nodes.len(),
                cost: LayerCost { multiply_adds: cost.multiply_adds, bytes: cost.bytes, random_numbers },
            }
        };
        let mut reports = Vec::new();
        written.par_iter().zip(&self.chosen).enumerate().map(report).collect_into_vec(&mut reports);
        reports
    }

    pub(super) fn report(&self, term: &Term, layers: Vec<LayerReport>, work: Work) -> Report {
        let (model, graph) = (self.analysis.model, &self.analysis.graph);
        let mut cost = CostReport {
            model_multiply_adds: work.multiply_adds,
            per_sample: work.open_dimensions || layers.iter().any(|l| l.rows.is_none()),
            ..CostReport::default()
        };
        for LayerCost { multiply_adds, bytes, random_numbers } in layers.iter().map(|l| &l.cost) {
            cost.term_multiply_adds += multiply_adds;
            cost.term_bytes += bytes;
            cost.random_numbers += random_numbers;
        }
        Report {
            schema: report::SCHEMA,
            model: ModelSummary::from(model),
            form: self.destination.name(),
            losses: self
                .loss
                .iter()
                .zip(term.task.clone().filter(|_| !self.chosen.is_empty()))
                .map(|(loss, task)| LossReport { training_info: None, name: graph.name(loss.value).to_owned(), task })
                .collect(),
            estimator: self.options.estimator.name(),
            slices: (self.options.estimator.draws()).then_some(self.options.slices),
            share_slices: self.options.share_slices && self.options.estimator.draws(),
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
}

/// The record that the model keeps.
pub(super) fn record(
    model: &Model,
    options: &Options,
    root: &str,
    patch: &Patch,
    report: &Report,
    joined: Joined,
    digest: String,
) -> Result<Record, InjectError> {
    let of_a_step = |o: &String| joined.steps.iter().any(|s| s.outputs.contains(o));
    Ok(Record {
        widths: narrowed(model, patch)?,
        record: record::VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        arguments: options.arguments(),
        root: root.into(),
        original: Original { structure: digest, size: model.file.bytes.len() as u64 },
        outputs: report.outputs.iter().filter(|o| !o.starts_with(root) && !of_a_step(o)).cloned().collect(),
        task_loss: joined.task_loss,
        gradients: joined.gradients,
        replaced: joined.replaced,
        hoisted: Vec::new(),
        activations: joined.activations,
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

/// How many parts some changes add.
pub fn added(changes: &[Change]) -> record::Added {
    let count = |of: fn(&Change) -> usize| changes.iter().map(of).sum();
    record::Added {
        nodes: count(Change::added_nodes),
        initializers: count(|c| c.initializers.len()),
        inputs: count(|c| c.inputs.len()),
        outputs: count(|c| c.outputs.len()),
    }
}
