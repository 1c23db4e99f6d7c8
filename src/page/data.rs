//! What a page holds, as the JSON that its script reads.
//!
//! Lists are stored by columns and what repeats is stored once: a page of 100,000 nodes stays within a few megabytes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::network::Network;
use super::operators::family;
use super::packed::{Interned, front_coded};
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
    /// What is known of initializers.
    pub roles: Vec<Role>,
}

/// What is known of an initializer.
#[derive(Debug, Clone, Default)]
pub struct Role {
    pub value: u32,
    /// A clause, in which [`READER`] stands for the node that decided.
    pub text: String,
    /// That node; `None` where it is the first that reads the value.
    pub reader: Option<u32>,
}

/// Stands for a node in text. No text from a model holds it, since control characters are spelt out there.
pub const READER: char = '\u{1}';

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
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Its group's position.
    pub group: usize,
    pub mark: u8,
    pub title: String,
    /// The second line; the value's name where it is empty.
    pub sub: String,
    /// At the right.
    pub side: String,
    /// The node that it is about.
    pub node: Option<u32>,
    /// The value that it is about.
    pub value: Option<u32>,
    /// The number that selects it; 0 for none.
    pub position: usize,
    /// What more there is to say, by label.
    pub facts: Vec<(String, String)>,
}

/// A row as it is stored: group, mark, title, second line, right side, node, value, position and facts; −1 for no node and no value.
type StoredRow<'p> = (usize, u8, &'p str, &'p str, &'p str, i64, i64, usize, usize);

#[derive(Serialize)]
struct Stored<'p> {
    command: &'static str,
    title: &'p str,
    version: &'static str,
    facts: &'p [(String, String)],
    notes: &'p [Note],
    groups: &'p [Group],
    rows: Vec<StoredRow<'p>>,
    row_facts: Vec<&'p [(String, String)]>,
    /// Operator, domain and family, which colours it.
    ops: Vec<(&'p str, &'p str, &'static str)>,
    attributes: Vec<&'p [(String, String)]>,
    shapes: Vec<&'p str>,
    /// What names end in.
    rests: Vec<&'p str>,
    roles: Vec<&'p str>,
    nodes: Nodes<'p>,
    values: Values,
    scenes: Vec<Drawing>,
}

#[derive(Default, Serialize)]
struct Nodes<'p> {
    op: Vec<usize>,
    /// By [`front_coded`].
    name: Vec<usize>,
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
    /// For nodes that stand for others: how many.
    stands_for: BTreeMap<usize, u32>,
}

#[derive(Default, Serialize)]
struct Values {
    /// By [`front_coded`].
    name: Vec<usize>,
    shape: Vec<usize>,
    /// Twice the kind, plus 1 for graph outputs.
    kind: Vec<u8>,
    mark: BTreeMap<usize, u8>,
    /// −1 for none.
    role: Vec<i64>,
    reader: BTreeMap<u32, u32>,
}

impl Page {
    /// The JSON.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let network = &self.network;
        let all = Scenes::of(network, self.entries.clone());
        let (mut ops, mut attributes) = (Interned::new(), Interned::new());
        let (mut shapes, mut roles, mut rests) = (Interned::new(), Interned::new(), Interned::new());
        let mut nodes = Nodes::default();
        let number = |v: &Option<u32>| v.map_or(-1, i64::from);
        for (i, node) in network.nodes.iter().enumerate() {
            nodes.op.push(ops.number((node.op.as_str(), node.domain.as_str())));
            nodes.attributes.push(attributes.number(node.attributes.as_slice()));
            nodes.inputs.push(node.inputs.iter().map(number).collect());
            nodes.outputs.push(node.outputs.iter().map(number).collect());
            nodes.mark.push(node.mark as u8);
            nodes.scene.push(all.item_of_node[i].map_or(-1, |item| all.homes[item].0 as i64));
            let is_there = |there: bool| there.then_some(i);
            nodes.docs.extend(is_there(!node.doc.is_empty()).map(|i| (i, node.doc.as_str())));
            nodes.captured.extend(is_there(!node.captured.is_empty()).map(|i| (i, node.captured.as_slice())));
            nodes.fresh.extend(is_there(!node.fresh.is_empty()).map(|i| (i, node.fresh.as_slice())));
            nodes.stands_for.extend(is_there(node.stands_for > 0).map(|i| (i, node.stands_for)));
            nodes.former.extend(is_there(!node.former.is_empty()).map(|i| (i, node.former.as_slice())));
        }
        nodes.name = front_coded(network.nodes.iter().map(|n| n.name.as_str()), &mut rests);
        let mut values = Values {
            name: front_coded(network.values.iter().map(|v| v.name.as_str()), &mut rests),
            role: vec![-1; network.values.len()],
            ..Values::default()
        };
        for (i, value) in network.values.iter().enumerate() {
            values.shape.push(shapes.number(value.shape.as_str()));
            values.kind.push(2 * value.kind as u8 + u8::from(value.is_output));
            if value.mark as u8 != 0 {
                values.mark.insert(i, value.mark as u8);
            }
        }
        for role in &self.roles {
            if let Some(slot) = values.role.get_mut(role.value as usize) {
                *slot = roles.number(role.text.as_str()) as i64;
            }
            values.reader.extend(role.reader.map(|node| (role.value, node)));
        }
        let mut row_facts = Interned::new();
        let stored = |r| stored_row(r, &mut row_facts);
        let rows = self.rows.iter().map(stored).collect();
        serde_json::to_string(&Stored {
            command: self.command,
            title: &self.title,
            version: env!("CARGO_PKG_VERSION"),
            facts: &self.facts,
            notes: &self.notes,
            groups: &self.groups,
            rows,
            row_facts: row_facts.items,
            ops: ops.items.iter().map(|(op, domain)| (*op, *domain, family(op))).collect(),
            attributes: attributes.items,
            shapes: shapes.items,
            rests: rests.items,
            roles: roles.items,
            nodes,
            values,
            scenes: draw(network, &all),
        })
    }
}

fn stored_row<'p>(row: &'p Row, facts: &mut Interned<&'p [(String, String)]>) -> StoredRow<'p> {
    let number = |n: Option<u32>| n.map_or(-1, i64::from);
    let facts = facts.number(row.facts.as_slice());
    (row.group, row.mark, &row.title, &row.sub, &row.side, number(row.node), number(row.value), row.position, facts)
}
