//! `per-inject operators`.

use clap::Args;
use per_inject::autodiff::operators::{How, SCHEMA, constant, operators};

use super::args::yes_or_no;
use super::failure::Failure;
use super::streams;

/// What the command takes.
#[derive(Debug, Args)]
pub struct OperatorsArgs {
    /// Print as JSON
    #[arg(long, env = "PER_INJECT_JSON", value_parser = yes_or_no())]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &OperatorsArgs) -> Result<(), Failure> {
    let all = operators();
    if args.json {
        let report = serde_json::json!({ "schema": SCHEMA, "operators": all, "constant": constant() });
        return streams::print(&(serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"));
    }
    let width = all.iter().map(|o| o.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for o in all {
        let opsets = match o.until {
            Some(until) => format!("{}–{until}", o.since),
            None => format!("{}+", o.since),
        };
        let how = (o.how == How::SpeltOut).then_some("spelt out");
        let remarks: Vec<&str> = [how, o.kinks, o.notes].into_iter().flatten().collect();
        let line = format!("{:width$}  {opsets:5} {}", o.name, remarks.join("; "));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(&format!("\nNo gradient passes {}.\n", constant().join(", ")));
    streams::print(&text)
}
