//! Values for a model's inputs: from arrays where they are given, else made up to fit what the model declares.

use std::collections::BTreeMap;

use half::{bf16, f16};
use serde::Serialize;

use super::arrays::Arrays;
use super::error::{EngineError, EngineResult};
use super::program::graph_of;
use super::ranges::bound;
use super::tensor::{Element, Tensor};
use crate::graph::ValueId;
use crate::graph::infer::Types;
use crate::graph::types::{Dim, TensorType, elem_name};
use crate::onnx::tensor_proto::DataType;
use crate::wire::Model;

/// How values are made up.
///
/// Floats are standard normal, bools fair coins, integers uniform from 0 up to what the graph can take: the size of the axis that an
/// index chooses from, the number of classes of a label, else 0 and 1. Every input draws from a stream of its own, so that its values
/// depend on the seed and its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The same seed gives the same values, on every machine.
    pub seed: u64,
    /// Sizes of dimensions: by their symbol, or `INPUT:AXIS` for one that has none.
    pub dims: BTreeMap<String, u64>,
    /// The size of a dimension that nothing says. Of 2 rather than 1, which would hide what broadcasting covers up.
    pub default_dim: u64,
}

impl Default for Fill {
    fn default() -> Self {
        Fill { seed: 0, dims: BTreeMap::new(), default_dim: 2 }
    }
}

/// A value for an input, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// The input.
    pub name: String,
    /// Its value.
    pub tensor: Tensor,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An array that was given.
    Given,
    /// Standard normal numbers, or coins.
    Random,
    /// Integers from 0 up to, and without, this one.
    RandomBelow(u64),
}

/// Values for the inputs of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Feeds {
    /// In the order of the model's inputs.
    pub feeds: Vec<Feed>,
    /// Names of arrays that no input takes.
    pub unused: Vec<String>,
}

impl Feeds {
    /// As [`Program::run`](super::Program::run) takes them.
    pub fn tensors(&self) -> Vec<(&str, &Tensor)> {
        self.feeds.iter().map(|f| (f.name.as_str(), &f.tensor)).collect()
    }

    /// Whether any value was made up.
    pub fn any_random(&self) -> bool {
        self.feeds.iter().any(|f| f.origin != Origin::Given)
    }
}

/// More elements than this are not made up.
const LIMIT: u64 = 1 << 30;

impl Fill {
    /// Values for every input of a model that has no default.
    pub fn random(&self, model: &Model) -> EngineResult<Feeds> {
        self.complete(model, &Arrays::default())
    }

    /// Arrays for the inputs that they name, and made-up values for the others. The sizes that the arrays have hold for equal symbols
    /// elsewhere. An array that no input takes is listed, not refused; whether the arrays fit is left to the run.
    pub fn complete(&self, model: &Model, arrays: &Arrays) -> EngineResult<Feeds> {
        let graph = graph_of(model)?;
        let types = Types::of(&graph, model);
        let required: Vec<ValueId> = graph.inputs.iter().copied().filter(|v| graph.initializer(*v).is_none()).collect();
        if arrays.nameless.is_some() && arrays.named.is_empty() && required.len() != 1 {
            let names: Vec<&str> = required.iter().map(|v| graph.name(*v)).collect();
            let problem = format!(
                "it is one array without a name, and the model has {} inputs ({}); name arrays in an .npz archive, or put \
                 .npy files named after inputs in a folder",
                names.len(),
                names.join(", ")
            );
            return Err(EngineError::Array { path: arrays.path.display().to_string(), problem });
        }
        let given = |v: ValueId| arrays.get(graph.name(v), required.len() == 1 && graph.initializer(v).is_none());
        let mut sizes = self.dims.clone();
        for value in &graph.inputs {
            if let (Some(tensor), Some(dims)) = (given(*value), &types.get(*value).dims) {
                for (dim, size) in dims.iter().zip(tensor.shape()) {
                    if let Dim::Symbol(symbol) = dim {
                        sizes.entry(symbol.to_string()).or_insert(*size as u64);
                    }
                }
            }
        }
        let size = |dim: &Dim| match dim {
            Dim::Known(n) => Some(*n),
            Dim::Symbol(symbol) => Some(sizes.get(&**symbol).copied().unwrap_or(self.default_dim)),
            Dim::Unknown => None,
        };
        let mut feeds = Feeds::default();
        for value in &graph.inputs {
            let name = graph.name(*value);
            if let Some(tensor) = given(*value) {
                feeds.feeds.push(Feed { name: name.into(), tensor: tensor.clone(), origin: Origin::Given });
            } else if required.contains(value) {
                if !types.is_tensor(*value) {
                    let problem = "it is no tensor, and only tensors of numbers and bool can be run".to_owned();
                    return Err(EngineError::Random { name: name.into(), problem });
                }
                let below = bound(&graph, &types, *value, &size);
                let shape = self.shape(name, types.get(*value), &size)?;
                let (tensor, origin) = self.values(name, types.get(*value).elem, shape, below)?;
                feeds.feeds.push(Feed { name: name.into(), tensor, origin });
            }
        }
        let is_taken = |name: &str| feeds.feeds.iter().any(|f| f.name == name);
        feeds.unused = arrays.named.iter().map(|(name, _)| name.clone()).filter(|name| !is_taken(name)).collect();
        Ok(feeds)
    }

