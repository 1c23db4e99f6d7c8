//! Reports as text. Fits 100 columns where names do; colours only on a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};
use per_inject::inject::Report;
use per_inject::inject::report::CostReport;
use per_inject::inspect::{ForOrtTraining, Inspection};
use per_inject::record::Record;
use serde::Serialize;

use super::failure::Failure;
use super::streams;
use super::text::{COLUMNS, escaped, legible, visible, wrapped};

/// Rows of a table before the rest is summed up.
const MOST_ROWS: usize = 40;

/// JSON, indented, on standard output.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    streams::print(&json_text(value)?)
}

/// JSON, indented.
pub fn json_text(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(format!("{}\n", escaped(&text)))
}

/// What an injection did (`output`), or would do.
pub fn injection(report: &Report, output: Option<&Path>) -> String {
    let mut out = String::new();
    let model = &report.model;
    let _ = writeln!(
        out,
        "{}: opset {}, {} nodes, {}",
        visible(&model.path),
        model.opset,
        model.nodes,
        bytes(model.bytes as f64)
    );
    let is_rewritten = !report.rewritten.is_empty() || !report.model_changes.is_empty();
    if let Some(target) = report.target {
        lowering(&mut out, report, target);
    }
    if report.layers.is_empty() {
        if !is_rewritten {
            let verb = if output.is_some() { "was written" } else { "would be written" };
            let what = if report.target.is_some() { "Nothing needs rewriting" } else { "No layer is selected" };
            let _ = writeln!(out, "{what}: the file {verb} as it is.");
            notes(&mut out, report);
            return out;
        }
        before_and_after(&mut out, report);
        notes(&mut out, report);
        done(&mut out, output);
        return out;
    }
    for loss in &report.losses {
        let place = loss.training_info.map(|n| format!("training_info {n}: ")).unwrap_or_default();
        sentence(&mut out, &format!("{place}loss {:?} = task loss (now {:?}) + λ·ΣPER", loss.name, loss.task));
    }
    if report.form == "training_info" {
        sentence(&mut out, "added to the algorithm graph alone; the main graph stays as it is");
    }
    if report.form == "gradient" {
        sentence(&mut out, "gradient form: λ·∂PER/∂h is added to the gradient of each layer's h");
    }
    for coef in &report.coefficients {
        let whose = coef.item.as_ref().map(|i| format!(" for {i}")).unwrap_or_default();
        sentence(&mut out, &format!("λ = {:?}{whose}, in initializer {:?}", coef.value, coef.initializer));
    }
    let slices = report.slices.map(|s| format!(", {s} slices")).unwrap_or_default();
    let _ = writeln!(out, "{} estimator{slices}, {} over rows\n", report.estimator, report.reduction);

    let mut table = table(&["layer", "op", "shape", "view", "rows × d", "nodes", "multiply-adds", "memory"]);
    for layer in report.layers.iter().take(MOST_ROWS) {
        let rows = layer.rows.map_or("?".into(), |n| n.to_string());
        let d = layer.d.map_or("?".into(), |n| n.to_string());
        table.add_row([
            visible(&layer.name),
            visible(layer.op.as_deref().unwrap_or("tensor")),
            visible(&layer.shape),
            layer.view.into(),
            format!("{rows} × {d}"),
            format!("+{}", layer.nodes),
            count(layer.cost.multiply_adds),
            bytes(layer.cost.bytes),
        ]);
    }
    let _ = writeln!(out, "{}", trimmed(&table));
    if report.layers.len() > MOST_ROWS {
        let _ = writeln!(out, "… and {} more layers (--json lists them all)", report.layers.len() - MOST_ROWS);
    }
    cost(&mut out, &report.cost);
    out.push('\n');
    before_and_after(&mut out, report);
    notes(&mut out, report);
    done(&mut out, output);
    out
}

fn done(out: &mut String, output: Option<&Path>) {
    let done = output.map_or("Nothing was written (--dry-run).".to_owned(), written);
    let _ = writeln!(out, "{done}");
}

