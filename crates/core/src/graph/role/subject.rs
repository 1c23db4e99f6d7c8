//! What an initializer is at one place that reads it: the table's entry, settled by the tensor where the slot alone does not.

use std::cell::OnceCell;

use super::scalar::{feeds_sines, is_of_formula};
use super::table::{Entry, entry, is_shape_slot};
use super::{Role, values};
use crate::graph::infer::Types;
use crate::graph::reach::passes_gradient;
use crate::graph::{Graph, NodeId, Slot, Use, ValueId};
use crate::onnx::NodeProto;
use crate::onnx::tensor_proto::DataType;

/// What an initializer is at one place.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// What it is there.
    pub role: Role,
    /// The node that reads it.
    pub node: NodeId,
    /// How.
    pub slot: Slot,
    /// What decided where the slot alone does not.
    pub note: Option<&'static str>,
}

/// An initializer, with what was found out about its elements.
pub(super) struct Subject<'g> {
    graph: &'g Graph<'g>,
    types: &'g Types,
    value: ValueId,
    data_type: i32,
    is_float: bool,
    rank: usize,
    single: bool,
    /// Number of axes longer than 1.
    long_axes: usize,
    additive_mask: OnceCell<bool>,
    zero_one: OnceCell<bool>,
    sinusoidal: OnceCell<bool>,
    uniform: OnceCell<bool>,
}

impl<'g> Subject<'g> {
    pub fn of(graph: &'g Graph<'g>, types: &'g Types, value: ValueId) -> Option<Self> {
        let initializer = graph.initializer(value)?;
        Some(Subject {
            graph,
            types,
            value,
            data_type: initializer.data_type,
            is_float: initializer.is_float(),
            rank: initializer.dims.len(),
            single: initializer.element_count() == Some(1),
            long_axes: initializer.dims.iter().filter(|d| **d != 1).count(),
            additive_mask: OnceCell::new(),
            zero_one: OnceCell::new(),
            sinusoidal: OnceCell::new(),
            uniform: OnceCell::new(),
        })
    }

    fn is_mask(&self) -> bool {
        *self.additive_mask.get_or_init(|| values::is_additive_mask(self.graph, self.value))
    }

    fn is_zero_one(&self) -> bool {
        self.rank >= 2 && *self.zero_one.get_or_init(|| values::is_zero_one(self.graph, self.value))
    }

    fn is_sinusoidal(&self) -> bool {
        self.long_axes >= 2 && *self.sinusoidal.get_or_init(|| values::is_sinusoidal(self.graph, self.value))
    }

    fn is_uniform(&self) -> bool {
        *self.uniform.get_or_init(|| values::is_uniform(self.graph, self.value))
    }

    pub fn read(&self, used: Use) -> Reading {
        let (node, slot) = match used.slot {
            Slot::Input(slot) => (self.graph.node(used.node), slot),
            Slot::Captured(i) => match self.graph.reader_of_capture(i) {
                Some(inside) => inside,
                None => return self.reading(used, Role::Other, Some("the body hands it on")),
            },
        };
        let (role, note) = if self.is_float { self.read_float(node, used, slot) } else { self.read_other(node, slot) };
        self.reading(used, role, note)
    }

    fn reading(&self, used: Use, role: Role, note: Option<&'static str>) -> Reading {
        Reading { role, node: used.node, slot: used.slot, note }
    }

    fn read_other(&self, node: &NodeProto, slot: u32) -> (Role, Option<&'static str>) {
        let (domain, op) = (node.domain(), node.op_type());
        let whole = [
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::Uint8,
            DataType::Uint16,
            DataType::Uint32,
            DataType::Uint64,
            DataType::Bool,
        ];
        let role =
            match entry(domain, op, slot) {
                _ if matches!(op, "QuantizeLinear" | "DequantizeLinear") => Role::Quantization,
                Entry::Is(Role::Quantization) => Role::Quantization,
                _ if !whole.iter().any(|t| *t as i32 == self.data_type) => {
                    if self.data_type > DataType::Bfloat16 as i32 { Role::Quantization } else { Role::Other }
                }
                _ if op == "Where" && slot == 0 => Role::Mask,
                Entry::Joined => Role::Shape,
                _ if is_shape_slot(domain, op, slot) => Role::Shape,
                _ => Role::Integer,
            };
        (role, None)
    }