    fn shape(&self, name: &str, known: &TensorType, size: &dyn Fn(&Dim) -> Option<u64>) -> EngineResult<Vec<usize>> {
        let refuse = |problem: &str| EngineError::Random { name: name.into(), problem: problem.into() };
        let dims =
            known.dims.as_ref().ok_or_else(|| refuse("its rank is not declared; give its values with --inputs"))?;
        let of_axis = |axis: usize| self.dims.get(&format!("{name}:{axis}")).copied();
        let sizes = dims.iter().enumerate().map(|(axis, dim)| match dim {
            Dim::Known(n) => *n,
            dim => of_axis(axis).or_else(|| size(dim)).unwrap_or(self.default_dim),
        });
        let sizes: Vec<u64> = sizes.collect();
        match sizes.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n <= LIMIT) {
            Some(_) => Ok(sizes.iter().map(|d| usize::try_from(*d).unwrap_or(usize::MAX)).collect()),
            None => Err(refuse(&format!(
                "{sizes:?} are more than {LIMIT} elements; choose smaller sizes with --dim NAME=N"
            ))),
        }
    }

    fn values(&self, name: &str, elem: i32, shape: Vec<usize>, below: Option<u64>) -> EngineResult<(Tensor, Origin)> {
        let mut stream = Stream::of(self.seed, name);
        let below = below.unwrap_or(2).max(1);
        let integer = DataType::try_from(elem).unwrap_or_default();
        // What does not fit into the type is no index of it either.
        let below = below.min(match integer {
            DataType::Int8 => 1 << 7,
            DataType::Uint8 => 1 << 8,
            DataType::Int16 => 1 << 15,
            DataType::Uint16 => 1 << 16,
            DataType::Int32 => 1 << 31,
            DataType::Uint32 => 1 << 32,
            _ => 1 << 63,
        });
        let tensor = match integer {
            DataType::Float16 => fill(shape, || f16::from_f64(stream.normal())),
            DataType::Bfloat16 => fill(shape, || bf16::from_f64(stream.normal())),
            DataType::Float => fill(shape, || stream.normal() as f32),
            DataType::Double => fill(shape, || stream.normal()),
            DataType::Bool => fill(shape, || stream.below(2) == 1),
            DataType::Int8 => fill(shape, || i8::try_from(stream.below(below)).unwrap_or_default()),
            DataType::Int16 => fill(shape, || i16::try_from(stream.below(below)).unwrap_or_default()),
            DataType::Int32 => fill(shape, || i32::try_from(stream.below(below)).unwrap_or_default()),
            DataType::Int64 => fill(shape, || i64::try_from(stream.below(below)).unwrap_or_default()),
            DataType::Uint8 => fill(shape, || u8::try_from(stream.below(below)).unwrap_or_default()),
            DataType::Uint16 => fill(shape, || u16::try_from(stream.below(below)).unwrap_or_default()),
            DataType::Uint32 => fill(shape, || u32::try_from(stream.below(below)).unwrap_or_default()),
            DataType::Uint64 => fill(shape, || stream.below(below)),
            DataType::Undefined => None,
            _ => {
                let problem = format!("it is a tensor of {}, and only numbers and bool can be run", elem_name(elem));
                return Err(EngineError::Random { name: name.into(), problem });
            }
        };
        let is_integer = !crate::wire::is_float(elem) && integer != DataType::Bool;
        let origin = if is_integer { Origin::RandomBelow(below) } else { Origin::Random };
        let problem = "its type is not declared; give its values with --inputs".to_owned();
        Ok((tensor.ok_or_else(|| EngineError::Random { name: name.into(), problem })?, origin))
    }
}

