//! The commands as functions, for the Python package: models in memory or in files, options as on the command line, reports as JSON.
//!
//! Options are parsed and refused by the same code as a person's, so that both mean the same and say the same; environment variables
//! (`PER_INJECT_…`) are for people, and count for nothing here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clap::{CommandFactory, FromArgMatches};
use per_inject::analysis::Analysis;
use per_inject::autodiff::differentiate as differentiated;
use per_inject::engine::Artifacts;
use per_inject::inspect::report;
use per_inject::patch::Patch;
use per_inject::weights;
use per_inject::wire::{Model, WireResult, splice};

use super::args::{Cli, Command};
use super::deliver::deliver;
use super::failure::{About, Failure};
use super::host::Host;
use super::weights::{self as weights_command, WeightsCommand};
use super::{
    diff as diff_command, inject as inject_command, render, running, strip as strip_command, train as train_command,
};

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Once in a process, before anything else: what the binding to ONNX Runtime panics with is then told in sentences only.
pub fn prepare() {
    super::say_what_the_binding_panics_with();
}

/// A model that is handed over.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Its bytes.
    Memory(Bytes),
}

/// Data to train on or to evaluate on.
#[derive(Debug, Clone)]
pub enum Data {
    /// Files and folders, as `--data` takes them.
    Files(Vec<PathBuf>),
    /// Arrays by name, each the bytes of an `.npy` file.
    Arrays(Vec<(String, Bytes)>),
}

/// What a training run works on.
#[derive(Debug, Clone)]
pub struct Training {
    /// The forward graph with its loss.
    pub model: Source,
    /// What is trained on.
    pub data: Data,
    /// What is evaluated on.
    pub evaluation: Option<Data>,
    /// Where messages say that the state is, in the place of the folder of the run, which goes away.
    pub kept: Option<String>,
}

/// What came of a training run.
#[derive(Debug)]
pub struct Trained {
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// What the command's `--json` prints.
    pub summary: String,
    /// What deserves a second look, in sentences.
    pub warnings: Vec<String>,
}

/// Weights of a model.
#[derive(Debug)]
pub struct Taken {
    /// A safetensors file.
    pub tensors: Vec<u8>,
    /// What deserves a second look, in sentences.
    pub warnings: Vec<String>,
}

/// An edited model.
#[derive(Debug)]
pub struct Edited {
    /// The result, where the model came from memory; what came from a file was written to one.
    pub bytes: Option<Vec<u8>>,
    /// What was done, as the command's `--json` has it.
    pub report: String,
    /// What deserves a second look, in sentences.
    pub warnings: Vec<String>,
}

/// Why a call was refused.
#[derive(Debug)]
pub struct Refusal {
    /// The sentence that the command line would print.
    pub sentence: String,
    /// What kind of refusal it is.
    pub kind: Kind,
}

/// Kinds of refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Options that make no sense: exit code 2 of the program.
    Usage,
    /// A file, a device or a library that cannot be had.
    System {
        /// The system's error number, where there is one.
        number: Option<i32>,
        /// The file, where it is one.
        file: Option<PathBuf>,
    },
    /// The model, the data, or what was asked of them.
    Refused,
}

/// What a call gives.
pub type Called<T> = Result<T, Refusal>;

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { message, about: About::System { number, file } } => {
                Refusal { sentence: message, kind: Kind::System { number, file } }
            }
            Failure::Refused { message, .. } => Refusal { sentence: message, kind: Kind::Refused },
            Failure::Usage(error) => Refusal { sentence: sentence(&error), kind: Kind::Usage },
            Failure::BrokenPipe => {
                let kind = Kind::System { number: None, file: None };
                Refusal { sentence: "the reader of the output went away".into(), kind }
            }
        }
    }
}

/// What clap has to say, without the program's usage around it.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let ends = ["\n\nUsage:", "\n\nFor more information"].into_iter().filter_map(|end| text.find(end));
    text[..ends.min().unwrap_or(text.len())].trim_end().to_owned()
}

fn without_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.env(None::<&str>)).mut_subcommands(without_variables)
}

