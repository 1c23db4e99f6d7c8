//! The extension module behind the Python package `per_inject`: models and options in, models and JSON out. Everything that a person sees of
//! it, signatures and their documentation among them, is Python and stands in `per_inject/`.
#![deny(unsafe_code)]

mod runtime;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::per_inject::cli::{self, call};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

// Where panics abort, one would end the interpreter and everything that somebody has open in it.
#[cfg(panic = "abort")]
compile_error!("the Python package turns panics into exceptions, so it has to unwind: build it with --profile wheel");

/// A model in memory, or its path.
#[derive(FromPyObject)]
enum Model {
    Memory(PyBackedBytes),
    File(PathBuf),
}

impl From<Model> for call::Source {
    fn from(model: Model) -> Self {
        match model {
            Model::Memory(bytes) => call::Source::Memory(Bytes::from_owner(bytes)),
            Model::File(path) => call::Source::File(path),
        }
    }
}

/// Arrays by name, each the bytes of an `.npy` file; or paths.
#[derive(FromPyObject)]
enum Data {
    Files(Vec<PathBuf>),
    Arrays(Vec<(String, PyBackedBytes)>),
}

impl From<Data> for call::Data {
    fn from(data: Data) -> Self {
        match data {
            Data::Files(paths) => call::Data::Files(paths),
            Data::Arrays(arrays) => {
                let owned = arrays.into_iter().map(|(name, bytes)| (name, Bytes::from_owner(bytes)));
                call::Data::Arrays(owned.collect())
            }
        }
    }
}

/// What an edit gives: the model, where it came from memory; its report as JSON; and warnings.
type Edited<'py> = (Option<Bound<'py, PyBytes>>, String, Vec<String>);

/// Does `work` with the interpreter free for other threads.
fn called<T: Send>(py: Python<'_>, work: impl Send + FnOnce() -> call::Called<T>) -> PyResult<T> {
    py.detach(work).map_err(|refusal| exception(py, refusal).unwrap_or_else(|error| error))
}

/// The exception for a refusal.
fn exception(py: Python<'_>, refusal: call::Refusal) -> PyResult<PyErr> {
    let (name, number) = match refusal.kind {
        call::Kind::Usage => ("UsageError", None),
        call::Kind::System(number) => ("AccessError", number),
        call::Kind::Refused => ("RefusedError", None),
    };
    let error = py.import("per_inject._errors")?.getattr(name)?.call1((refusal.sentence,))?;
    if let Some(number) = number {
        error.setattr("errno", number)?;
    }
    Ok(PyErr::from_value(error))
}

fn edit<'py>(
    py: Python<'py>,
    model: Model,
    arguments: Vec<OsString>,
    command: impl Send + FnOnce(&call::Source, Vec<OsString>) -> call::Called<call::Edited>,
) -> PyResult<Edited<'py>> {
    let source = call::Source::from(model);
    let edited = called(py, || command(&source, arguments))?;
    Ok((edited.bytes.map(|bytes| PyBytes::new(py, &bytes)), edited.report, edited.warnings))
}

#[pyfunction]
fn inject(py: Python<'_>, model: Model, arguments: Vec<OsString>) -> PyResult<Edited<'_>> {
    edit(py, model, arguments, call::inject)
}

#[pyfunction]
fn strip(py: Python<'_>, model: Model, arguments: Vec<OsString>) -> PyResult<Edited<'_>> {
    edit(py, model, arguments, call::strip)
}

#[pyfunction]
fn differentiate(py: Python<'_>, model: Model, arguments: Vec<OsString>) -> PyResult<Edited<'_>> {
    edit(py, model, arguments, call::differentiate)
}

#[pyfunction]
fn inspect(py: Python<'_>, model: Model, arguments: Vec<OsString>) -> PyResult<String> {
    let source = call::Source::from(model);
    called(py, || call::inspect(&source, arguments))
}

#[pyfunction]
fn diff(py: Python<'_>, a: Model, b: Model, arguments: Vec<OsString>) -> PyResult<String> {
    let (a, b) = (call::Source::from(a), call::Source::from(b));
    called(py, || call::diff([&a, &b], arguments))
}

/// How often Python is asked whether somebody pressed Ctrl-C: more often would keep threads from their turn.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(50);

/// Trains; gives whether the run was stopped, its summary as JSON, and warnings. What Python's handlers of signals raise stops the run after
/// the step, with a checkpoint, and is raised then.
#[pyfunction]
fn train(
    py: Python<'_>,
    model: Model,
    data: Data,
    evaluation: Option<Data>,
    arguments: Vec<OsString>,
) -> PyResult<(bool, String, Vec<String>)> {
    let training =
        call::Training { model: model.into(), data: data.into(), evaluation: evaluation.map(call::Data::from) };
    let raised: Arc<Mutex<Option<PyErr>>> = Arc::default();
    let (noted, asked) = (Arc::clone(&raised), Mutex::new(Instant::now()));
    let goes_on = move || {
        let mut last = asked.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < BETWEEN_SIGNALS {
            return true;
        }
        let result = Python::attach(|py| py.check_signals());
        *last = Instant::now();
        let goes_on = result.is_ok();
        if let Err(error) = result {
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        goes_on
    };
    let trained = called(py, || call::train(training, arguments, goes_on));
    match raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => trained.map(|done| (done.interrupted, done.summary, done.warnings)),
    }
}

/// The program `per-inject`, with its name first among the arguments; returns its exit code.
#[pyfunction]
fn run(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| cli::run(arguments))
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{diff, differentiate, inject, inspect, run, strip, train};

    #[pymodule_export]
    const VERSION: &str = ::per_inject::cli::call::VERSION;

    #[pymodule_init]
    fn init() {
        ::per_inject::cli::call::prepare();
        ::per_inject::engine::set_host(super::runtime::hand_over);
    }
}