fn fill<T: Element>(shape: Vec<usize>, mut draw: impl FnMut() -> T) -> Option<Tensor> {
    let count = shape.iter().product();
    Tensor::new(shape, (0..count).map(|_| draw()).collect())
}

/// SplitMix64, with a start of its own for every name.
struct Stream(u64);

impl Stream {
    fn of(seed: u64, name: &str) -> Self {
        // FNV-1a.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let mut stream = Stream(seed);
        let start = stream.next();
        Stream(start ^ hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = self.0;
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller's transform.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(self.unit())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// Uniform among the integers below `n`; biased by less than n / 2⁶⁴.
    fn below(&mut self, n: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(n)) >> 64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Data;

    #[test]
    fn the_inputs_of_every_reference_model_can_be_made_up() {
        for file in std::fs::read_dir("models").unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|e| e != "onnx") {
                continue;
            }
            let feeds = Fill::default().random(&Model::open(&path).unwrap()).unwrap();
            assert_eq!(feeds.feeds.len(), 2, "{}", path.display());
            assert!(feeds.any_random());
        }
    }

    #[test]
    fn indices_and_labels_stay_within_what_they_choose_from() {
        for (model, input, classes) in [
            ("mlp_relu.ts17", "y", 10),
            ("mlp_relu.dyn", "y", 10),
            ("seq_lstm_lm.dyn", "x", 200),
            ("seq_lstm_lm.ts17", "y", 200),
            ("gpt_gelu.dyn", "x", 100),
            ("gpt_gelu.ts17", "y", 100),
        ] {
            let model = Model::open(format!("models/{model}.onnx")).unwrap();
            let feeds = Fill { seed: 3, ..Fill::default() }.random(&model).unwrap();
            let feed = feeds.feeds.iter().find(|f| f.name == input).unwrap();
            assert_eq!(feed.origin, Origin::RandomBelow(classes), "{}", model.file.path.display());
            let Data::Int64(values) = feed.tensor.data() else { panic!("labels are int64") };
            assert!(values.iter().all(|v| (0..classes as i64).contains(v)));
        }
    }

    #[test]
    fn a_symbol_has_one_size_everywhere() {
        let model = Model::open("models/mlp_relu.ts17.onnx").unwrap();
        let shapes = |fill: &Fill, arrays: &Arrays| -> Vec<Vec<usize>> {
            fill.complete(&model, arrays).unwrap().feeds.iter().map(|f| f.tensor.shape().to_vec()).collect()
        };
        let none = Arrays::default();
        assert_eq!(shapes(&Fill::default(), &none), [vec![2, 64], vec![2]]);
        let five = Fill { dims: [("N".to_owned(), 5)].into(), ..Fill::default() };
        assert_eq!(shapes(&five, &none), [vec![5, 64], vec![5]]);
        let x = Tensor::new(vec![7, 64], vec![0f32; 7 * 64]).unwrap();
        let some = Arrays { named: vec![("x".into(), x)], ..Arrays::default() };
        assert_eq!(shapes(&Fill::default(), &some), [vec![7, 64], vec![7]]);
    }

    #[test]
    fn a_seed_decides_all_and_another_one_changes_all() {
        let model = Model::open("models/gpt_gelu.dyn.onnx").unwrap();
        let draw = |seed| Fill { seed, ..Fill::default() }.random(&model).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1).feeds[0].tensor, draw(2).feeds[0].tensor);
        assert_ne!(draw(1).feeds[0].tensor.data(), draw(1).feeds[1].tensor.data());
    }

    #[test]
    fn normal_numbers_are_normal() {
        let mut stream = Stream::of(0, "x");
        let draws: Vec<f64> = (0..100_000).map(|_| stream.normal()).collect();
        let moment = |k| draws.iter().map(|x| x.powi(k)).sum::<f64>() / draws.len() as f64;
        // Five standard errors of each moment of 100,000 draws: √(1, 2, 15, 96 / 10⁵).
        for (k, expected, error) in [(1, 0.0, 0.0032), (2, 1.0, 0.0045), (3, 0.0, 0.0123), (4, 3.0, 0.031)] {
            assert!((moment(k) - expected).abs() < 5.0 * error, "moment {k}: {}", moment(k));
        }
    }
}
