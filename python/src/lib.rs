//! The extension module behind the Python package `per_inject`: models and options in, models and JSON out. Everything that a person sees of
//! it, signatures and their documentation among them, is Python and stands in `per_inject/`.
#![deny(unsafe_code)]

mod runtime;
mod threads;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ::per_inject::cli::{self, call};
use ::per_inject::engine;
use bytes::Bytes;
use pyo3::exceptions::PyOSError;
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
    result(py, py.detach(|| threads::shared(work)))
}

fn result<T>(py: Python<'_>, done: Result<call::Called<T>, String>) -> PyResult<T> {
    done.map_err(PyOSError::new_err)?.map_err(|refusal| exception(py, refusal).unwrap_or_else(|error| error))
}

/// The exception for a refusal.
fn exception(py: Python<'_>, refusal: call::Refusal) -> PyResult<PyErr> {
    let (kind, number, file) = match refusal.kind {
        call::Kind::Usage => ("usage", None, None),
        call::Kind::System { number, file } => ("system", number, file),
        call::Kind::Refused => ("refused", None, None),
    };
    let error = py.import("per_inject._errors")?.getattr("refusal")?.call1((kind, refusal.sentence, number, file))?;
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

#[pyfunction]
fn weights_get(py: Python<'_>, model: Model, arguments: Vec<OsString>) -> PyResult<(Bound<'_, PyBytes>, Vec<String>)> {
    let source = call::Source::from(model);
    let taken = called(py, || call::weights_get(&source, arguments))?;
    Ok((PyBytes::new(py, &taken.tensors), taken.warnings))
}

#[pyfunction]
fn weights_put(
    py: Python<'_>,
    model: Model,
    arrays: Option<PyBackedBytes>,
    arguments: Vec<OsString>,
) -> PyResult<Edited<'_>> {
    let arrays = arrays.map(Bytes::from_owner);
    edit(py, model, arguments, |source, arguments| call::weights_put(source, arrays, arguments))
}

#[pyfunction]
fn check_training(py: Python<'_>, model: Model, arguments: Vec<OsString>) -> PyResult<()> {
    let source = call::Source::from(model);
    called(py, || call::check_training(&source, arguments))
}

/// How often Python is asked whether somebody pressed Ctrl-C: more often would keep threads from their turn.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(50);

/// Trains; gives whether the run was stopped, its summary as JSON, and warnings. What Python's handlers of signals raise stops the run after
/// the step, with a checkpoint, and is raised then. `kept` is where messages say that the state is, in the
/// place of the folder of the run, where that goes away.
#[pyfunction]
fn train(
    py: Python<'_>,
    model: Model,
    data: Data,
    evaluation: Option<Data>,
    kept: Option<String>,
    arguments: Vec<OsString>,
) -> PyResult<(bool, String, Vec<String>)> {
    let evaluation = evaluation.map(call::Data::from);
    let training = call::Training { model: model.into(), data: data.into(), evaluation, kept };
    let is_stopped = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_stopped);
    let goes_on = move || !asked.load(Ordering::Relaxed);
    let (running, ended) = channel::<()>();
    let work = move || {
        let _until_the_end = running;
        threads::shared(|| call::train(training, arguments, goes_on))
    };
    // Signals are for the thread that calls, which waits for the one that trains.
    let (done, raised) = py.detach(move || {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("training".into()).stack_size(threads::STACK);
            let thread = match thread.spawn_scoped(scope, work) {
                Ok(thread) => thread,
                Err(error) => return (Err(format!("no thread can be started: {error}")), None),
            };
            let mut raised = None;
            while ended.recv_timeout(BETWEEN_SIGNALS) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = Python::attach(|py| py.check_signals()) {
                    is_stopped.store(true, Ordering::Relaxed);
                    raised = raised.or(Some(error));
                }
            }
            (thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), raised)
        })
    });
    match raised {
        Some(error) => Err(error),
        None => result(py, done).map(|done| (done.interrupted, done.summary, done.warnings)),
    }
}

/// Whether this process is a child that fork made of the one that loaded the module.
#[pyfunction]
fn is_forked() -> bool {
    threads::is_forked()
}

/// Removes what is left on disk for the process.
#[pyfunction]
fn tidy() {
    engine::tidy();
}

/// The program `per-inject`, with its name first among the arguments; returns its exit code. `python` is the interpreter that runs it.
#[pyfunction]
fn run(py: Python<'_>, arguments: Vec<OsString>, python: Option<PathBuf>) -> u8 {
    if let Some(python) = python {
        engine::set_interpreter(python);
    }
    py.detach(|| cli::run(arguments))
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{
        check_training, diff, differentiate, inject, inspect, is_forked, run, strip, tidy, train, weights_get,
        weights_put,
    };

    #[pymodule_export]
    const VERSION: &str = ::per_inject::cli::call::VERSION;

    #[pymodule_init]
    fn init() {
        super::threads::settle();
        ::per_inject::cli::call::prepare();
        ::per_inject::engine::set_host(super::runtime::hand_over);
    }
}
