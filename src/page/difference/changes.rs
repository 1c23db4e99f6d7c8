//! Changes in words, as labels and what stands beside them.

use crate::diff::{Change, GraphDiff, NodeRef, Property};
use crate::page::text;
use crate::page::words::count;

/// Changes inside of a body or function that are named; of more their number is told.
const MOST: usize = 40;

type Facts = Vec<(String, String)>;

/// What differs between corresponding nodes.
pub fn changes(changes: &[Change]) -> Facts {
    changes.iter().flat_map(change).collect()
}

fn change(change: &Change) -> Facts {
    let (label, value) = match change {
        Change::Attribute { name, from, to } => (name.clone(), from_to(from.as_deref(), to.as_deref())),
        Change::Input { slot, from, to } => (format!("input {slot}"), from_to(from.as_deref(), to.as_deref())),
        Change::Output { slot, from, to } => (format!("output {slot}"), from_to(from.as_deref(), to.as_deref())),
        Change::Doc { from, to } => ("doc".into(), from_to(Some(from), Some(to))),
        Change::Metadata { key, from, to } => (format!("metadata {key}"), from_to(from.as_deref(), to.as_deref())),
        Change::Body { attribute, diff, .. } => {
            return graph_facts(diff).into_iter().map(|(k, v)| (text::name(&format!("{attribute}: {k}")), v)).collect();
        }
    };
    vec![(text::name(&label), text::value(&value))]
}

/// What a node is, for one that the other model does not have.
pub fn node_facts(node: &NodeRef) -> Facts {
    let near = |list: &[crate::diff::Neighbour]| {
        let said: Vec<String> =
            list.iter().map(|n| if n.name.is_empty() { n.op.clone() } else { n.name.clone() }).collect();
        text::value(&said.join(", "))
    };
    let facts = [("behind", near(&node.producers)), ("before", near(&node.consumers))];
    facts.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)).collect()
}

/// A property of a model or a graph.
pub fn property(property: &Property) -> (String, String) {
    let label = match property.key.as_str() {
        "" => property.what.to_owned(),
        key => format!("{} {key}", property.what),
    };
    (text::name(&label), text::value(&from_to(property.from.as_deref(), property.to.as_deref())))
}

/// What differs inside of a body, a function or a training step.
pub fn graph_facts(diff: &GraphDiff) -> Facts {
    let mut facts: Facts = diff.properties.iter().map(property).collect();
    let title = |n: &NodeRef| text::value(&format!("{} {}", n.op, n.name));
    facts.extend(diff.nodes.removed.iter().map(|n| ("− node".to_owned(), title(n))));
    facts.extend(diff.nodes.added.iter().map(|n| ("+ node".to_owned(), title(n))));
    for node in &diff.nodes.changed {
        facts.push(("~ node".into(), title(&node.b)));
        facts.extend(changes(&node.changes).into_iter().map(|(k, v)| (format!("· {k}"), v)));
    }
    for (what, added, removed) in [
        ("initializer", names(&diff.initializers.added), names(&diff.initializers.removed)),
        ("input", value_names(&diff.inputs.added), value_names(&diff.inputs.removed)),
        ("output", value_names(&diff.outputs.added), value_names(&diff.outputs.removed)),
    ] {
        facts.extend(removed.into_iter().map(|n| (format!("− {what}"), n)));
        facts.extend(added.into_iter().map(|n| (format!("+ {what}"), n)));
    }
    facts.extend(diff.initializers.changed.iter().map(|c| ("~ initializer".to_owned(), text::name(&c.b.name))));
    let renamed = diff.nodes.renamed.len() + diff.values_renamed.len() + diff.initializers.renamed.len();
    if facts.len() > MOST {
        let more = facts.len() - MOST;
        facts.truncate(MOST);
        facts.push(("and more".into(), format!("{} (--format json lists them all)", count(more))));
    }
    if renamed > 0 {
        facts.push(("renamed".into(), count(renamed)));
    }
    facts
}

fn names(list: &[crate::diff::InitializerRef]) -> Vec<String> {
    list.iter().map(|i| text::value(&format!("{} {}", i.name, i.ty))).collect()
}

fn value_names(list: &[crate::diff::ValueRef]) -> Vec<String> {
    list.iter().map(|v| text::value(&format!("{} {}", v.name, v.ty))).collect()
}

fn from_to(from: Option<&str>, to: Option<&str>) -> String {
    format!("{} → {}", from.unwrap_or("—"), to.unwrap_or("—"))
}