fn parse(arguments: Vec<OsString>) -> Result<Cli, Failure> {
    let matches = without_variables(Cli::command())
        .try_get_matches_from(std::iter::once("per-inject".into()).chain(arguments))
        .and_then(|matches| running::refuse_without_run(&matches).and(Ok(matches)))
        .and_then(|matches| Cli::from_arg_matches(&matches));
    matches.map_err(Failure::Usage)
}

fn no_such_command() -> Failure {
    Failure::usage(clap::error::ErrorKind::InvalidSubcommand, "these are arguments of another command")
}

impl Source {
    fn open(&self) -> WireResult<Model> {
        match self {
            Source::File(path) => Model::open(path),
            Source::Memory(bytes) => Model::from_bytes(bytes.clone()),
        }
    }

    /// Puts the file's name in front of a sentence about the model, where there is a file.
    fn blame(&self, failure: Failure) -> Refusal {
        match self {
            Source::File(path) => failure.of_file(path).into(),
            Source::Memory(_) => failure.into(),
        }
    }

    fn call<T>(&self, work: impl FnOnce(Model) -> Result<T, Failure>) -> Called<T> {
        self.open().map_err(Failure::from).and_then(work).map_err(|failure| self.blame(failure))
    }
}

/// The result of an edit whose result was not written to a file.
fn in_memory(model: &Model, patch: &Patch) -> WireResult<Vec<u8>> {
    Ok(splice(model, patch)?.to_vec(&model.file.bytes))
}

/// `per-inject MODEL …`; `arguments` are all of it. With `--dry-run` a file is not written.
///
/// # Errors
/// As the command line.
pub fn inject(source: &Source, arguments: Vec<OsString>) -> Called<Edited> {
    let args = parse(arguments)?.inject;
    inject_command::refuse_slips(&args)?;
    source.call(|model| {
        let plan = inject_command::inject(&args, &model)?;
        let bytes = match source {
            Source::Memory(_) => Some(in_memory(&model, &plan.patch)?),
            Source::File(_) => None,
        };
        Ok(Edited { bytes, report: render::json_text(&plan.report)?, warnings: plan.report.warnings })
    })
}

/// `per-inject strip MODEL …`; of a model in memory the output is not written.
///
/// # Errors
/// As the command line.
pub fn strip(source: &Source, arguments: Vec<OsString>) -> Called<Edited> {
    let Some(Command::Strip(args)) = parse(arguments)?.command else { return Err(no_such_command().into()) };
    source.call(|model| {
        let peeled = strip_command::peel(model, args.all)?;
        let (bytes, warnings) = match source {
            Source::Memory(_) => (Some(in_memory(&peeled.model, &peeled.patch)?), Vec::new()),
            Source::File(_) => {
                (None, deliver(&peeled.model, &peeled.patch, &args.output, args.external.into(), args.sync)?)
            }
        };
        Ok(Edited { bytes, report: render::json_text(&peeled.records)?, warnings })
    })
}

/// `per-inject differentiate MODEL …`; of a model in memory the output is not written.
///
/// # Errors
/// As the command line.
pub fn differentiate(source: &Source, arguments: Vec<OsString>) -> Called<Edited> {
    let Some(Command::Differentiate(args)) = parse(arguments)?.command else { return Err(no_such_command().into()) };
    args.constants.refuse_others(args.optimizer)?;
    source.call(|model| {
        let step = differentiated(&model, &args.options())?;
        let (bytes, warnings) = match source {
            Source::Memory(_) => (Some(in_memory(&model, &step.patch)?), Vec::new()),
            Source::File(_) => (None, deliver(&model, &step.patch, &args.output, args.external.into(), args.sync)?),
        };
        Ok(Edited { bytes, report: render::json_text(&step.report)?, warnings })
    })
}

/// `per-inject inspect MODEL …`, as JSON.
///
/// # Errors
/// As the command line.
pub fn inspect(source: &Source, arguments: Vec<OsString>) -> Called<String> {
    let Some(Command::Inspect(args)) = parse(arguments)?.command else { return Err(no_such_command().into()) };
    source.call(|model| {
        let analysis = Analysis::with_overrides(&model, args.wrt.as_deref(), args.freeze.as_deref())?;
        render::json_text(&report(&analysis))
    })
}

