//! The page of one model: what can be tapped, and where PER would sit.

use std::collections::HashMap;

use super::data::{Group, Note, Page, READER, Role, Row, Source};
use super::entries::entries;
use super::network::{Kind, Mark, Network};
use super::text;
use super::words::{count, file_name, grouped, scaled};
use crate::analysis::Analysis;
use crate::graph::NodeId;
use crate::graph::role::Because;
use crate::inspect::{InitializerReport, Inspection, TapReport};

/// Positions of the groups in the list.
const TAPS: usize = 0;
const ENDS: usize = 3;
const LEFT: usize = 4;

/// The page of a model.
pub fn page(analysis: &Analysis, found: &Inspection) -> Page {
    let graph = &analysis.graph;
    let (mut network, positions) = Network::of(graph, &analysis.types);
    let mut page = Page {
        command: "inspect",
        title: file_name(&found.model.path),
        facts: facts(found),
        notes: notes(found),
        groups: groups(),
        ..Page::default()
    };
    // Activations: the node that makes one is marked, and those that it consists of.
    let mut ghosts: HashMap<u32, u32> = HashMap::new();
    for tap in &found.taps {
        let value = graph.find(&tap.tensor);
        let activation = value.and_then(|v| analysis.catalog.at(v));
        let node = value.and_then(|v| graph.producer(v)).map(|(n, _)| positions[n.index()]);
        for member in activation.iter().flat_map(|a| &a.members) {
            network.nodes[positions[member.index()] as usize].mark = Mark::Part;
        }
        if let Some(node) = node {
            network.nodes[node as usize].mark = Mark::Tap;
        }
        if let (Some(value), None) = (value, &tap.problem) {
            ghosts.insert(value.0, u32::try_from(page.rows.len()).unwrap_or_default());
        }
        page.rows.push(tap_row(tap, node, value.map(|v| v.0)));
    }
    for loss in &found.losses {
        if let Some(value) = graph.find(&loss.name) {
            network.values[value.index()].mark = Mark::Loss;
        }
    }
    ends(&mut page, &network, found);
    for skipped in &found.hidden {
        page.rows.push(left_row("hidden", &skipped.what, &skipped.reason));
    }
    for skipped in &found.near_misses {
        page.rows.push(left_row("no activation", &skipped.what, &skipped.reason));
    }
    page.roles = roles(analysis, found, &positions);
    page.entries = entries(&network, &ghosts, &[], &[]);
    page.network = network;
    page
}

/// What initializers are for. Most of their reasons differ by the name of a node alone, which is left to the page.
fn roles(analysis: &Analysis, found: &Inspection, positions: &[u32]) -> Vec<Role> {
    let graph = &analysis.graph;
    let role = |(role, report): (&crate::graph::role::InitializerRole, &InitializerReport)| {
        let trained = if report.trained { "trained" } else { "not trained" };
        let Because::Reading(reading) = role.because else {
            let text = text::value(&format!("{}, {trained}: {}", report.role, report.because));
            return Role { value: role.value.0, text, reader: None };
        };
        let position = |node: NodeId| positions.get(node.index()).copied();
        let first = graph.uses(role.value).iter().filter_map(|u| position(u.node)).min();
        let node = graph.describe(reading.node);
        let (before, after) = report.because.split_once(&node).unwrap_or((&report.because, ""));
        let text = format!("{}, {trained}: {}{READER}{}", report.role, text::value(before), text::value(after));
        let reader = position(reading.node).filter(|node| Some(*node) != first);
        Role { value: role.value.0, text, reader }
    };
    analysis.roles.iter().zip(&found.initializers).map(role).collect()
}

fn groups() -> Vec<Group> {
    let group = |label: &str, about: &str, source, mark: Mark| Group {
        label: label.into(),
        about: about.into(),
        source,
        mark: mark as u8,
    };
    vec![
        group("Activations", "what --layers can select", Source::Rows, Mark::Tap),
        group("Nodes", "in execution order", Source::Nodes, Mark::None),
        group("Initializers", "with what they are for", Source::Initializers, Mark::None),
        group("Inputs and outputs", "of the graph", Source::Rows, Mark::Loss),
        group("Left out", "activations out of reach, and what comes close to one", Source::Rows, Mark::None),
    ]
}

