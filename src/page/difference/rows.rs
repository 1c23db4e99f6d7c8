//! The rows of the list: one for everything that differs.

use std::collections::HashMap;

use super::changes::{changes, graph_facts, node_facts, property};
use crate::diff::{Diff, FoldSide, InitializerChange, NodeRef, Renamed, ValuesDiff};
use crate::page::data::{Group, Row, Source};
use crate::page::merged::Merged;
use crate::page::network::Mark;
use crate::page::text;
use crate::page::words::count;

/// Kinds of rows, in the order of the list.
#[derive(Clone, Copy)]
enum Kind {
    Folds,
    Added,
    Removed,
    Changed,
    Initializers,
    Values,
    Renamed,
    Moved,
    Model,
}

/// The kinds, by their numbers.
pub fn groups() -> Vec<Group> {
    let group = |label: &str, about: &str, mark: Mark| Group {
        label: label.into(),
        about: about.into(),
        source: Source::Rows,
        mark: mark as u8,
    };
    vec![
        group("per-inject", "what per-inject added or took out, by layer", Mark::None),
        group("Added", "nodes that only the new model has", Mark::Added),
        group("Removed", "nodes that only the old model has", Mark::Removed),
        group("Changed", "nodes that both have and that differ", Mark::Changed),
        group("Initializers", "added, removed, or with another type, shape or value", Mark::None),
        group("Values", "inputs, outputs and declared types", Mark::None),
        group("Renamed", "the same under another name", Mark::None),
        group("Moved", "the same elsewhere in a list", Mark::None),
        group("Model", "opsets, metadata, functions, training_info", Mark::None),
    ]
}

/// Rows under construction.
pub struct Rows<'d> {
    pub merged: &'d Merged,
    pub rows: Vec<Row>,
    pub expand: bool,
}

/// Whether a part has a row of its own: it belongs to no fold, or folds are open.
fn shown(expand: bool) -> impl Fn(Option<usize>) -> bool {
    move |fold| expand || fold.is_none()
}

