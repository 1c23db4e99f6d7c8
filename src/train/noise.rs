//! Random numbers of a training step, fed to it and not drawn in it.
//!
//! A session of ONNX Runtime starts its random stream anew, so a run that goes on from a checkpoint would draw other numbers than the one
//! that it continues. Therefore nodes that draw become inputs here, and their numbers come from a generator that is counter-based: which
//! numbers a node gets depends on the seed, the step and the node alone. The generator is ChaCha with 8 rounds under a key made of the
//! seed; its stream number is the step and the node. Normal numbers are drawn by the ziggurat method, which is exact up to the rounding to
//! float32; a coin of Dropout falls with the given probability up to 2⁻³². So what is drawn stays unbiased: every estimator and every mask
//! has the distribution that the operator defines.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::edit::changed;
use super::error::TrainResult;
use crate::engine::Tensor as Array;
use crate::graph::infer::Types;
use crate::graph::types::{Dim, TensorType, elem_name};
use crate::graph::{Attributes, Graph, NodeId, bodies};
use crate::naming;
use crate::onnx::NodeProto;
use crate::onnx::tensor_proto::DataType;
use crate::patch::{Change, Part, Replacement, Substitute};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::wire::Model;

/// How many nodes of one graph can draw: the rest of the generator's stream number counts steps.
const MOST_NODES: u64 = 1 << 16;

/// What a fed input holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Standard normal numbers.
    Normal,
    /// Uniform in [0, 1).
    Uniform,
    /// 1/(1 − p) with probability 1 − p, else 0: Dropout's mask with its scale.
    Keep {
        /// p.
        ratio: f32,
    },
}

/// An input that is fed with random numbers, float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// The input.
    pub input: String,
    /// What it holds.
    pub kind: Kind,
    /// Its shape, as far as it is known.
    dims: Option<Vec<Dim>>,
    /// A value of the model as it was whose shape it has; `None` where `dims` are all numbers.
    like: Option<String>,
}

/// A model that draws nothing itself.
#[derive(Debug)]
pub struct Fed {
    /// The model.
    pub model: Model,
    /// What it is fed instead.
    pub draws: Vec<Draw>,
    /// Nodes that draw all the same, described, each with the reason.
    pub left: Vec<String>,
}

/// Makes inputs of what a model draws.
pub fn feed(model: &Model) -> TrainResult<Fed> {
    let graph = Graph::of(model)?;
    let types = Types::of(&graph, model);
    let (root, _) = naming::free_root(model, &graph);
    let mut change = Change { reason: "random numbers come from outside".into(), ..Change::default() };
    let (mut draws, mut left, mut value_info) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..graph.nodes.len() {
        let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
        if bodies(graph.node(id)).any(|(body, _)| body.node.iter().any(draws_anywhere)) {
            left.push(format!("{}: what it draws, it draws in a body", graph.describe(id)));
        }
        let site = Site { graph: &graph, types: &types, opset: model.opset(), id, root: &root };
        match site.replace() {
            None => {}
            Some(Err(reason)) => left.push(format!("{}: {reason}", graph.describe(id))),
            Some(Ok((draw, emission))) => {
                let declared = TensorType { elem: DataType::Float as i32, dims: draw.dims.clone() };
                change.inputs.extend(declared.declare(&draw.input));
                draws.push(draw);
                let nodes: Vec<NodeProto> = emission.nodes;
                let with = Substitute::Nodes(nodes.into());
                change.replacements.push(Replacement { part: Part::Node(i), with });
                let is_new = |name: &String| !change.initializers.iter().any(|t| t.name() == name);
                let fresh: Vec<_> = emission.constants.into_iter().filter(|(name, _)| is_new(name)).collect();
                change.initializers.extend(fresh.into_iter().map(|(_, tensor)| tensor));
                value_info.extend(emission.value_info);
            }
        }
    }
    change.value_info = value_info.into();
    Ok(Fed { model: changed(model, change)?, draws, left })
}

/// Whether a node of a body, or one further inside, draws.
fn draws_anywhere(node: &NodeProto) -> bool {
    is_random(node) || bodies(node).any(|(body, _)| body.node.iter().any(draws_anywhere))
}

fn is_random(node: &NodeProto) -> bool {
    let is_standard = matches!(node.domain(), "" | "ai.onnx");
    is_standard
        && match node.op_type() {
            "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Bernoulli"
            | "Multinomial" => true,
            "Dropout" => node.input.get(2).is_some_and(|t| !t.is_empty()),
            _ => false,
        }
}

/// A node that draws.
struct Site<'a> {
    graph: &'a Graph<'a>,
    types: &'a Types,
    opset: i64,
    id: NodeId,
    root: &'a str,
}

type Replaced = (Draw, crate::regularizer::emit::Emission);

