//! Putting back what others took the place of, from the bytes that the record remembers.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::StripError;
use crate::graph::Graph;
use crate::patch::{Part, Replacement, Substitute};
use crate::record::{Hoisted, LOWERED, Record, Standin};
use crate::weights::WeightsError;
use crate::weights::initializers::{DataFiles, read, read_from};
use crate::wire::{Model, tensor_in};

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
    let mut files = DataFiles::default();
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
                    put_back(model, hoisted, &mut records, &mut files)?;
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

/// Gives an initializer of a body, in the record of the body's node, the elements that it has in the main graph now, wherever they lie.
/// Those that lie where they did, in a data file, stay there.
fn put_back(model: &Model, hoisted: &Hoisted, node: &mut Vec<u8>, files: &mut DataFiles) -> Result<(), StripError> {
    let Some(now) = model.graph.initializers.iter().find(|t| t.name == hoisted.name) else { return Ok(()) };
    let mut then = tensor_in(node, hoisted.place.get(1..).unwrap_or_default())?;
    let is_outside = !then.external.is_empty();
    if is_outside && now.external == then.external {
        return Ok(());
    }
    let refuse = |problem: String| StripError::Elements { name: hoisted.name.clone(), problem };
    let new = read(model, now, files)?;
    // Messages call it by the name that it has in this model.
    then.name.clone_from(&hoisted.name);
    let record = Bytes::from(std::mem::take(node));
    let is_same = {
        let old = match read_from(&record, model, &then, files) {
            Err(WeightsError::Initializer { problem, .. }) if is_outside => {
                return Err(refuse(format!("in that body, it {problem}")));
            }
            old => old?,
        };
        if (new.elem, &new.shape) != (old.elem, &old.shape) {
            return Err(refuse("its type or shape is another one now".into()));
        }
        new.data == old.data
    };
    // Nothing else holds the record any more, so it is not copied.
    *node = Vec::from(record);
    if is_same {
        return Ok(());
    }
    let pieces = then.in_place(&new.data).ok_or_else(|| match then.location() {
        Some(location) => refuse(format!(
            "it has other elements now, and the body keeps them in {location:?}, which is not written here; 'per-inject weights put' \
             gives them to the original model"
        )),
        None => refuse(
            "it has other elements now, and the body keeps them as numbers of varying length (int32_data); save the model with raw \
             data before differentiating it"
                .into(),
        ),
    })?;
    pieces.into_iter().for_each(|(range, piece)| node[range].copy_from_slice(&piece));
    Ok(())
}
