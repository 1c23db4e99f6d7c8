//! A patch and a model → the bytes of the patched model, as pieces of the original and new bytes in between.
//!
//! The length prefix of every message around an edit is rewritten. A prefix that was wider than needed stays exactly as much wider,
//! so that taking the edit back gives the original bytes, non-canonical ones included. Only where that would make it wider than
//! readers take does it lose padding, and [`narrowed`] says so beforehand.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::content::Content;
use super::error::{WireError, WireResult};
use super::fields::{graph, model};
use super::model::{GraphLayout, Model};
use super::record::{Record, put_varint, read_varint, records, varint_width};
use crate::patch::{Anchor, Change, Part, Patch, Place, Root, Width};

/// Largest serialised message that protobuf implementations read.
const PROTOBUF_LIMIT: u64 = i32::MAX as u64;

/// Widest length that C++'s and Python's protobuf read.
const WIDEST_LENGTH: usize = 5;

/// The bytes of a file to be written, as a sequence of pieces.
#[derive(Debug, Default)]
pub struct Rope {
    /// The pieces, in order.
    pub pieces: Vec<Piece>,
}

/// A part of a [`Rope`].
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A range of the original file.
    Original(Range<usize>),
    /// New bytes.
    New(Content),
}

impl Rope {
    /// Total size in bytes.
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|p| p.len() as u64).sum()
    }

    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes in memory; for pipes, library callers and tests.
    pub fn to_vec(&self, original: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(usize::try_from(self.len()).unwrap_or_default());
        for piece in &self.pieces {
            match piece {
                Piece::Original(range) => out.extend_from_slice(&original[range.clone()]),
                Piece::New(content) => content.append_to(&mut out),
            }
        }
        out
    }
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        match self {
            Piece::Original(range) => range.len(),
            Piece::New(content) => content.len(),
        }
    }
}

/// Applies a patch. Fails when it names a place that the model lacks, and when the result would pass protobuf's 2 GiB.
pub fn splice(model: &Model, patch: &Patch) -> WireResult<Rope> {
    let (rope, _) = Edits::of(model, patch)?.finish(&patch.widths)?;
    let size = rope.len();
    if size > PROTOBUF_LIMIT { Err(WireError::TooLarge { size }) } else { Ok(rope) }
}

/// The bytes of a part's record, as they stand in the file; of the main graph.
pub fn record_bytes(model: &Model, part: Part) -> WireResult<Bytes> {
    Ok(model.file.bytes.slice(record_of(model, &model.layout.graph, part)?.span()))
}

/// The widths that length prefixes have now and that undoing the patch will not find by itself. Empty for nearly every file.
pub fn narrowed(model: &Model, patch: &Patch) -> WireResult<Vec<Width>> {
    // Only a padded length can lose padding, and a look at the messages around the edits costs less than the edits.
    let mut edits = Edits::of(model, &Patch::default())?;
    for change in &patch.changes {
        let layout = edits.layout(change.graph)?;
        edits.frame_last(&layout);
        if let Anchor::After(node) = change.at {
            let start = part_of(&layout, &layout.nodes, node, "node")?.start;
            edits.frame_around(&layout, start);
        }
        for rename in &change.renames {
            edits.rename(&layout, &rename.place, &rename.from, &rename.to)?;
        }
        for replacement in &change.replacements {
            edits.replace(&layout, replacement.part, Content::default())?;
        }
    }
    let bytes = &model.file.bytes;
    let is_padded = |(at, frame): (&usize, &Frame)| {
        read_varint(bytes, *at, frame.payload.start).is_ok_and(|(n, _)| frame.payload.start - at > varint_width(n))
    };
    if !edits.frames.iter().any(is_padded) {
        return Ok(Vec::new());
    }
    Ok(Edits::of(model, patch)?.finish(&[])?.1)
}

