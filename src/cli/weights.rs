//! `per-inject weights get MODEL -o X` and `per-inject weights put MODEL --from X -o OUT`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets};
use per_inject::weights::matching::Rule;
use per_inject::weights::put::{self, Entry, Matched};
use per_inject::weights::{Array, Source, Wanted, WeightsError, get};
use per_inject::wire::{Model, Sync};

use super::args::yes_or_no;
use super::failure::Failure;
use super::text::{short, visible, wrapped};
use super::{render, streams};

/// Columns of a name in a table.
const NAME: usize = 40;

#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// Put trained weights of another file into a model; no other byte of it changes
    Put(PutArgs),
    /// Take a model's weights out, into a safetensors file or a NumPy archive
    Get(GetArgs),
}

/// Which initializers are meant.
#[derive(Debug, Args)]
pub struct WantedArgs {
    /// All initializers; without it those that training moves: weights by their role, and running statistics
    #[arg(long, env = "PER_INJECT_ALL", value_parser = yes_or_no(), conflicts_with = "wrt")]
    pub all: bool,
    /// These initializers, whatever their role (a selector over names)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_WRT")]
    pub wrt: Option<String>,
}

impl WantedArgs {
    fn wanted(&self) -> Wanted {
        match &self.wrt {
            Some(selector) => Wanted::Selected(selector.clone()),
            None if self.all => Wanted::All,
            None => Wanted::Trained,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = PUT_AFTER_HELP)]
pub struct PutArgs {
    /// The model, an ONNX file; - reads standard input
    pub model: PathBuf,
    /// Where the weights come from: a training checkpoint of ONNX Runtime, safetensors, .npz, a PyTorch state dict, another ONNX file
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Where to write the model; may be MODEL itself where no data file changes, - is standard output
    #[arg(short, long, value_name = "OUT", env = "PER_INJECT_OUTPUT", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// The array FROM is for the initializer TO; * stands for any text, and :T behind it transposes a matrix. May be repeated
    #[arg(long, value_name = "FROM=TO[:T]", value_delimiter = ',', value_parser = Rule::parse)]
    pub map: Vec<Rule>,
    #[command(flatten)]
    pub wanted: WantedArgs,
    /// Refuse when an initializer has no array, or an array no initializer
    #[arg(long, env = "PER_INJECT_STRICT", value_parser = yes_or_no())]
    pub strict: bool,
    /// Write nothing; show what would be done
    #[arg(long, env = "PER_INJECT_DRY_RUN", value_parser = yes_or_no())]
    pub dry_run: bool,
    /// Print the report as JSON (schemas/weights.schema.json)
    #[arg(long, env = "PER_INJECT_JSON", value_parser = yes_or_no())]
    pub json: bool,
    /// Flush to disk before the rename, also above 64 MB
    #[arg(long, env = "PER_INJECT_SYNC", value_parser = yes_or_no())]
    pub sync: bool,
}

const PUT_AFTER_HELP: &str = "\
Elements stay where the model has them: in its file (raw or typed data) or in data files, of which changed copies are written beside OUT.

Examples:
  per-inject weights put model.onnx --from checkpoint -o trained.onnx
  per-inject weights put model.onnx --from state.pt --map 'module.*=*' -o trained.onnx
  per-inject weights put model.onnx --from w.safetensors --map 'fc.weight=val_40:T' -o trained.onnx";

#[derive(Debug, Args)]
pub struct GetArgs {
    /// The model, an ONNX file; - reads standard input
    pub model: PathBuf,
    /// Where to write them: .safetensors or .npz
    #[arg(short, long, value_name = "OUT", env = "PER_INJECT_OUTPUT")]
    pub output: PathBuf,
    #[command(flatten)]
    pub wanted: WantedArgs,
    /// Print the report as JSON (schemas/weights.schema.json)
    #[arg(long, env = "PER_INJECT_JSON", value_parser = yes_or_no())]
    pub json: bool,
    /// Flush to disk before the rename, also above 64 MB
    #[arg(long, env = "PER_INJECT_SYNC", value_parser = yes_or_no())]
    pub sync: bool,
}

impl PutArgs {
    /// Where the result goes, unless nothing is written.
    fn output(&self) -> Option<&Path> {
        self.output.as_deref().filter(|_| !self.dry_run)
    }
}

/// Runs one of the two.
pub fn run(command: &WeightsCommand) -> Result<(), Failure> {
    match command {
        WeightsCommand::Put(args) => put_into(args).map_err(|f| f.of_file(&args.model)),
        WeightsCommand::Get(args) => get_from(args).map_err(|f| f.of_file(&args.model)),
    }
}

fn sync(always: bool) -> Sync {
    if always { Sync::Always } else { Sync::Auto }
}

/// What the weights come from.
pub fn source(args: &PutArgs) -> Result<Source, Failure> {
    if args.output().is_some_and(|o| same(o, &args.from)) {
        let message =
            format!("{} is where the weights come from; choose another name for the result", args.from.display());
        return Err(Failure::usage(ErrorKind::ValueValidation, message));
    }
    Source::open(&args.from).map_err(failure)
}

/// What is put where.
pub fn planned(args: &PutArgs, model: &Model, source: &Source) -> Result<put::Plan, Failure> {
    let options = put::Options { wanted: args.wanted.wanted(), rules: args.map.clone(), strict: args.strict };
    put::plan(model, source, &options).map_err(failure)
}

/// Writes the result, where there is to be one.
pub fn write(args: &PutArgs, plan: &put::Plan, model: &Model) -> Result<(), Failure> {
    args.output().map_or(Ok(()), |output| plan.write(model, output, sync(args.sync)).map_err(failure))
}

/// The weights that are wanted.
pub fn taken(args: &GetArgs, model: &Model) -> Result<(Vec<Array>, get::Report), Failure> {
    get::get(model, &args.wanted.wanted()).map_err(failure)
}

fn put_into(args: &PutArgs) -> Result<(), Failure> {
    let output = args.output();
    let model = Model::open(&args.model)?;
    let source = source(args)?;
    let plan = planned(args, &model, &source)?;
    write(args, &plan, &model)?;
    let text = if args.json { render::json_text(&plan.report)? } else { was_put(&plan.report, output) };
    tell(&text, output)
}

fn get_from(args: &GetArgs) -> Result<(), Failure> {
    let format = get::Format::of(&args.output).map_err(failure)?;
    if same(&args.output, &args.model) {
        let message = format!("{} is the model itself; choose another name for its weights", args.model.display());
        return Err(Failure::usage(ErrorKind::ValueValidation, message));
    }
    let model = Model::open(&args.model)?;
    let (arrays, report) = taken(args, &model)?;
    get::save(&arrays, format, &args.output, sync(args.sync)).map_err(failure)?;
    let text = if args.json { render::json_text(&report)? } else { was_taken(&report, &args.output) };
    streams::print(&text)
}

fn same(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Errors about the model are told with its name.
fn failure(error: WeightsError) -> Failure {
    match error {
        WeightsError::Wire(error) => error.into(),
        WeightsError::Analysis(error) => error.into(),
        error => error.into(),
    }
}

fn tell(text: &str, output: Option<&Path>) -> Result<(), Failure> {
    if output.is_some_and(|o| o.as_os_str() == "-") {
        streams::tell(text);
        return Ok(());
    }
    streams::print(text)
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Rows below a line that says what they are; nothing without rows.
fn list(out: &mut String, head: &str, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_rows(rows);
    let _ = writeln!(out, "\n{}", wrapped(head));
    for line in table.lines() {
        let _ = writeln!(out, " {}", line.trim_end());
    }
}

fn entries(of: &[Entry]) -> Vec<Vec<String>> {
    of.iter().map(|e| vec![short(&e.name, NAME), e.ty.clone(), e.role.unwrap_or_default().to_owned()]).collect()
}

fn matched(m: &Matched) -> Vec<String> {
    let from = match (m.array == m.initializer, m.transposed) {
        (true, false) => String::new(),
        (_, false) => format!("from {}", short(&m.array, NAME)),
        (_, true) => format!("from {}, transposed", short(&m.array, NAME)),
    };
    vec![short(&m.initializer, NAME), m.ty.clone(), if m.changed { "changed" } else { "the same" }.to_owned(), from]
}

fn was_put(report: &put::Report, output: Option<&Path>) -> String {
    let changed = report.matched.iter().filter(|m| m.changed).count();
    let verb = if output.is_some() { "Put" } else { "Would put" };
    let (arrays, kind) = (plural(report.matched.len(), "array"), report.source);
    let mut out =
        wrapped(&format!("{verb} {arrays} of {kind} into the model: {} changed.", plural(changed, "initializer")));
    out.push('\n');
    if !report.not_finite.is_empty() {
        let names: Vec<String> = report.not_finite.iter().map(|name| short(name, NAME)).collect();
        let _ = writeln!(
            out,
            "{}",
            wrapped(&format!("warning: these are given NaN or infinite elements: {}", names.join(", ")))
        );
    }
    list(&mut out, "matched", report.matched.iter().map(matched).collect());
    list(&mut out, "missing: no array is for these initializers", entries(&report.missing));
    list(
        &mut out,
        "unknown: no initializer is called like these arrays; --map FROM=TO says where one goes",
        entries(&report.unknown),
    );
    list(
        &mut out,
        "left: training does not move these initializers; --all takes their arrays too",
        entries(&report.left),
    );
    if let Some(output) = output {
        let _ = writeln!(out, "{}", written(output));
    }
    out
}

fn was_taken(report: &get::Report, output: &Path) -> String {
    let mut out = format!("Took {}.\n", plural(report.taken.len(), "initializer"));
    list(&mut out, "taken", entries(&report.taken));
    for why in &report.refused {
        let _ = writeln!(out, "{}", wrapped(&format!("left out: {}", visible(why))));
    }
    if report.left > 0 {
        let what = plural(report.left, "other initializer");
        let _ = writeln!(
            out,
            "{}",
            wrapped(&format!("{what}, which training does not move or --wrt does not name: --all takes every one."))
        );
    }
    let _ = writeln!(out, "{}", written(output));
    out
}

fn written(output: &Path) -> String {
    format!("Wrote {}.", output.display())
}
