//! Small constants: what patterns and shape inference may rely on.

use super::{Graph, ValueId};
use crate::onnx::{AttributeProto, NodeProto, TensorProto};
use crate::wire::decode_elements;

/// Constants of more elements than this are not looked at.
const LIMIT: usize = 64;

/// How many Identity, Cast or Unsqueeze nodes may stand between a constant and its reader.
const HOPS: usize = 4;

impl Graph<'_> {
    /// The elements of a value that is constant and small (at most 64), as f64; looks through Constant nodes and Identity, Cast,
    /// Unsqueeze, Squeeze and Reshape of a constant. An initializer that callers may override is no constant.
    pub fn constant(&self, value: ValueId) -> Option<Vec<f64>> {
        let mut value = value;
        for _ in 0..=HOPS {
            if let Some(initializer) = self.initializer(value) {
                let may_change = self.is_input(value) && self.overridable;
                return if may_change { None } else { initializer.small_values(self.bytes, LIMIT) };
            }
            let node = self.made_by(value)?;
            match self.node(node).op_type() {
                "Constant" => return constant_of(self.node(node)),
                "Identity" | "Cast" | "Unsqueeze" | "Squeeze" | "Reshape" => value = self.input(node, 0)?,
                _ => return None,
            }
        }
        None
    }

    /// The single element of a constant that has one, whatever its rank.
    pub fn scalar(&self, value: ValueId) -> Option<f64> {
        match self.constant(value)?.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// A constant of integers, such as a shape or axes.
    pub fn integers(&self, value: ValueId) -> Option<Vec<i64>> {
        let whole = |v: f64| (v.fract() == 0.0 && v.abs() < 9e15).then_some(v as i64);
        self.constant(value)?.into_iter().map(whole).collect()
    }

    /// The elements of an initializer of at most `limit` elements, overridable or not.
    pub fn initial_values(&self, value: ValueId, limit: usize) -> Option<Vec<f64>> {
        self.initializer(value)?.small_values(self.bytes, limit)
    }
}

fn constant_of(node: &NodeProto) -> Option<Vec<f64>> {
    let attribute = node.attribute.first()?;
    match attribute.name() {
        "value" => tensor_elements(attribute.t.as_ref()?, LIMIT),
        "value_float" => Some(vec![f64::from(attribute.f())]),
        "value_int" => Some(vec![attribute.i() as f64]),
        "value_floats" if attribute.floats.len() <= LIMIT => {
            Some(attribute.floats.iter().map(|v| f64::from(*v)).collect())
        }
        "value_ints" if attribute.ints.len() <= LIMIT => Some(attribute.ints.iter().map(|v| *v as f64).collect()),
        _ => None,
    }
}

/// Elements of a decoded tensor of at most `limit` elements, as f64.
pub fn tensor_elements(tensor: &TensorProto, limit: usize) -> Option<Vec<f64>> {
    let count = tensor.dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))?;
    if count > limit {
        return None;
    }
    let values: Vec<f64> = if let Some(raw) = &tensor.raw_data {
        decode_elements(tensor.data_type(), &[(crate::wire::fields::tensor::RAW_DATA, raw)])?
    } else if !tensor.float_data.is_empty() {
        tensor.float_data.iter().map(|v| f64::from(*v)).collect()
    } else if !tensor.double_data.is_empty() {
        tensor.double_data.clone()
    } else if !tensor.int64_data.is_empty() {
        tensor.int64_data.iter().map(|v| *v as f64).collect()
    } else {
        tensor.int32_data.iter().map(|v| f64::from(*v)).collect()
    };
    (values.len() == count).then_some(values)
}

/// Attributes of a node by name, with the defaults that the operators have.
pub trait Attributes {
    /// The attribute of this name.
    fn attribute(&self, name: &str) -> Option<&AttributeProto>;

    /// An integer attribute.
    fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(AttributeProto::i)
    }

    /// A float attribute.
    fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).map(AttributeProto::f)
    }

    /// A list of integers.
    fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    /// A string attribute; `None` when it is not UTF-8.
    fn string(&self, name: &str) -> Option<&str> {
        self.attribute(name).and_then(|a| std::str::from_utf8(a.s()).ok())
    }
}

impl Attributes for NodeProto {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|a| a.name() == name)
    }
}