/// What was rewritten for a pipeline: by operator and reason, in the order in which they come first.
fn lowering(out: &mut String, report: &Report, target: &str) {
    for change in &report.model_changes {
        sentence(out, &format!("for {target}: {change}"));
    }
    let mut kinds: Vec<(&str, &str, usize, usize)> = Vec::new();
    for rewriting in &report.rewritten {
        match kinds.iter_mut().find(|(op, because, ..)| *op == rewriting.op && *because == rewriting.because) {
            Some((.., count, nodes)) => {
                *count += 1;
                *nodes += rewriting.nodes;
            }
            None => kinds.push((&rewriting.op, &rewriting.because, 1, rewriting.nodes)),
        }
    }
    if kinds.is_empty() {
        return;
    }
    let mut table = table(&["rewritten", "nodes", "become", "because"]);
    for (op, because, count, nodes) in kinds {
        table.add_row([visible(op), count.to_string(), nodes.to_string(), because.to_owned()]);
    }
    let _ = writeln!(out, "\n{}\n", trimmed(&table));
}

fn cost(out: &mut String, cost: &CostReport) {
    let per = if cost.per_sample { "per sample (open dimensions count as 1)" } else { "per step" };
    let share = if cost.model_multiply_adds > 0.0 {
        let share = times(cost.term_multiply_adds / cost.model_multiply_adds);
        format!(", {share} the model's {}", count(cost.model_multiply_adds))
    } else {
        String::new()
    };
    let random = if cost.random_numbers > 0.0 {
        format!("; {} random numbers", count(cost.random_numbers))
    } else {
        String::new()
    };
    sentence(out, &format!("Forward cost {per}: {} multiply-adds{share}{random}.", count(cost.term_multiply_adds)));
}

fn before_and_after(out: &mut String, report: &Report) {
    let added = report.added;
    let mut table = table(&["", "before", "added"]);
    let taken = report.rewritten.len();
    let nodes = if taken > 0 { format!("+{} −{taken}", added.nodes) } else { format!("+{}", added.nodes) };
    // Those of the main graph are no measure of what an algorithm graph gets.
    let before = if report.form == "training_info" { String::new() } else { report.model.nodes.to_string() };
    table.add_row(["nodes".to_owned(), before, nodes]);
    table.add_row(["initializers".to_owned(), String::new(), format!("+{}", added.initializers)]);
    if added.inputs > 0 {
        table.add_row(["inputs".to_owned(), String::new(), format!("+{} ({})", added.inputs, list(&report.inputs))]);
    }
    if added.outputs > 0 {
        let names = list(&report.outputs);
        table.add_row(["outputs".to_owned(), String::new(), format!("+{} ({names})", added.outputs)]);
    }
    let _ = writeln!(out, "{}", trimmed(&table));
}

/// Names, as many as fit beside the numbers.
fn list(names: &[String]) -> String {
    const WIDTH: usize = 60;
    let mut out = String::new();
    for name in names.iter().map(|n| visible(n)) {
        if !out.is_empty() {
            if out.chars().count() + name.chars().count() > WIDTH {
                return out + ", …";
            }
            out += ", ";
        }
        out += &name;
    }
    out
}

fn notes(out: &mut String, report: &Report) {
    for skipped in &report.skipped {
        note(out, "left out:", &format!("{}: {}", skipped.what, skipped.reason));
    }
    for warning in &report.warnings {
        note(out, "note:", warning);
    }
}

/// A sentence of its own, wrapped.
fn sentence(out: &mut String, text: &str) {
    let _ = writeln!(out, "{}", wrapped(&legible(text)));
}

/// A sentence with a coloured word in front.
fn note(out: &mut String, label: &str, text: &str) {
    let text = wrapped(&legible(&format!("{label} {text}")));
    let rest = text.strip_prefix(label).unwrap_or_default();
    let _ = writeln!(out, "{}{rest}", yellow(label));
}

/// What was taken out.
/// What a differentiation did.
pub fn differentiated(report: &per_inject::autodiff::Report, output: &Path, remarks: &[String]) -> String {
    let mut out = String::new();
    let (parameters, added) = (report.parameters.len(), report.added_nodes);
    let what = if report.optimizer == "none" { "gradients as outputs" } else { report.optimizer };
    sentence(
        &mut out,
        &format!(
            "Differentiated {:?} for {parameters} parameter(s), {what}: {added} nodes behind {}.",
            report.loss, report.forward_nodes
        ),
    );
    if !report.statistics.is_empty() {
        sentence(&mut out, &format!("{} running statistics have successors, too.", report.statistics.len()));
    }
    for name in &report.unreached {
        note(&mut out, "note:", &format!("{name:?} is trained, but the loss does not depend on it"));
    }
    for remark in remarks {
        note(&mut out, "note:", remark);
    }
    let _ = writeln!(out, "{}", written(output));
    out
}

