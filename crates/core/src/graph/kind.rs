//! What kind of training graph a model holds. Recognised by what is there, never guessed: where more than one output could be the loss
//! all of them are listed, and choosing is left to the user.

use super::backward::{computes_gradients, requests};
use super::infer::Types;
use super::reach::Reach;
use super::types::Dim;
use super::{Graph, ValueId};
use crate::onnx::{ValueInfoProto, type_proto};
use crate::wire::Model;

/// The kinds of graph that a regulariser can be put into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The loss is an output; gradients are taken downstream.
    ForwardLoss {
        /// The outputs that can be the loss, in output order, or what Gradient nodes differentiate; at least one.
        candidates: Vec<ValueId>,
    },
    /// No output can be a loss.
    ForwardOnly,
    /// Gradients are computed in the graph, as in ONNX Runtime's `training_model.onnx`.
    ForwardBackward {
        /// What gave it away, as a clause: `"fc.weight_grad.accumulation.out" is an output`.
        evidence: String,
    },
    /// The model has `training_info`: the algorithm graph there holds the loss and a Gradient node.
    TrainingInfo {
        /// How many entries it has.
        entries: usize,
    },
}

impl Kind {
    /// As reports name it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::ForwardLoss { .. } => "forward + loss",
            Kind::ForwardOnly => "forward only",
            Kind::ForwardBackward { .. } => "forward + backward",
            Kind::TrainingInfo { .. } => "training_info",
        }
    }
}

/// Recognises the kind of the main graph of a model.
///
/// A loss is a float graph output of one element: rank 0, or every dimension 1. An output of unknown shape counts when it is named like
/// a loss, or when no other output qualifies. Where anything is trained, a loss must depend on it. Where Gradient nodes say what they
/// differentiate, that is the loss.
pub fn kind(graph: &Graph<'_>, types: &Types, model: &Model, reach: &Reach) -> Kind {
    if let Some(evidence) = backward_evidence(graph) {
        return Kind::ForwardBackward { evidence };
    }
    if !model.training_info.is_empty() {
        return Kind::TrainingInfo { entries: model.training_info.len() };
    }
    let requests = requests(graph);
    let mut candidates = if requests.is_empty() {
        scalar_outputs(graph, types, model)
    } else {
        let mut asked: Vec<ValueId> = requests.iter().filter_map(|r| graph.find(r.of)).collect();
        asked.sort_unstable();
        asked.dedup();
        asked
    };
    if requests.is_empty() && reach.trains() {
        candidates.retain(|v| reach.depends_on_trainable(*v));
    }
    if candidates.is_empty() { Kind::ForwardOnly } else { Kind::ForwardLoss { candidates } }
}

/// Float outputs that hold one element, as far as is known, whether or not they depend on anything trained.
/// Sequences, maps and optionals are none.
pub fn scalar_outputs(graph: &Graph<'_>, types: &Types, model: &Model) -> Vec<ValueId> {
    let is_tensor = |declared: &ValueInfoProto| match declared.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(kind) => matches!(kind, type_proto::Value::TensorType(_)),
        None => true,
    };
    // The graph lists its outputs in the order of their declarations.
    let declared = graph.outputs.iter().zip(&model.graph.outputs);
    let tensors: Vec<ValueId> = declared.filter(|(_, d)| is_tensor(d)).map(|(v, _)| *v).collect();
    let floats = || tensors.iter().copied().filter(|v| types.get(*v).is_float() != Some(false));
    let fits = |v: &ValueId| match single_element(types, *v) {
        Some(single) => single,
        None => graph.name(*v).to_ascii_lowercase().contains("loss"),
    };
    let found: Vec<ValueId> = floats().filter(fits).collect();
    if !found.is_empty() {
        return found;
    }
    floats().filter(|v| single_element(types, *v).is_none()).collect()
}

/// Whether a value holds one element; `None` when it might. A symbolic dimension is one that varies, so it does not.
pub fn single_element(types: &Types, value: ValueId) -> Option<bool> {
    let known = types.get(value);
    let varies = known.dims.iter().flatten().any(|d| matches!(d, Dim::Symbol(_)));
    if varies { Some(false) } else { known.is_scalar() }
}

