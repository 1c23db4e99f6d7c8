//! The first value in execution order that differs.
//!
//! A difference can vanish again (a Relu, a maximum, a rounding), so halving the list of values would pass some over. Instead all of
//! them are compared, in order, in as few runs as memory allows: for most models one run of each. Every run makes as many inner
//! values outputs as fit into the budget, and the first of these runs that shows a difference is the last.

use std::collections::HashMap;

use serde::Serialize;

use super::Options;
use super::elements::Outcome;
use super::expose;
use super::outputs::{Inputs, outcome, values};
use super::pairs::Pairs;
use crate::engine::{Engine, EngineResult, LoadOptions, Optimisation, element_size, graph_of};
use crate::graph::infer::Types;
use crate::graph::types::{Dim, TensorType};
use crate::graph::{Graph, NodeId};
use crate::wire::Model;

/// What comes of looking for the first difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FirstDifference {
    /// How much the engine could rewrite the graphs for this. Making inner values outputs limits what it can fuse.
    pub optimisation: Optimisation,
    /// Pairs of values that were compared.
    pub compared: usize,
    /// Pairs of values that could not be compared: no tensors of numbers.
    pub skipped: usize,
    /// Values of the first model without a counterpart in the second.
    pub alone: usize,
    /// Runs of each model that it took.
    pub passes: usize,
    /// The first difference; `None` where no value that was compared differs beyond the tolerance.
    pub found: Option<Found>,
}

/// A value that differs while everything before it agrees.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// Its name in the first model.
    pub a: String,
    /// Its name in the second.
    pub b: String,
    /// The node of the first model that makes it, by its position in the node list.
    pub node_a: usize,
    /// The node of the second model that makes it.
    pub node_b: usize,
    /// The first one's name and operator.
    pub made_by: String,
    /// Inputs of that node that have no counterpart: the difference may come in through them. All others agree.
    pub unmatched_inputs: Vec<String>,
    /// How the two differ.
    pub outcome: Outcome,
}

/// Runs as many inner values at once at most, whatever their size.
const MOST_AT_ONCE: usize = 4096;

/// Finds the first of `pairs.values` that differs beyond the tolerance.
///
/// # Errors
/// When one of the models does not load or does not run with inner values as outputs.
pub fn first_difference(
    engine: &dyn Engine,
    a: &Model,
    b: &Model,
    pairs: &Pairs,
    inputs: &Inputs,
    options: &Options,
) -> EngineResult<FirstDifference> {
    let load = LoadOptions { optimisation: options.inner_optimisation, ..options.load };
    let mut result = FirstDifference {
        optimisation: load.optimisation,
        compared: 0,
        skipped: 0,
        alone: pairs.alone,
        passes: 0,
        found: None,
    };
    let mut sizes = Sizes::of(a, inputs, options.budget)?;
    let mut rest = pairs.values.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.how_many(rest));
        rest = later;
        let (of_a, of_b): (Vec<&str>, Vec<&str>) = now.iter().map(|(a, b)| (a.as_str(), b.as_str())).unzip();
        let in_a = values(&mut *expose::load(engine, a, &of_a, &load)?, &of_a, &inputs.a)?;
        let in_b = values(&mut *expose::load(engine, b, &of_b, &load)?, &of_b, &inputs.b)?;
        result.passes += 1;
        for (pair, (x, y)) in now.iter().zip(in_a.iter().zip(&in_b)) {
            sizes.learn(&pair.0, x.as_ref().map_or(0, |t| t.byte_len() as u64));
            match outcome(x, y, options) {
                Outcome::Skipped { .. } => result.skipped += 1,
                outcome => {
                    result.compared += 1;
                    if !outcome.agrees() {
                        result.found = Some(describe(a, b, pairs, pair, outcome)?);
                        return Ok(result);
                    }
                }
            }
        }
    }
    Ok(result)
}

fn describe(
    a: &Model,
    b: &Model,
    pairs: &Pairs,
    (in_a, in_b): &(String, String),
    outcome: Outcome,
) -> EngineResult<Found> {
    let (graph_a, graph_b) = (graph_of(a)?, graph_of(b)?);
    let maker =
        |graph: &Graph<'_>, name: &str| graph.find(name).and_then(|v| graph.producer(v)).map_or(NodeId(0), |p| p.0);
    let (node_a, node_b) = (maker(&graph_a, in_a), maker(&graph_b, in_b));
    let is_matched = |name: &str| pairs.values.iter().chain(&pairs.inputs).any(|(a, _)| a == name);
    let inputs = graph_a.inputs_of(node_a).iter().flatten();
    let unmatched = inputs.filter(|v| graph_a.initializer(**v).is_none()).map(|v| graph_a.name(*v));
    Ok(Found {
        a: in_a.clone(),
        b: in_b.clone(),
        node_a: node_a.index(),
        node_b: node_b.index(),
        made_by: graph_a.describe(node_a),
        unmatched_inputs: unmatched.filter(|name| !is_matched(name)).map(str::to_owned).collect(),
        outcome,
    })
}

/// How large values are, as far as that is known before they are computed.
struct Sizes {
    by_name: HashMap<String, u64>,
    /// What a value of unknown size is taken for.
    unknown: u64,
    /// The largest value of unknown size that was computed.
    largest: u64,
    budget: u64,
}

impl Sizes {
    fn of(model: &Model, inputs: &Inputs, budget: u64) -> EngineResult<Self> {
        let graph = graph_of(model)?;
        let types = Types::of(&graph, model);
        let mut symbols = HashMap::new();
        for feed in &inputs.a.feeds {
            let declared = graph.find(&feed.name).and_then(|v| types.get(v).dims.as_ref());
            for (dim, size) in declared.into_iter().flatten().zip(feed.tensor.shape()) {
                if let Dim::Symbol(symbol) = dim {
                    symbols.insert(symbol.clone(), *size as u64);
                }
            }
        }
        let bytes = |known: &TensorType| {
            let size = |dim: &Dim| match dim {
                Dim::Known(n) => Some(*n),
                Dim::Symbol(symbol) => symbols.get(symbol).copied(),
                Dim::Unknown => None,
            };
            let element = element_size(known.elem)? as u64;
            known.dims.as_ref()?.iter().try_fold(element, |n, dim| n.checked_mul(size(dim)?))
        };
        let by_name = graph.values().filter_map(|v| Some((graph.name(v).to_owned(), bytes(types.get(v))?))).collect();
        Ok(Sizes { by_name, unknown: budget / 32, largest: 0, budget })
    }

    /// How many of `values` are run at once: at least one.
    fn how_many(&self, values: &[(String, String)]) -> usize {
        let mut total = 0u64;
        let fits = |(name, _): &&(String, String)| {
            total = total.saturating_add(self.by_name.get(name).copied().unwrap_or(self.unknown));
            total <= self.budget
        };
        values.iter().take(MOST_AT_ONCE).take_while(fits).count().max(1)
    }

    /// What was not known is taken for the largest such value yet, and never for so small that thousands of large ones come at once.
    fn learn(&mut self, name: &str, bytes: u64) {
        if !self.by_name.contains_key(name) {
            self.largest = self.largest.max(bytes);
            self.unknown = self.largest.max(self.budget / 1024);
        }
    }
}
