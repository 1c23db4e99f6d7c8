//! Which names of two models stand for the same.

use std::collections::HashSet;

use crate::engine::{EngineResult, graph_of};
use crate::graph::Graph;
use crate::graph::infer::Types;
use crate::wire::Model;

/// Pairs of names, each as (in the first model, in the second).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Graph inputs, which get the same values.
    pub inputs: Vec<(String, String)>,
    /// Graph outputs.
    pub outputs: Vec<(String, String)>,
    /// Tensors that nodes make, in the order in which the first model computes them.
    pub values: Vec<(String, String)>,
    /// How many tensors of the first model have no counterpart.
    pub alone: usize,
}

impl Pairs {
    /// What is called the same.
    pub fn by_name(a: &Model, b: &Model) -> EngineResult<Self> {
        Self::by(a, b, |name| Some(name.to_owned()))
    }

    /// What `counterpart` says: the name in `b` of a value of `a`. Inputs and outputs are a model's face: there the same name counts
    /// first, and `counterpart` only for those that are left.
    pub fn by(a: &Model, b: &Model, counterpart: impl Fn(&str) -> Option<String>) -> EngineResult<Self> {
        let (first, second) = (graph_of(a)?, graph_of(b)?);
        let names =
            |graph: &Graph<'_>, values: &[_]| values.iter().map(|v| graph.name(*v).to_owned()).collect::<Vec<_>>();
        let inputs = face(names(&first, &first.inputs), names(&second, &second.inputs), &counterpart);
        let outputs = face(names(&first, &first.outputs), names(&second, &second.outputs), &counterpart);
        let mut pairs = Pairs { inputs, outputs, ..Pairs::default() };
        let (types_of_a, types_of_b) = (Types::of(&first, a), Types::of(&second, b));
        for node in first.topological_order() {
            for value in first.outputs_of(*node).iter().flatten().filter(|v| types_of_a.is_tensor(**v)) {
                let name = first.name(*value);
                let is_made = |name: &String| {
                    second.find(name).is_some_and(|v| second.producer(v).is_some() && types_of_b.is_tensor(v))
                };
                match counterpart(name).filter(is_made) {
                    Some(other) => pairs.values.push((name.to_owned(), other)),
                    None => pairs.alone += 1,
                }
            }
        }
        Ok(pairs)
    }
}

/// Pairs of the names of two lists: equal ones, then those that correspond and are free still, in the order of the first.
fn face(a: Vec<String>, b: Vec<String>, counterpart: &impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let (in_a, in_b): (HashSet<_>, HashSet<_>) = (a.iter().cloned().collect(), b.into_iter().collect());
    let mut taken = HashSet::new();
    a.into_iter()
        .filter_map(|name| {
            let other = if in_b.contains(&name) {
                name.clone()
            } else {
                counterpart(&name).filter(|other| in_b.contains(other) && !in_a.contains(other))?
            };
            taken.insert(other.clone()).then_some((name, other))
        })
        .collect()
}
