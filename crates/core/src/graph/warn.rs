//! What can make a graph train wrongly without any error: merged and split parameters, a batch size baked in, frozen normalisation,
//! a loss that nothing reaches.

mod duplicates;
#[cfg(test)]
mod tests;

use std::fmt;

use super::backward::requests;
use super::infer::Types;
use super::kind::{Kind, scalar_outputs};
use super::reach::Reach;
use super::role::InitializerRole;
use super::{Attributes, Graph, NodeId};
use crate::wire::Model;

/// One thing that can make a graph train wrongly. Displayed, it is a sentence or two that name the nodes and tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// One trained initializer is the parameter of several layers.
    Shared {
        /// The initializer.
        initializer: String,
        /// The nodes that read it, as messages describe them.
        consumers: Vec<String>,
    },
    /// Trained initializers hold the same bytes.
    Equal {
        /// Their names, at least two.
        initializers: Vec<String>,
    },
    /// Two trained matrices are each other's transpose.
    Transposed {
        /// The one that stands first in the file.
        first: String,
        /// The other.
        second: String,
    },
    /// Every dimension of every data input is fixed.
    BatchBakedIn {
        /// The inputs with their shapes: `x [4, 3, 32, 32]`.
        inputs: Vec<String>,
        /// The batch size, where all inputs agree on their first dimension and one of them has no other.
        batch: Option<u64>,
    },
    /// BatchNormalization that normalises by running statistics, in a graph that has a loss.
    FrozenBatchNormalization {
        /// The nodes, as messages describe them.
        nodes: Vec<String>,
    },
    /// An output that looks like a loss does not depend on any trained initializer.
    UnreachedLoss {
        /// The output.
        loss: String,
    },
    /// The graph has a loss, but no initializer is trained.
    NothingTrained {
        /// The loss, or the first that could be it.
        loss: String,
    },
}

/// How many names a sentence lists before it only counts.
const LISTED: usize = 10;

fn list(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    f.write_str(&names[..names.len().min(LISTED)].join(", "))?;
    match names.len().checked_sub(LISTED) {
        Some(more @ 1..) => write!(f, " and {more} more"),
        _ => Ok(()),
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Shared { initializer, consumers } => {
                write!(f, "{initializer:?} is one parameter of {} nodes: ", consumers.len())?;
                list(f, consumers)?;
                f.write_str(
                    ". Training moves it for all of them at once. If they had parameters of their own in the source model (PyTorch's \
                     dynamo exporter merges initializers that are equal at export), export after a first step of training, or with \
                     the TorchScript exporter",
                )
            }
            Warning::Equal { initializers } => {
                let quoted: Vec<String> = initializers.iter().map(|n| format!("{n:?}")).collect();
                f.write_str("the trained initializers ")?;
                list(f, &quoted)?;
                f.write_str(
                    " hold the same values. If they are one tied parameter in the source model, it came apart at export, and training \
                     moves the copies away from each other",
                )
            }
            Warning::Transposed { first, second } => write!(
                f,
                "the trained initializers {first:?} and {second:?} are each other's transpose. If they are one tied parameter in the \
                 source model (an embedding that is also the output layer), it came apart at export, and training moves the copies \
                 away from each other"
            ),
            Warning::BatchBakedIn { inputs, batch } => {
                match batch {
                    Some(n) => write!(f, "batch size {n} is baked in: ")?,
                    None => f.write_str("the batch size is baked in: ")?,
                }
                f.write_str("every dimension of the inputs is fixed (")?;
                list(f, inputs)?;
                f.write_str("). Export with a dynamic batch dimension to train with another")
            }
            Warning::FrozenBatchNormalization { nodes } => {
                f.write_str("BatchNormalization is left in inference mode in ")?;
                list(f, nodes)?;
                f.write_str(
                    ": it normalises by the running statistics and never updates them. Export in training mode \
                     (torch.onnx.export(..., training=TrainingMode.TRAINING)) unless that is meant",
                )
            }
            Warning::UnreachedLoss { loss } => {
                write!(
                    f,
                    "output {loss:?} looks like a loss, but no gradient path leads from it to a trained initializer"
                )
            }
            Warning::NothingTrained { loss } => {
                write!(
                    f,
                    "the graph has a loss, {loss:?}, but none of its initializers is trained, so there is nothing to train"
                )
            }
        }
    }
}