impl Rows<'_> {
    /// Every row.
    pub fn all(&mut self, found: &Diff) {
        let shows = shown(self.expand);
        self.folds(found);
        let nodes = &found.graph.nodes;
        for node in nodes.added.iter().filter(|n| shows(n.fold)) {
            self.node(Kind::Added, Mark::Added, node, self.merged.of_b.get(node.position).copied());
        }
        for node in nodes.removed.iter().filter(|n| shows(n.fold)) {
            self.node(Kind::Removed, Mark::Removed, node, self.merged.of_a.get(node.position).copied());
        }
        for change in nodes.changed.iter().filter(|c| shows(c.fold)) {
            let facts = changes(&change.changes);
            self.rows.push(Row {
                side: facts.first().map(|(what, _)| what.clone()).unwrap_or_default(),
                facts,
                node: self.merged.of_b.get(change.b.position).copied(),
                ..row(Kind::Changed, Mark::Changed, &change.b.op, title_of(&change.b))
            });
        }
        self.initializers(found);
        for (what, values) in [
            ("input", &found.graph.inputs),
            ("output", &found.graph.outputs),
            ("declared type", &found.graph.value_info),
        ] {
            self.values(what, values);
        }
        self.renamed(found);
        for moved in &nodes.moved {
            let node = self.merged.of_b.get(moved.to).copied();
            let side = format!("{} → {}", count(moved.from), count(moved.to));
            self.rows.push(Row { side, node, ..row(Kind::Moved, Mark::None, &moved.name, "node") });
        }
        self.model(found);
    }

    fn folds(&mut self, found: &Diff) {
        if self.expand {
            return;
        }
        let mut first: HashMap<usize, u32> = HashMap::new();
        for (list, of) in
            [(&found.graph.nodes.added, &self.merged.of_b), (&found.graph.nodes.removed, &self.merged.of_a)]
        {
            for node in list {
                if let (Some(fold), Some(at)) = (node.fold, of.get(node.position)) {
                    first.entry(fold).or_insert(*at);
                }
            }
        }
        for (i, fold) in found.folds.iter().enumerate() {
            let mark = if fold.side == FoldSide::Added { Mark::Added } else { Mark::Removed };
            let (title, about) = fold.title.split_once(": ").unwrap_or((&fold.title, ""));
            self.rows.push(Row {
                node: first.get(&i).copied(),
                facts: vec![
                    ("injection".into(), fold.injection.to_string()),
                    ("nodes".into(), count(fold.nodes)),
                    ("initializers".into(), count(fold.initializers)),
                ],
                ..row(Kind::Folds, mark, title, about)
            });
        }
    }

    fn node(&mut self, kind: Kind, mark: Mark, node: &NodeRef, at: Option<u32>) {
        let side = node.outputs.first().map(|o| text::name(o)).unwrap_or_default();
        self.rows.push(Row { side, node: at, facts: node_facts(node), ..row(kind, mark, &node.op, title_of(node)) });
    }

    fn initializers(&mut self, found: &Diff) {
        let shows = shown(self.expand);
        let list = &found.graph.initializers;
        for (refs, mark) in [(&list.added, Mark::Added), (&list.removed, Mark::Removed)] {
            for part in refs.iter().filter(|p| shows(p.fold)) {
                let value = if mark == Mark::Added {
                    self.merged.value_of_b(&part.name)
                } else {
                    self.merged.value_of_a(&part.name)
                };
                let sub = if mark == Mark::Added { "added" } else { "removed" };
                self.rows.push(Row {
                    side: text::name(&part.ty),
                    value,
                    ..row(Kind::Initializers, mark, &part.name, sub)
                });
            }
        }
        for change in list.changed.iter().filter(|c| shows(c.b.fold)) {
            let facts = initializer_facts(change);
            let side = facts.last().map(|(what, value)| format!("{what} {value}")).unwrap_or_default();
            let value = self.merged.value_of_b(&change.b.name);
            self.rows.push(Row {
                side,
                value,
                facts,
                ..row(Kind::Initializers, Mark::Changed, &change.b.name, "changed")
            });
        }
    }

    fn values(&mut self, what: &str, values: &ValuesDiff) {
        let shows = shown(self.expand);
        for (refs, mark, word) in [(&values.added, Mark::Added, "added"), (&values.removed, Mark::Removed, "removed")] {
            for part in refs.iter().filter(|p| shows(p.fold)) {
                let value = if mark == Mark::Added {
                    self.merged.value_of_b(&part.name)
                } else {
                    self.merged.value_of_a(&part.name)
                };
                let sub = format!("{what} {word}");
                self.rows.push(Row { side: text::name(&part.ty), value, ..row(Kind::Values, mark, &part.name, &sub) });
            }
        }
        for change in values.changed.iter().filter(|c| shows(c.fold)) {
            let mut facts = Vec::new();
            let mut differs = |label: &str, from: &str, to: &str| {
                if from != to {
                    facts.push((label.to_owned(), text::value(&format!("{from} → {to}"))));
                }
            };
            differs("type", &change.a.ty, &change.b.ty);
            if let Some(source) = &change.source {
                differs("made by", &source.from, &source.to);
            }
            if let Some(doc) = &change.doc {
                differs("doc", &doc.from, &doc.to);
            }
            let value = self.merged.value_of_b(&change.b.name);
            let side = text::name(&change.b.ty);
            let sub = format!("{what} changed");
            self.rows.push(Row { side, value, facts, ..row(Kind::Values, Mark::Changed, &change.b.name, &sub) });
        }
        for moved in &values.moved {
            let side = format!("{} → {}", count(moved.from), count(moved.to));
            let value = self.merged.value_of_b(&moved.name);
            self.rows.push(Row { side, value, ..row(Kind::Moved, Mark::None, &moved.name, what) });
        }
    }

    fn renamed(&mut self, found: &Diff) {
        let shows = shown(self.expand);
        let graph = &found.graph;
        let merged = self.merged;
        let lists: [(&str, &[Renamed], bool); 5] = [
            ("node", &graph.nodes.renamed, true),
            ("initializer", &graph.initializers.renamed, false),
            ("input", &graph.inputs.renamed, false),
            ("output", &graph.outputs.renamed, false),
            ("value", &graph.values_renamed, false),
        ];
        for (what, list, is_node) in lists {
            for part in list.iter().filter(|r| shows(r.fold)) {
                self.rows.push(Row {
                    side: what.into(),
                    node: merged.of_b.get(part.position).copied().filter(|_| is_node),
                    value: merged.value_of_b(&part.to).filter(|_| !is_node),
                    facts: vec![
                        ("was called".into(), text::name(&part.from)),
                        ("is called".into(), text::name(&part.to)),
                    ],
                    ..row(Kind::Renamed, Mark::None, &part.to, &format!("was {}", part.from))
                });
            }
        }
    }

    fn model(&mut self, found: &Diff) {
        let shows = shown(self.expand);
        for part in found.model.iter().chain(&found.graph.properties).filter(|p| shows(p.fold)) {
            let (label, value) = property(part);
            let mark = match (&part.from, &part.to) {
                (None, _) => Mark::Added,
                (_, None) => Mark::Removed,
                _ => Mark::Changed,
            };
            let facts = vec![(label.clone(), value.clone())];
            self.rows.push(Row { facts, ..row(Kind::Model, mark, &label, &value) });
        }
        let functions = &found.functions;
        for (names, mark) in [(&functions.added, Mark::Added), (&functions.removed, Mark::Removed)] {
            self.rows.extend(names.iter().map(|name| row(Kind::Model, mark, name, "function")));
        }
        for change in &functions.changed {
            let facts = graph_facts(&change.diff);
            self.rows.push(Row { facts, ..row(Kind::Model, Mark::Changed, &change.function, "function") });
        }
        for step in &found.training_info {
            let mark = match step.status {
                "added" => Mark::Added,
                "removed" => Mark::Removed,
                _ => Mark::Changed,
            };
            let mut facts: Vec<(String, String)> = step.bindings.iter().map(property).collect();
            facts.extend(
                graph_facts(&step.initialization).into_iter().map(|(k, v)| (format!("initialization: {k}"), v)),
            );
            facts.extend(graph_facts(&step.algorithm).into_iter().map(|(k, v)| (format!("algorithm: {k}"), v)));
            let title = format!("training_info {}", step.position);
            self.rows.push(Row { facts, ..row(Kind::Model, mark, &title, step.status) });
        }
    }
}

fn row(kind: Kind, mark: Mark, title: &str, sub: &str) -> Row {
    Row { group: kind as usize, mark: mark as u8, title: text::name(title), sub: text::value(sub), ..Row::default() }
}

/// A node's name, or what it makes.
fn title_of(node: &NodeRef) -> &str {
    if node.name.is_empty() { node.outputs.first().map_or("", |o| o) } else { &node.name }
}

fn initializer_facts(change: &InitializerChange) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    if change.a.ty != change.b.ty {
        facts.push(("type".into(), text::value(&format!("{} → {}", change.a.ty, change.b.ty))));
    }
    if let Some(values) = &change.values {
        facts.push(("elements that differ".into(), format!("{} of {}", values.different, values.elements)));
        let number = |x: Option<f64>| x.map(|x| format!("{x:.6e}")).unwrap_or_default();
        let more = [
            ("cosine", values.cosine.map(|c| format!("{c:.9}")).unwrap_or_default()),
            ("mean |Δ|", number(values.mean_abs)),
            ("max |Δ|", number(values.max_abs)),
        ];
        facts.extend(more.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)));
    }
    facts.extend(change.problem.as_ref().map(|p| ("not compared".to_owned(), text::value(p))));
    facts
}