struct Edit {
    range: Range<usize>,
    bytes: Content,
    /// Position of the length prefix of the innermost message around it; `None` in the model itself.
    owner: Option<usize>,
    /// Field number of what is inserted: at the same place, lower numbers come first.
    field: u32,
}

/// A length-delimited message around an edit.
struct Frame {
    payload: Range<usize>,
    depth: usize,
    /// The frame around it, by the position of its length prefix.
    parent: Option<usize>,
    /// Bytes that the edits inside it add.
    grown: i64,
}

struct Edits<'m> {
    model: &'m Model,
    list: Vec<Edit>,
    /// By the position of the length prefix.
    frames: BTreeMap<usize, Frame>,
    /// Where records of a field go, in a graph or in the model: many changes add the same few fields.
    ends: BTreeMap<(Option<usize>, u32), usize>,
    /// Algorithm graphs that were looked into.
    algorithms: BTreeMap<usize, Arc<GraphLayout>>,
}

impl<'m> Edits<'m> {
    fn of(model: &'m Model, patch: &Patch) -> WireResult<Self> {
        let mut edits = Edits {
            model,
            list: Vec::new(),
            frames: BTreeMap::new(),
            ends: BTreeMap::new(),
            algorithms: BTreeMap::new(),
        };
        for change in &patch.changes {
            edits.add_change(change)?;
        }
        Ok(edits)
    }

    /// Where the parts of a graph lie.
    fn layout(&mut self, root: Root) -> WireResult<Arc<GraphLayout>> {
        let Root::Algorithm(index) = root else { return Ok(Arc::clone(&self.model.layout.graph)) };
        if let Some(known) = self.algorithms.get(&index) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(self.model.algorithm_layout(index)?);
        self.algorithms.insert(index, Arc::clone(&found));
        Ok(found)
    }

    fn add_change(&mut self, change: &Change) -> WireResult<()> {
        let layout = self.layout(change.graph)?;
        self.insert_nodes(&layout, change)?;
        self.insert_in_graph(&layout, graph::INITIALIZER, &encoded(graph::INITIALIZER, &change.initializers));
        self.insert_in_graph(&layout, graph::VALUE_INFO, change.value_info.records());
        self.insert_in_graph(&layout, graph::INPUT, &encoded(graph::INPUT, &change.inputs));
        self.insert_in_graph(&layout, graph::OUTPUT, &encoded(graph::OUTPUT, &change.outputs));
        self.insert_in_model(model::OPSET_IMPORT, &encoded(model::OPSET_IMPORT, &change.opset_imports));
        self.insert_in_model(model::METADATA_PROPS, &encoded(model::METADATA_PROPS, &change.metadata));
        for rename in &change.renames {
            self.rename(&layout, &rename.place, &rename.from, &rename.to)?;
        }
        for part in &change.removals {
            self.replace(&layout, *part, Content::default())?;
        }
        for replacement in &change.replacements {
            self.replace(&layout, replacement.part, replacement.with.records())?;
        }
        Ok(())
    }

    fn insert_nodes(&mut self, layout: &GraphLayout, change: &Change) -> WireResult<()> {
        if change.nodes.is_empty() {
            return Ok(());
        }
        match change.at {
            Anchor::End => self.insert_in_graph(layout, graph::NODE, change.nodes.records()),
            Anchor::After(node) => {
                let record = part_of(layout, &layout.nodes, node, "node")?;
                let (start, at) = (record.start, record.end);
                let owner = self.frame_around(layout, start);
                let bytes = change.nodes.records().clone();
                self.list.push(Edit { range: at..at, bytes, owner, field: graph::NODE });
            }
        }
        Ok(())
    }

