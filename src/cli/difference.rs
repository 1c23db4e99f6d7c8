//! A difference as text: a summary like that of `git diff --stat`, then what differs, part by part. Fits 100 columns.

use std::fmt::Write as _;

use per_inject::diff::{
    Counts, Diff, Fold, FoldSide, GraphDiff, InitializerChange, InitializersDiff, Property, Renamed, ValuesDiff,
};

use super::hunks;
use super::running;
use super::text::{COLUMNS, cut, legible, short, visible, wrapped};

/// Items of a list before the rest is summed up.
pub const MOST: usize = 60;

/// Names in a list of other names.
const MOST_RENAMED: usize = 12;

/// Characters of a name in a line.
pub const NAME: usize = 48;

/// Text under construction.
pub struct Page {
    pub out: String,
    is_coloured: bool,
    /// Whether what per-inject added is shown part by part.
    pub expand: bool,
    /// How deep in bodies this is.
    pub indent: usize,
}

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Added,
    Removed,
    Changed,
    Heading,
    Context,
}

impl Mark {
    fn sign(self) -> &'static str {
        match self {
            Mark::Added => "+ ",
            Mark::Removed => "- ",
            Mark::Changed => "~ ",
            Mark::Heading => "",
            Mark::Context => "  ",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Mark::Added => "32",
            Mark::Removed => "31",
            Mark::Changed => "33",
            Mark::Heading => "36",
            Mark::Context => "2",
        }
    }
}

impl Page {
    /// One line; what is too long is cut.
    pub fn line(&mut self, mark: Mark, text: &str) {
        let text = cut(&format!("{}{}{text}", "  ".repeat(self.indent), mark.sign()));
        self.paint(mark, &text);
    }

    /// A sentence on as many lines as it takes.
    pub fn sentence(&mut self, mark: Mark, text: &str) {
        let text = wrapped(&legible(&format!("{}{}{text}", "  ".repeat(self.indent), mark.sign())));
        text.lines().for_each(|line| self.paint(mark, line));
    }

    fn paint(&mut self, mark: Mark, text: &str) {
        let _ = match self.is_coloured {
            true => writeln!(self.out, "\x1b[{}m{text}\x1b[0m", mark.colour()),
            false => writeln!(self.out, "{text}"),
        };
    }

    pub fn plain(&mut self, text: &str) {
        let _ = writeln!(self.out, "{}", cut(&format!("{}{text}", "  ".repeat(self.indent))));
    }

    pub fn heading(&mut self, text: &str) {
        self.out.push('\n');
        self.line(Mark::Heading, &format!("@@ {text} @@"));
    }

    /// Whether something is shown by itself: it is in no group, or groups are open.
    pub fn shows(&self, fold: Option<usize>) -> bool {
        self.expand || fold.is_none()
    }

    /// The first items, and how many more there are.
    pub fn some<T>(&mut self, items: &[T], most: usize, mut show: impl FnMut(&mut Self, &T)) {
        items.iter().take(most).for_each(|item| show(self, item));
        if items.len() > most {
            self.line(Mark::Context, &format!("… and {} more (--format json lists them all)", items.len() - most));
        }
    }
}

/// The whole difference. `expand` opens what per-inject added.
pub fn text(diff: &Diff, expand: bool, is_coloured: bool) -> String {
    let mut page = Page { out: String::new(), is_coloured, expand, indent: 0 };
    for (sign, model) in [("---", &diff.a), ("+++", &diff.b)] {
        let about = format!(", opset {}, IR {}, {} nodes", model.opset, model.ir_version, model.nodes);
        let room = COLUMNS - 4 - about.len();
        page.plain(&format!("{sign} {}{about}", short(&model.path, room)));
    }
    if !diff.ignored.is_empty() {
        page.plain(&format!("left out: {}", diff.ignored.join(", ")));
    }
    if diff.equal {
        page.plain(if diff.ignored.is_empty() { "The models are the same." } else { "Nothing else differs." });
    }
    summary(&mut page, diff);
    folds(&mut page, &diff.folds);
    let model: Vec<&Property> = diff.model.iter().filter(|p| page.shows(p.fold)).collect();
    if !model.is_empty() {
        page.heading("model");
        page.some(&model, MOST, |page, p| property(page, p));
    }
    graph(&mut page, &diff.graph);
    let functions = &diff.functions;
    if !functions.added.is_empty() || !functions.removed.is_empty() {
        page.heading("functions");
        page.some(&functions.removed, MOST, |page, f| page.line(Mark::Removed, &visible(f)));
        page.some(&functions.added, MOST, |page, f| page.line(Mark::Added, &visible(f)));
    }
    for change in functions.changed.iter().take(MOST) {
        page.heading(&format!("function {}", short(&change.function, NAME)));
        nested(&mut page, &change.diff);
    }
    for step in &diff.training_info {
        page.heading(&format!("training_info {}: {}", step.position, step.status));
        page.some(&step.bindings, MOST, property);
        for (name, part) in [("initialization", &step.initialization), ("algorithm", &step.algorithm)] {
            if !part.is_empty() {
                page.plain(name);
                nested(&mut page, part);
            }
        }
    }
    if !diff.warnings.is_empty() {
        page.heading("not compared");
        page.some(&diff.warnings, MOST, |page, w| page.sentence(Mark::Context, w));
    }
    if let Some(run) = &diff.run {
        running::show(&mut page, run);
    }
    page.out
}

