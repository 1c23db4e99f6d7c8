//! Names for what is added: they start with one root, collide with nothing, and read well in a graph viewer.

use std::collections::{HashMap, HashSet};

use crate::graph::{Graph, NodeId, bodies};
use crate::onnx::{GraphProto, NodeProto};
use crate::wire::Model;

/// Every name that is added starts so.
pub const ROOT: &str = "per_inject/";

/// Metadata key of the record of the first injection; the second has `per_inject.2`, and so on.
pub const KEY: &str = "per_inject";

/// Longest part of a node's name that a layer's name takes over.
const LONGEST: usize = 120;

/// The first of `per_inject/`, `per_inject/2/`, `per_inject/3/` … behind all that the model's names and records use, and its number.
///
/// Every injection has its own, so that taking the last one out leaves the earlier ones.
pub fn free_root(model: &Model, graph: &Graph) -> (String, usize) {
    let (mut taken, others) = rayon::join(
        || numbers(|note| graph.values().for_each(|v| note(graph.name(v)))),
        || {
            numbers(|note| {
                visit_names(graph.nodes, note);
                model.graph.value_info.iter().for_each(|v| note(v.name()));
            })
        },
    );
    taken.extend(others);
    taken.extend(model.metadata.iter().filter_map(|m| recorded(m.key())));
    let last = taken.iter().max().copied().unwrap_or(0);
    // Only a forged name holds the greatest number there is.
    let next = last.checked_add(1).or_else(|| (2..last).find(|n| !taken.contains(n))).unwrap_or(last);
    (root(next), next)
}

/// The numbers of the roots that names stand under.
fn numbers(visit: impl Fn(&mut dyn FnMut(&str))) -> HashSet<usize> {
    let mut found = HashSet::new();
    visit(&mut |name| {
        if let Some(rest) = name.strip_prefix(ROOT) {
            // Whatever is no number, and 0 too, stands under the first root.
            let number = rest.split('/').next().and_then(|n| n.parse::<usize>().ok());
            found.insert(number.unwrap_or(1).max(1));
        }
    });
    found
}

/// The root of injection number `number`.
pub fn root(number: usize) -> String {
    if number == 1 { ROOT.to_owned() } else { format!("{ROOT}{number}/") }
}

/// The metadata key of the record of injection number `number`.
pub fn key(number: usize) -> String {
    if number == 1 { KEY.to_owned() } else { format!("{KEY}.{number}") }
}

/// The number of the injection that a metadata key belongs to; `None` for keys of others.
pub fn recorded(key: &str) -> Option<usize> {
    match key.strip_prefix(KEY)? {
        "" => Some(1),
        rest => rest.strip_prefix('.')?.parse().ok(),
    }
}

/// Node names everywhere, and value names inside bodies.
pub fn visit_names(nodes: &[NodeProto], note: &mut dyn FnMut(&str)) {
    for node in nodes {
        note(node.name());
        for (body, _) in bodies(node) {
            visit_body(body, note);
        }
    }
}

fn visit_body(body: &GraphProto, note: &mut dyn FnMut(&str)) {
    body.input.iter().for_each(|v| note(v.name()));
    body.initializer.iter().for_each(|t| note(t.name()));
    body.node.iter().flat_map(|n| &n.output).for_each(|o| note(o));
    visit_names(&body.node, note);
}

/// Hands out layer names.
#[derive(Debug, Default)]
pub struct LayerNames {
    used: HashSet<String, foldhash::fast::RandomState>,
    /// By base: the last number that made it unique.
    last: HashMap<String, usize, foldhash::fast::RandomState>,
}

impl LayerNames {
    /// The node's own name where it has one, else its operator and position; made unique by a number.
    pub fn name(&mut self, graph: &Graph, node: Option<NodeId>, tensor: &str) -> String {
        let base = match node {
            // What an earlier injection put in a node's place is named for viewers; the value has the model's own name.
            Some(id) if graph.node(id).name().starts_with(ROOT) && !tensor.is_empty() => tensor.to_owned(),
            Some(id) if !graph.node(id).name().is_empty() => graph.node(id).name().to_owned(),
            Some(id) if !graph.node(id).op_type().is_empty() => {
                format!("{}_{}", graph.node(id).op_type().to_ascii_lowercase(), id.0)
            }
            _ => tensor.to_owned(),
        };
        // Path separators inside a name group nodes in viewers; at its start they would leave an empty group.
        let printable = |c: char| if c.is_control() { '_' } else { c };
        let base: String = base.trim_start_matches('/').chars().map(printable).take(LONGEST).collect();
        // "const" holds the shared constants, "slices" the shared draws, "lower" what stands in for other nodes, "call_1" copies of what a
        // call computes, and a number could be the root of a later injection.
        let base = match base.split('/').next().unwrap_or_default() {
            "const" | "lower" | "slices" | "" => format!("layer_{base}"),
            first if first.starts_with("call_") => format!("layer_{base}"),
            first if first.bytes().all(|b| b.is_ascii_digit()) => format!("layer_{base}"),
            _ => base,
        };
        let mut name = base.clone();
        if RESERVED.contains(&name.as_str()) || !self.used.insert(name.clone()) {
            let n = self.last.entry(base.clone()).or_insert(1);
            loop {
                *n += 1;
                name = format!("{base}_{n}");
                if self.used.insert(name.clone()) {
                    break;
                }
            }
        }
        name
    }
}

/// What the injection itself calls values right under the root.
const RESERVED: [&str; 5] = ["coef", "task_loss", "per", "term", "total"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{ModelProto, StringStringEntryProto, ValueInfoProto};
    use prost::Message;

    fn root_in(input: &str, metadata: &str) -> (String, usize) {
        let input = ValueInfoProto { name: Some(input.into()), ..Default::default() };
        let entry = StringStringEntryProto { key: Some(metadata.into()), value: None };
        let graph = GraphProto { input: vec![input], ..Default::default() };
        let proto =
            ModelProto { ir_version: Some(8), graph: Some(graph), metadata_props: vec![entry], ..Default::default() };
        let model = Model::from_bytes(proto.encode_to_vec()).unwrap();
        let graph = Graph::of(&model).unwrap();
        free_root(&model, &graph)
    }

    #[test]
    fn a_root_is_free_whatever_the_names_of_the_model_are() {
        assert_eq!(root_in("x", ""), ("per_inject/".into(), 1));
        for name in ["per_inject/", "per_inject/0", "per_inject/0/x", "per_inject/-1", "per_inject/1/x"] {
            assert_eq!(root_in(name, ""), ("per_inject/2/".into(), 2), "{name}");
        }
        assert_eq!(root_in("per_inject/7/x", ""), ("per_inject/8/".into(), 8));
        assert_eq!(root_in(&format!("per_inject/{}/x", usize::MAX), ""), ("per_inject/2/".into(), 2));
    }

    #[test]
    fn a_record_without_its_nodes_still_takes_its_number() {
        assert_eq!(root_in("x", "per_inject.4").1, 5);
    }
}