    /// Puts records behind the last one whose field number is not greater: canonical files stay canonical.
    ///
    /// Everything goes into the last message of the graph; nearly every file has just one.
    fn insert_in_graph(&mut self, layout: &GraphLayout, field: u32, records: &Content) {
        if records.is_empty() {
            return;
        }
        let start = layout.messages.last().and_then(|around| around.last()).map_or(0, |r| r.payload.start);
        let at = *self.ends.entry((Some(start), field)).or_insert_with(|| after_last(&layout.records, field, start));
        let owner = self.frame_last(layout);
        self.list.push(Edit { range: at..at, bytes: records.clone(), owner, field });
    }

    /// The same in the model itself.
    fn insert_in_model(&mut self, field: u32, records: &Content) {
        if records.is_empty() {
            return;
        }
        let all = &self.model.layout.model;
        let at = *self.ends.entry((None, field)).or_insert_with(|| after_last(all, field, 0));
        self.list.push(Edit { range: at..at, bytes: records.clone(), owner: None, field });
    }

    fn rename(&mut self, layout: &GraphLayout, place: &Place, from: &str, to: &str) -> WireResult<()> {
        let missing = || WireError::NoSuchPlace { what: format!("{from:?} at {place:?}") };
        let bytes = &self.model.file.bytes;
        let Some(((first_field, first), rest)) = place.split_first() else { return Err(missing()) };
        let list = match *first_field {
            graph::NODE => &layout.nodes,
            graph::INPUT => &layout.inputs,
            graph::OUTPUT => &layout.outputs,
            graph::VALUE_INFO => &layout.value_info,
            _ => return Err(missing()),
        };
        let mut record = part_of(layout, list, *first, "part")?.clone();
        let mut owner = self.frame_around(layout, record.start);
        for (field, occurrence) in rest {
            owner = Some(self.frame(record.payload.clone(), record.length_at, owner));
            let mut parts = records(bytes, record.payload.clone())
                .filter(|r| r.as_ref().map_or(true, |r| r.field == *field && r.is_length_delimited()));
            record = parts.nth(*occurrence).ok_or_else(missing)??;
        }
        if bytes[record.payload.clone()] != *from.as_bytes() {
            return Err(missing());
        }
        let owner = Some(self.frame(record.payload.clone(), record.length_at, owner));
        self.list.push(Edit { range: record.payload, bytes: to.as_bytes().to_vec().into(), owner, field: 0 });
        Ok(())
    }

    /// Puts records in the place of a part; none takes it out.
    fn replace(&mut self, layout: &GraphLayout, part: Part, records: Content) -> WireResult<()> {
        let span = record_of(self.model, layout, part)?.span();
        let owner = match part {
            Part::OpsetImport(_) | Part::Metadata(_) | Part::IrVersion => None,
            _ => self.frame_around(layout, span.start),
        };
        self.list.push(Edit { range: span, bytes: records, owner, field: 0 });
        Ok(())
    }

    /// Notes a message around an edit; returns its key.
    fn frame(&mut self, payload: Range<usize>, length_at: usize, parent: Option<usize>) -> usize {
        let depth = parent.and_then(|p| self.frames.get(&p)).map_or(0, |p| p.depth + 1);
        self.frames.entry(length_at).or_insert(Frame { payload, depth, parent, grown: 0 });
        length_at
    }

    /// Notes the message of the graph that holds the byte at `at`, and those around it.
    fn frame_around(&mut self, layout: &GraphLayout, at: usize) -> Option<usize> {
        let holds = |around: &&Vec<Record>| around.last().is_some_and(|r| r.payload.contains(&at));
        self.frame_all(layout.messages.iter().find(holds)?)
    }

    /// Notes the message that insertions into the graph go to, and those around it.
    fn frame_last(&mut self, layout: &GraphLayout) -> Option<usize> {
        self.frame_all(layout.messages.last()?)
    }

    fn frame_all(&mut self, around: &[Record]) -> Option<usize> {
        around.iter().fold(None, |parent, r| Some(self.frame(r.payload.clone(), r.length_at, parent)))
    }