/// A graph inside, one step further in.
pub fn nested(page: &mut Page, diff: &GraphDiff) {
    page.indent += 1;
    graph(page, diff);
    page.indent -= 1;
}

fn summary(page: &mut Page, diff: &Diff) {
    let s = &diff.summary;
    let by_us = |side: FoldSide| diff.folds.iter().filter(|f| f.side == side).map(|f| f.nodes).sum::<usize>();
    let injected: Vec<String> = [(FoldSide::Added, "added"), (FoldSide::Removed, "removed")]
        .into_iter()
        .filter(|(side, _)| by_us(*side) > 0)
        .map(|(side, verb)| format!("{} of those {verb} are per-inject's", by_us(side)))
        .collect();
    let parts: [(&str, Counts, String); 4] = [
        ("nodes", s.nodes, format!("{} alike; {}", s.nodes_matched - s.nodes.changed, injected.join(", "))),
        ("initializers", s.initializers, String::new()),
        ("inputs", s.inputs, String::new()),
        ("outputs", s.outputs, String::new()),
    ];
    for (name, counts, about) in parts {
        if counts == Counts::default() && (diff.equal || name != "nodes") {
            continue;
        }
        let mut words = Vec::new();
        for (n, word) in [(counts.added, "added"), (counts.removed, "removed"), (counts.changed, "changed")] {
            if n > 0 {
                words.push(format!("{n} {word}"));
            }
        }
        for (n, word) in [(counts.renamed, "renamed"), (counts.moved, "moved")] {
            if n > 0 {
                words.push(format!("{n} {word}"));
            }
        }
        if words.is_empty() {
            words.push("none differs".into());
        }
        let about = about.trim_end_matches("; ");
        let about = if about.is_empty() { String::new() } else { format!(" ({about})") };
        page.plain(&format!(" {name:<12} | {}{about}", words.join(", ")));
    }
    if s.values_renamed > 0 {
        page.plain(&format!(" {:<12} | {} renamed", "values", s.values_renamed));
    }
}

fn folds(page: &mut Page, folds: &[Fold]) {
    if folds.is_empty() || page.expand {
        return;
    }
    page.heading("per-inject (--expand opens it)");
    for fold in folds.iter().take(MOST) {
        page.sentence(if fold.side == FoldSide::Added { Mark::Added } else { Mark::Removed }, &fold.title);
    }
    if folds.len() > MOST {
        page.line(Mark::Context, &format!("… and {} more (--format json lists them all)", folds.len() - MOST));
    }
}

fn property(page: &mut Page, p: &Property) {
    let key = if p.key.is_empty() { String::new() } else { format!(" {}", short(&p.key, NAME)) };
    let name = format!("{}{key}", p.what);
    let value = |v: &str| short(v, NAME);
    match (&p.from, &p.to) {
        (Some(from), Some(to)) => {
            page.line(Mark::Changed, &format!("{name}: {} → {}", value(from), value(to)));
        }
        (None, Some(to)) => page.line(Mark::Added, &format!("{name}: {}", value(to))),
        (Some(from), None) => page.line(Mark::Removed, &format!("{name}: {}", value(from))),
        (None, None) => {}
    }
}

fn graph(page: &mut Page, diff: &GraphDiff) {
    let properties: Vec<&Property> = diff.properties.iter().filter(|p| page.shows(p.fold)).collect();
    if !properties.is_empty() {
        page.heading("graph");
        page.some(&properties, MOST, |page, p| property(page, p));
    }
    hunks::nodes(page, &diff.nodes);
    initializers(page, &diff.initializers);
    values(page, "inputs", &diff.inputs);
    values(page, "outputs", &diff.outputs);
    values(page, "value_info", &diff.value_info);
    renamed(page, diff);
}