pub fn stripped(peeled: &[Record], output: &Path, verified: bool, remarks: &[String]) -> String {
    let mut out = String::new();
    for record in peeled {
        let (layers, added) = (record.layers.len(), record.added);
        let (nodes, initializers, arguments) = (added.nodes, added.initializers, record.arguments.join(" "));
        let what = if record.is_step() { "a backward pass".into() } else { format!("{layers} layer(s)") };
        sentence(&mut out, &format!("Took out {what}, {nodes} nodes and {initializers} initializers ({arguments})."));
    }
    let verdict = if verified {
        "The structure is the original's, byte for byte; weights are as they were in the injected file."
    } else {
        "The structure differs from the original's: the file was written anew or edited since the injection."
    };
    sentence(&mut out, verdict);
    for remark in remarks {
        note(&mut out, "note:", remark);
    }
    let _ = writeln!(out, "{}", written(output));
    out
}

fn written(output: &Path) -> String {
    match output.to_str() {
        Some("-") => "Wrote to standard output.".into(),
        _ => format!("Wrote {}.", visible(&output.display().to_string())),
    }
}

/// What a model holds.
pub fn inspection(found: &Inspection, initializers: bool) -> String {
    let mut out = String::new();
    let model = &found.model;
    let _ = writeln!(
        out,
        "{}: opset {}, IR {}, {} nodes, {}{}",
        visible(&model.path),
        model.opset,
        model.ir_version,
        model.nodes,
        bytes(model.bytes as f64),
        if model.producer.is_empty() { String::new() } else { format!(", by {}", visible(&model.producer)) }
    );
    let detail = if found.kind_detail.is_empty() { String::new() } else { format!(" ({})", found.kind_detail) };
    sentence(&mut out, &format!("kind: {}{detail}", found.kind));
    for loss in &found.losses {
        sentence(&mut out, &format!("loss: {:?}, {}", loss.name, loss.shape));
    }
    let trained = found.initializers.iter().filter(|i| i.trained).count();
    let _ = writeln!(out, "initializers: {}, {trained} of them trained", found.initializers.len());
    if found.multiply_adds > 0.0 {
        let per = if found.per_sample { "per sample (open dimensions count as 1)" } else { "per step" };
        let _ = writeln!(out, "forward: {} multiply-adds {per}", count(found.multiply_adds));
    }
    if let Some(ort) = &found.for_ort_training {
        sentence(&mut out, &format!("for ORT training: {}", ort_training(ort)));
    }
    for (i, record) in found.injections.iter().enumerate() {
        let (layers, arguments) = (record.layers.len(), record.arguments.join(" "));
        sentence(&mut out, &format!("injection {}: {layers} layer(s), {arguments}", i + 1));
    }
    out.push('\n');
    if found.taps.is_empty() {
        out.push_str("No activation was found; op:TYPE and tensor:NAME tap anything of floating point.\n");
    } else {
        let mut table = table(&["#", "activation", "node", "shape", "view", "d", "sampled", "exact"]);
        let share = |s: Option<f64>| s.map_or("?".into(), percent);
        for tap in found.taps.iter().take(MOST_ROWS) {
            table.add_row([
                tap.position.to_string(),
                if tap.nodes > 1 {
                    format!("{} ({} nodes)", tap.activation, tap.nodes)
                } else {
                    tap.activation.clone()
                },
                visible(if tap.node.is_empty() { &tap.tensor } else { &tap.node }),
                visible(&tap.shape),
                tap.view.into(),
                tap.d.map_or("?".into(), |d| d.to_string()),
                share(tap.sampled_share),
                share(tap.exact_share),
            ]);
        }
        let _ = writeln!(out, "{}", trimmed(&table));
        if found.taps.len() > MOST_ROWS {
            let _ = writeln!(out, "… and {} more (--json lists them all)", found.taps.len() - MOST_ROWS);
        }
        out.push_str("sampled, exact: multiply-adds of the term (256 slices) against the model's forward pass\n");
    }
    let problems = found.taps.iter().filter_map(|t| Some((t, t.problem.as_ref()?)));
    for (tap, problem) in problems.take(MOST_ROWS) {
        note(&mut out, "cannot be tapped:", &format!("#{} {}: {problem}", tap.position, tap.tensor));
    }
    for hidden in found.hidden.iter().take(MOST_ROWS) {
        note(&mut out, "out of reach:", &format!("{}: {}", hidden.what, hidden.reason));
    }
    for refused in found.for_ort_training.iter().flat_map(|ort| &ort.refused).take(MOST_ROWS) {
        note(&mut out, "ORT training refuses:", &format!("{}: {}", refused.what, refused.reason));
    }
    for miss in found.near_misses.iter().take(MOST_ROWS) {
        note(&mut out, "no activation:", &format!("{}: {}", miss.what, miss.reason));
    }
    initializer_roles(&mut out, found, initializers);
    for warning in &found.warnings {
        note(&mut out, "note:", warning);
    }
    out
}