    fn read_float(&self, node: &NodeProto, used: Use, slot: u32) -> (Role, Option<&'static str>) {
        let (domain, op) = (node.domain(), node.op_type());
        let constant = |note| (Role::Constant, Some(note));
        let inside = matches!(used.slot, Slot::Captured(_));
        let table = "a table of sines and cosines";
        match entry(domain, op, slot) {
            Entry::Is(Role::Weight)
                if !inside && matches!(op, "MatMul" | "Einsum") && feeds_sines(self.graph, used.node) =>
            {
                constant("the frequencies of sines and cosines")
            }
            Entry::Is(role) => (role, None),
            Entry::Added | Entry::Multiplied | Entry::Divisor if self.rank == 0 => constant("a single number"),
            Entry::Divisor if self.single => constant("a single number that divides"),
            Entry::Added | Entry::Multiplied if self.single => {
                if !inside && is_of_formula(self.graph, used.node, slot, Some(self.value)) {
                    constant("a number of the formula around it")
                } else if entry(domain, op, slot) == Entry::Added {
                    (Role::Bias, None)
                } else {
                    (Role::Scale, None)
                }
            }
            Entry::Added | Entry::Divisor
                if matches!(op, "Sub" | "Div") && slot == 1 && !inside && self.meets_graph_input(used.node) =>
            {
                constant("what a graph input is normalised by")
            }
            Entry::Added | Entry::Multiplied if self.is_sinusoidal() => constant(table),
            Entry::Added if self.is_mask() => (Role::Mask, Some("its elements are 0 or −1e4 and less")),
            Entry::Added if self.long_axes >= 2 => (Role::Embedding, None),
            Entry::Added => (Role::Bias, None),
            Entry::Multiplied if self.is_zero_one() => (Role::Mask, Some("its elements are 0 or 1")),
            Entry::Multiplied if !inside && feeds_sines(self.graph, used.node) => {
                constant("the frequencies of sines and cosines")
            }
            Entry::Multiplied if self.long_axes >= 2 => (Role::Weight, None),
            Entry::Multiplied | Entry::Divisor => (Role::Scale, None),
            Entry::Joined if self.is_uniform() => (Role::Padding, Some("all its elements are the same number")),
            Entry::Joined if self.is_sinusoidal() => constant(table),
            Entry::Joined => (Role::Embedding, None),
            Entry::Chosen if self.single => constant("a single number"),
            Entry::Chosen if self.is_uniform() || self.is_mask() || self.is_zero_one() => (Role::Mask, None),
            Entry::Chosen => (Role::Embedding, None),
            Entry::LookedUp if self.rank < 2 => constant("a list of numbers"),
            Entry::LookedUp if self.is_mask() || self.is_zero_one() => (Role::Mask, None),
            Entry::LookedUp if self.is_sinusoidal() => constant(table),
            Entry::LookedUp => (Role::Embedding, None),
            Entry::Argument if self.rank == 0 => constant("a single number"),
            Entry::Argument if !passes_gradient(domain, op, slot) => constant("no gradient passes there"),
            Entry::Argument if self.is_mask() => (Role::Mask, Some("its elements are 0 or −1e4 and less")),
            Entry::Argument if matches!(domain, "" | "ai.onnx") => (Role::Weight, None),
            Entry::Argument => (Role::Weight, Some("an operator that is not known here")),
            // Inside a body nothing is looked through.
            Entry::Through => (Role::Weight, None),
        }
    }

    /// Whether the other operand is a graph input, or one that was cast or shifted by constants.
    fn meets_graph_input(&self, node: NodeId) -> bool {
        let Some(mut value) = self.graph.input(node, 0) else { return false };
        for _ in 0..3 {
            if self.graph.is_input(value) && self.graph.initializer(value).is_none() {
                return self.types.get(value).rank() != Some(0);
            }
            let Some(maker) =
                self.graph.made_by(value).filter(|n| matches!(self.graph.node(*n).op_type(), "Cast" | "Sub" | "Div"))
            else {
                return false;
            };
            let Some(next) = self.graph.input(maker, 0) else { return false };
            value = next;
        }
        false
    }
}
