//! How much work a graph's nodes are: multiply-adds of the operators that dominate training.

use super::backward::Backward;
use super::infer::Types;
use super::types::Dim;
use super::{Attributes, Graph, NodeId, ValueId};

/// Multiply-adds of one forward pass, and whether some dimension was unknown and counted as 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Multiply-adds of convolutions, matrix products and recurrent operators.
    pub multiply_adds: f64,
    /// Whether the count is a lower bound, because a dimension (the batch's, mostly) is open.
    pub open_dimensions: bool,
}

impl Work {
    /// Of all nodes of a graph's forward pass.
    pub fn of(graph: &Graph, types: &Types, backward: &Backward) -> Self {
        let mut work = Work::default();
        for id in (0..graph.nodes.len() as u32).map(NodeId).filter(|id| !backward.has(*id)) {
            let node = Work::of_node(graph, types, id);
            work.multiply_adds += node.multiply_adds;
            work.open_dimensions |= node.open_dimensions;
        }
        work
    }

    /// Of one node; 0 for operators that are not counted.
    pub fn of_node(graph: &Graph, types: &Types, node: NodeId) -> Self {
        let mut open = false;
        let mut size = |value: Option<ValueId>| {
            let dims = value.and_then(|v| types.get(v).dims.as_ref());
            let Some(dims) = dims else {
                open = true;
                return 1.0;
            };
            open |= dims.iter().any(|d| d.known().is_none());
            dims.iter().map(|d| d.known().map_or(1.0, |n| n as f64)).product::<f64>()
        };
        let dim = |value: Option<ValueId>, from_end: usize| {
            let dims = value.and_then(|v| types.get(v).dims.as_ref());
            let at = dims.and_then(|d| d.len().checked_sub(from_end).and_then(|i| d.get(i)));
            at.and_then(Dim::known).map_or(1.0, |n| n as f64)
        };
        let input = |slot| graph.input(node, slot);
        let out = graph.output(node, 0);
        let multiply_adds = match graph.node(node).op_type() {
            // Every output element sums over (C/group)·kernel products: the weights of one output channel.
            "Conv" => {
                let out_channels = input(1).and_then(|w| types.get(w).dims.as_ref()?.first()?.known());
                size(out) * size(input(1)) / out_channels.map_or(1.0, |n| (n as f64).max(1.0))
            }
            "ConvTranspose" => {
                let in_channels = input(1).and_then(|w| types.get(w).dims.as_ref()?.first()?.known());
                size(input(0)) * size(input(1)) / in_channels.map_or(1.0, |n| (n as f64).max(1.0))
            }
            "MatMul" | "FusedMatMul" => size(out) * dim(input(0), 1),
            "Gemm" => {
                let transposed = graph.node(node).int("transA").unwrap_or(0) != 0;
                size(out) * dim(input(0), if transposed { 2 } else { 1 })
            }
            "LSTM" | "GRU" | "RNN" | "LSTMTraining" | "GRUTraining" => {
                // W [dir, gates·H, D] and R [dir, gates·H, H], once for each position of X [T, B, D].
                let positions = size(input(0)) / dim(input(0), 1).max(1.0);
                positions * (size(input(1)) + size(input(2)))
            }
            _ => return Work::default(),
        };
        Work { multiply_adds, open_dimensions: open }
    }
}
