//! Which value is the loss, and who goes on reading the task loss alone.

use super::error::InjectError;
use super::options::Options;
use crate::analysis::Analysis;
use crate::graph::backward::requests;
use crate::graph::kind::single_element;
use crate::graph::{NodeId, Use, ValueId};
use crate::select::nearest;

/// The loss that the term is added to.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// The value.
    pub value: ValueId,
    /// The node that makes it, and as which output.
    pub producer: (NodeId, u32),
    /// Readers that keep the task loss alone.
    pub task_readers: Vec<Use>,
    /// Scalar outputs that the sum reaches, where the loss is no output itself.
    pub reached: Vec<ValueId>,
    /// Nodes that go on to a scalar output and so must read the sum; empty when the loss is an output itself.
    pub total_readers: Vec<NodeId>,
}

/// Finds the loss by name, or as the only output that can be it.
pub fn choose(analysis: &Analysis, options: &Options) -> Result<Loss, InjectError> {
    let value = match &options.loss {
        Some(name) => named(analysis, name)?,
        None => the_only_candidate(analysis)?,
    };
    let name = analysis.graph.name(value).to_owned();
    let Some(producer) = analysis.graph.producer(value) else {
        let problem = "it is an input or an initializer, which nothing computes".into();
        return Err(InjectError::BadLoss { name, problem });
    };
    let ty = analysis.types.get(value);
    let is_tensor = analysis.types.is_tensor(value);
    if !is_tensor || ty.is_float() == Some(false) || single_element(&analysis.types, value) == Some(false) {
        let what = if is_tensor { ty.to_string() } else { "no tensor".into() };
        let problem = format!("it is {what}, and a loss is one floating-point number");
        return Err(InjectError::BadLoss { name, problem });
    }
    let uses = analysis.graph.uses(value).to_vec();
    // A Gradient node finds what it differentiates by its name.
    let asked: Vec<NodeId> = requests(&analysis.graph).iter().filter(|r| r.of == name).map(|r| r.node).collect();
    if analysis.graph.is_output(value) || !asked.is_empty() {
        return Ok(Loss { value, producer, task_readers: uses, reached: Vec::new(), total_readers: asked });
    }
    let leads = leads_to_scalar_output(analysis);
    let (on, off): (Vec<Use>, Vec<Use>) = uses.into_iter().partition(|u| leads[u.node.index()]);
    if on.is_empty() {
        let problem = "it leads to no scalar output of the graph, so a term added to it would have no effect".into();
        return Err(InjectError::BadLoss { name, problem });
    }
    let from_loss = analysis.graph.reached_from(value);
    let is_reached = |v: &&ValueId| {
        let made_there = analysis.graph.producer(**v).is_some_and(|(node, _)| from_loss[node.index()]);
        let is_float = analysis.types.get(**v).is_float() != Some(false);
        made_there && is_float && single_element(&analysis.types, **v) != Some(false)
    };
    let reached = analysis.graph.outputs.iter().filter(is_reached).copied().collect();
    Ok(Loss { value, producer, task_readers: off, reached, total_readers: on.iter().map(|u| u.node).collect() })
}

/// As [`choose`], among the outputs alone: in a graph that holds its backward pass nothing else is done with the sum.
pub fn choose_output(analysis: &Analysis, options: &Options) -> Result<Loss, InjectError> {
    let loss = choose(analysis, options)?;
    if !analysis.graph.is_output(loss.value) {
        let name = analysis.graph.name(loss.value).to_owned();
        let problem = "it is no output of the graph, and gradients are taken without --loss-term too".into();
        return Err(InjectError::BadLoss { name, problem });
    }
    Ok(loss)
}

fn named(analysis: &Analysis, name: &str) -> Result<ValueId, InjectError> {
    analysis.graph.find(name).ok_or_else(|| {
        let hint = nearest(name, analysis.graph.values().map(|v| analysis.graph.name(v)))
            .map(|n| format!("; did you mean {n:?}?"))
            .unwrap_or_default();
        InjectError::LossNotFound { name: name.into(), hint }
    })
}

fn the_only_candidate(analysis: &Analysis) -> Result<ValueId, InjectError> {
    match analysis.loss_candidates().as_slice() {
        [one] => Ok(*one),
        [] => {
            let outputs: Vec<String> = analysis.graph.outputs.iter().take(8).map(|v| found(analysis, *v)).collect();
            let found = if outputs.is_empty() { "the graph has no outputs".into() } else { outputs.join(", ") };
            Err(InjectError::NoLoss { found })
        }
        many => {
            let describe = |v: &ValueId| format!("{:?} ({})", analysis.graph.name(*v), analysis.types.get(*v));
            Err(InjectError::AmbiguousLoss { candidates: many.iter().map(describe).collect() })
        }
    }
}

/// What an output is, and where its type is that of a loss, what else it lacks.
fn found(analysis: &Analysis, output: ValueId) -> String {
    let (name, ty) = (analysis.graph.name(output), analysis.types.get(output));
    let is_number = ty.is_float() == Some(true) && single_element(&analysis.types, output) == Some(true);
    let lacks = if is_number && analysis.reach.trains() && !analysis.reach.depends_on_trainable(output) {
        ", but no gradient gets from it to a weight"
    } else {
        ""
    };
    format!("{name:?} is {ty}{lacks}")
}

/// By node: whether a scalar floating-point output of the graph depends on it.
fn leads_to_scalar_output(analysis: &Analysis) -> Vec<bool> {
    let graph = &analysis.graph;
    let mut leads = vec![false; graph.nodes.len()];
    for output in &graph.outputs {
        let ty = analysis.types.get(*output);
        if single_element(&analysis.types, *output) != Some(false)
            && ty.is_float() != Some(false)
            && let Some((node, _)) = graph.producer(*output)
        {
            leads[node.index()] = true;
        }
    }
    for node in graph.topological_order().iter().rev() {
        if leads[node.index()] {
            let captured = graph.captures_of(*node).iter().map(|c| c.value);
            for value in graph.inputs_of(*node).iter().flatten().copied().chain(captured) {
                if let Some((producer, _)) = graph.producer(value) {
                    leads[producer.index()] = true;
                }
            }
        }
    }
    leads
}
