//! From batches to what a graph is fed: the axis that counts samples goes where the graph has it.

use std::collections::HashMap;

use super::data::{self, Batch};
use super::error::{TrainError, TrainResult};
use super::noise::{self, Draw};
use crate::engine::{Element, Port, Tensor, check_feeds, graph_of, input_bound, with_elements};
use crate::graph::infer::Types;
use crate::graph::types::{Dim, TensorType};
use crate::graph::{Attributes, Graph, Slot, ValueId};
use crate::wire::Model;

/// An input of the graph that data is for.
#[derive(Debug, Clone)]
pub struct Input {
    /// What it is.
    pub port: Port,
    /// The axis that counts samples.
    pub batch_axis: usize,
    /// What every integer in it must stay below; `None` where nothing limits it.
    below: Option<u64>,
    /// The label that the loss ignores.
    ignored: Option<i64>,
}

impl Input {
    /// How many samples the graph takes at once, where that is built into it.
    pub fn fixed_batch(&self) -> Option<u64> {
        self.port.tensor.as_ref()?.dims.as_ref()?.get(self.batch_axis)?.known()
    }

    /// What data must be to suit it.
    pub fn for_data(&self) -> data::Input {
        let declared = self.port.tensor.clone().unwrap_or_default();
        let input = data::Input::new(&self.port.name, &declared, self.batch_axis);
        data::Input { below: self.below, ignored: self.ignored, ..input }
    }
}

/// The inputs of a model that data is for: those without a default.
///
/// Samples are counted along the only axis of an input whose size is open; without one along the first. `axes` says otherwise, by input.
///
/// # Errors
/// For an axis that an input does not have, and a name that is none.
pub fn inputs(model: &Model, axes: &[(String, usize)]) -> TrainResult<Vec<Input>> {
    inputs_among(model, axes, |_| true)
}

/// As [`inputs`], of a model that has others as well, which data is not for.
///
/// # Errors
/// As [`inputs`].
pub fn inputs_among(
    model: &Model,
    axes: &[(String, usize)],
    is_for_data: impl Fn(&str) -> bool,
) -> TrainResult<Vec<Input>> {
    let graph = graph_of(model)?;
    let types = Types::of(&graph, model);
    let mut found = Vec::new();
    let without_default = |v: &ValueId| graph.initializer(*v).is_none() && is_for_data(graph.name(*v));
    for value in graph.inputs.iter().copied().filter(without_default) {
        let name = graph.name(value).to_owned();
        let tensor: TensorType = types.get(value).clone();
        let open: Vec<usize> = match &tensor.dims {
            Some(dims) => (0..dims.len()).filter(|i| dims.get(*i).is_some_and(|d| d.known().is_none())).collect(),
            None => Vec::new(),
        };
        let asked = axes.iter().find(|(n, _)| *n == name).map(|(_, axis)| *axis);
        let batch_axis = asked.unwrap_or(if let [only] = open[..] { only } else { 0 });
        if asked.is_some() && tensor.rank().is_some_and(|rank| batch_axis >= rank) {
            let problem = format!("the input {name:?} is {tensor} and has no axis {batch_axis}; axes count from 0");
            return Err(TrainError::Options(problem));
        }
        let is_integer = tensor.is_float() == Some(false);
        let below = if is_integer { input_bound(&graph, &types, value, &Dim::known) } else { None };
        let ignored = if is_integer { ignored_label(&graph, value) } else { None };
        let port = Port { name, tensor: Some(tensor), has_default: false };
        found.push(Input { port, batch_axis, below, ignored });
    }
    if let Some((name, _)) = axes.iter().find(|(n, _)| !found.iter().any(|i| i.port.name == *n)) {
        let all: Vec<&str> = found.iter().map(|i| i.port.name.as_str()).collect();
        return Err(TrainError::Options(format!("there is no input {name:?}; there is {}", all.join(", "))));
    }
    Ok(found)
}

/// The `ignore_index` of a loss that reads a value, itself or reshaped.
fn ignored_label(graph: &Graph<'_>, value: ValueId) -> Option<i64> {
    let mut waiting = vec![value];
    let mut seen = std::collections::HashSet::from([value]);
    while let Some(value) = waiting.pop() {
        for reader in graph.uses(value) {
            let node = graph.node(reader.node);
            match (node.op_type(), reader.slot) {
                ("SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss", Slot::Input(1)) => {
                    if let Some(ignored) = node.int("ignore_index") {
                        return Some(ignored);
                    }
                }
                (
                    "Cast" | "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose",
                    Slot::Input(0),
                ) => {
                    let made = graph.outputs_of(reader.node).iter().flatten().copied();
                    waiting.extend(made.filter(|v| seen.insert(*v)));
                }
                _ => {}
            }
        }
    }
    None
}

/// A batch made ready for a graph.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What decides its random numbers: the step, or another count.
    pub counter: u64,
    /// What data feeds, as the graph takes it.
    pub feeds: Vec<(String, Tensor)>,
    /// Random numbers, in the order of the graph's draws; `None` where only a run of the graph tells their shape.
    pub drawn: Vec<Option<Tensor>>,
    /// How many samples it is of.
    pub samples: usize,
}

