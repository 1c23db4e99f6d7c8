//! What the command line takes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use per_inject::engine::Device;
use per_inject::inject::{Form, Options, Outputs};
use per_inject::lower::Target;
use per_inject::wire::ExternalPolicy;

use super::measure_args::MeasureArgs;

/// Put PER, the projected error function regulariser, into an ONNX training graph.
///
/// Reads MODEL, adds λ·Σ PER(layer) to its loss, and writes the result to OUT; everything else stays byte for byte as it was.
/// `strip` takes it out again.
#[derive(Debug, Parser)]
#[command(
    name = "per-inject",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = AFTER_HELP,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub inject: InjectArgs,
}

const AFTER_HELP: &str = "\
Selectors, comma-separated, read left to right:
  relu, gelu, lstm …   activations by name, also where an exporter spelt them out
  all, none            every activation, nothing
  op:TYPE              every node of an operator type, such as op:Conv
  name:GLOB, re:REGEX  nodes by name
  tensor:NAME          a tensor
  #2..5                positions among the matches so far, counted from 1
  !ITEM                removes what ITEM matches

Examples:
  per-inject model.onnx --layers relu --coef 3e-5 -o model_per.onnx
  per-inject model.onnx --layers 'all,!#1' --coef 3e-5 --estimator exact --dry-run
  per-inject inspect model.onnx
  per-inject strip model_per.onnx -o model.onnx";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what can be tapped, what the loss is, what kind of graph it is, and what would train wrongly
    Inspect(InspectArgs),
    /// Show what differs between two models: nodes by structure, names second
    Diff(DiffArgs),
    /// Take an injected regulariser out again
    Strip(StripArgs),
    /// Turn a forward + loss graph into a step graph: forward, backward and optimiser in standard operators
    #[command(allow_negative_numbers = true)]
    Differentiate(super::differentiate::DifferentiateArgs),
    /// Train a model on ONNX Runtime, with the regulariser or without, and put the trained weights back into it
    #[command(allow_negative_numbers = true)]
    Train(Box<super::train_args::TrainArgs>),
    /// Put trained weights into a model, or take them out of one
    Weights {
        #[command(subcommand)]
        command: super::weights::WeightsCommand,
    },
    /// Show which operators differentiate knows, and what holds where they have no derivative
    Operators(super::operators::OperatorsArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub struct InjectArgs {
    /// The training graph, an ONNX file; - reads standard input
    #[arg(value_name = "MODEL", required = true)]
    pub model: Option<PathBuf>,

    /// Which layers to regularise (see Selectors below)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_LAYERS", allow_hyphen_values = true)]
    pub layers: Option<String>,

    /// The coefficient λ, or SELECTOR=λ for some of the layers; may be given more than once
    #[arg(long, value_name = "λ", env = "PER_INJECT_COEF", value_parser = parse_coefficient, allow_hyphen_values = true)]
    pub coef: Vec<CoefArg>,

    /// Where to write the result; may be MODEL itself, - is standard output
    #[arg(short, long, value_name = "OUT", env = "PER_INJECT_OUTPUT")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub measure: MeasureArgs,

    /// Make the random slices reproducible; every layer gets a seed of its own from it
    #[arg(long, value_name = "N", env = "PER_INJECT_SEED", value_parser = whole_number, allow_negative_numbers = true)]
    pub seed: Option<u64>,

    /// The loss, where several outputs could be it
    #[arg(long, value_name = "NAME", env = "PER_INJECT_LOSS")]
    pub loss: Option<String>,

    /// Leave any loss alone and add the term as an output per_loss
    #[arg(long, env = "PER_INJECT_AS_OUTPUT", value_parser = yes_or_no())]
    pub as_output: bool,

    /// Add the term to the loss, or its gradient to the gradients that the graph computes; auto does what the graph wants
    #[arg(long, value_enum, default_value = "auto", env = "PER_INJECT_FORM")]
    pub form: FormArg,

    /// In the gradient form: add the term to the loss as well, which then includes it when it is reported
    #[arg(long, env = "PER_INJECT_LOSS_TERM", value_parser = yes_or_no())]
    pub loss_term: bool,

    /// Expose as further outputs: the task loss, the PER total, each layer's PER
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', env = "PER_INJECT_OUTPUTS")]
    pub outputs: Vec<OutputArg>,

    /// Make λ a graph input, with its value as the default; without one for ONNX Runtime's training, which feeds no defaults
    #[arg(long, env = "PER_INJECT_COEF_INPUT", value_parser = yes_or_no())]
    pub coef_input: bool,

    /// Accept a coefficient of 1000 and more
    #[arg(long, env = "PER_INJECT_ANY_COEF", value_parser = yes_or_no())]
    pub any_coef: bool,

    /// Rewrite what a training pipeline refuses; with --layers none or --coef 0, do only that
    #[arg(long = "for", value_name = "PIPELINE", value_enum, env = "PER_INJECT_FOR")]
    pub target: Option<TargetArg>,

    /// Initializers that are trained, instead of those whose role says so (a selector over names)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_WRT")]
    pub wrt: Option<String>,

    /// Initializers that are not trained (a selector over names)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_FREEZE")]
    pub freeze: Option<String>,

    /// Refuse when a selected activation cannot be regularised, instead of leaving it out with a warning
    #[arg(long, env = "PER_INJECT_STRICT", value_parser = yes_or_no())]
    pub strict: bool,

    /// Write nothing; show what would be done
    #[arg(long, env = "PER_INJECT_DRY_RUN", value_parser = yes_or_no())]
    pub dry_run: bool,

    /// Print the report as JSON (schemas/report.schema.json)
    #[arg(long, env = "PER_INJECT_JSON", value_parser = yes_or_no())]
    pub json: bool,

    /// What happens to external data when OUT is in another folder
    #[arg(long, value_enum, default_value = "copy", env = "PER_INJECT_EXTERNAL")]
    pub external: ExternalArg,

    /// Flush to disk before the rename, also above 64 MB
    #[arg(long, env = "PER_INJECT_SYNC", value_parser = yes_or_no())]
    pub sync: bool,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The model, an ONNX file; - reads standard input
    pub model: PathBuf,
    /// A table, JSON (schemas/inspect.schema.json), or a page with a picture of the graph
    #[arg(long, value_enum, conflicts_with = "json", env = "PER_INJECT_FORMAT")]
    pub format: Option<InspectFormat>,
    /// The same as --format json
    #[arg(long, env = "PER_INJECT_JSON", value_parser = yes_or_no())]
    pub json: bool,
    /// Where to write it, instead of standard output
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// List every initializer with its role, however many there are
    #[arg(long, env = "PER_INJECT_INITIALIZERS", value_parser = yes_or_no())]
    pub initializers: bool,
    /// Initializers that are trained, instead of those whose role says so (a selector over names)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_WRT")]
    pub wrt: Option<String>,
    /// Initializers that are not trained (a selector over names)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_FREEZE")]
    pub freeze: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = DIFF_AFTER_HELP)]