fn initializers(page: &mut Page, diff: &InitializersDiff) {
    let removed: Vec<_> = diff.removed.iter().filter(|i| page.shows(i.fold)).collect();
    let added: Vec<_> = diff.added.iter().filter(|i| page.shows(i.fold)).collect();
    if removed.is_empty() && added.is_empty() && diff.changed.is_empty() {
        return;
    }
    page.heading("initializers");
    page.some(&removed, MOST, |page, i| {
        page.line(Mark::Removed, &format!("{} {}", short(&i.name, NAME), visible(&i.ty)))
    });
    page.some(&added, MOST, |page, i| page.line(Mark::Added, &format!("{} {}", short(&i.name, NAME), visible(&i.ty))));
    page.some(&diff.changed, MOST, initializer);
}

fn initializer(page: &mut Page, change: &InitializerChange) {
    let name = both_names(&change.a.name, &change.b.name);
    if change.a.ty != change.b.ty {
        page.line(Mark::Changed, &format!("{name} {} → {}", visible(&change.a.ty), visible(&change.b.ty)));
        return;
    }
    page.line(Mark::Changed, &format!("{name} {}", visible(&change.b.ty)));
    let Some(v) = change.values else { return };
    if v.elements == 0 {
        page.line(Mark::Context, "  the elements differ");
        return;
    }
    let number = |what: &str, v: Option<f64>| v.map_or(String::new(), |v| format!(", {what} {}", magnitude(v)));
    let cosine = v.cosine.map_or(String::new(), |c| format!(", cosine {c:.6}"));
    let text = format!(
        "  {} of {} elements differ{}{}{cosine}",
        v.different,
        v.elements,
        number("max |Δ|", v.max_abs),
        number("mean |Δ|", v.mean_abs)
    );
    page.line(Mark::Context, &text);
}

/// A number of any size in few digits.
fn magnitude(v: f64) -> String {
    if v != 0.0 && !(1e-3..1e6).contains(&v.abs()) { format!("{v:.3e}") } else { format!("{v:.4}") }
}

/// A name, or what it was and is.
pub fn both_names(a: &str, b: &str) -> String {
    if a == b { short(b, NAME) } else { format!("{} → {}", short(a, NAME / 2), short(b, NAME / 2)) }
}

fn values(page: &mut Page, name: &str, diff: &ValuesDiff) {
    let removed: Vec<_> = diff.removed.iter().filter(|v| page.shows(v.fold)).collect();
    let added: Vec<_> = diff.added.iter().filter(|v| page.shows(v.fold)).collect();
    let changed: Vec<_> = diff.changed.iter().filter(|v| page.shows(v.fold)).collect();
    if removed.is_empty() && added.is_empty() && changed.is_empty() && diff.moved.is_empty() {
        return;
    }
    page.heading(name);
    page.some(&removed, MOST, |page, v| {
        page.line(Mark::Removed, &format!("{} {}", short(&v.name, NAME), visible(&v.ty)))
    });
    page.some(&added, MOST, |page, v| page.line(Mark::Added, &format!("{} {}", short(&v.name, NAME), visible(&v.ty))));
    page.some(&changed, MOST, |page, v| {
        let ty = |ty: &str| if ty.is_empty() { "undeclared".to_owned() } else { visible(ty) };
        let types = if v.a.ty == v.b.ty { ty(&v.b.ty) } else { format!("{} → {}", ty(&v.a.ty), ty(&v.b.ty)) };
        page.line(Mark::Changed, &format!("{} {types}", both_names(&v.a.name, &v.b.name)));
        if let Some(source) = &v.source {
            page.line(Mark::Context, &format!("  made by {} → {}", short(&source.from, 40), short(&source.to, 40)));
        }
        if let Some(doc) = &v.doc {
            page.line(Mark::Context, &format!("  doc {} → {}", short(&doc.from, 40), short(&doc.to, 40)));
        }
    });
    page.some(&diff.moved, MOST, |page, m| {
        page.line(Mark::Changed, &format!("{}: position {} → {}", short(&m.name, NAME), m.from, m.to));
    });
}

fn renamed(page: &mut Page, diff: &GraphDiff) {
    let lists: [(&str, &[Renamed]); 5] = [
        ("nodes", &diff.nodes.renamed),
        ("initializers", &diff.initializers.renamed),
        ("inputs", &diff.inputs.renamed),
        ("outputs", &diff.outputs.renamed),
        ("values", &diff.values_renamed),
    ];
    for (name, list) in lists {
        let list: Vec<&Renamed> = list.iter().filter(|r| page.shows(r.fold)).collect();
        if list.is_empty() {
            continue;
        }
        page.heading(&format!("{} {name} under other names", list.len()));
        page.some(&list, MOST_RENAMED, |page, r| {
            let shown = |name: &str| if name.is_empty() { "(none)".into() } else { short(name, NAME - 4) };
            page.line(Mark::Changed, &format!("{} → {}", shown(&r.from), shown(&r.to)));
        });
    }
}