    /// The rope, and the lengths that lost padding.
    fn finish(mut self, widths: &[Width]) -> WireResult<(Rope, Vec<Width>)> {
        let bytes = &self.model.file.bytes;
        let order: HashMap<usize, usize> = self.frames.keys().enumerate().map(|(i, at)| (*at, i)).collect();
        let mut narrowed = Vec::new();
        for edit in &self.list {
            if let Some(frame) = edit.owner.and_then(|o| self.frames.get_mut(&o)) {
                frame.grown += edit.bytes.len() as i64 - edit.range.len() as i64;
            }
        }
        let mut inner_first: Vec<usize> = self.frames.keys().copied().collect();
        inner_first.sort_by_key(|k| std::cmp::Reverse(self.frames[k].depth));
        for key in inner_first {
            let frame = &self.frames[&key];
            let (parent, grown) = (frame.parent, frame.grown);
            let message = order[&key];
            let asked = widths.iter().find(|w| w.message == message).map(|w| w.width);
            let (edit, lost) = new_length(bytes, key, &frame.payload, grown, parent, asked)?;
            narrowed.extend(lost.then_some(Width { message, width: frame.payload.start - key }));
            let grown = grown + edit.bytes.len() as i64 - edit.range.len() as i64;
            if let Some(parent) = parent.and_then(|p| self.frames.get_mut(&p)) {
                parent.grown += grown;
            }
            self.list.push(edit);
        }
        // At the end of a message its own insertions come before those of the message around it.
        let depth = |e: &Edit| e.owner.and_then(|o| self.frames.get(&o)).map_or(0, |f| f.depth + 1);
        self.list.sort_by_key(|e| (e.range.start, e.range.end, std::cmp::Reverse(depth(e)), e.field));
        let mut pieces = Vec::with_capacity(2 * self.list.len() + 1);
        let mut at = 0;
        for edit in self.list {
            if edit.range.start < at {
                return Err(WireError::NoSuchPlace { what: format!("byte {} twice", edit.range.start) });
            }
            push_original(&mut pieces, at..edit.range.start);
            at = edit.range.end;
            if !edit.bytes.is_empty() {
                pieces.push(Piece::New(edit.bytes));
            }
        }
        push_original(&mut pieces, at..bytes.len());
        narrowed.sort_by_key(|w| w.message);
        Ok((Rope { pieces }, narrowed))
    }
}

/// Where a part of a graph, or of the model, stands.
fn record_of<'l>(model: &'l Model, layout: &'l GraphLayout, part: Part) -> WireResult<&'l Record> {
    let in_graph = |list: &[u32], i| part_of(layout, list, i, "part");
    let missing = || WireError::NoSuchPlace { what: format!("{part:?}") };
    let whole = &model.layout;
    let in_model = |list: &[u32], i: usize| list.get(i).and_then(|r| whole.model.get(*r as usize)).ok_or_else(missing);
    match part {
        Part::Node(i) => in_graph(&layout.nodes, i),
        Part::Initializer(i) => in_graph(&layout.initializers, i),
        Part::ValueInfo(i) => in_graph(&layout.value_info, i),
        Part::Input(i) => in_graph(&layout.inputs, i),
        Part::Output(i) => in_graph(&layout.outputs, i),
        Part::OpsetImport(i) => in_model(&whole.opset_imports, i),
        Part::Metadata(i) => in_model(&whole.metadata, i),
        Part::IrVersion => {
            whole.model.iter().rfind(|r| (r.field, r.wire_type) == (model::IR_VERSION, 0)).ok_or_else(missing)
        }
    }
}

/// A part of a graph, by its position in its list.
fn part_of<'l>(layout: &'l GraphLayout, list: &[u32], index: usize, part: &str) -> WireResult<&'l Record> {
    list.get(index)
        .and_then(|r| layout.records.get(*r as usize))
        .ok_or_else(|| WireError::NoSuchPlace { what: format!("{part} {index}") })
}