/// What shows that a graph computes gradients: the inputs, outputs and operators of ONNX Runtime's gradient builder.
pub fn backward_evidence(graph: &Graph<'_>) -> Option<String> {
    let named = |values: &[ValueId], suffix: &str| values.iter().map(|v| graph.name(*v)).find(|n| n.ends_with(suffix));
    if let Some(output) = named(&graph.outputs, "_grad.accumulation.out") {
        return Some(format!("{output:?} is an output"));
    }
    if let Some(input) =
        named(&graph.inputs, "_grad.accumulation.buffer").or_else(|| named(&graph.inputs, "lazy_reset_grad"))
    {
        return Some(format!("{input:?} is an input"));
    }
    let nodes = graph.nodes.iter().enumerate();
    let (i, _) = nodes.into_iter().find(|(_, n)| computes_gradients(n.domain(), n.op_type()))?;
    let id = super::NodeId(u32::try_from(i).ok()?);
    Some(format!("{} computes gradients", graph.describe(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::role::{apply_overrides, roles};
    use crate::graph::testing::{Net, open_model};
    use prost::Message;

    /// The kind, with candidates by name.
    fn kind_of(model: &Model) -> (Kind, Vec<String>) {
        let graph = Graph::of(model).unwrap();
        let types = Types::of(&graph, model);
        let reach = Reach::of(&graph, &types, &apply_overrides(&roles(&graph, &types), None, None));
        let kind = kind(&graph, &types, model, &reach);
        let names = match &kind {
            Kind::ForwardLoss { candidates } => candidates.iter().map(|v| graph.name(*v).to_owned()).collect(),
            _ => Vec::new(),
        };
        (kind, names)
    }

    fn net() -> Net {
        let net = Net::new().input("x", 1, "N 4").weight("w", &[4, 4]).node("MatMul", &["x", "w"], &["logits"], vec![]);
        net.node("ReduceMean", &["logits"], &["m"], vec![Net::int("keepdims", 0)])
    }

    #[test]
    fn every_reference_model_has_one_loss() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "onnx") {
                let name = path.file_stem().unwrap().to_str().unwrap();
                assert_eq!(kind_of(&open_model(name)).1, ["loss"], "{name}");
            }
        }
    }

    #[test]
    fn every_output_that_could_be_the_loss_is_listed() {
        let two = net()
            .node("Exp", &["m"], &["e"], vec![])
            .output("logits", 1, None)
            .output("m", 1, None)
            .output("e", 1, None);
        assert_eq!(kind_of(&two.build()).1, ["m", "e"]);
        let mystery =
            net().node("Mystery", &["logits"], &["my_loss"], vec![]).output("my_loss", 1, None).output("m", 1, None);
        assert_eq!(kind_of(&mystery.build()).1, ["my_loss", "m"]);
        let alone = net().node("Mystery", &["logits"], &["y"], vec![]).output("logits", 1, None).output("y", 1, None);
        assert_eq!(kind_of(&alone.build()).1, ["y"]);
    }

    #[test]
    fn an_output_for_every_sample_or_of_no_parameter_is_no_loss() {
        let column = Net::new().input("x", 1, "N 4").weight("w", &[4, 1]).node("MatMul", &["x", "w"], &["y"], vec![]);
        assert_eq!(kind_of(&column.output("y", 1, None).build()).0, Kind::ForwardOnly);
        let of_input =
            net().node("ReduceMean", &["x"], &["loss"], vec![Net::int("keepdims", 0)]).output("loss", 1, Some(""));
        assert_eq!(kind_of(&of_input.build()).0, Kind::ForwardOnly);
        let integer = net().node("Shape", &["m"], &["loss"], vec![]).output("loss", 7, Some("1"));
        assert_eq!(kind_of(&integer.build()).0, Kind::ForwardOnly);
    }

    #[test]
    fn a_sequence_is_no_loss() {
        let net = net().node("SequenceConstruct", &["m"], &["loss"], vec![]).output("loss", 1, None);
        let mut model = net.build();
        let sequence = type_proto::Value::SequenceType(Box::default());
        model.graph.outputs[0].r#type = Some(crate::onnx::TypeProto { value: Some(sequence), denotation: None });
        assert_eq!(kind_of(&model).0, Kind::ForwardOnly);
    }

    #[test]
    fn gradients_in_the_graph_are_recognised_by_names_and_operators() {
        let evidence = |net: Net| match kind_of(&net.build()).0 {
            Kind::ForwardBackward { evidence } => evidence,
            other => panic!("{other:?}"),
        };
        let output =
            net().node("Relu", &["m"], &["w_grad.accumulation.out"], vec![]).output("w_grad.accumulation.out", 9, None);
        assert_eq!(evidence(output), "\"w_grad.accumulation.out\" is an output");
        assert_eq!(evidence(net().input("lazy_reset_grad", 9, "1")), "\"lazy_reset_grad\" is an input");
        let node = net().node_of("com.microsoft", "ReluGrad", &["x", "logits"], &["g"], vec![]);
        assert_eq!(evidence(node), "node 2 (ReluGrad) computes gradients");
    }

    #[test]
    fn training_info_is_its_own_kind() {
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mlp_relu.ts13.onnx")).unwrap();
        let mut proto = crate::onnx::ModelProto::decode(bytes.as_slice()).unwrap();
        proto.training_info.push(crate::onnx::TrainingInfoProto::default());
        proto.training_info.push(crate::onnx::TrainingInfoProto::default());
        let model = Model::from_bytes(proto.encode_to_vec()).unwrap();
        assert_eq!(kind_of(&model).0, Kind::TrainingInfo { entries: 2 });
    }
}
