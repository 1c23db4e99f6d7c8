//! A difference as a picture for Graphviz: what changed and its neighbours, what per-inject added as one box for each layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::change::{Diff, FoldSide, NodeRef};
use crate::graph::NodeId;
use crate::onnx::NodeProto;
use crate::wire::Model;

/// What is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DotOptions {
    /// The whole graph, not only the neighbourhood of the changes.
    pub full: bool,
    /// Every node of what per-inject added, in a cluster for each layer, instead of one box.
    pub expand: bool,
}

/// Longest part of a name that a label shows.
const LONGEST: usize = 60;

/// What became of a drawn node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Same,
    Added,
    Removed,
    Changed,
}

impl Status {
    fn style(self) -> &'static str {
        match self {
            Status::Same => "color=\"#777777\", fillcolor=\"#f4f4f4\"",
            Status::Added => "color=\"#1a7f37\", fillcolor=\"#dafbe1\", penwidth=1.5",
            Status::Removed => "color=\"#cf222e\", fillcolor=\"#ffebe9\", style=\"filled,rounded,dashed\"",
            Status::Changed => "color=\"#9a6700\", fillcolor=\"#fff8c5\", penwidth=1.5",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Status::Same => "",
            Status::Added => "+ ",
            Status::Removed => "- ",
            Status::Changed => "~ ",
        }
    }
}

/// A drawn vertex: a node of `b`, one that only `a` has, or a folded group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Vertex {
    B(usize),
    A(usize),
    Fold(usize),
}

impl Vertex {
    fn id(self) -> String {
        match self {
            Vertex::B(i) => format!("b{i}"),
            Vertex::A(i) => format!("a{i}"),
            Vertex::Fold(i) => format!("f{i}"),
        }
    }
}

/// The picture of `diff`, which is that of `a` and `b`, in Graphviz's language.
pub fn dot(diff: &Diff, a: &Model, b: &Model, options: DotOptions) -> String {
    let drawing = Drawing::of(diff, a, b, options);
    let mut out = String::from("digraph \"per-inject diff\" {\n");
    out.push_str(
        "  rankdir=TB;\n  node [shape=box, style=\"filled,rounded\", fontname=\"sans-serif\", fontsize=10];\n",
    );
    out.push_str("  edge [fontname=\"sans-serif\", fontsize=8, color=\"#777777\"];\n");
    let mut clusters: BTreeMap<usize, Vec<Vertex>> = BTreeMap::new();
    for vertex in &drawing.shown {
        match drawing.fold_of(*vertex) {
            Some(fold) if options.expand => clusters.entry(fold).or_default().push(*vertex),
            _ => drawing.write_vertex(&mut out, "  ", *vertex),
        }
    }
    for (fold, vertices) in clusters {
        let _ = writeln!(out, "  subgraph cluster_{fold} {{");
        let _ = writeln!(out, "    label={}; color=\"#1a7f37\";", quoted(&wrapped(&diff.folds[fold].title)));
        vertices.iter().for_each(|v| drawing.write_vertex(&mut out, "    ", *v));
        out.push_str("  }\n");
    }
    for ((from, to, is_gone), tensors) in &drawing.edges {
        if !drawing.shown.contains(from) || !drawing.shown.contains(to) {
            continue;
        }
        let label = match tensors.len() {
            1 => shortened(&tensors[0]),
            n => format!("{n} values"),
        };
        let style = if *is_gone { ", style=dashed, color=\"#cf222e\"" } else { "" };
        let _ = writeln!(out, "  {} -> {} [label={}{style}];", from.id(), to.id(), quoted(&label));
    }
    if drawing.shown.is_empty() {
        out.push_str("  nothing [label=\"no node differs\"];\n");
    }
    out.push_str("}\n");
    out
}