/// Everything that can be warned of. Linear in the size of the graph; elements are read only of tensors whose type and size coincide.
pub fn warnings(
    graph: &Graph<'_>,
    model: &Model,
    types: &Types,
    roles: &[InitializerRole],
    reach: &Reach,
    kind: &Kind,
) -> Vec<Warning> {
    let mut found = shared(graph, roles, reach);
    found.extend(duplicates::find(graph, roles, reach));
    found.extend(batch_baked_in(graph, types));
    if *kind != Kind::ForwardOnly {
        found.extend(frozen_normalization(graph, model));
    }
    found.extend(loss_problems(graph, model, types, reach, kind));
    found
}

fn shared(graph: &Graph<'_>, roles: &[InitializerRole], reach: &Reach) -> Vec<Warning> {
    let trained = roles.iter().filter(|r| reach.depends_on_trainable(r.value) && r.consumers.len() > 1);
    trained
        .filter_map(|role| {
            let layers = role.consumers.iter().filter(|c| c.role.is_trainable()).map(|c| c.node);
            // The norm of a weight, as weight normalisation takes it, is no layer of its own.
            let mut layers: Vec<NodeId> = layers.filter(|n| !graph.node(*n).op_type().starts_with("Reduce")).collect();
            layers.sort_unstable();
            layers.dedup();
            (layers.len() > 1).then(|| Warning::Shared {
                initializer: graph.name(role.value).to_owned(),
                consumers: layers.into_iter().map(|n| graph.describe(n)).collect(),
            })
        })
        .collect()
}

fn batch_baked_in(graph: &Graph<'_>, types: &Types) -> Option<Warning> {
    let mut inputs = Vec::new();
    let (mut first, mut agree, mut has_vector) = (None, true, false);
    for value in graph.inputs.iter().filter(|v| graph.initializer(**v).is_none()) {
        let sizes: Vec<u64> =
            types.get(*value).dims.as_ref()?.iter().map(super::types::Dim::known).collect::<Option<_>>()?;
        let Some(size) = sizes.first() else { continue };
        agree &= *first.get_or_insert(*size) == *size;
        has_vector |= sizes.len() == 1;
        inputs.push(format!("{} {sizes:?}", graph.name(*value)));
    }
    (!inputs.is_empty()).then(|| Warning::BatchBakedIn { inputs, batch: first.filter(|_| agree && has_vector) })
}

/// Since opset 14 the mode is an attribute; from 7 on more than one output means training; before there was `is_test`.
fn frozen_normalization(graph: &Graph<'_>, model: &Model) -> Option<Warning> {
    let opset = model.opset();
    let nodes = graph.topological_order().iter().filter(|id| {
        let node = graph.node(**id);
        let frozen = || match opset {
            14.. => node.int("training_mode").unwrap_or(0) == 0,
            7..14 => graph.outputs_of(**id).iter().flatten().count() <= 1,
            _ => node.int("is_test").unwrap_or(0) != 0,
        };
        node.op_type() == "BatchNormalization" && matches!(node.domain(), "" | "ai.onnx") && frozen()
    });
    let nodes: Vec<String> = nodes.map(|id| graph.describe(*id)).collect();
    (!nodes.is_empty()).then_some(Warning::FrozenBatchNormalization { nodes })
}

fn loss_problems(graph: &Graph<'_>, model: &Model, types: &Types, reach: &Reach, kind: &Kind) -> Option<Warning> {
    match kind {
        // Gradient nodes may ask for derivatives by graph inputs.
        Kind::ForwardLoss { candidates } if !reach.trains() && requests(graph).is_empty() => {
            Some(Warning::NothingTrained { loss: graph.name(*candidates.first()?).to_owned() })
        }
        // An output of unknown shape is no loss for certain, unless it is called one.
        Kind::ForwardOnly if reach.trains() => {
            let looks_like = |v: &&super::ValueId| {
                types.get(**v).is_scalar() == Some(true) || graph.name(**v).to_ascii_lowercase().contains("loss")
            };
            let outputs = scalar_outputs(graph, types, model);
            let loss = outputs.iter().find(looks_like)?;
            Some(Warning::UnreachedLoss { loss: graph.name(*loss).to_owned() })
        }
        _ => None,
    }
}
