//! A smaller graph in which one node stands for many: what is of no interest keeps its place and its edges, and takes no room.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::entries::Bundle;
use super::network::{Kind, Network, Node};

/// A node of the smaller graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A node as it is.
    Whole(u32),
    /// One for all of these.
    Run { nodes: Vec<u32>, bundle: Bundle },
}

/// The smaller graph, and for each node of `network` the one that it is, or that stands for it. Of values only those stay that
/// something reads or makes there, and those that `is_wanted`; their new numbers are returned too.
pub fn reduce(
    network: &Network,
    kept: Vec<Kept>,
    is_wanted: impl Fn(u32) -> bool,
) -> (Network, Vec<Option<u32>>, Vec<Option<u32>>) {
    let mut place: Vec<Option<u32>> = vec![None; network.nodes.len()];
    for (at, kept) in (0..).zip(&kept) {
        let nodes = if let Kept::Run { nodes, .. } = kept { nodes.as_slice() } else { &[] };
        let single = if let Kept::Whole(n) = kept { Some(n) } else { None };
        nodes.iter().chain(single).for_each(|n| place[*n as usize] = Some(at));
    }
    // Who reads a value, as far as it matters: one of the new nodes, or several.
    let mut readers: HashMap<u32, Option<u32>, RandomState> = HashMap::default();
    for (n, node) in network.nodes.iter().enumerate() {
        for (value, _) in node.reads() {
            let entry = readers.entry(value).or_insert(place[n]);
            if *entry != place[n] {
                *entry = None;
            }
        }
    }
    let mut nodes: Vec<Node> = (0..)
        .zip(kept)
        .map(|(at, kept)| match kept {
            Kept::Whole(n) => network.nodes[n as usize].clone(),
            Kept::Run { nodes, bundle } => run(network, &nodes, &readers, at, bundle),
        })
        .collect();
    let mut numbers: Vec<Option<u32>> = vec![None; network.values.len()];
    let mut values = Vec::new();
    let mut number = |v: u32| {
        *numbers[v as usize].get_or_insert_with(|| {
            values.push(network.values[v as usize].clone());
            u32::try_from(values.len() - 1).unwrap_or_default()
        })
    };
    for node in &mut nodes {
        let optional = node.inputs.iter_mut().chain(&mut node.outputs).flatten();
        let others = node.captured.iter_mut().chain(node.former.iter_mut().map(|(_, v)| v));
        optional.chain(others).for_each(|v| *v = number(*v));
    }
    (0..).zip(&network.values).filter(|(v, _)| is_wanted(*v)).for_each(|(v, _)| {
        number(v);
    });
    (Network { nodes, values }, place, numbers)
}

/// One node for many, with the values that lead into it and out of it.
fn run(
    network: &Network,
    nodes: &[u32],
    readers: &HashMap<u32, Option<u32>, RandomState>,
    at: u32,
    bundle: Bundle,
) -> Node {
    let Bundle { title: name, mark, is_aside } = bundle;
    let stands_for = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let mut made = std::collections::HashSet::new();
    let mut one = Node { name, mark, is_aside, stands_for, ..Node::default() };
    for n in nodes {
        for v in network.nodes[*n as usize].outputs.iter().flatten() {
            made.insert(*v);
            let is_inner = readers.get(v).is_none_or(|r| *r == Some(at));
            if !is_inner || network.values[*v as usize].is_output {
                one.outputs.push(Some(*v));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    for (v, _) in nodes.iter().flat_map(|n| network.nodes[*n as usize].reads()) {
        let is_flow = network.values[v as usize].kind != Kind::Initializer;
        if is_flow && !made.contains(&v) && seen.insert(v) {
            one.inputs.push(Some(v));
        }
    }
    one
}