pub struct DiffArgs {
    /// The model before and the model after, ONNX files; one of them may be - for standard input
    #[arg(value_names = ["A", "B"], required = true, num_args = 2..=9)]
    pub models: Vec<PathBuf>,
    /// How to show it
    #[arg(long, value_enum, default_value = "text", env = "PER_INJECT_FORMAT")]
    pub format: FormatArg,
    /// Write it there instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Exit with 1 when the models differ, 2 when they could not be compared
    #[arg(long, env = "PER_INJECT_EXIT_CODE", value_parser = yes_or_no())]
    pub exit_code: bool,
    /// Leave out names, docs (doc strings, metadata, producer), declared shapes, or the elements of weights
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', env = "PER_INJECT_IGNORE")]
    pub ignore: Vec<IgnoreArg>,
    /// Open what per-inject added, instead of one line for each layer
    #[arg(long, env = "PER_INJECT_EXPAND", value_parser = yes_or_no())]
    pub expand: bool,
    /// dot: draw the whole graph, not only the neighbourhood of the changes
    #[arg(long, env = "PER_INJECT_FULL", value_parser = yes_or_no())]
    pub full: bool,
    /// Colours; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value = "auto", env = "PER_INJECT_COLOR")]
    pub color: ColorArg,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Running both models.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running both models")]
pub struct RunArgs {
    /// Run both on the same inputs with ONNX Runtime and compare what comes out
    #[arg(long, env = "PER_INJECT_RUN", value_parser = yes_or_no())]
    pub run: bool,
    /// Inputs: an .npz archive, a folder of .npy files named after inputs, or one .npy file for a single input; what is missing is made up
    #[arg(long, value_name = "PATH", env = "PER_INJECT_INPUTS")]
    pub inputs: Option<PathBuf>,
    /// Seed of the inputs that are made up
    #[arg(long, value_name = "N", env = "PER_INJECT_SEED", default_value_t = 0, value_parser = whole_number, allow_negative_numbers = true)]
    pub seed: u64,
    /// Size of a dimension of inputs that are made up: its symbol, or INPUT:AXIS; 2 for those that nothing says
    #[arg(long, value_name = "NAME=N", env = "PER_INJECT_DIM", value_delimiter = ',', value_parser = parse_dim)]
    pub dim: Vec<(String, u64)>,
    /// Floats a and b agree where |a − b| ≤ T · max(1, |a|, |b|)
    #[arg(long, value_name = "T", env = "PER_INJECT_TOLERANCE", default_value_t = 0.0, value_parser = parse_tolerance, allow_negative_numbers = true)]
    pub tolerance: f64,
    /// Find the first value in execution order that differs, with the graphs run as they stand, nothing fused
    #[arg(long, env = "PER_INJECT_BISECT", value_parser = yes_or_no())]
    pub bisect: bool,
    /// ONNX Runtime: its library, a folder that holds it, or a Python environment; else ORT_DYLIB_PATH, the active Python
    /// environment, python3's packages, the system
    #[arg(long, value_name = "PATH", env = "PER_INJECT_ORT")]
    pub ort: Option<PathBuf>,
    /// cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", env = "PER_INJECT_DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    /// Threads on the CPU; all cores where it is not given
    #[arg(long, value_name = "N", env = "PER_INJECT_THREADS", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
}

fn parse_dim(text: &str) -> Result<(String, u64), String> {
    let (name, size) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write it as NAME=N")?;
    Ok((name.to_owned(), whole_number(size)?))
}

fn parse_tolerance(text: &str) -> Result<f64, String> {
    let is_usable = |t: &f64| t.is_finite() && *t >= 0.0;
    text.trim().parse().ok().filter(is_usable).ok_or_else(|| "it must be a number from 0 on, such as 1e-5".to_owned())
}

const DIFF_AFTER_HELP: &str = "\
With git, whose seven arguments it understands:
  echo '*.onnx diff=onnx' >> .gitattributes
  git config diff.onnx.command 'per-inject diff'
  git config diff.onnx.textconv 'per-inject inspect'    (git log -p and git show want this one)";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// A summary and hunks, for people
    Text,
    /// schemas/diff.schema.json
    Json,
    /// A picture for Graphviz
    Dot,
    /// A page for a browser
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IgnoreArg {
    Names,
    Docs,
    Shapes,
    Weights,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Args)]
