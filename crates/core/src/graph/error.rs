//! Why a graph was refused.

use thiserror::Error;

use super::NodeId;
use crate::onnx::NodeProto;

/// A graph that is no ONNX graph.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Two definitions of one name.
    #[error("tensor {tensor:?} is defined twice, as {first} and as {second}; ONNX wants every name defined once")]
    Duplicate {
        /// The name.
        tensor: String,
        /// Its first definition.
        first: String,
        /// Its second definition.
        second: String,
    },
    /// A node reads a name that nothing defines.
    #[error(
        "{node} reads tensor {tensor:?} as its input {slot}, but no node, input or initializer of the graph defines it"
    )]
    Undefined {
        /// The name.
        tensor: String,
        /// The node.
        node: String,
        /// The input's position.
        slot: usize,
    },
    /// A node in a body reads a name that nothing defines, inside or outside.
    #[error("the body of {node} reads tensor {tensor:?}, but neither the body nor the graph around it defines it")]
    UndefinedInBody {
        /// The name.
        tensor: String,
        /// The node that holds the body.
        node: String,
    },
    /// A graph output that nothing defines.
    #[error("graph output {tensor:?} is defined by no node, input or initializer")]
    UndefinedOutput {
        /// The name.
        tensor: String,
    },
    /// Nodes that wait for each other.
    #[error("the graph has a cycle of {length} node(s), and ONNX graphs have none: {}", nodes.join(" → "))]
    Cycle {
        /// The first few nodes of it.
        nodes: Vec<String>,
        /// How many nodes are on it.
        length: usize,
    },
}

/// How messages name a node: `"conv1" (Conv)`, or `node 12 (Conv)` when it has no name.
pub fn describe_node(nodes: &[NodeProto], node: NodeId) -> String {
    match nodes.get(node.index()) {
        Some(n) if !n.name().is_empty() => format!("{:?} ({})", n.name(), n.op_type()),
        Some(n) => format!("node {} ({})", node.0, n.op_type()),
        None => format!("node {}", node.0),
    }
}