fn facts(found: &Inspection) -> Vec<(String, String)> {
    let model = &found.model;
    let trained = found.initializers.iter().filter(|i| i.trained).count();
    let kind = if found.kind_detail.is_empty() {
        found.kind.into()
    } else {
        format!("{} ({})", found.kind, found.kind_detail)
    };
    let losses: Vec<String> = found.losses.iter().map(|l| format!("{}, {}", l.name, l.shape)).collect();
    let work = if found.per_sample { "multiply-adds per sample" } else { "multiply-adds" };
    [
        ("kind", kind),
        ("loss", losses.join("; ")),
        ("activations", count(found.taps.len())),
        ("nodes", count(model.nodes)),
        ("initializers", format!("{}, {} trained", count(found.initializers.len()), count(trained))),
        (work, scaled(found.multiply_adds)),
        ("opset", format!("{} (IR {})", model.opset, model.ir_version)),
        ("size", format!("{}B", scaled(model.bytes as f64))),
        ("producer", model.producer.clone()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(label, value)| (label.to_owned(), text::value(&value)))
    .collect()
}

fn notes(found: &Inspection) -> Vec<Note> {
    let injected = found.injections.iter().map(|r| Note {
        is_warning: false,
        text: text::value(&format!(
            "PER is in this model already: {} layer(s), {} nodes, by {}",
            r.layers.len(),
            r.added.nodes,
            r.arguments.join(" ")
        )),
    });
    let warnings = found.warnings.iter().map(|w| Note { is_warning: true, text: text::value(w) });
    injected.chain(warnings).collect()
}

fn tap_row(tap: &TapReport, node: Option<u32>, value: Option<u32>) -> Row {
    let percent = |share: Option<f64>| share.map(percent).unwrap_or_default();
    let d = tap.d.map(|d| format!("d = {}", grouped(d)));
    let facts = [
        ("nodes", tap.nodes.to_string()),
        ("view", tap.view.to_owned()),
        ("d, values in a row", tap.d.map(grouped).unwrap_or_default()),
        ("cost, sampled, 256 slices", percent(tap.sampled_share)),
        ("cost, exact", percent(tap.exact_share)),
        ("out of reach", tap.problem.clone().unwrap_or_default()),
    ];
    Row {
        group: TAPS,
        mark: if tap.problem.is_some() { Mark::None } else { Mark::Tap } as u8,
        title: text::name(if tap.activation.is_empty() { &tap.op } else { &tap.activation }),
        sub: if value.is_some() { String::new() } else { text::name(&tap.tensor) },
        position: tap.position,
        side: if tap.problem.is_some() { "out of reach".into() } else { d.unwrap_or_else(|| text::name(&tap.shape)) },
        node,
        value,
        facts: facts.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), text::value(&v))).collect(),
    }
}

/// Rows for the graph's inputs and outputs.
fn ends(page: &mut Page, network: &Network, found: &Inspection) {
    let is_loss = |name: &str| found.losses.iter().any(|l| text::name(&l.name) == name);
    for (i, value) in (0..).zip(&network.values) {
        let row = |title: &str, mark: Mark| Row {
            group: ENDS,
            mark: mark as u8,
            title: value.name.clone(),
            sub: title.into(),
            side: value.shape.clone(),
            value: Some(i),
            ..Row::default()
        };
        if value.kind == Kind::Input {
            page.rows.push(row("input", Mark::None));
        }
        if value.is_output && is_loss(&value.name) {
            page.rows.push(row("output that can be the loss: λ·ΣPER is added here", Mark::Loss));
        } else if value.is_output {
            page.rows.push(row("output", Mark::None));
        }
    }
}

fn left_row(sub: &str, what: &str, reason: &str) -> Row {
    Row {
        group: LEFT,
        title: text::name(what),
        sub: text::value(reason),
        side: sub.into(),
        facts: vec![("why".into(), text::value(reason))],
        ..Row::default()
    }
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        p if p > 0.0 && p < 0.01 => "less than 0.01 % of the forward pass".into(),
        p => format!("{p:.2} % of the forward pass"),
    }
}