pub struct StripArgs {
    /// The injected model; - reads standard input
    pub model: PathBuf,
    /// Where to write the result; may be MODEL itself, - is standard output
    #[arg(short, long, value_name = "OUT", env = "PER_INJECT_OUTPUT")]
    pub output: PathBuf,
    /// Take out every injection, not only the last one
    #[arg(long, env = "PER_INJECT_ALL", value_parser = yes_or_no())]
    pub all: bool,
    /// What happens to external data when OUT is in another folder
    #[arg(long, value_enum, default_value = "copy", env = "PER_INJECT_EXTERNAL")]
    pub external: ExternalArg,
    /// Flush to disk before the rename, also above 64 MB
    #[arg(long, env = "PER_INJECT_SYNC", value_parser = yes_or_no())]
    pub sync: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InspectFormat {
    Text,
    Json,
    /// One file that a browser opens, without network
    Html,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormArg {
    Auto,
    Loss,
    Gradient,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TargetArg {
    /// ONNX Runtime training 1.19.2: onnxruntime.training.artifacts.generate_artifacts
    OrtTraining,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    Task,
    Per,
    Layers,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ExternalArg {
    /// A copy
    Copy,
    /// A hard link, where the system has them; onnx 1.23 refuses data files with two names
    Link,
    /// Leave it where it is: the output works once somebody puts the data beside it
    Keep,
}

impl From<ExternalArg> for ExternalPolicy {
    fn from(arg: ExternalArg) -> Self {
        match arg {
            ExternalArg::Link => ExternalPolicy::Link,
            ExternalArg::Copy => ExternalPolicy::Copy,
            ExternalArg::Keep => ExternalPolicy::Keep,
        }
    }
}

pub fn whole_number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("it must be a whole number from 0 to {}", u64::MAX))
}

/// A whole number that is not 0.
pub fn from_one<N: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<N, String> {
    let number = text.trim().parse().ok().filter(|n: &N| *n >= N::from(1));
    number.ok_or_else(|| "it must be a whole number from 1 up".into())
}

/// A number of threads that the machine can run without most of them waiting for each other.
pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let number = from_one(text)?;
    match NonZeroUsize::new(number).filter(|n| n.get() <= cores.saturating_mul(4)) {
        Some(number) => Ok(number),
        None => Err(format!(
            "this machine has {cores} core{}, and more than 4 threads for each would only keep each other waiting; all cores are taken \
             where --threads is not given",
            if cores == 1 { "" } else { "s" }
        )),
    }
}

/// What an environment variable may hold for an option without a value: true, yes, on, 1, and their opposites.
pub fn yes_or_no() -> BoolishValueParser {
    BoolishValueParser::new()
}

/// A value of `--coef`.
#[derive(Debug, Clone, PartialEq)]
pub struct CoefArg {
    /// The layers it is for; `None` for all others.
    pub item: Option<String>,
    pub value: f64,
}

pub fn parse_coefficient(text: &str) -> Result<CoefArg, String> {
    let (item, number) = match text.rsplit_once('=') {
        Some((item, number)) => (Some(item.to_owned()), number),
        None => (None, text),
    };
    let value: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("{number:?} is no number; write it like 3e-5, or name:/fc*=1e-4 for some layers"))?;
    if item.as_deref() == Some("") {
        return Err("there is nothing before the =; write SELECTOR=λ".into());
    }
    Ok(CoefArg { item, value })
}

impl InjectArgs {
    /// The library's options.
    pub fn options(&self) -> Options {
        let exposed = |arg| self.outputs.contains(&arg);
        Options {
            layers: self.layers.clone().unwrap_or_default(),
            coef: self.coef.iter().rfind(|c| c.item.is_none()).map(|c| c.value),
            coef_overrides: self.coef.iter().filter_map(|c| Some((c.item.clone()?, c.value))).collect(),
            coef_input: self.coef_input,
            seed: self.seed,
            loss: self.loss.clone(),
            as_output: self.as_output,
            form: match self.form {
                FormArg::Auto => Form::Auto,
                FormArg::Loss => Form::Loss,
                FormArg::Gradient => Form::Gradient,
            },
            loss_term: self.loss_term,
            outputs: Outputs {
                task: exposed(OutputArg::Task),
                per: exposed(OutputArg::Per),
                layers: exposed(OutputArg::Layers),
            },
            wrt: self.wrt.clone(),
            freeze: self.freeze.clone(),
            target: self.target.map(|TargetArg::OrtTraining| Target::OrtTraining),
            strict: self.strict,
            ..self.measure.options()
        }
    }
}