impl Site<'_> {
    /// What stands in its place; `None` for a node that draws nothing.
    fn replace(&self) -> Option<Result<Replaced, String>> {
        let node = self.graph.node(self.id);
        if !is_random(node) {
            return None;
        }
        let is_off = |value| self.graph.scalar(value) == Some(0.0);
        if node.op_type() == "Dropout" && self.graph.input(self.id, 2).is_none_or(is_off) {
            return None;
        }
        Some(self.write(node))
    }

    fn write(&self, node: &NodeProto) -> Result<Replaced, String> {
        let label = format!("noise/{}", self.id.index());
        // Not under the root: what stands there was made here.
        let mut input = label.clone();
        while self.graph.find(&input).is_some() {
            input.push('_');
        }
        let mut b = Builder::new(self.opset, self.root, &label, Vec::new());
        let number = |name: &str, default: f32| f64::from(node.float(name).unwrap_or(default));
        let out = self.output_type(0);
        let fed = |dims: &Option<Vec<Dim>>| Tensor {
            name: input.clone(),
            ty: TensorType { elem: DataType::Float as i32, dims: dims.clone() },
        };
        let like = || self.graph.input(self.id, 0).map(|v| self.graph.name(v).to_owned());
        let (kind, like, made): (Kind, Option<String>, Vec<Made>) = match node.op_type() {
            op @ ("RandomNormal" | "RandomNormalLike") => {
                let scaled = b.times(&fed(&out.dims), number("scale", 1.0));
                let moved = b.plus(&scaled, number("mean", 0.0));
                let made = self.typed(&mut b, &moved, &out)?;
                (Kind::Normal, like().filter(|_| op.ends_with("Like")), vec![made.into()])
            }
            op @ ("RandomUniform" | "RandomUniformLike") => {
                let (low, high) = (number("low", 0.0), number("high", 1.0));
                let scaled = b.times(&fed(&out.dims), high - low);
                let moved = b.plus(&scaled, low);
                let made = self.typed(&mut b, &moved, &out)?;
                (Kind::Uniform, like().filter(|_| op.ends_with("Like")), vec![made.into()])
            }
            "Bernoulli" => {
                let p = self.input(0).ok_or("it has no input")?;
                let p = b.cast(&p, DataType::Float as i32);
                let falls = b.compare("Less", &fed(&p.ty.dims), &p);
                let made = self.typed(&mut b, &falls, &out)?;
                (Kind::Uniform, like(), vec![made.into()])
            }
            "Dropout" => {
                let x = self.input(0).ok_or("it has no input")?;
                let is_on = self.graph.input(self.id, 2).and_then(|v| self.graph.scalar(v)) == Some(1.0);
                if !is_on {
                    return Err("whether it is in training mode shows only when it runs".into());
                }
                let ratio = match self.graph.input(self.id, 1) {
                    None => Some(0.5),
                    Some(ratio) => self.graph.scalar(ratio),
                };
                let ratio = ratio.filter(|r| (0.0..=1.0).contains(r)).ok_or("its ratio is no constant in [0, 1]")?;
                if x.ty.elem == 0 {
                    return Err("the type of its input is not known".into());
                }
                let mask = fed(&x.ty.dims);
                let scaled = b.cast(&mask, x.ty.elem);
                let kept = b.binary("Mul", &x, &scaled);
                let mut made = vec![Made::from(Tensor { ty: out.clone(), ..kept })];
                if self.graph.output(self.id, 1).is_some() {
                    let zero = b.number(0.0, &mask);
                    made.push(b.compare("Greater", &mask, &zero).into());
                }
                (Kind::Keep { ratio: ratio as f32 }, like(), made)
            }
            op => return Err(format!("numbers of {op} are not made outside")),
        };
        let dims = match (node.op_type(), node.ints("shape")) {
            ("RandomNormal" | "RandomUniform", Some(shape)) => {
                Some(shape.iter().map(|n| u64::try_from(*n).map_or(Dim::Unknown, Dim::Known)).collect())
            }
            ("Dropout" | "Bernoulli", _) => self.input(0).and_then(|x| x.ty.dims),
            _ => out.dims,
        };
        let is_known = dims.as_ref().is_some_and(|d: &Vec<Dim>| d.iter().all(|d| d.known().is_some()));
        if !is_known && like.is_none() {
            return Err("its shape is not known".into());
        }
        let emission = b.finish(&node.output, &made);
        Ok((Draw { input, kind, dims, like: like.filter(|_| !is_known) }, emission))
    }

    /// As the node's output type has it.
    fn typed(&self, b: &mut Builder, x: &Tensor, out: &TensorType) -> Result<Tensor, String> {
        if out.elem == 0 {
            return Err(format!("its type is not known, beside {}", elem_name(x.ty.elem)));
        }
        Ok(b.cast(x, out.elem))
    }

    fn output_type(&self, slot: usize) -> TensorType {
        self.graph.output(self.id, slot).map(|v| self.types.get(v).clone()).unwrap_or_default()
    }

    fn input(&self, slot: usize) -> Option<Tensor> {
        let value = self.graph.input(self.id, slot)?;
        Some(Tensor { name: self.graph.name(value).to_owned(), ty: self.types.get(value).clone() })
    }
}

