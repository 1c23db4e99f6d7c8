//! Tiny graphs as text, for tests: `a=Erf(x); y=Elu[alpha=0.5](a)`.
//!
//! A node's name is its first output's. An argument that is a number is a scalar initializer; `3:int` is an integer, `0.5@4` has four
//! dimensions of size 1, `0.5:f16` is a float16. `_` leaves an argument out; `a|b=…` has two outputs.

use prost::Message;

use crate::graph::Graph;
use crate::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto,
    ValueInfoProto, tensor_shape_proto::Dimension, type_proto,
};
use crate::select::{Activation, Catalog};
use crate::wire::Model;

pub fn nodes(text: &str) -> (Vec<NodeProto>, Vec<TensorProto>) {
    let mut tensors: Vec<TensorProto> = Vec::new();
    let statements = text.split(';').map(str::trim).filter(|s| !s.is_empty());
    let nodes = statements.map(|s| node(s, &mut tensors)).collect();
    (nodes, tensors)
}

fn node(statement: &str, tensors: &mut Vec<TensorProto>) -> NodeProto {
    let (outputs, call) = statement.split_once('=').unwrap();
    let (head, arguments) = call.trim().strip_suffix(')').unwrap().split_once('(').unwrap();
    let (op, attributes) = head.split_once('[').map_or((head, ""), |(op, a)| (op, a.strip_suffix(']').unwrap()));
    let (domain, op) = op.rsplit_once("::").unwrap_or(("", op));
    let outputs: Vec<String> = outputs.trim().split('|').map(str::to_owned).collect();
    let outputs: Vec<String> = outputs.into_iter().map(|o| if o == "_" { String::new() } else { o }).collect();
    let mut input = Vec::new();
    for argument in arguments.split(',').map(str::trim).filter(|a| !a.is_empty()) {
        input.push(match argument {
            "_" => String::new(),
            number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                if !tensors.iter().any(|t| t.name() == number) {
                    tensors.push(constant(number));
                }
                number.to_owned()
            }
            name => name.to_owned(),
        });
    }
    let attribute = |text: &str| {
        let (name, value) = text.split_once('=').unwrap();
        let reference = value.strip_prefix('@').map(str::to_owned);
        AttributeProto {
            name: Some(name.into()),
            f: value.parse().ok(),
            ref_attr_name: reference,
            ..Default::default()
        }
    };
    NodeProto {
        name: outputs.iter().find(|o| !o.is_empty()).cloned(),
        op_type: Some(op.into()),
        domain: (!domain.is_empty()).then(|| domain.into()),
        input,
        output: outputs,
        attribute: attributes.split(' ').filter(|a| !a.is_empty()).map(attribute).collect(),
        ..Default::default()
    }
}

fn constant(text: &str) -> TensorProto {
    let (number, kind) = text.split_once(':').unwrap_or((text, ""));
    let (number, rank) = number.split_once('@').map_or((number, 0), |(n, r)| (n, r.parse().unwrap()));
    let value: f64 = number.parse().unwrap();
    let mut tensor = TensorProto { name: Some(text.into()), dims: vec![1; rank], ..Default::default() };
    match kind {
        "int" => {
            tensor.data_type = Some(7);
            tensor.raw_data = Some((value as i64).to_le_bytes().to_vec().into());
        }
        "f16" => {
            // Enough of binary16 for normal numbers: exponent and ten bits of fraction, rounded.
            let exponent = value.abs().log2().floor();
            let fraction = ((value.abs() / exponent.exp2() - 1.0) * 1024.0).round() as u16;
            let bits = (((exponent as i32 + 15) as u16) << 10) + fraction;
            tensor.data_type = Some(10);
            tensor.raw_data = Some(bits.to_le_bytes().to_vec().into());
        }
        _ => {
            tensor.data_type = Some(1);
            tensor.raw_data = Some((value as f32).to_le_bytes().to_vec().into());
        }
    }
    tensor
}

/// A function of x with one output y, in the domain `local` unless the name says otherwise.
pub fn function(name: &str, text: &str) -> FunctionProto {
    let (mut body, tensors) = nodes(text);
    for tensor in tensors {
        let output = vec![tensor.name().to_owned()];
        let attribute = AttributeProto { name: Some("value".into()), t: Some(Box::new(tensor)), ..Default::default() };
        body.insert(
            0,
            NodeProto { op_type: Some("Constant".into()), output, attribute: vec![attribute], ..Default::default() },
        );
    }
    let (domain, name) = name.rsplit_once("::").unwrap_or(("local", name));
    FunctionProto {
        name: Some(name.into()),
        domain: Some(domain.into()),
        input: vec!["x".into()],
        output: vec!["y".into()],
        node: body,
        ..Default::default()
    }
}

/// A model with inputs x (float, rank 2), u, v and w, and the output of the last node as its output.
pub fn model_with(text: &str, functions: Vec<FunctionProto>, change: impl FnOnce(&mut GraphProto)) -> Model {
    let (node, initializer) = nodes(text);
    let tensor = |rank| type_proto::Tensor {
        elem_type: Some(1),
        shape: Some(crate::onnx::TensorShapeProto { dim: vec![Dimension::default(); rank] }),
    };
    let declared = TypeProto { value: Some(type_proto::Value::TensorType(tensor(2))), ..Default::default() };
    let value =
        |name: &str, declared| ValueInfoProto { name: Some(name.into()), r#type: declared, ..Default::default() };
    let last = node.last().and_then(|n| n.output.iter().find(|o| !o.is_empty())).cloned().unwrap();
    let mut graph = GraphProto {
        node,
        initializer,
        input: vec![value("x", Some(declared)), value("u", None), value("v", None), value("w", None)],
        output: vec![value(&last, None)],
        ..Default::default()
    };
    change(&mut graph);
    let opset = OperatorSetIdProto { version: Some(20), ..Default::default() };
    let proto = ModelProto {
        ir_version: Some(10),
        opset_import: vec![opset],
        graph: Some(graph),
        functions,
        ..Default::default()
    };
    Model::from_bytes(proto.encode_to_vec()).unwrap()
}

pub fn model(text: &str) -> Model {
    model_with(text, Vec::new(), |_| {})
}

/// `y: gelu of x` for everything found, in topological order.
pub fn found_in(model: &Model) -> Vec<String> {
    let graph = Graph::of(model).unwrap();
    let catalog = Catalog::of(&graph, model);
    let line = |f: &crate::select::Found| {
        let of = f.input.map_or_else(String::new, |x| format!(" of {}", graph.name(x)));
        format!("{}: {}{of}", graph.name(f.value), f.activation)
    };
    catalog.found.iter().map(line).collect()
}

pub fn found(text: &str) -> Vec<String> {
    found_in(&model(text))
}

/// Each text holds this activation of x as y, and nothing else.
pub fn is_all(activation: Activation, texts: &[&str]) {
    for text in texts {
        assert_eq!(found(text), [format!("y: {activation} of x")], "{text}");
    }
}

/// No text holds this activation.
pub fn is_never(activation: Activation, texts: &[&str]) {
    for text in texts {
        let all = found(text);
        assert!(!all.iter().any(|f| f.contains(&format!(": {activation}"))), "{text}: {all:?}");
    }
}

/// Why the first near miss is none.
pub fn near_miss(text: &str) -> String {
    let model = model(text);
    let graph = Graph::of(&model).unwrap();
    let misses = Catalog::of(&graph, &model).near_misses;
    misses.first().map(|m| format!("{}: {}", m.activation, m.reason)).unwrap_or_default()
}
