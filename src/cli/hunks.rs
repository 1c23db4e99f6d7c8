//! Nodes of a difference in hunks: what hangs together stands together, between the nodes before and behind it.

use std::collections::HashMap;

use per_inject::diff::{Change, Neighbour, NodeChange, NodeRef, NodesDiff};

use super::difference::{MOST, Mark, NAME, Page, nested};
use super::text::{COLUMNS, short, visible};

/// Hunks before the rest is summed up.
const MOST_HUNKS: usize = 60;

/// Neighbours of a hunk on each side.
const MOST_CONTEXT: usize = 3;

/// One node of a hunk.
#[derive(Clone, Copy)]
enum Item<'d> {
    Added(&'d NodeRef),
    Removed(&'d NodeRef),
    Changed(&'d NodeChange),
}

impl<'d> Item<'d> {
    /// Its nodes, each with whether that is in `a`.
    fn nodes(self) -> Vec<(bool, &'d NodeRef)> {
        match self {
            Item::Added(n) => vec![(false, n)],
            Item::Removed(n) => vec![(true, n)],
            Item::Changed(c) => vec![(true, &c.a), (false, &c.b)],
        }
    }

    /// Removed nodes stand before added ones of the same position.
    fn order(self) -> (usize, u8) {
        match self {
            Item::Removed(n) => (n.position, 0),
            Item::Changed(c) => (c.b.position, 1),
            Item::Added(n) => (n.position, 2),
        }
    }
}

/// All hunks, first those that come first in the graph.
pub fn nodes(page: &mut Page, diff: &NodesDiff) {
    let added = diff.added.iter().filter(|n| page.shows(n.fold)).map(Item::Added);
    let removed = diff.removed.iter().filter(|n| page.shows(n.fold)).map(Item::Removed);
    let changed = diff.changed.iter().filter(|n| page.shows(n.fold)).map(Item::Changed);
    let mut items: Vec<Item> = added.chain(removed).chain(changed).collect();
    items.sort_by_key(|i| i.order());
    let hunks = together(&items);
    for hunk in hunks.iter().take(MOST_HUNKS) {
        show(page, hunk);
    }
    if hunks.len() > MOST_HUNKS {
        let rest = hunks[MOST_HUNKS..].iter().map(Vec::len).sum::<usize>();
        let text =
            format!("… and {rest} nodes in {} more places (--format json lists them all)", hunks.len() - MOST_HUNKS);
        page.line(Mark::Context, &text);
    }
}

/// Connected parts, in the order of their first items.
fn together<'d>(items: &[Item<'d>]) -> Vec<Vec<Item<'d>>> {
    let mut at: HashMap<(bool, usize), usize> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        item.nodes().iter().for_each(|(in_a, n)| _ = at.insert((*in_a, n.position), i));
    }
    let mut part: Vec<usize> = (0..items.len()).collect();
    fn root(part: &mut [usize], mut i: usize) -> usize {
        while part[i] != i {
            part[i] = part[part[i]];
            i = part[i];
        }
        i
    }
    for (i, item) in items.iter().enumerate() {
        for (in_a, node) in item.nodes() {
            for neighbour in node.producers.iter().chain(&node.consumers) {
                if let Some(j) = at.get(&(in_a, neighbour.position)) {
                    let (x, y) = (root(&mut part, i), root(&mut part, *j));
                    part[x.max(y)] = x.min(y);
                }
            }
        }
    }
    let mut hunks: Vec<Vec<Item>> = Vec::new();
    let mut of_root: HashMap<usize, usize> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        let hunk = *of_root.entry(root(&mut part, i)).or_insert_with(|| {
            hunks.push(Vec::new());
            hunks.len() - 1
        });
        hunks[hunk].push(*item);
    }
    hunks
}

