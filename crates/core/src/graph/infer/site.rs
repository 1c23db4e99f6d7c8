//! What a rule sees of its node: attributes, types of the inputs, and the whole numbers among them.

use std::rc::Rc;

use super::int::Int;
use super::integers::{LIMIT, integers_of};
use crate::graph::types::{Dim, TensorType};
use crate::graph::{Attributes, Graph, NodeId, ValueId};
use crate::onnx::{AttributeProto, NodeProto};
use crate::wire::Model;

/// Shapes of higher rank are taken for unknown: no model needs them, and they would make inference quadratic.
pub const MAX_RANK: usize = 12;

/// What the pass knows so far, by value.
pub(super) struct Known<'g, 'm> {
    pub graph: &'g Graph<'m>,
    pub types: Vec<TensorType>,
    /// Elements of small integer tensors, where something is known of them.
    pub integers: Vec<Option<Rc<[Int]>>>,
    /// The model that the graph belongs to.
    pub model: &'g Model,
    /// Version of the default operator set.
    pub opset: i64,
    /// How deep into bodies to look.
    pub depth: usize,
}

/// A node under inference.
pub(super) struct Site<'a, 'm> {
    pub known: &'a Known<'a, 'm>,
    pub id: NodeId,
    pub node: &'m NodeProto,
}

/// Axes, by attribute or by input.
pub(super) enum Axes {
    /// The node has none.
    Missing,
    /// It has, but their values are not known.
    Unknown,
    Known(Vec<i64>),
}

impl<'a, 'm> Site<'a, 'm> {
    pub fn value(&self, slot: usize) -> Option<ValueId> {
        self.known.graph.input(self.id, slot)
    }

    pub fn input_count(&self) -> usize {
        self.known.graph.inputs_of(self.id).len()
    }

    pub fn output_count(&self) -> usize {
        self.known.graph.outputs_of(self.id).len()
    }

    pub fn opset(&self) -> i64 {
        self.known.opset
    }

    /// Element type of an input; 0 when it is unknown or left out.
    pub fn elem(&self, slot: usize) -> i32 {
        self.value(slot).map_or(0, |v| self.known.types[v.index()].elem)
    }

    /// Dimensions of an input.
    pub fn dims(&self, slot: usize) -> Option<&'a [Dim]> {
        let dims = self.known.types[self.value(slot)?.index()].dims.as_deref()?;
        (dims.len() <= MAX_RANK).then_some(dims)
    }

    pub fn attribute(&self, name: &str) -> Option<&'m AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.node.int(name).unwrap_or(default)
    }

    pub fn string(&self, name: &str) -> Option<&'m str> {
        self.attribute(name).and_then(|a| std::str::from_utf8(a.s()).ok())
    }

    /// An attribute that holds an element type.
    pub fn elem_attribute(&self, name: &str) -> Option<i32> {
        self.node.int(name).and_then(|n| i32::try_from(n).ok())
    }

    /// What is known of the elements of a small integer input.
    pub fn integers(&self, slot: usize) -> Option<Rc<[Int]>> {
        integers_of(self.known, self.value(slot)?)
    }

    /// The elements of a small integer input, all known.
    pub fn numbers(&self, slot: usize) -> Option<Vec<i64>> {
        self.integers(slot)?.iter().map(Int::known).collect()
    }

    /// An input that holds one known whole number.
    pub fn number(&self, slot: usize) -> Option<i64> {
        match *self.integers(slot)? {
            [Int::Known(n)] => Some(n),
            _ => None,
        }
    }

    /// Axes from an input where the node has that, else from the attribute `axes`.
    pub fn axes(&self, slot: usize) -> Axes {
        if self.value(slot).is_some() {
            return self.numbers(slot).map_or(Axes::Unknown, Axes::Known);
        }
        match self.node.ints("axes") {
            Some(axes) if axes.len() <= LIMIT => Axes::Known(axes.to_vec()),
            Some(_) => Axes::Unknown,
            None => Axes::Missing,
        }
    }

    /// Positions of axes in a shape of this rank, as flags; `None` when one is out of range.
    pub fn flags(axes: &[i64], rank: usize) -> Option<Vec<bool>> {
        let mut flags = vec![false; rank];
        for axis in axes {
            flags[super::dims::position(*axis, rank)?] = true;
        }
        Some(flags)
    }
}
