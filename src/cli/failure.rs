//! What a command ends with when it does not succeed, and how that is told.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use miette::MietteHandlerOpts;
use per_inject::analysis::AnalysisError;
use per_inject::engine::EngineError;
use per_inject::inject::InjectError;
use per_inject::select::SelectError;
use per_inject::strip::StripError;
use per_inject::train::TrainError;
use per_inject::weights::WeightsError;
use per_inject::wire::WireError;

use super::args::Cli;
use super::streams;
use super::text::legible;

/// Why a command did not do what it was asked for.
pub enum Failure {
    /// Refused or failed, with a sentence for a person; exit code 1.
    Refused { message: String, about: About },
    /// The arguments make no sense together; exit code 2.
    Usage(clap::Error),
    /// Whoever read our output went away; quiet.
    BrokenPipe,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The model, and the sentence does not name its file.
    Model,
    /// A file, a device or a library that cannot be had.
    System {
        /// The system's error number, where there is one.
        number: Option<i32>,
        /// The file, where it is one.
        file: Option<PathBuf>,
    },
    /// Anything else: options, data, a model that the sentence names.
    Other,
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        let (mut about, mut file) = (about(&error), None);
        while let Some(e) = cause {
            file = file.or_else(|| file_of(e));
            if let Some(e) = e.downcast_ref::<io::Error>() {
                if e.kind() == io::ErrorKind::BrokenPipe {
                    return Failure::BrokenPipe;
                }
                about = About::System { number: e.raw_os_error(), file: None };
            }
            cause = e.source();
        }
        if let About::System { file: named, .. } = &mut about {
            *named = file;
        }
        // The chain of causes is in the sentence already.
        Failure::Refused { message: error.to_string(), about }
    }
}

impl Failure {
    /// A usage error with clap's own look.
    pub fn usage(kind: clap::error::ErrorKind, message: impl std::fmt::Display) -> Self {
        Failure::Usage(Cli::command().error(kind, message))
    }

    /// Adds what else there is to do.
    pub fn with_advice(self, advice: &str) -> Self {
        match self {
            Failure::Refused { message, about } => Failure::Refused { message: format!("{message}; {advice}"), about },
            other => other,
        }
    }

    /// Puts the file's name in front where the sentence is about the model and lacks it.
    pub fn of_file(self, path: &Path) -> Self {
        match self {
            Failure::Refused { message, about: About::Model } => {
                let name = if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() };
                Failure::Refused { message: format!("{name}: {message}"), about: About::Other }
            }
            other => other,
        }
    }

    /// Prints it.
    pub fn report(self) -> u8 {
        match self {
            Failure::BrokenPipe => 0,
            Failure::Refused { message, .. } => {
                // A terminal is wrapped to its width; a log gets the sentence on one line.
                let options = MietteHandlerOpts::new();
                let options = if io::stderr().is_terminal() { options } else { options.width(usize::MAX) };
                let _ = miette::set_hook(Box::new(move |_| Box::new(options.clone().build())));
                let text = format!("{:?}", miette::miette!("{}", legible(&message)));
                streams::tell(&format!("{}\n", text.trim_end()));
                1
            }
            Failure::Usage(error) => told(&error),
        }
    }
}

/// Prints what clap has to say, be it help; the exit code.
pub fn told(error: &clap::Error) -> u8 {
    let _ = error.print();
    u8::try_from(error.exit_code()).unwrap_or(2)
}

fn about(error: &(dyn Error + 'static)) -> About {
    let is_elsewhere = match (error.downcast_ref::<WireError>(), error.downcast_ref::<EngineError>()) {
        (Some(error), _) => matches!(error, WireError::Target { .. }),
        (_, Some(error)) => matches!(
            error,
            EngineError::NoRuntime { .. }
                | EngineError::BadLibrary { .. }
                | EngineError::AlreadyLoaded { .. }
                | EngineError::Start { .. }
                | EngineError::Device { .. }
        ),
        _ => false,
    };
    match is_elsewhere {
        true => About::System { number: None, file: None },
        false if is_about_the_model(error) => About::Model,
        false => About::Other,
    }
}

/// The file that an error is about, where it cannot be read or written.
fn file_of(error: &(dyn Error + 'static)) -> Option<PathBuf> {
    if let Some(error) = error.downcast_ref::<TrainError>() {
        return match error {
            TrainError::Io { path, .. } => Some(path.clone()),
            TrainError::Wire(error) => file_of(error),
            TrainError::Initializers(error) => file_of(&**error),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<WeightsError>() {
        return match error {
            WeightsError::Io { path, .. } => Some(path.clone()),
            WeightsError::Wire(error) => file_of(error),
            _ => None,
        };
    }
    if let Some(EngineError::BadLibrary { path, .. } | EngineError::Start { path, .. }) = error.downcast_ref() {
        return Some(path.clone());
    }
    match error.downcast_ref()? {
        WireError::Read { path, .. }
        | WireError::Write { path, .. }
        | WireError::Target { path, .. }
        | WireError::WriteDirect { path, .. } => Some(path.clone()),
        _ => None,
    }
}

/// Whether an error is about what the model holds, rather than about arguments or about a file that it names itself.
fn is_about_the_model(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<InjectError>() {
        return match error {
            InjectError::Wire(error) => wire(error),
            InjectError::Select(error) => select(error),
            InjectError::Analysis(AnalysisError::Initializers { .. })
            | InjectError::CoefficientItem { .. }
            | InjectError::CoefficientUnused { .. }
            | InjectError::NoCoefficient
            | InjectError::BadCoefficient { .. }
            | InjectError::BadSlices { .. }
            | InjectError::NoTaskLoss => false,
            _ => true,
        };
    }
    if let Some(error) = error.downcast_ref::<StripError>() {
        return if let StripError::Wire(error) = error { wire(error) } else { true };
    }
    if let Some(error) = error.downcast_ref::<AnalysisError>() {
        return matches!(error, AnalysisError::Graph(_));
    }
    error.downcast_ref::<WireError>().is_some_and(wire)
}

fn wire(error: &WireError) -> bool {
    matches!(
        error,
        WireError::Truncated { .. }
            | WireError::Malformed { .. }
            | WireError::Decode { .. }
            | WireError::NoSuchPlace { .. }
            | WireError::TooLarge { .. }
            | WireError::External { .. }
    )
}

fn select(error: &SelectError) -> bool {
    !matches!(error, SelectError::Parse(_) | SelectError::NothingBefore { .. })
}