fn show(page: &mut Page, hunk: &[Item]) {
    let counts = |is: fn(&Item) -> bool| hunk.iter().filter(|i| is(i)).count();
    let counts = [
        (counts(|i| matches!(i, Item::Added(_))), "+"),
        (counts(|i| matches!(i, Item::Removed(_))), "-"),
        (counts(|i| matches!(i, Item::Changed(_))), "~"),
    ];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, sign)| format!("{sign}{n}")).collect();
    page.heading(&format!("node {} {}", hunk[0].order().0, counts.join(" ")));
    let inside: Vec<(bool, usize)> = hunk.iter().flat_map(|i| i.nodes()).map(|(in_a, n)| (in_a, n.position)).collect();
    let mut inside_sorted = inside;
    inside_sorted.sort_unstable();
    let outside = |of: fn(&NodeRef) -> &[Neighbour]| {
        let mut seen = Vec::new();
        // The surroundings are those in `b`; of what is only in `a`, those in `a`.
        for item in hunk {
            for (in_a, node) in item.nodes().into_iter().filter(|(in_a, _)| !in_a || matches!(item, Item::Removed(_))) {
                for n in of(node) {
                    let is_inside = inside_sorted.binary_search(&(in_a, n.position)).is_ok();
                    let text = neighbour(n);
                    if !is_inside && !seen.contains(&text) && seen.len() <= MOST_CONTEXT {
                        seen.push(text);
                    }
                }
            }
        }
        if seen.len() > MOST_CONTEXT {
            seen[MOST_CONTEXT] = "…".into();
        }
        seen
    };
    outside(|n| &n.producers).iter().for_each(|line| page.line(Mark::Context, line));
    for item in hunk.iter().take(MOST) {
        match item {
            Item::Added(node) => signature(page, Mark::Added, node),
            Item::Removed(node) => signature(page, Mark::Removed, node),
            Item::Changed(change) => changed(page, change),
        }
    }
    if hunk.len() > MOST {
        page.line(
            Mark::Context,
            &format!("… and {} more nodes here (--format json lists them all)", hunk.len() - MOST),
        );
    }
    outside(|n| &n.consumers).iter().for_each(|line| page.line(Mark::Context, line));
}

fn neighbour(n: &Neighbour) -> String {
    let name = if n.name.is_empty() { format!("node {}", n.position) } else { short(&n.name, NAME) };
    format!("{name} {}", short(&n.op, NAME))
}

/// `name Op(inputs) → outputs {attributes}`, on as many lines as it takes.
fn signature(page: &mut Page, mark: Mark, node: &NodeRef) {
    let list = |names: &[String]| names.iter().map(|n| short(n, 36)).collect::<Vec<_>>().join(", ");
    let name = if node.name.is_empty() { String::new() } else { format!("{} ", short(&node.name, NAME)) };
    let head = format!("{name}{}", operator(node));
    let (inputs, outputs) = (format!("({})", list(&node.inputs)), format!(" → {}", list(&node.outputs)));
    let attributes: Vec<String> =
        node.attributes.iter().map(|a| format!("{} = {}", short(&a.name, 20), short(&a.value, 40))).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!("{{{}}}", attributes.join(", ")) };
    let mut line = head;
    for part in [inputs, outputs, format!(" {attributes}")] {
        if line.chars().count() + part.trim_end().chars().count() > COLUMNS - 2 - 2 * page.indent {
            page.line(mark, line.trim_end());
            line = format!("    {}", part.trim_start());
        } else {
            line.push_str(&part);
        }
    }
    if !line.trim().is_empty() {
        page.line(mark, line.trim_end());
    }
}

fn operator(node: &NodeRef) -> String {
    let op = short(&node.op, NAME);
    if node.domain.is_empty() { op } else { format!("{}::{op}", short(&node.domain, 24)) }
}

fn changed(page: &mut Page, change: &NodeChange) {
    let name = |n: &NodeRef| if n.name.is_empty() { format!("node {}", n.position) } else { n.name.clone() };
    let names = super::difference::both_names(&name(&change.a), &name(&change.b));
    page.line(Mark::Changed, &format!("{names} {}", operator(&change.b)));
    for one in &change.changes {
        let value = |v: &Option<String>| v.as_ref().map_or("(none)".into(), |v| short(v, 40));
        let text = match one {
            Change::Attribute { name, from, to } => format!("{}: {} → {}", visible(name), value(from), value(to)),
            Change::Input { slot, from: Some(from), to: Some(to) } if from == to => {
                format!("input {slot}: {}, which something else makes", short(from, 40))
            }
            Change::Input { slot, from, to } => format!("input {slot}: {} → {}", value(from), value(to)),
            Change::Output { slot, from, to } => format!("output {slot}: {} → {}", value(from), value(to)),
            Change::Doc { from, to } => format!("doc: {} → {}", short(from, 40), short(to, 40)),
            Change::Metadata { key, from, to } => {
                format!("metadata {}: {} → {}", short(key, 20), value(from), value(to))
            }
            Change::Body { path, diff, .. } => {
                page.line(Mark::Changed, &format!("  body {}", short(path, 80)));
                page.indent += 1;
                nested(page, diff);
                page.indent -= 1;
                continue;
            }
        };
        page.line(Mark::Changed, &format!("  {text}"));
    }
}