/// Makes batches ready. Nothing in it is of the step before, so that the thread that reads data ahead can do it.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// What data is for.
    pub inputs: Vec<Input>,
    /// What is drawn.
    pub draws: Vec<Draw>,
    /// Seed of the random numbers.
    pub seed: u64,
    /// The model, as messages call it.
    pub model: String,
}

impl Preparation {
    /// Makes a batch ready. The same batch and counter give the same, bit for bit, whenever it is made.
    ///
    /// # Errors
    /// As [`fit`].
    pub fn prepare(&self, batch: Batch, counter: u64) -> TrainResult<Prepared> {
        let samples = batch.samples;
        let feeds = fit(batch, &self.inputs, &self.model)?;
        let symbols = symbols(&self.inputs, &feeds);
        let shapes: Vec<Option<Vec<usize>>> = self.draws.iter().map(|draw| draw.shape(&symbols)).collect();
        let drawn = noise::numbers(&self.draws, self.seed, counter, &shapes);
        Ok(Prepared { counter, feeds, drawn, samples })
    }
}

/// The sizes of the symbols in declared shapes, by what is fed.
fn symbols(inputs: &[Input], feeds: &[(String, Tensor)]) -> HashMap<String, usize> {
    let mut symbols = HashMap::new();
    for (name, tensor) in feeds {
        let port = inputs.iter().find(|i| i.port.name == *name).and_then(|i| i.port.tensor.as_ref());
        let dims = port.and_then(|t| t.dims.as_ref());
        for (dim, size) in dims.into_iter().flatten().zip(tensor.shape()) {
            if let Dim::Symbol(symbol) = dim {
                symbols.insert(symbol.to_string(), *size);
            }
        }
    }
    symbols
}

/// What a batch feeds: its arrays with samples along the axis where the graph has them.
///
/// # Errors
/// For an input without data, and data of another type or shape.
pub fn fit(batch: Batch, inputs: &[Input], model: &str) -> TrainResult<Vec<(String, Tensor)>> {
    let mut out = Vec::with_capacity(inputs.len());
    for (name, array) in batch.arrays {
        let Some(input) = inputs.iter().find(|i| i.port.name == name) else { continue };
        let moved = move_first_axis(array, input.batch_axis);
        check_feeds(model, std::slice::from_ref(&input.port), &[(&name, &moved)])?;
        out.push((name, moved));
    }
    Ok(out)
}

/// The first axis put at another place, the ones before it one place forward.
fn move_first_axis(tensor: Tensor, to: usize) -> Tensor {
    fn of<T: Element>(values: &[T], rows: usize, columns: usize, rest: usize, shape: Vec<usize>) -> Option<Tensor> {
        let mut out = Vec::with_capacity(values.len());
        for column in 0..columns {
            for row in 0..rows {
                let start = (row * columns + column) * rest;
                out.extend_from_slice(values.get(start..start + rest)?);
            }
        }
        Tensor::new(shape, out)
    }
    let shape = tensor.shape();
    if to == 0 || to >= shape.len() {
        return tensor;
    }
    let (rows, columns) = (shape[0], shape[1..=to].iter().product());
    let rest = shape[to + 1..].iter().product();
    let mut moved = shape.to_vec();
    moved[..=to].rotate_left(1);
    with_elements!(tensor.data(), values => of(values, rows, columns, rest, moved)).unwrap_or(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Data;

    #[test]
    fn samples_go_along_the_axis_that_the_graph_has_them_on() {
        let tensor = Tensor::new(vec![2, 3, 1], vec![0, 1, 2, 3, 4, 5i64]).unwrap();
        let moved = move_first_axis(tensor.clone(), 1);
        assert_eq!((moved.shape(), moved.data()), (&[3, 2, 1][..], &Data::Int64(vec![0, 3, 1, 4, 2, 5])));
        assert_eq!(move_first_axis(tensor.clone(), 2).shape(), [3, 1, 2]);
        assert_eq!(move_first_axis(tensor.clone(), 0), tensor);
    }

    #[test]
    fn inputs_say_what_data_must_be() {
        let found = inputs(&Model::open("models/seq_lstm_lm.ts17.onnx").unwrap(), &[]).unwrap();
        assert_eq!(found.iter().map(|i| (i.batch_axis, i.below)).collect::<Vec<_>>(), [(1, Some(200)); 2]);
        assert_eq!(found[1].ignored, Some(-100));
        let fixed = Model::open("models/mlp_relu.dyn.onnx").unwrap();
        assert_eq!(inputs(&fixed, &[]).unwrap()[0].fixed_batch(), Some(16));
        assert_eq!(inputs(&fixed, &[("x".into(), 1)]).unwrap()[0].fixed_batch(), Some(64));
        for (name, axis, words) in [("x", 2, "has no axis 2"), ("z", 0, "there is x, y")] {
            let message = inputs(&fixed, &[(name.into(), axis)]).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
