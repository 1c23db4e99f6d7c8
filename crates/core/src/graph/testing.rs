//! Small graphs for tests, and the reference models.

use prost::Message;

use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    attribute_proto, tensor_shape_proto, type_proto,
};
use crate::wire::Model;

/// A graph under construction.
#[derive(Clone, Default)]
pub struct Net {
    graph: GraphProto,
    opset: Option<i64>,
    ir_version: Option<i64>,
}

/// Opens a model of `models/` by its name without the extension.
pub fn open_model(name: &str) -> Model {
    Model::open(format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/{}.onnx"), name)).unwrap()
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let kind = attribute_proto::AttributeType::Ints as i32;
    AttributeProto { name: Some(name.into()), r#type: Some(kind), ints: values.to_vec(), ..Default::default() }
}

pub fn strings(name: &str, value: &str) -> AttributeProto {
    let kind = attribute_proto::AttributeType::String as i32;
    let s = Some(value.as_bytes().to_vec().into());
    AttributeProto { name: Some(name.into()), r#type: Some(kind), s, ..Default::default() }
}

fn value(name: &str, elem: i32, shape: Option<&str>) -> ValueInfoProto {
    let dimension = |word: &str| tensor_shape_proto::Dimension {
        value: match word.parse::<i64>() {
            Ok(n) => Some(tensor_shape_proto::dimension::Value::DimValue(n)),
            Err(_) if word == "?" => None,
            Err(_) => Some(tensor_shape_proto::dimension::Value::DimParam(word.into())),
        },
        denotation: None,
    };
    let dims = |s: &str| crate::onnx::TensorShapeProto { dim: s.split_whitespace().map(dimension).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(elem), shape: shape.map(dims) };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

impl Net {
    pub fn new() -> Self {
        Net::default()
    }

    pub fn int(name: &str, i: i64) -> AttributeProto {
        let kind = attribute_proto::AttributeType::Int as i32;
        AttributeProto { name: Some(name.into()), r#type: Some(kind), i: Some(i), ..Default::default() }
    }

    pub fn opset(mut self, version: i64) -> Self {
        self.opset = Some(version);
        self
    }

    pub fn ir_version(mut self, version: i64) -> Self {
        self.ir_version = Some(version);
        self
    }

    /// A graph input; the shape is words, `N 3 ?`.
    pub fn input(mut self, name: &str, elem: i32, shape: &str) -> Self {
        self.graph.input.push(value(name, elem, Some(shape)));
        self
    }

    pub fn output(mut self, name: &str, elem: i32, shape: Option<&str>) -> Self {
        self.graph.output.push(value(name, elem, shape));
        self
    }

    pub fn declare(mut self, name: &str, elem: i32, shape: &str) -> Self {
        self.graph.value_info.push(value(name, elem, Some(shape)));
        self
    }

    /// A float initializer with elements that are all different.
    pub fn weight(self, name: &str, dims: &[i64]) -> Self {
        let count = usize::try_from(dims.iter().product::<i64>()).unwrap();
        let values: Vec<f32> = (0..count).map(|i| 0.3 + (i as f32 * 0.37 + name.len() as f32).sin()).collect();
        self.floats(name, dims, &values)
    }

    pub fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.graph.initializer.push(TensorProto {
            name: Some(name.into()),
            dims: dims.to_vec(),
            data_type: Some(1),
            raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()),
            ..Default::default()
        });
        self
    }

    /// An int64 vector.
    pub fn numbers(mut self, name: &str, values: &[i64]) -> Self {
        let dims = vec![i64::try_from(values.len()).unwrap()];
        let int64_data = values.to_vec();
        self.graph.initializer.push(TensorProto {
            name: Some(name.into()),
            dims,
            data_type: Some(7),
            int64_data,
            ..Default::default()
        });
        self
    }

    pub fn scalar_int(mut self, name: &str, value: i64) -> Self {
        let int64_data = vec![value];
        self.graph.initializer.push(TensorProto {
            name: Some(name.into()),
            data_type: Some(7),
            int64_data,
            ..Default::default()
        });
        self
    }

    pub fn node(self, op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> Self {
        self.node_of("", op, inputs, outputs, attributes)
    }

    pub fn node_of(
        mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Self {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        self.graph.node.push(NodeProto {
            op_type: Some(op.into()),
            domain: (!domain.is_empty()).then(|| domain.into()),
            input: owned(inputs),
            output: owned(outputs),
            attribute: attributes,
            ..Default::default()
        });
        self
    }

    pub fn build(self) -> Model {
        let proto = ModelProto {
            ir_version: Some(self.ir_version.unwrap_or(8)),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(self.opset.unwrap_or(17)) }],
            graph: Some(self.graph),
            ..Default::default()
        };
        Model::from_bytes(proto.encode_to_vec()).unwrap()
    }
}
