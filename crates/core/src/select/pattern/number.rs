//! Constants of one element, with what decides whether they fit: how exactly they are stored, and their rank.

use super::View;
use super::op::Op;
use crate::graph::ValueId;
use crate::onnx::tensor_proto::DataType;

/// A constant of one element.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// Its value.
    pub value: f64,
    /// How far it may lie from what a formula has, relatively.
    ///
    /// 1e-5 for float32 and float64: people write √2 as 1.4142, and what 1e-5 changes is below an activation's own rounding. Float16
    /// and bfloat16 keep 11 and 8 bits, and two such constants may multiply: 1e-3 and 4e-3.
    pub tolerance: f64,
    /// At most this many dimensions, all of size 1.
    pub rank: usize,
    /// Whether it is the largest finite number of its type or infinite: as an upper bound, none.
    pub unbounded: bool,
    /// Whether its type is an integer: Max(n, 0) of a shape computation is no Relu.
    pub integer: bool,
}

const HOPS: usize = 4;

impl View<'_, '_> {
    /// The constant behind a value; looks through casts and changes of shape.
    pub fn number(&self, value: ValueId) -> Option<Number> {
        let mut at = value;
        let mut added_rank = 0;
        let mut cast = false;
        for _ in 0..=HOPS {
            let (elem, rank) = if let Some(initializer) = self.graph.initializer(at) {
                if initializer.element_count() != Some(1) {
                    return None;
                }
                (initializer.data_type, initializer.dims.len())
            } else {
                let (node, op) = self.maker(at)?;
                match op {
                    Op::Constant => {
                        let attribute = self.graph.node(node).attribute.first()?;
                        if attribute.ref_attr_name.as_ref().is_some_and(|r| !r.is_empty()) {
                            return None;
                        }
                        match (attribute.name(), &attribute.t) {
                            ("value", Some(t)) if t.dims.iter().all(|d| *d == 1) => (t.data_type(), t.dims.len()),
                            ("value_float", _) => (DataType::Float as i32, 0),
                            ("value_int", _) => (DataType::Int64 as i32, 0),
                            ("value_floats", _) => (DataType::Float as i32, 1),
                            ("value_ints", _) => (DataType::Int64 as i32, 1),
                            _ => return None,
                        }
                    }
                    Op::Identity | Op::Cast | Op::Squeeze => {
                        cast |= op == Op::Cast;
                        at = self.graph.input(node, 0)?;
                        continue;
                    }
                    Op::Unsqueeze | Op::Reshape => {
                        added_rank += self.shape_arguments(node)?;
                        at = self.graph.input(node, 0)?;
                        continue;
                    }
                    _ => return None,
                }
            };
            let value = self.graph.scalar(at)?;
            let (tolerance, largest) = match DataType::try_from(elem) {
                Ok(DataType::Float16) => (1e-3, 65504.0),
                Ok(DataType::Bfloat16) => (4e-3, 3.38e38),
                _ => (1e-5, 3.4e38),
            };
            let integer = !cast && !crate::wire::is_float(elem);
            return Some(Number { value, tolerance, rank: rank + added_rank, unbounded: value >= largest, integer });
        }
        None
    }

    /// How many axes an Unsqueeze adds, or how many dimensions a Reshape gives.
    fn shape_arguments(&self, node: crate::graph::NodeId) -> Option<usize> {
        use crate::graph::Attributes;
        match self.graph.input(node, 1) {
            Some(list) => self.graph.constant(list).map(|l| l.len()),
            None => self.graph.node(node).ints("axes").map(<[i64]>::len),
        }
    }
}