/// What ONNX Runtime's training takes, in one sentence.
fn ort_training(found: &ForOrtTraining) -> String {
    if let Some(problem) = &found.problem {
        return format!("refused: {problem}");
    }
    let mut parts = Vec::new();
    if !found.rewritten.is_empty() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        found.rewritten.iter().for_each(|r| *counts.entry(&r.op).or_default() += 1);
        let each = counts.iter().map(|(op, n)| if *n == 1 { (*op).to_owned() } else { format!("{n} {op}") });
        let each: Vec<String> = each.collect();
        parts.push(format!("--for ort-training rewrites {} node(s): {}", found.rewritten.len(), each.join(", ")));
    }
    parts.extend(found.model_changes.iter().cloned());
    match found.refused.len() {
        0 if parts.is_empty() => parts.push("taken as it is".into()),
        0 => {}
        n => parts.push(format!("{n} node(s) are refused, and no exact rewriting is known")),
    }
    parts.join("; ")
}

/// Every initializer with its role; in a large model only how many there are of each, unless all are asked for.
fn initializer_roles(out: &mut String, found: &Inspection, all: bool) {
    if found.initializers.is_empty() {
        return;
    }
    out.push('\n');
    if all || found.initializers.len() <= MOST_ROWS {
        let mut table = table(&["initializer", "shape", "role", "trained", "because"]);
        for i in &found.initializers {
            let trained = if i.trained { "yes" } else { "no" };
            let body = i.body.as_ref().map(|body| format!("in {body}, ")).unwrap_or_default();
            let because = visible(&format!("{body}{}", i.because));
            table.add_row([visible(&i.name), visible(&i.shape), i.role.clone(), trained.into(), because]);
        }
        // Long reasons are whole where they are asked for.
        let whole = |l: &str| all || l.chars().count() <= COLUMNS;
        let cut = |l: &str| if whole(l) { l.to_owned() } else { l.chars().take(COLUMNS - 1).chain(['…']).collect() };
        let lines: Vec<String> = trimmed(&table).lines().map(cut).collect();
        let _ = writeln!(out, "{}", lines.join("\n"));
        return;
    }
    let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for i in &found.initializers {
        *counts.entry((&i.role, i.trained)).or_insert(0) += 1;
    }
    let mut table = table(&["initializers", "role", "trained"]);
    for ((role, trained), n) in counts {
        table.add_row([n.to_string(), role.to_owned(), if trained { "yes" } else { "no" }.to_owned()]);
    }
    let _ = writeln!(out, "{}\n(--initializers lists each with the reason)", trimmed(&table));
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    table
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// 1234567 as 1.23 M.
fn count(n: f64) -> String {
    scaled(n, &[("", 1.0), (" k", 1e3), (" M", 1e6), (" G", 1e9), (" T", 1e12)])
}

/// A share of the model's work.
fn percent(share: f64) -> String {
    match 100.0 * share {
        p if p > 0.0 && p < 0.01 => "< 0.01 %".into(),
        p if p >= 1000.0 => format!("{p:.0} %"),
        p => format!("{p:.2} %"),
    }
}

/// A ratio: 2.61 times, 0.0042 times.
fn times(ratio: f64) -> String {
    let digits = if ratio >= 100.0 {
        0
    } else if ratio >= 0.1 {
        2
    } else {
        4
    };
    format!("{ratio:.digits$} times")
}

/// Bytes in decimal units.
fn bytes(n: f64) -> String {
    scaled(n, &[(" B", 1.0), (" kB", 1e3), (" MB", 1e6), (" GB", 1e9), (" TB", 1e12)])
}

fn scaled(n: f64, units: &[(&str, f64)]) -> String {
    let (unit, scale) = units.iter().rfind(|(_, s)| n >= *s).or(units.first()).copied().unwrap_or(("", 1.0));
    let value = n / scale;
    let digits = if scale == 1.0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

fn yellow(text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || !io::stdout().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[33m{text}\x1b[0m") }
}
