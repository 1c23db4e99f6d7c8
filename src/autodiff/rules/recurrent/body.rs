//! Bodies of Scan nodes.

use crate::onnx::{AttributeProto, GraphProto, NodeProto, TypeProto, ValueInfoProto, attribute_proto, type_proto};
use crate::regularizer::emit::{int, ints};

/// The body of a Scan.
pub struct Body {
    prefix: String,
    elem: i32,
    graph: GraphProto,
}

impl Body {
    /// An empty body; `prefix` and `name` start every name in it.
    pub fn new(prefix: &str, name: &str, elem: i32) -> Self {
        let prefix = format!("{prefix}{name}/");
        Body { graph: GraphProto { name: Some(name.into()), ..GraphProto::default() }, prefix, elem }
    }

    fn declared(&self, name: &str) -> ValueInfoProto {
        let tensor = type_proto::Tensor { elem_type: Some(self.elem), ..Default::default() };
        let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: Some(name.to_owned()), r#type: Some(ty), ..ValueInfoProto::default() }
    }

    /// Its next input: states first, then what is scanned.
    pub fn input(&mut self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.graph.input.push(self.declared(&name));
        name
    }

    /// A node without attributes.
    pub fn node(&mut self, op: &str, inputs: &[&String]) -> String {
        self.with(op, inputs, Vec::new())
    }

    /// A node.
    pub fn with(&mut self, op: &str, inputs: &[&String], attribute: Vec<AttributeProto>) -> String {
        let name = format!("{}{}_{}", self.prefix, op.to_ascii_lowercase(), self.graph.node.len());
        self.graph.node.push(NodeProto {
            name: Some(name.clone()),
            op_type: Some(op.into()),
            input: inputs.iter().map(|i| (*i).clone()).collect(),
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// The attributes of a Scan over `scanned` inputs, whose states and results are `outputs`.
    pub fn scan(mut self, outputs: &[&String], scanned: usize, is_backwards: bool) -> Vec<AttributeProto> {
        // States come first on both sides.
        let results = outputs.len() + scanned - self.graph.input.len();
        self.graph.output = outputs.iter().map(|o| self.declared(o)).collect();
        let mut attributes = vec![
            AttributeProto {
                name: Some("body".into()),
                r#type: Some(attribute_proto::AttributeType::Graph as i32),
                g: Some(Box::new(self.graph)),
                ..AttributeProto::default()
            },
            int("num_scan_inputs", scanned as i64),
        ];
        if is_backwards {
            attributes.push(ints("scan_input_directions", &vec![1; scanned]));
            attributes.push(ints("scan_output_directions", &vec![1; results]));
        }
        attributes
    }
}
