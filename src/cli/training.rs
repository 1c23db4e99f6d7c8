//! What a training run shows: bars while it goes, and a table at its end.

use std::io::{self, IsTerminal};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use per_inject::train::event::{Event, Means, Observer, Step};
use per_inject::train::run::Summary;

use super::streams;
use super::text::{short, wrapped};

/// Longest name of a layer in the table.
const NAME: usize = 60;

/// Bars on a terminal; elsewhere a line an epoch. Both on standard error.
#[derive(Default)]
pub struct Progress {
    bar: Option<ProgressBar>,
    epochs: u64,
    per_epoch: u64,
}

impl Progress {
    fn bar(&mut self, epoch: u64) -> &ProgressBar {
        let (epochs, per_epoch) = (self.epochs, self.per_epoch);
        self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(per_epoch), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {speed} {msg}");
            let speed = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0} steps/s", state.per_sec());
            };
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("speed", speed));
            bar.set_prefix(format!("epoch {epoch}/{epochs}"));
            bar
        })
    }

    fn line(&mut self, text: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        streams::tell(&format!("{text}\n"));
    }
}

impl Observer for Progress {
    fn notice(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Start { step, epochs, steps_per_epoch, .. } => {
                (self.epochs, self.per_epoch) = (*epochs, *steps_per_epoch);
                if *step > 0 {
                    streams::tell(&format!("going on after step {step}\n"));
                }
            }
            Event::Step(Step { step, epoch, loss, .. }) => {
                if !io::stderr().is_terminal() {
                    return Ok(());
                }
                let behind = (epoch - 1) * self.per_epoch;
                let bar = self.bar(*epoch);
                bar.set_position(step.saturating_sub(behind));
                bar.set_message(format!("loss {}", number(*loss)));
            }
            Event::Epoch(means) => {
                let text = format!("epoch {}/{}: {}", means.epoch, self.epochs, words(means, true));
                self.line(&text);
            }
            Event::Evaluation(means) => self.line(&format!("  evaluation: {}", words(means, false))),
            Event::Skipped { step, what } => self.line(&format!("step {step} gave {what} and was left out")),
            Event::Checkpoint { .. } => {}
        }
        Ok(())
    }
}

/// Four decimals, or as many digits of what is large.
fn number(x: f64) -> String {
    if x.abs() < 1e6 { format!("{x:.4}") } else { format!("{x:.4e}") }
}

/// Means in a line.
fn words(means: &Means, with_speed: bool) -> String {
    let mut parts = vec![format!("loss {}", number(means.loss))];
    #[allow(clippy::float_cmp)] // The same number, unless there is a regulariser.
    if means.loss != means.task_loss {
        parts.push(format!("task loss {}", number(means.task_loss)));
    }
    if !means.per.is_empty() {
        parts.push(format!("PER {}", number(means.per.iter().sum::<f64>())));
    }
    parts.extend(means.accuracy.map(|a| format!("accuracy {:.2} %", 100.0 * a)));
    parts.extend(means.perplexity.map(|p| format!("perplexity {p:.3}")));
    if with_speed {
        parts.push(format!("{:.0} samples/s", means.samples_per_second));
    }
    parts.join(", ")
}

/// The table at the end.
pub fn summary(done: &Summary) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let has_evaluation = done.evaluation.is_some();
    let mut header = vec!["", "training"];
    if has_evaluation {
        header.push("evaluation");
    }
    table.set_header(header);
    let both = [done.training.as_ref(), done.evaluation.as_ref()];
    let columns = if has_evaluation { 2 } else { 1 };
    let mut row = |name: String, value: &dyn Fn(&Means) -> Option<String>| {
        let cells: Vec<String> = both.iter().take(columns).map(|m| m.and_then(value).unwrap_or_default()).collect();
        if cells.iter().any(|c| !c.is_empty()) {
            table.add_row(std::iter::once(name).chain(cells));
        }
    };
    row("loss".into(), &|m| Some(format!("{:.6}", m.loss)));
    row("task loss".into(), &|m| Some(format!("{:.6}", m.task_loss)));
    for (i, layer) in done.layers.iter().enumerate() {
        row(format!("PER of {}", short(layer, NAME)), &|m| Some(format!("{:.6}", m.per.get(i)?)));
    }
    row("gradient norm".into(), &|m| Some(format!("{:.6}", m.gradient_norm?)));
    row("accuracy".into(), &|m| Some(format!("{:.2} %", 100.0 * m.accuracy?)));
    row("perplexity".into(), &|m| Some(format!("{:.4}", m.perplexity?)));
    row("samples/s".into(), &|m| Some(format!("{:.0}", m.samples_per_second)));
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    let mut text = String::new();
    if done.training.is_some() {
        text = table.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n") + "\n";
    }
    let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut sentences = vec![format!("{}, {}.", plural(done.epochs, "epoch"), plural(done.steps, "step"))];
    if done.skipped > 0 {
        sentences.push(format!("{} left out: they gave no number.", plural(done.skipped, "step")));
    }
    if let Some((value, step)) = done.best {
        sentences.push(format!("The best evaluation was {value:.6}, after step {step}."));
    }
    for placed in &done.placed {
        let nodes = if placed.nodes.is_empty() || !placed.is_cpu() || done.placed.len() == 1 {
            String::new()
        } else {
            format!(": {}", placed.nodes.join(", "))
        };
        sentences.push(format!("{} of the step on {}{nodes}.", plural(placed.count as u64, "node"), placed.provider));
    }
    let written: Vec<String> = done.written.iter().map(|p| p.display().to_string()).collect();
    if !written.is_empty() {
        sentences.push(format!("wrote {}", written.join(" and ")));
    }
    for sentence in sentences {
        text.push_str(&wrapped(&sentence));
        text.push('\n');
    }
    text
}