struct Drawing<'d> {
    diff: &'d Diff,
    a: &'d [NodeProto],
    b: &'d [NodeProto],
    status_b: Vec<Status>,
    folds_b: Vec<Option<usize>>,
    folds_a: BTreeMap<usize, Option<usize>>,
    /// Values from one vertex to another, and whether that is so in `a` alone.
    edges: BTreeMap<(Vertex, Vertex, bool), Vec<String>>,
    shown: BTreeSet<Vertex>,
}

impl<'d> Drawing<'d> {
    fn of(diff: &'d Diff, a: &'d Model, b: &'d Model, options: DotOptions) -> Self {
        let (a, b) = (&a.graph.nodes, &b.graph.nodes);
        let mut drawing = Drawing {
            diff,
            a,
            b,
            status_b: vec![Status::Same; b.len()],
            folds_b: vec![None; b.len()],
            folds_a: BTreeMap::new(),
            edges: BTreeMap::new(),
            shown: BTreeSet::new(),
        };
        let nodes = &diff.graph.nodes;
        for node in &nodes.added {
            drawing.status_b[node.position] = Status::Added;
            drawing.folds_b[node.position] = node.fold;
        }
        for change in &nodes.changed {
            drawing.status_b[change.b.position] = Status::Changed;
        }
        for node in &nodes.removed {
            drawing.folds_a.insert(node.position, node.fold);
        }
        drawing.connect(options);
        drawing.choose(options);
        drawing
    }

    /// Where a node of `b` is drawn.
    fn place_b(&self, node: usize, options: DotOptions) -> Vertex {
        match self.folds_b.get(node).copied().flatten() {
            Some(fold) if !options.expand => Vertex::Fold(fold),
            _ => Vertex::B(node),
        }
    }

    /// Where a node of `a` is drawn: as its counterpart, where it has one.
    fn place_a(&self, node: usize, options: DotOptions) -> Vertex {
        if let Some(Some(NodeId(other))) = self.diff.matching.a_to_b.get(node) {
            return self.place_b(*other as usize, options);
        }
        match self.folds_a.get(&node).copied().flatten() {
            Some(fold) if !options.expand => Vertex::Fold(fold),
            _ => Vertex::A(node),
        }
    }

    fn connect(&mut self, options: DotOptions) {
        let makers = |nodes: &'d [NodeProto]| {
            let outputs = |(i, n): (usize, &'d NodeProto)| n.output.iter().map(move |o| (o.as_str(), i));
            nodes.iter().enumerate().flat_map(outputs).collect::<std::collections::HashMap<&str, usize>>()
        };
        let (made_a, made_b) = (makers(self.a), makers(self.b));
        let inputs = |node: &'d NodeProto| node.input.iter().filter(|n| !n.is_empty());
        for (i, node) in self.b.iter().enumerate() {
            for name in inputs(node) {
                if let Some(maker) = made_b.get(name.as_str()) {
                    let key = (self.place_b(*maker, options), self.place_b(i, options), false);
                    self.edges.entry(key).or_default().push(name.clone());
                }
            }
        }
        // Of `a` only what is not in `b` as well: edges at removed nodes, and inputs that changed.
        let nodes = &self.diff.graph.nodes;
        let gone = nodes.removed.iter().chain(nodes.changed.iter().map(|c| &c.a)).map(|n| n.position);
        let mut seen = BTreeSet::new();
        let is_gone = |node: usize| self.diff.matching.a_to_b.get(node).is_none_or(Option::is_none);
        let removed: BTreeMap<usize, &NodeRef> = nodes.removed.iter().map(|n| (n.position, n)).collect();
        let readers = |node: usize| removed.get(&node).into_iter().flat_map(|n| &n.consumers);
        let mut found = Vec::new();
        for node in gone {
            let own = inputs(&self.a[node]).filter_map(|name| Some((*made_a.get(name.as_str())?, node, name.clone())));
            let read = if is_gone(node) {
                readers(node).map(|c| (node, c.position, c.tensor.clone())).collect()
            } else {
                Vec::new()
            };
            found.extend(own.chain(read));
        }
        for (from, to, name) in found {
            let key = (self.place_a(from, options), self.place_a(to, options));
            if seen.insert((from, to)) && !self.edges.contains_key(&(key.0, key.1, false)) {
                self.edges.entry((key.0, key.1, true)).or_default().push(name);
            }
        }
        self.edges.retain(|(from, to, _), _| from != to);
    }

