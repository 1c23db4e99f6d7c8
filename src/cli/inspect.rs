//! `per-inject inspect MODEL`.

use std::path::Path;

use per_inject::analysis::Analysis;
use per_inject::inspect::report;
use per_inject::page;
use per_inject::wire::Model;

use super::args::{InspectArgs, InspectFormat};
use super::failure::Failure;
use super::{deliver, render};

pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let format = args.format.unwrap_or(if args.json { InspectFormat::Json } else { InspectFormat::Text });
    let to = args.output.as_deref();
    if format == InspectFormat::Html {
        deliver::refuse_a_terminal(to)?;
    }
    let model = Model::open(&args.model)?;
    let analysis = Analysis::with_overrides(&model, args.wrt.as_deref(), args.freeze.as_deref())?;
    let found = report(&analysis);
    let text = match format {
        InspectFormat::Text => plain_in_files(render::inspection(&found, args.initializers), to),
        InspectFormat::Json => render::json_text(&found)?,
        InspectFormat::Html => page::of_inspection(&analysis, &found)?,
    };
    deliver::report(text, to, &[&model])
}

/// Colours are for a terminal. Names from the model hold no escapes by now: all that there are colour something.
fn plain_in_files(text: String, to: Option<&Path>) -> String {
    if to.is_none_or(|to| to.as_os_str() == "-") { text } else { text.replace("\x1b[33m", "").replace("\x1b[0m", "") }
}
