//! The engine against the ONNX Runtime of `.venv`, which tests/setup makes; a missing one fails.

mod comparing;
mod errors;
mod finding;
mod resident;
mod running;

use std::path::{Path, PathBuf};

use per_inject::engine::{Runtime, Search};
use per_inject::wire::Model;

/// A virtual environment of the tests.
fn environment(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    assert!(path.join("bin/python").exists(), "{} is missing; tests/setup makes it", path.display());
    path
}

/// The runtime of `.venv`. All tests of this file run in one process, which can have one alone.
fn runtime() -> Runtime {
    Runtime::open(&Search { option: Some(environment(".venv")), ..Search::default() }).unwrap()
}

fn model(name: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(format!("{name}.onnx"))).unwrap()
}