    fn choose(&mut self, options: DotOptions) {
        let all = (0..self.b.len())
            .map(|i| self.place_b(i, options))
            .chain(self.folds_a.keys().map(|i| self.place_a(*i, options)));
        let all: BTreeSet<Vertex> = all.collect();
        if options.full {
            self.shown = all;
            return;
        }
        let differs = |v: &Vertex| match v {
            Vertex::B(i) => self.status_b[*i] != Status::Same,
            Vertex::A(_) | Vertex::Fold(_) => true,
        };
        let core: BTreeSet<Vertex> = all.into_iter().filter(differs).collect();
        let mut shown = core.clone();
        for (from, to, _) in self.edges.keys() {
            if core.contains(from) {
                shown.insert(*to);
            }
            if core.contains(to) {
                shown.insert(*from);
            }
        }
        self.shown = shown;
    }

    fn fold_of(&self, vertex: Vertex) -> Option<usize> {
        match vertex {
            Vertex::B(i) => self.folds_b[i],
            Vertex::A(i) => self.folds_a.get(&i).copied().flatten(),
            Vertex::Fold(_) => None,
        }
    }

    fn write_vertex(&self, out: &mut String, indent: &str, vertex: Vertex) {
        let (status, label) = match vertex {
            Vertex::B(i) => (self.status_b[i], node_label(&self.b[i])),
            Vertex::A(i) => (Status::Removed, node_label(&self.a[i])),
            Vertex::Fold(i) => {
                let fold = &self.diff.folds[i];
                let status = if fold.side == FoldSide::Added { Status::Added } else { Status::Removed };
                let _ = writeln!(
                    out,
                    "{indent}{} [label={}, shape=component, {}];",
                    vertex.id(),
                    quoted(&format!("{}{}", status.sign(), wrapped(&fold.title))),
                    status.style()
                );
                return;
            }
        };
        let label = format!("{}{label}", status.sign());
        let _ = writeln!(out, "{indent}{} [label={}, {}];", vertex.id(), quoted(&label), status.style());
    }
}

fn node_label(node: &NodeProto) -> String {
    let op = shortened(node.op_type());
    if node.name().is_empty() { op } else { format!("{op}\n{}", shortened(node.name())) }
}

/// A sentence on lines that fit a box.
fn wrapped(sentence: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in sentence.split(' ') {
        let word = shortened(word);
        if column > 0 {
            let is_full = column + word.chars().count() > 40;
            out.push(if is_full { '\n' } else { ' ' });
            column = if is_full { 0 } else { column + 1 };
        }
        column += word.chars().count();
        out.push_str(&word);
    }
    out
}

fn shortened(name: &str) -> String {
    if name.chars().nth(LONGEST).is_none() {
        return name.to_owned();
    }
    let length = name.chars().count();
    name.chars().take(LONGEST / 2).chain(['…']).chain(name.chars().skip(length - LONGEST / 2 + 1)).collect()
}

/// A quoted string of Graphviz's language. Backslashes begin escapes there, and control characters are no text.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // An ampersand could begin an entity.
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() || is_invisible(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Characters that are not seen, or turn text around.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_so_that_they_stay_names() {
        assert_eq!(quoted("a\"b\\N\n<c>&\x1b\u{202e}"), "\"a\\\"b\\\\N\\n&lt;c&gt;&amp;\u{fffd}\u{fffd}\"");
        assert_eq!(shortened(&"x".repeat(1000)).chars().count(), LONGEST);
    }
}
