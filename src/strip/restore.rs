//! Putting back what others took the place of, from the bytes that the record remembers.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::StripError;
use crate::graph::Graph;
use crate::patch::{Part, Replacement, Substitute};
use crate::record::{Hoisted, LOWERED, Record, Standin};
use crate::wire::fields::tensor as field;
use crate::wire::{Initializer, Model, decode_elements, tensor_in};

/// What brings the original parts back.
#[derive(Debug, Default)]
pub struct Restored {
    /// The first of the nodes (or inputs) that stand for one becomes that one again; the other inputs go.
    pub replacements: Vec<Replacement>,
    /// By node: whether it stands for an original one, alone or with others. Its outputs keep their names, and readers.
    pub stands_in: HashSet<usize>,
}

impl Restored {
    /// Whether a node becomes the original one.
    pub fn becomes_original(&self) -> HashSet<usize> {
        let node = |r: &Replacement| if let Part::Node(i) = r.part { Some(i) } else { None };
        self.replacements.iter().filter_map(node).collect()
    }
}

/// Finds what stands in for the parts that the record remembers.
pub fn restore(model: &Model, graph: &Graph, record: &Record) -> Result<Restored, StripError> {
    let mut nodes: HashMap<&str, Vec<usize>> = HashMap::new();
    let prefix = format!("{}{LOWERED}", record.root);
    for (i, node) in graph.nodes.iter().enumerate() {
        if let Some((name, _)) = node.name().strip_prefix(&prefix).and_then(|rest| rest.rsplit_once('/')) {
            nodes.entry(name).or_default().push(i);
        }
    }
    let mut restored = Restored::default();
    for replaced in &record.replaced {
        let mut records = replaced.bytes().ok_or_else(|| StripError::BadRecord {
            problem: "the record of the injection holds bytes that are no Base64".into(),
        })?;
        let gone = |what: String| StripError::StandinGone { what };
        let part = match &replaced.by {
            Standin::Nodes(name) => {
                let standins = nodes.remove(name.as_str()).ok_or_else(|| gone(format!("a node {prefix}{name}/…")))?;
                restored.stands_in.extend(&standins);
                for hoisted in record.hoisted.iter().filter(|h| h.node == *name) {
                    put_back(model, hoisted, &mut records)?;
                }
                Part::Node(standins[0])
            }
            Standin::Inputs => {
                let originals = |v: &crate::onnx::ValueInfoProto| !v.name().starts_with(&record.root);
                let mut left = (0..model.graph.inputs.len()).filter(|i| originals(&model.graph.inputs[*i]));
                let first = left.next().ok_or_else(|| gone("an input".into()))?;
                let nothing = |i| Replacement { part: Part::Input(i), with: Substitute::Records(Bytes::new()) };
                restored.replacements.extend(left.map(nothing));
                Part::Input(first)
            }
            Standin::Output(i) if *i < model.graph.outputs.len() => Part::Output(*i),
            Standin::Output(i) => return Err(gone(format!("output {i}"))),
            Standin::OpsetImport(domain) => {
                let at = model.opset_imports.iter().position(|o| o.domain() == domain);
                Part::OpsetImport(at.ok_or_else(|| gone(format!("the import of {domain:?}")))?)
            }
            Standin::IrVersion => Part::IrVersion,
        };
        restored.replacements.push(Replacement { part, with: Substitute::Records(Bytes::from(records)) });
    }
    Ok(restored)
}

/// Gives an initializer of a body, in the record of the body's node, the elements that it has in the main graph now. Those that lie in a data
/// file stay there.
fn put_back(model: &Model, hoisted: &Hoisted, node: &mut [u8]) -> Result<(), StripError> {
    let Some(now) = model.graph.initializers.iter().find(|t| t.name == hoisted.name) else { return Ok(()) };
    let then = tensor_in(node, hoisted.place.get(1..).unwrap_or_default())?;
    let (new, old) = (elements(now, &model.file.bytes), elements(&then, node));
    if new == old {
        return Ok(());
    }
    let is_plain =
        |(number, _): &(u32, Vec<u8>)| matches!(*number, field::RAW_DATA | field::FLOAT_DATA | field::DOUBLE_DATA);
    let new_bytes: Vec<u8> = new.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    let length: usize = old.iter().map(|(_, bytes)| bytes.len()).sum();
    if new.iter().chain(&old).all(is_plain) && new_bytes.len() == length {
        let mut at = 0;
        for (_, range) in &then.payload {
            node[range.clone()].copy_from_slice(&new_bytes[at..at + range.len()]);
            at += range.len();
        }
        return Ok(());
    }
    let values = |tensor: &Initializer, payload: &[(u32, Vec<u8>)]| {
        let payload: Vec<(u32, &[u8])> = payload.iter().map(|(f, bytes)| (*f, bytes.as_slice())).collect();
        decode_elements(tensor.data_type, &payload)
    };
    if values(now, &new).is_some_and(|new| Some(new) == values(&then, &old)) {
        return Ok(());
    }
    Err(StripError::Elements { name: hoisted.name.clone() })
}

/// The fields that hold a tensor's elements.
fn elements(tensor: &Initializer, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    tensor.payload.iter().map(|(f, range)| (*f, bytes.get(range.clone()).unwrap_or_default().to_vec())).collect()
}