/// Messages as records of a field.
fn encoded<M: Message>(field: u32, messages: &[M]) -> Content {
    let mut records = Vec::new();
    messages.iter().for_each(|m| prost::encoding::message::encode(field, m, &mut records));
    records.into()
}

fn push_original(pieces: &mut Vec<Piece>, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    match pieces.last_mut() {
        Some(Piece::Original(last)) if last.end == range.start => last.end = range.end,
        _ => pieces.push(Piece::Original(range)),
    }
}

/// The end of the last record whose field number is at most `field`; `start` when there is none.
fn after_last(records: &[Record], field: u32, start: usize) -> usize {
    records.iter().rfind(|r| r.field <= field && r.start >= start).map_or(start, |r| r.end)
}

/// The edit that gives a message its new length, exactly as padded as the old one was, and whether that was not possible.
///
/// `asked` is the width that an earlier edit took away: it counts where the length has the widest width now.
fn new_length(
    bytes: &[u8],
    length_at: usize,
    payload: &Range<usize>,
    grown: i64,
    owner: Option<usize>,
    asked: Option<usize>,
) -> WireResult<(Edit, bool)> {
    let (old, _) = read_varint(bytes, length_at, payload.start)?;
    let old_width = payload.start - length_at;
    let padding = old_width - varint_width(old);
    let new = old.checked_add_signed(grown).ok_or_else(|| WireError::NoSuchPlace {
        what: format!("more bytes to remove than the message at {length_at} has"),
    })?;
    let kept = varint_width(new) + padding;
    let width = match asked {
        Some(asked) if old_width == WIDEST_LENGTH.max(asked) => asked,
        // What no other program reads anyway may be as wide as a varint can be.
        _ => kept.min(WIDEST_LENGTH.max(old_width)),
    };
    let mut out = Vec::with_capacity(width);
    put_varint(&mut out, new, width);
    Ok((Edit { range: length_at..payload.start, bytes: out.into(), owner, field: 0 }, width < kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{GraphProto, ModelProto, NodeProto, StringStringEntryProto, ValueInfoProto};
    use crate::patch::Rename;
    use proptest::prelude::*;

    fn node(name: &str) -> NodeProto {
        NodeProto {
            name: Some(name.into()),
            op_type: Some("Neg".into()),
            input: vec![format!("{name}_in")],
            output: vec![format!("{name}_out")],
            ..Default::default()
        }
    }

    fn model(nodes: usize) -> ModelProto {
        ModelProto {
            ir_version: Some(8),
            graph: Some(GraphProto { node: (0..nodes).map(|i| node(&i.to_string())).collect(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn apply(bytes: &[u8], patch: &Patch) -> Vec<u8> {
        let model = Model::from_bytes(bytes.to_vec()).unwrap();
        splice(&model, patch).unwrap().to_vec(bytes)
    }

    /// The same records with every length prefix of the model, its graph and its nodes widened by `padding` bytes, up to `widest`.
    fn pad_lengths(bytes: &[u8], padding: usize, widest: usize) -> Vec<u8> {
        pad(bytes, &[model::GRAPH, graph::NODE], padding, widest)
    }

    fn pad(bytes: &[u8], path: &[u32], padding: usize, widest: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records(bytes, 0..bytes.len()).map(Result::unwrap) {
            out.extend_from_slice(&bytes[record.start..record.length_at]);
            let mut payload = bytes[record.payload.clone()].to_vec();
            if path.first() == Some(&record.field) {
                payload = pad(&payload, &path[1..], padding, widest);
            }
            if record.is_length_delimited() {
                let length = payload.len() as u64;
                put_varint(&mut out, length, (varint_width(length) + padding).min(widest));
            }
            out.extend_from_slice(&payload);
        }
        out
    }

    /// The widest length prefix around and in the graph's nodes.
    fn widest_length(bytes: &[u8], path: &[u32]) -> usize {
        let mut widest = 0;
        for record in records(bytes, 0..bytes.len()).map(Result::unwrap).filter(Record::is_length_delimited) {
            widest = widest.max(record.payload.start - record.length_at);
            if path.first() == Some(&record.field) {
                widest = widest.max(widest_length(&bytes[record.payload], &path[1..]));
            }
        }
        widest
    }

    #[test]
    fn a_patched_canonical_model_is_what_prost_would_have_written() {
        let mut proto = model(3);
        let bytes = proto.encode_to_vec();
        let output = ValueInfoProto { name: Some("out".into()), ..Default::default() };
        let entry = StringStringEntryProto { key: Some("k".into()), value: Some("v".into()) };
        let patch = Patch {
            changes: vec![
                Change { nodes: vec![node("new")].into(), outputs: vec![output.clone()], ..Default::default() },
                Change {
                    nodes: vec![node("early")].into(),
                    at: Anchor::After(0),
                    metadata: vec![entry.clone()],
                    ..Default::default()
                },
                Change {
                    renames: vec![Rename {
                        place: vec![(1, 1), (2, 0)],
                        from: "1_out".into(),
                        to: "renamed_to_something_long".into(),
                    }],
                    removals: vec![Part::Node(2)],
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        let graph = proto.graph.as_mut().unwrap();
        graph.node[1].output[0] = "renamed_to_something_long".into();
        graph.node.remove(2);
        graph.node.insert(1, node("early"));
        graph.node.push(node("new"));
        graph.output.push(output);
        proto.metadata_props.push(entry);
        assert_eq!(ModelProto::decode(&*apply(&bytes, &patch)).unwrap(), proto);
        assert_eq!(apply(&bytes, &patch), proto.encode_to_vec());
    }

    #[test]
    fn an_edit_of_a_string_that_is_not_there_is_refused() {
        let bytes = model(1).encode_to_vec();
        let rename = Rename { place: vec![(1, 0), (2, 0)], from: "other".into(), to: "x".into() };
        let patch =
            Patch { changes: vec![Change { renames: vec![rename], ..Default::default() }], ..Default::default() };
        assert!(splice(&Model::from_bytes(bytes).unwrap(), &patch).is_err());
    }

    proptest! {
        /// Insert, rename and undo: the original bytes, padded length prefixes included.
        #[test]
        fn undoing_a_patch_gives_the_same_bytes(
            nodes in 1usize..40, added in 1usize..40, renamed in 0usize..40, padding in 0usize..10, widest in 5usize..=10,
            long in 0usize..300, anchored: bool,
        ) {
            let bytes = pad_lengths(&model(nodes).encode_to_vec(), padding, widest);
            let renamed = renamed % nodes;
            let (old, new) = (format!("{renamed}_out"), "x".repeat(long));
            let place: Place = vec![(1, renamed), (2, 0)];
            let at = if anchored { Anchor::After(nodes - 1) } else { Anchor::End };
            let patch = Patch { changes: vec![Change {
                nodes: (0..added).map(|i| node(&format!("added{i}"))).collect(),
                at,
                metadata: vec![StringStringEntryProto { key: Some("k".into()), value: None }],
                renames: vec![Rename { place: place.clone(), from: old.clone(), to: new.clone() }],
                ..Default::default()
            }], ..Default::default() };
            let widths = narrowed(&Model::from_bytes(bytes.clone()).unwrap(), &patch).unwrap();
            let done = apply(&bytes, &patch);
            let path = [model::GRAPH, graph::NODE];
            prop_assert!(widest_length(&done, &path) <= widest_length(&bytes, &path).max(WIDEST_LENGTH));
            let undo = Patch { changes: vec![Change {
                removals: (nodes..nodes + added).map(Part::Node).chain([Part::Metadata(0)]).collect(),
                renames: vec![Rename { place, from: new, to: old }],
                ..Default::default()
            }], widths };
            prop_assert_eq!(apply(&done, &undo), bytes);
        }
    }
}
