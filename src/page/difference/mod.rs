//! The page of a difference: what changed, and where that is in the graph.

mod changes;
mod rows;

use std::collections::{HashMap, HashSet};

use rows::{Rows, groups};

use super::data::{Note, Page};
use super::entries::{Bundle, entries};
use super::focus::focus;
use super::merged::Merged;
use super::network::Mark;
use super::reduce::{Kept, reduce};
use super::text;
use super::words::{count, file_name, scaled};
use crate::compare::RunComparison;
use crate::diff::{Counts, Diff, Fold, FoldKind, FoldSide};
use crate::inject::report::ModelSummary;
use crate::wire::Model;

/// The page of a difference.
pub fn page(a: &Model, b: &Model, found: &Diff, expand: bool) -> Page {
    let merged = Merged::of(a, b, found);
    let mut page = Page {
        command: "diff",
        title: format!("{} → {}", file_name(&found.a.path), file_name(&found.b.path)),
        facts: facts(found),
        notes: notes(found),
        groups: groups(),
        ..Page::default()
    };
    let mut rows = Rows { merged: &merged, rows: Vec::new(), expand };
    rows.all(found);
    page.rows = rows.rows;
    let (bundles, bundle_of) = bundles(&merged, found, expand);
    let kept = focus(&merged.network, &bundle_of, &bundles);
    let origins: Vec<Option<u32>> = kept.iter().map(|k| if let Kept::Whole(n) = k { Some(*n) } else { None }).collect();
    let bundle_of: Vec<Option<usize>> = origins.iter().map(|n| bundle_of[(*n)? as usize]).collect();
    let wanted: HashSet<u32> = page.rows.iter().filter_map(|r| r.value).collect();
    let (mut network, places, numbers) = reduce(&merged.network, kept, |v| wanted.contains(&v));
    merged.describe(&mut network, &origins, a, b);
    for row in &mut page.rows {
        row.node = row.node.and_then(|n| places[n as usize]);
        row.value = row.value.and_then(|v| numbers[v as usize]);
    }
    page.entries = entries(&network, &HashMap::new(), &bundle_of, &bundles);
    page.network = network;
    page
}

/// What per-inject added, as one box for each layer; for each node of the page the one that it belongs to.
fn bundles(merged: &Merged, found: &Diff, expand: bool) -> (Vec<Bundle>, Vec<Option<usize>>) {
    let mut bundle_of = vec![None; merged.network.nodes.len()];
    if expand {
        return (Vec::new(), bundle_of);
    }
    let mark = |f: &Fold| if f.side == FoldSide::Added { Mark::Added } else { Mark::Removed };
    let mut bundles: Vec<Bundle> = found
        .folds
        .iter()
        .map(|f| Bundle { title: text::name(&f.title), mark: mark(f), is_aside: f.kind == FoldKind::Layer })
        .collect();
    for (list, of) in [(&found.graph.nodes.added, &merged.of_b), (&found.graph.nodes.removed, &merged.of_a)] {
        for node in list {
            if let (Some(at), Some(fold)) = (of.get(node.position), node.fold) {
                bundle_of[*at as usize] = Some(fold);
                // A rewriting takes nodes out and puts others in.
                let own = merged.network.nodes[*at as usize].mark;
                if let Some(bundle) = bundles.get_mut(fold).filter(|b| b.mark != own) {
                    bundle.mark = Mark::Changed;
                }
            }
        }
    }
    (bundles, bundle_of)
}

fn facts(found: &Diff) -> Vec<(String, String)> {
    let about = |m: &ModelSummary| format!("{} nodes, opset {}, {}B", count(m.nodes), m.opset, scaled(m.bytes as f64));
    let summary = &found.summary;
    let counted = |c: &Counts| {
        let words = [
            ("+", c.added, ""),
            ("−", c.removed, ""),
            ("~", c.changed, ""),
            ("", c.renamed, " renamed"),
            ("", c.moved, " moved"),
        ];
        let said: Vec<String> =
            words.iter().filter(|w| w.1 > 0).map(|(sign, n, word)| format!("{sign}{}{word}", count(*n))).collect();
        said.join("  ")
    };
    [
        ("before", about(&found.a)),
        ("after", about(&found.b)),
        ("nodes", counted(&summary.nodes)),
        ("nodes in both", count(summary.nodes_matched)),
        ("initializers", counted(&summary.initializers)),
        ("inputs", counted(&summary.inputs)),
        ("outputs", counted(&summary.outputs)),
        ("values renamed", if summary.values_renamed > 0 { count(summary.values_renamed) } else { String::new() }),
        ("left out", found.ignored.join(", ")),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(label, value)| (label.to_owned(), value))
    .collect()
}

fn notes(found: &Diff) -> Vec<Note> {
    let said = if found.ignored.is_empty() { "The models are the same." } else { "Nothing else differs." };
    let equal = found.equal.then(|| Note { is_warning: false, text: said.into() });
    let warnings = found.warnings.iter().map(|w| Note { is_warning: true, text: text::value(w) });
    let run = found.run.iter().flat_map(run_notes);
    equal.into_iter().chain(warnings).chain(run).collect()
}

/// Outputs that are shown of a run; a page is no place for thousands of sentences.
const MOST_OUTPUTS: usize = 20;

/// What running both models showed.
fn run_notes(run: &RunComparison) -> Vec<Note> {
    let seed = run.seed.map_or(String::new(), |seed| format!(", made-up inputs of seed {seed}"));
    let on = format!("Run on {}, {}{seed}. {}", run.engine, run.device, run.verdict());
    let mut notes = vec![Note { is_warning: !run.agree, text: text::value(&on) }];
    let said = |a: &str, b: &str| if a == b { a.to_owned() } else { format!("{a} → {b}") };
    for output in run.outputs.iter().take(MOST_OUTPUTS) {
        let sentence = format!("output {}: {}", said(&output.a, &output.b), output.outcome);
        notes.push(Note { is_warning: !output.outcome.agrees(), text: text::value(&sentence) });
    }
    if let Some(more) = run.outputs.len().checked_sub(MOST_OUTPUTS).filter(|n| *n > 0) {
        notes.push(Note {
            is_warning: false, text: format!("… {} more outputs: --format json has them", count(more))
        });
    }
    if let Some(found) = run.first.as_ref().and_then(|f| f.found.as_ref()) {
        let value = said(&found.a, &found.b);
        let sentence = format!("The first value that differs is {value}, made by {}: {}", found.made_by, found.outcome);
        notes.push(Note { is_warning: true, text: text::value(&sentence) });
    }
    notes
}