/// `per-inject weights get MODEL …`; nothing is written.
///
/// # Errors
/// As the command line.
pub fn weights_get(source: &Source, arguments: Vec<OsString>) -> Called<Taken> {
    let Some(Command::Weights { command: WeightsCommand::Get(args) }) = parse(arguments)?.command else {
        return Err(no_such_command().into());
    };
    source.call(|model| {
        let (arrays, report) = weights_command::taken(&args, &model)?;
        let tensors = weights::get::encode(&arrays, weights::get::Format::Safetensors)?;
        Ok(Taken { tensors, warnings: report.refused })
    })
}

/// `per-inject weights put MODEL …`; of a model in memory the output is not written. `arrays`, an `.npz` archive, count instead of `--from`.
///
/// # Errors
/// As the command line.
pub fn weights_put(source: &Source, arrays: Option<Bytes>, arguments: Vec<OsString>) -> Called<Edited> {
    let Some(Command::Weights { command: WeightsCommand::Put(args) }) = parse(arguments)?.command else {
        return Err(no_such_command().into());
    };
    source.call(|model| {
        let from = match arrays {
            Some(arrays) => weights::Source::of_archive(&arrays)?,
            None => weights_command::source(&args)?,
        };
        let plan = weights_command::planned(&args, &model, &from)?;
        let bytes = match source {
            Source::Memory(_) => Some(plan.to_vec(&model)?),
            Source::File(_) => {
                weights_command::write(&args, &plan, &model)?;
                None
            }
        };
        Ok(Edited { bytes, report: render::json_text(&plan.report)?, warnings: Vec::new() })
    })
}

/// Refuses what [`train`] would refuse of its model and its options, as far as it can be told without data. `--data` and `--out` still have
/// to be there.
///
/// # Errors
/// As the command line.
pub fn check_training(source: &Source, arguments: Vec<OsString>) -> Called<()> {
    let Some(Command::Train(args)) = parse(arguments)?.command else { return Err(no_such_command().into()) };
    train_command::refuse_slips(&args)?;
    match source {
        Source::File(path) if path.is_dir() => {
            Artifacts::at(path).map(drop).map_err(|error| source.blame(error.into()))
        }
        _ => source.call(|_model| Ok(())),
    }
}

/// `per-inject train MODEL …`. What is in `training` counts instead of the model, `--data` and `--eval` among the arguments, which still
/// have to be there. `goes_on` is asked after every step, in the thread that calls: a run that does not go on ends with a checkpoint, and
/// with the model as far as it is trained. So does one that gives no number any more, before it is refused.
///
/// # Errors
/// As the command line.
pub fn train(
    training: Training,
    arguments: Vec<OsString>,
    goes_on: impl Fn() -> bool + Send + Sync + 'static,
) -> Called<Trained> {
    let Some(Command::Train(mut args)) = parse(arguments)?.command else { return Err(no_such_command().into()) };
    let model = match &training.model {
        Source::Memory(bytes) => Some(bytes.clone()),
        Source::File(_) => None,
    };
    let host = Arc::new(Host {
        model,
        data: training.data,
        evaluation: training.evaluation,
        kept: training.kept,
        goes_on: Box::new(goes_on),
        stop: Arc::default(),
        remarks: Mutex::default(),
    });
    args.host = Some(Arc::clone(&host));
    let done = train_command::carry_out(&args).map_err(|failure| training.model.blame(failure))?;
    let warnings = std::mem::take(&mut *host.remarks.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Trained { interrupted: done.interrupted, summary: render::json_text(&done)?, warnings })
}

/// `per-inject diff A B …`, as JSON.
///
/// # Errors
/// As the command line.
pub fn diff(sources: [&Source; 2], arguments: Vec<OsString>) -> Called<String> {
    let Some(Command::Diff(args)) = parse(arguments)?.command else { return Err(no_such_command().into()) };
    let open = |source: &Source| source.open().map_err(|error| source.blame(error.into()));
    let (a, b) = (open(sources[0])?, open(sources[1])?);
    Ok(render::json_text(&diff_command::difference(&args, &a, &b)?)?)
}