impl Draw {
    /// The value whose shape has to be asked of a run of the model as it was.
    pub fn asks_for(&self) -> Option<&str> {
        self.like.as_deref()
    }

    /// Its shape, where the sizes of symbols say it.
    pub fn shape(&self, symbols: &HashMap<String, usize>) -> Option<Vec<usize>> {
        let size = |dim: &Dim| match dim {
            Dim::Known(n) => usize::try_from(*n).ok(),
            Dim::Symbol(symbol) => symbols.get(&**symbol).copied(),
            Dim::Unknown => None,
        };
        self.dims.as_ref()?.iter().map(size).collect()
    }

    /// The numbers that this input, the one at `position`, gets in a step.
    pub fn numbers(&self, seed: u64, step: u64, position: usize, shape: Vec<usize>) -> Option<Array> {
        let count: usize = shape.iter().product();
        let mut stream = stream(seed, step, position);
        let values: Vec<f32> = match self.kind {
            Kind::Normal => (0..count).map(|_| StandardNormal.sample(&mut stream)).collect(),
            // 24 bits are what a float32 in [0, 1) holds.
            Kind::Uniform => (0..count).map(|_| (stream.next_u32() >> 8) as f32 / (1u32 << 24) as f32).collect(),
            Kind::Keep { ratio } => {
                let scale = if ratio < 1.0 { 1.0 / (1.0 - ratio) } else { 0.0 };
                let threshold = (f64::from(ratio) * (1u64 << 32) as f64) as u64;
                (0..count).map(|_| if u64::from(stream.next_u32()) < threshold { 0.0 } else { scale }).collect()
            }
        };
        Array::new(shape, values)
    }
}

/// The generator of one node in one step.
fn stream(seed: u64, step: u64, position: usize) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(step.wrapping_mul(MOST_NODES).wrapping_add(position as u64 % MOST_NODES));
    generator
}

/// The numbers of all draws in a step, side by side: of those whose shape is given.
pub fn numbers(draws: &[Draw], seed: u64, step: u64, shapes: &[Option<Vec<usize>>]) -> Vec<Option<Array>> {
    let draw = |(i, (draw, shape)): (usize, (&Draw, &Option<Vec<usize>>))| draw.numbers(seed, step, i, shape.clone()?);
    draws.par_iter().zip(shapes).enumerate().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Data;

    fn draw(kind: Kind) -> Draw {
        Draw { input: "n".into(), kind, dims: None, like: None }
    }

    fn values(kind: Kind, seed: u64, step: u64, position: usize) -> Vec<f32> {
        let tensor = draw(kind).numbers(seed, step, position, vec![100, 1000]).unwrap();
        let Data::Float(values) = tensor.into_data() else { panic!("float32") };
        values
    }

    #[test]
    fn numbers_depend_on_seed_step_and_node_alone() {
        let first = values(Kind::Normal, 1, 2, 3);
        assert_eq!(first, values(Kind::Normal, 1, 2, 3));
        for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)] {
            let other = values(Kind::Normal, other.0, other.1, other.2);
            let equal = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(equal < 10, "{equal} of 100,000 numbers are equal");
        }
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        // Five standard errors of each moment of 100,000 draws.
        let moment =
            |values: &[f32], k: i32| values.iter().map(|x| f64::from(*x).powi(k)).sum::<f64>() / values.len() as f64;
        let normal = values(Kind::Normal, 7, 0, 0);
        for (k, expected, error) in [(1, 0.0, 0.0032), (2, 1.0, 0.0045), (3, 0.0, 0.0123), (4, 3.0, 0.031)] {
            assert!((moment(&normal, k) - expected).abs() < 5.0 * error, "moment {k}: {}", moment(&normal, k));
        }
        let uniform = values(Kind::Uniform, 7, 0, 0);
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)));
        assert!((moment(&uniform, 1) - 0.5).abs() < 5.0 * 0.00092, "{}", moment(&uniform, 1));
        let kept = values(Kind::Keep { ratio: 0.25 }, 7, 0, 0);
        assert!(kept.iter().all(|x| *x == 0.0 || *x == 1.0 / 0.75));
        assert!((moment(&kept, 1) - 1.0).abs() < 5.0 * 0.0019, "{}", moment(&kept, 1));
        assert!(values(Kind::Keep { ratio: 1.0 }, 7, 0, 0).iter().all(|x| *x == 0.0));
        assert!(values(Kind::Keep { ratio: 0.0 }, 7, 0, 0).iter().all(|x| *x == 1.0));
    }
}
