//! Labels: what a node or an initializer is by itself, as a number, without any name of a value.
//!
//! A collision could only pair what does not belong together, and a comparison of the pair then shows every difference there is: labels
//! decide how small a difference is, never whether it is true.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::FixedState;
use prost::Message;

use super::elements;
use super::view::{Data, Tensor};
use crate::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::wire::Initializer;

/// Of large tensors so many bytes at the beginning, in the middle and at the end are looked at.
const SAMPLE: usize = 256;

/// Mixes a number into a hash; order counts.
pub fn mix(h: u64, x: u64) -> u64 {
    let mut z = h.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(x);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z ^ (z >> 32)
}

/// The hash of anything.
pub fn hash(value: impl Hash) -> u64 {
    FixedState::with_seed(7).hash_one(value)
}

/// Operator and domain. ONNX's own domain has two spellings.
pub fn operator(node: &NodeProto) -> u64 {
    hash((node.op_type(), domain(node), node.overload()))
}

/// The operator's domain, empty for ONNX's own.
pub fn domain(node: &NodeProto) -> &str {
    if node.domain() == "ai.onnx" { "" } else { node.domain() }
}

/// Operator, attributes, and which inputs and outputs there are.
pub fn node(node: &NodeProto) -> u64 {
    let there = |names: &[String]| {
        let last = names.iter().rposition(|n| !n.is_empty()).map_or(0, |i| i + 1);
        names[..last].iter().fold(last as u64, |h, n| mix(h, u64::from(n.is_empty())))
    };
    // The order of attributes means nothing.
    let attributes = node.attribute.iter().fold(0u64, |sum, a| sum.wrapping_add(mix(attribute(a), 1)));
    let mut h = mix(operator(node), attributes);
    h = mix(h, there(&node.input));
    mix(h, there(&node.output))
}

/// Name and value of an attribute. Bodies count by their structure, not by their names.
pub fn attribute(attribute: &AttributeProto) -> u64 {
    let mut state = FixedState::with_seed(7).build_hasher();
    (attribute.name(), attribute.ref_attr_name(), attribute.i, attribute.s.as_deref()).hash(&mut state);
    attribute.f.map(f32::to_bits).hash(&mut state);
    (&attribute.ints, &attribute.strings).hash(&mut state);
    attribute.floats.len().hash(&mut state);
    attribute.floats.iter().for_each(|f| f.to_bits().hash(&mut state));
    for tensor in attribute.t.as_deref().into_iter().chain(&attribute.tensors) {
        tensor_value(tensor).hash(&mut state);
    }
    for body in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
        graph(body).hash(&mut state);
    }
    for sparse in attribute.sparse_tensor.as_deref().into_iter().chain(&attribute.sparse_tensors) {
        sparse.encode_to_vec().hash(&mut state);
    }
    for ty in attribute.tp.as_deref().into_iter().chain(&attribute.type_protos) {
        ty.encode_to_vec().hash(&mut state);
    }
    state.finish()
}

/// Type, shape and elements of a decoded tensor, however these are encoded.
pub fn tensor_value(tensor: &TensorProto) -> u64 {
    let head = mix(hash(&tensor.dims), u64::from(tensor.data_type().cast_unsigned()));
    match elements::of_decoded(tensor) {
        Some(bytes) => mix(head, hash(&*bytes)),
        None => mix(head, hash(tensor.external_data.iter().map(|e| (e.key(), e.value())).collect::<Vec<_>>())),
    }
}

/// A body by its structure: values are numbered in the order in which they are defined, and what is captured in that of its use.
pub fn graph(body: &GraphProto) -> u64 {
    let mut ids = std::collections::HashMap::with_hasher(FixedState::with_seed(7));
    let mut h = mix(0, body.input.len() as u64);
    let inputs = body.input.iter().map(|v| v.name());
    for name in inputs.chain(body.initializer.iter().map(|t| t.name())) {
        let next = ids.len();
        ids.entry(name).or_insert(next);
    }
    h = body.initializer.iter().fold(h, |h, t| mix(h, tensor_value(t)));
    for inner in &body.node {
        h = mix(h, node(inner));
        for name in &inner.input {
            let next = ids.len();
            h = mix(h, *ids.entry(name.as_str()).or_insert(next) as u64);
        }
        for name in &inner.output {
            let next = ids.len();
            ids.entry(name.as_str()).or_insert(next);
        }
    }
    for output in &body.output {
        let next = ids.len();
        h = mix(h, *ids.entry(output.name()).or_insert(next) as u64);
    }
    h
}

