//! What a page holds, as the JSON that its script reads.
//!
//! Lists are stored by columns and what repeats is stored once: a page of 100,000 nodes stays within a few megabytes.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::network::Network;
use super::operators::family;
use super::scenes::{Drawing, Entry, Scenes, draw};

/// A page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// `inspect` or `diff`.
    pub command: &'static str,
    /// What it is about: the name of a file, or of two.
    pub title: String,
    /// What is said about the whole, by label.
    pub facts: Vec<(String, String)>,
    /// Sentences to be read first; those that warn are marked.
    pub notes: Vec<Note>,
    /// Kinds of rows, in the order of the list.
    pub groups: Vec<Group>,
    /// Rows of the list, beside those that nodes and values have anyway.
    pub rows: Vec<Row>,
    /// The graph.
    pub network: Network,
    /// What is drawn of it.
    pub entries: Vec<Entry>,
    /// For initializers: by value, the sentence about their role.
    pub roles: Vec<(u32, String)>,
}

/// A sentence about the whole.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Note {
    pub is_warning: bool,
    pub text: String,
}

/// A kind of rows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Group {
    pub label: String,
    /// One line about it.
    pub about: String,
    /// The rows: those listed, or every node, or every initializer.
    pub source: Source,
    /// The mark that it is drawn with.
    pub mark: u8,
}

/// Where a group's rows are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// In the list of rows.
    #[default]
    Rows,
    /// The nodes.
    Nodes,
    /// The values that are initializers.
    Initializers,
}

/// A row of the list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// Its group's position.
    pub group: usize,
    pub mark: u8,
    pub title: String,
    /// The second line.
    pub sub: String,
    /// At the right.
    pub side: String,
    /// The node that it is about.
    pub node: Option<u32>,
    /// The value that it is about.
    pub value: Option<u32>,
    /// What more there is to say, by label.
    pub facts: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Stored<'p> {
    command: &'static str,
    title: &'p str,
    version: &'static str,
    facts: &'p [(String, String)],
    notes: &'p [Note],
    groups: &'p [Group],
    rows: &'p [Row],
    /// Operator, domain and family, which colours it.
    ops: Vec<(&'p str, &'p str, &'static str)>,
    attributes: Vec<&'p [(String, String)]>,
    shapes: Vec<&'p str>,
    roles: Vec<&'p str>,
    nodes: Nodes<'p>,
    values: Values<'p>,
    scenes: Vec<Drawing>,
}

#[derive(Default, Serialize)]
struct Nodes<'p> {
    op: Vec<usize>,
    name: Vec<&'p str>,
    attributes: Vec<usize>,
    /// Values by number, −1 for one that is left out.
    inputs: Vec<Vec<i64>>,
    outputs: Vec<Vec<i64>>,
    mark: Vec<u8>,
    /// The picture, −1 for nodes that are not drawn.
    scene: Vec<i64>,
    /// By node, where there is something to say.
    docs: BTreeMap<usize, &'p str>,
    captured: BTreeMap<usize, &'p [u32]>,
    fresh: BTreeMap<usize, &'p [u32]>,
    former: BTreeMap<usize, &'p [(u32, u32)]>,
}

#[derive(Default, Serialize)]
struct Values<'p> {
    name: Vec<&'p str>,
    shape: Vec<usize>,
    /// Twice the kind, plus 1 for graph outputs.
    kind: Vec<u8>,
    mark: BTreeMap<usize, u8>,
    role: BTreeMap<u32, usize>,
}

/// Numbers things in the order of their first appearance.
struct Interned<T> {
    index: HashMap<T, usize, foldhash::fast::RandomState>,
    items: Vec<T>,
}

impl<T: Copy + Eq + std::hash::Hash> Interned<T> {
    fn new() -> Self {
        Interned { index: HashMap::default(), items: Vec::new() }
    }

    fn number(&mut self, item: T) -> usize {
        *self.index.entry(item).or_insert_with(|| {
            self.items.push(item);
            self.items.len() - 1
        })
    }
}

impl Page {
    /// The JSON.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let network = &self.network;
        let all = Scenes::of(network, self.entries.clone());
        let (mut ops, mut attributes) = (Interned::new(), Interned::new());
        let (mut shapes, mut roles) = (Interned::new(), Interned::new());
        let mut nodes = Nodes::default();
        let number = |v: &Option<u32>| v.map_or(-1, i64::from);
        for (i, node) in network.nodes.iter().enumerate() {
            nodes.op.push(ops.number((node.op.as_str(), node.domain.as_str())));
            nodes.name.push(&node.name);
            nodes.attributes.push(attributes.number(node.attributes.as_slice()));
            nodes.inputs.push(node.inputs.iter().map(number).collect());
            nodes.outputs.push(node.outputs.iter().map(number).collect());
            nodes.mark.push(node.mark as u8);
            nodes.scene.push(all.item_of_node[i].map_or(-1, |item| all.homes[item].0 as i64));
            let is_there = |there: bool| there.then_some(i);
            nodes.docs.extend(is_there(!node.doc.is_empty()).map(|i| (i, node.doc.as_str())));
            nodes.captured.extend(is_there(!node.captured.is_empty()).map(|i| (i, node.captured.as_slice())));
            nodes.fresh.extend(is_there(!node.fresh.is_empty()).map(|i| (i, node.fresh.as_slice())));
            nodes.former.extend(is_there(!node.former.is_empty()).map(|i| (i, node.former.as_slice())));
        }
        let mut values = Values::default();
        for (i, value) in network.values.iter().enumerate() {
            values.name.push(&value.name);
            values.shape.push(shapes.number(value.shape.as_str()));
            values.kind.push(2 * value.kind as u8 + u8::from(value.is_output));
            if value.mark as u8 != 0 {
                values.mark.insert(i, value.mark as u8);
            }
        }
        values.role = self.roles.iter().map(|(v, role)| (*v, roles.number(role.as_str()))).collect();
        serde_json::to_string(&Stored {
            command: self.command,
            title: &self.title,
            version: env!("CARGO_PKG_VERSION"),
            facts: &self.facts,
            notes: &self.notes,
            groups: &self.groups,
            rows: &self.rows,
            ops: ops.items.iter().map(|(op, domain)| (*op, *domain, family(op))).collect(),
            attributes: attributes.items,
            shapes: shapes.items,
            roles: roles.items,
            nodes,
            values,
            scenes: draw(network, &all),
        })
    }
}
