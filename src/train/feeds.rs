//! From batches to what a graph is fed: the axis that counts samples goes where the graph has it, and what does not fit is told before
//! anything runs.

use std::collections::HashMap;

use super::error::{TrainError, TrainResult};
use super::source::Batch;
use crate::engine::{Data, Element, Port, Tensor, graph_of, input_bound, with_elements};
use crate::graph::infer::Types;
use crate::graph::types::Dim;
use crate::wire::Model;

/// An input of the graph that data is for.
#[derive(Debug, Clone)]
pub struct Input {
    /// What it is.
    pub port: Port,
    /// The axis that counts samples.
    pub batch_axis: usize,
    /// What every integer in it must stay below; `None` where nothing limits it.
    pub below: Option<u64>,
}

impl Input {
    /// How many samples the graph takes at once, where that is built into it.
    pub fn fixed_batch(&self) -> Option<u64> {
        self.port.tensor.as_ref()?.dims.as_ref()?.get(self.batch_axis)?.known()
    }
}

/// The inputs of a model that data is for: those without a default.
///
/// Samples are counted along the only axis of an input whose size is open; without one along the first. `axes` says otherwise, by input.
///
/// # Errors
/// For an axis that an input does not have, and a name that is none.
pub fn inputs(model: &Model, axes: &[(String, usize)]) -> TrainResult<Vec<Input>> {
    let graph = graph_of(model)?;
    let types = Types::of(&graph, model);
    let mut found = Vec::new();
    for value in graph.inputs.iter().copied().filter(|v| graph.initializer(*v).is_none()) {
        let name = graph.name(value).to_owned();
        let tensor = types.get(value).clone();
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
        let below = tensor.is_float().is_some_and(|f| !f).then(|| {
            let size = |dim: &Dim| dim.known();
            input_bound(&graph, &types, value, &size)
        });
        let port = Port { name, tensor: Some(tensor), has_default: false };
        found.push(Input { port, batch_axis, below: below.flatten() });
    }
    if let Some((name, _)) = axes.iter().find(|(n, _)| !found.iter().any(|i| i.port.name == *n)) {
        let all: Vec<&str> = found.iter().map(|i| i.port.name.as_str()).collect();
        return Err(TrainError::Options(format!("there is no input {name:?}; there is {}", all.join(", "))));
    }
    Ok(found)
}

/// What a batch feeds: its arrays with samples along the axis where the graph has them, checked.
///
/// # Errors
/// For an input without data, data that is no number or no class, and data of another type or shape.
pub fn fit(batch: Batch, inputs: &[Input], model: &str) -> TrainResult<Vec<(String, Tensor)>> {
    let mut arrays: HashMap<String, Tensor> = batch.arrays.into_iter().collect();
    let mut out = Vec::with_capacity(inputs.len());
    for input in inputs {
        let name = &input.port.name;
        let Some(array) = arrays.remove(name) else {
            let mut given: Vec<&str> = arrays.keys().map(String::as_str).collect();
            given.sort_unstable();
            return Err(TrainError::Data(format!(
                "the data has no array {name:?}, which {model} takes ({}); it has {}; --map {name}=ARRAY says which one it is",
                input.port.shown(),
                given.join(", ")
            )));
        };
        let moved = move_first_axis(array, input.batch_axis);
        crate::engine::check_feeds(model, std::slice::from_ref(&input.port), &[(name, &moved)])?;
        check_elements(name, &moved, input.below)?;
        out.push((name.clone(), moved));
    }
    Ok(out)
}

/// Refuses what is no number, and indices beyond what they choose from.
fn check_elements(name: &str, tensor: &Tensor, below: Option<u64>) -> TrainResult<()> {
    fn float<T: Copy + Into<f64>>(values: &[T]) -> Option<(usize, f64)> {
        values.iter().map(|v| (*v).into()).enumerate().find(|(_, v)| !v.is_finite())
    }
    fn integer<T: Copy + TryInto<i128>>(values: &[T], below: u64) -> Option<(usize, i128)> {
        let wide = |v: &T| (*v).try_into().unwrap_or(i128::MAX);
        // −100 is how exporters write a label that does not count.
        let is_wrong = |v: &i128| !(0..i128::from(below)).contains(v) && *v != -100 && *v != -1;
        values.iter().map(wide).enumerate().find(|(_, v)| is_wrong(v))
    }
    let float = match tensor.data() {
        Data::Float(values) => float(values),
        Data::Double(values) => float(values),
        Data::Float16(values) => float(values),
        Data::Bfloat16(values) => float(values),
        _ => None,
    };
    if let Some((at, value)) = float {
        let place = place(tensor.shape(), at);
        return Err(TrainError::Data(format!(
            "the data of {name:?} holds {value}, at {place:?} of a batch; clean the data first"
        )));
    }
    let Some(below) = below else { return Ok(()) };
    let wrong = match tensor.data() {
        Data::Int8(values) => integer(values, below),
        Data::Int16(values) => integer(values, below),
        Data::Int32(values) => integer(values, below),
        Data::Int64(values) => integer(values, below),
        Data::Uint8(values) => integer(values, below),
        Data::Uint16(values) => integer(values, below),
        Data::Uint32(values) => integer(values, below),
        Data::Uint64(values) => integer(values, below),
        _ => None,
    };
    match wrong {
        Some((at, value)) => Err(TrainError::Data(format!(
            "the data of {name:?} holds {value}, at {:?} of a batch, and the graph takes 0 to {}",
            place(tensor.shape(), at),
            below.saturating_sub(1)
        ))),
        None => Ok(()),
    }
}

/// The index of an element by its position.
fn place(shape: &[usize], mut at: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, size) in shape.iter().enumerate().rev() {
        index[i] = at % size.max(&1);
        at /= size.max(&1);
    }
    index
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

    #[test]
    fn samples_go_along_the_axis_that_the_graph_has_them_on() {
        let tensor = Tensor::new(vec![2, 3, 1], vec![0, 1, 2, 3, 4, 5i64]).unwrap();
        let moved = move_first_axis(tensor.clone(), 1);
        assert_eq!((moved.shape(), moved.data()), (&[3, 2, 1][..], &Data::Int64(vec![0, 3, 1, 4, 2, 5])));
        assert_eq!(move_first_axis(tensor.clone(), 2).shape(), [3, 1, 2]);
        assert_eq!(move_first_axis(tensor.clone(), 0), tensor);
    }

    #[test]
    fn what_is_no_number_or_no_class_is_told_with_its_place() {
        let floats = Tensor::new(vec![2, 2], vec![0.0, 1.0, f32::NAN, 0.0]).unwrap();
        let message = check_elements("x", &floats, None).unwrap_err().to_string();
        assert!(message.contains("\"x\" holds NaN, at [1, 0]"), "{message}");
        let labels = Tensor::new(vec![3], vec![0i64, 9, 10]).unwrap();
        let message = check_elements("y", &labels, Some(10)).unwrap_err().to_string();
        assert!(message.contains("holds 10, at [2]") && message.contains("0 to 9"), "{message}");
        let ignored = Tensor::new(vec![2], vec![-100i64, 9]).unwrap();
        assert!(check_elements("y", &ignored, Some(10)).is_ok());
    }
}