/// Type and shape of an initializer.
pub fn tensor_head(tensor: &Tensor) -> u64 {
    match &tensor.data {
        Data::Stored(t) => mix(hash(&t.dims), u64::from(t.data_type.cast_unsigned())),
        Data::Decoded(t) => mix(hash(&t.dims), u64::from(t.data_type().cast_unsigned())),
        Data::Sparse(_) => 3,
    }
}

/// Type, shape and elements of an initializer; of a large one a sample of these.
pub fn tensor_content(tensor: &Tensor, bytes: &[u8]) -> u64 {
    let head = tensor_head(tensor);
    match &tensor.data {
        Data::Stored(t) => mix(head, stored_content(t, bytes)),
        Data::Decoded(t) => tensor_value(t),
        Data::Sparse(message) => mix(head, hash(&**message)),
    }
}

fn stored_content(tensor: &Initializer, bytes: &[u8]) -> u64 {
    if !tensor.external.is_empty() {
        let mut place: Vec<_> = tensor.external.iter().filter(|(k, _)| k != "checksum").collect();
        place.sort_unstable();
        return hash(place);
    }
    let mut h = 0;
    for (_, range) in &tensor.payload {
        let payload = bytes.get(range.clone()).unwrap_or_default();
        let length = payload.len();
        h = mix(h, length as u64);
        if length <= 4 * SAMPLE {
            h = mix(h, hash(payload));
        } else {
            for start in [0, length / 2, length - SAMPLE] {
                h = mix(h, hash(&payload[start..start + SAMPLE]));
            }
        }
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ValueInfoProto;

    fn named(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        NodeProto { op_type: Some(op.into()), input: owned(inputs), output: owned(outputs), ..Default::default() }
    }

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: Some(name.into()), i: Some(i), ..Default::default() }
    }

    #[test]
    fn a_label_sees_attributes_in_any_order_and_no_names() {
        let plain = NodeProto { attribute: vec![int("a", 1), int("b", 2)], ..named("Op", &["x", ""], &["y"]) };
        let other = NodeProto { attribute: vec![int("b", 2), int("a", 1)], ..named("Op", &["p"], &["q"]) };
        assert_eq!(node(&plain), node(&other), "an input left out at the end is none");
        let changed = NodeProto { attribute: vec![int("a", 2), int("b", 1)], ..other.clone() };
        assert_ne!(node(&plain), node(&changed));
        assert_ne!(node(&plain), node(&NodeProto { domain: Some("com.x".into()), ..other.clone() }));
        assert_eq!(node(&plain), node(&NodeProto { domain: Some("ai.onnx".into()), ..other }));
    }

    #[test]
    fn a_body_is_its_structure() {
        let body = |names: [&str; 3], op: &str| GraphProto {
            node: vec![named(op, &[names[0], names[1]], &[names[2]])],
            output: vec![ValueInfoProto { name: Some(names[2].into()), ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(graph(&body(["a", "b", "c"], "Add")), graph(&body(["x", "y", "z"], "Add")));
        assert_ne!(graph(&body(["a", "a", "c"], "Add")), graph(&body(["x", "y", "z"], "Add")));
        assert_ne!(graph(&body(["a", "b", "c"], "Sub")), graph(&body(["x", "y", "z"], "Add")));
    }

    #[test]
    fn one_value_in_two_encodings_has_one_label() {
        let raw = TensorProto {
            dims: vec![2],
            data_type: Some(1),
            raw_data: Some([0.5f32, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()),
            ..Default::default()
        };
        let typed = TensorProto { raw_data: None, float_data: vec![0.5, -3.0], ..raw.clone() };
        assert_eq!(tensor_value(&raw), tensor_value(&typed));
        assert_ne!(tensor_value(&raw), tensor_value(&TensorProto { float_data: vec![0.5, 3.0], ..typed }));
    }
}
