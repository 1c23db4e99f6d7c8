//! What is drawn of a graph, in order: inputs before their first reader, outputs and what PER would add behind their makers.

use std::collections::HashMap;

use super::network::{Kind, Mark, Network};
use super::scenes::{Entry, Item};

/// Nodes that belong together, as one box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    pub title: String,
    pub mark: Mark,
    /// Whether it stands beside the graph rather than in it, as the term of a layer does.
    pub is_aside: bool,
}

/// The entries of a graph. `ghosts` are rows of the list by the value that they are drawn at; `bundle_of` says for each node, where it
/// says something, which of the bundles it belongs to.
pub fn entries(
    network: &Network,
    ghosts: &HashMap<u32, u32>,
    bundle_of: &[Option<usize>],
    bundles: &[Bundle],
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut is_drawn = vec![false; network.values.len()];
    // A bundle stands where its first node does.
    let mut at: HashMap<usize, usize> = HashMap::new();
    for (n, node) in (0..).zip(&network.nodes) {
        if network.is_folded_constant(n as usize) {
            continue;
        }
        for (value, _) in node.reads() {
            let is_new = !std::mem::replace(&mut is_drawn[value as usize], true);
            if is_new && network.values[value as usize].kind == Kind::Input {
                entries.push(Entry::Item(Item::Input(value)));
            }
        }
        let bundle = bundle_of.get(n as usize).copied().flatten();
        match bundle.and_then(|b| Some((b, bundles.get(b)?))) {
            None => entries.push(Entry::Item(Item::Node(n))),
            Some((b, bundle)) => {
                let slot = *at.entry(b).or_insert(entries.len());
                if slot == entries.len() {
                    entries.push(Entry::Group { bundle: bundle.clone(), items: Vec::new() });
                }
                if let Some(Entry::Group { items, .. }) = entries.get_mut(slot) {
                    items.push(Item::Node(n));
                }
            }
        }
        for value in node.outputs.iter().flatten() {
            if let Some(row) = ghosts.get(value) {
                entries.push(Entry::Item(Item::Ghost { value: *value, row: *row }));
            }
            if network.values[*value as usize].is_output {
                entries.push(Entry::Item(Item::Output(*value)));
            }
        }
    }
    // One node is no group.
    for entry in &mut entries {
        if let Entry::Group { items, .. } = entry
            && let [single] = &mut items[..]
        {
            *entry = Entry::Item(single.clone());
        }
    }
    entries
}
