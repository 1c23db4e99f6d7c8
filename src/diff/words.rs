//! Attributes, types and tensors in words.

use std::fmt::Write as _;

use super::elements;
use super::view::{Data, Declared, Tensor};
use crate::graph::types::{TensorType, elem_name};
use crate::onnx::{AttributeProto, TensorProto, TypeProto, ValueInfoProto, type_proto};

/// So many items of a list are shown.
const MOST_ITEMS: usize = 16;

/// So many characters of a string are shown.
const LONGEST: usize = 200;

/// The value of an attribute.
pub fn attribute(a: &AttributeProto) -> String {
    if !a.ref_attr_name().is_empty() {
        return format!("the function's attribute {}", a.ref_attr_name());
    }
    if let Some(tensor) = &a.t {
        return tensor_words(tensor);
    }
    if let Some(body) = &a.g {
        return format!("a graph of {} nodes", body.node.len());
    }
    if let Some(text) = &a.s {
        return text_words(text);
    }
    if let Some(ty) = &a.tp {
        return type_words(ty);
    }
    if a.sparse_tensor.is_some() {
        return "a sparse tensor".into();
    }
    if let Some(v) = a.i {
        return v.to_string();
    }
    if let Some(v) = a.f {
        return v.to_string();
    }
    if !a.ints.is_empty() {
        return list(&a.ints, ToString::to_string);
    }
    if !a.floats.is_empty() {
        return list(&a.floats, ToString::to_string);
    }
    if !a.strings.is_empty() {
        return list(&a.strings, |s| text_words(s));
    }
    if !a.tensors.is_empty() {
        return list(&a.tensors, tensor_words);
    }
    if !a.graphs.is_empty() {
        return list(&a.graphs, |g| format!("a graph of {} nodes", g.node.len()));
    }
    if !a.type_protos.is_empty() {
        return list(&a.type_protos, type_words);
    }
    if !a.sparse_tensors.is_empty() { format!("{} sparse tensors", a.sparse_tensors.len()) } else { "[]".into() }
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    let mut out = String::from("[");
    for (i, item) in items.iter().take(MOST_ITEMS).enumerate() {
        let _ = write!(out, "{}{}", if i > 0 { ", " } else { "" }, show(item));
    }
    if items.len() > MOST_ITEMS {
        let _ = write!(out, ", … {} in all", items.len());
    }
    out + "]"
}

fn text_words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    if text.chars().count() > LONGEST {
        let head: String = text.chars().take(LONGEST).collect();
        return format!("{head:?} and {} more bytes", text.len() - head.len());
    }
    format!("{text:?}")
}

fn tensor_words(tensor: &TensorProto) -> String {
    let ty = typed(tensor.data_type(), &tensor.dims);
    if !tensor.string_data.is_empty() {
        return format!("{ty} {}", list(&tensor.string_data, |s| text_words(s)));
    }
    let mut values = Vec::new();
    let all = elements::of_decoded(tensor).and_then(|bytes| {
        // Enough bytes for what is shown, whatever the width.
        let head = &bytes[..bytes.len().min(16 * MOST_ITEMS)];
        elements::numbers(tensor.data_type(), head, &mut values)
    });
    let count = tensor.dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?)).unwrap_or(0);
    if all.is_none() || values.is_empty() {
        return ty;
    }
    values.truncate(usize::try_from(count).unwrap_or(usize::MAX).clamp(1, MOST_ITEMS));
    let shown: Vec<String> = values.iter().map(ToString::to_string).collect();
    let more = if count > shown.len() as u64 { ", …" } else { "" };
    format!("{ty} {{{}{more}}}", shown.join(", "))
}

/// Element type and dimensions: `float[64, 3]`.
pub fn typed(data_type: i32, dims: &[i64]) -> String {
    let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
    format!("{}[{}]", elem_name(data_type), dims.join(", "))
}

/// Type and shape of an initializer.
pub fn initializer(tensor: &Tensor) -> String {
    match &tensor.data {
        Data::Stored(t) => typed(t.data_type, &t.dims),
        Data::Decoded(t) => typed(t.data_type(), &t.dims),
        Data::Sparse(_) => "sparse tensor".into(),
    }
}

/// A declared type; empty where nothing is declared.
pub fn declared(value: &Declared) -> String {
    value.value.map(value_type).unwrap_or_default()
}

/// The type that a declaration gives; empty where it gives none.
pub fn value_type(value: &ValueInfoProto) -> String {
    value.r#type.as_ref().map(type_words).unwrap_or_default()
}

fn type_words(ty: &TypeProto) -> String {
    use type_proto::Value;
    let inner = |ty: &Option<Box<TypeProto>>| ty.as_deref().map(type_words).unwrap_or_default();
    let words = match &ty.value {
        Some(Value::TensorType(_)) => TensorType::of(ty).map(|t| t.to_string()).unwrap_or_default(),
        Some(Value::SparseTensorType(t)) => {
            let dense = type_proto::Tensor { elem_type: t.elem_type, shape: t.shape.clone() };
            let dense = TypeProto { value: Some(Value::TensorType(dense)), ..Default::default() };
            format!("sparse {}", type_words(&dense))
        }
        Some(Value::SequenceType(s)) => format!("sequence({})", inner(&s.elem_type)),
        Some(Value::OptionalType(o)) => format!("optional({})", inner(&o.elem_type)),
        Some(Value::MapType(m)) => format!("map({}, {})", elem_name(m.key_type()), inner(&m.value_type)),
        Some(Value::OpaqueType(o)) => format!("opaque({}, {})", o.domain(), o.name()),
        None => String::new(),
    };
    match ty.denotation() {
        "" => words,
        denotation => format!("{words} ({denotation})"),
    }
}
