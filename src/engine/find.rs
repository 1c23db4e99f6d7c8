//! Which ONNX Runtime is used.
//!
//! In this order: the one that `--ort` names, the one that `ORT_DYLIB_PATH` names, the wheel of the Python that runs this program, where one
//! does, the wheel of the active Python environment (`VIRTUAL_ENV`, `CONDA_PREFIX`), the wheel that `python3` on the `PATH` would import, and
//! what the system's loader finds. One that is named and cannot be used is an error; one that merely lies there is passed over, and the error
//! says so when none is left.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::Serialize;

use super::error::{EngineError, EngineResult};
use super::library::{NO_LIBRARY, PYTHON_MODULE, probe};

/// The Python that runs this program.
static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();

/// Says which Python runs this program: its packages come before those of other environments. The first one that is named counts.
pub fn set_interpreter(python: PathBuf) {
    let _ = INTERPRETER.set(python);
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// What `--ort` names: a library, a folder that holds one, or a Python environment.
    pub option: Option<PathBuf>,
    /// What `ORT_DYLIB_PATH` names: the same, or a name for the system's loader.
    pub variable: Option<PathBuf>,
    /// The Python interpreter that this program is a part of.
    pub interpreter: Option<PathBuf>,
    /// Python environments, each with the variable that names it.
    pub environments: Vec<(&'static str, PathBuf)>,
    /// The Python interpreter to ask for its packages.
    pub python: Option<PathBuf>,
    /// Whether the system's loader is asked.
    pub system: bool,
}

impl Search {
    /// As the environment of this process has it.
    pub fn of_process(option: Option<PathBuf>) -> Self {
        let variable = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Search {
            option,
            variable: variable("ORT_DYLIB_PATH"),
            interpreter: INTERPRETER.get().cloned(),
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(|n| Some((n, variable(n)?))).collect(),
            python: Some(if cfg!(windows) { "python" } else { "python3" }.into()),
            system: true,
        }
    }
}

/// An ONNX Runtime, and why it is the one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The library; a bare name where the system's loader knows where it is.
    pub path: PathBuf,
    /// Its version, such as `1.32.0`.
    pub version: String,
    /// Why this one.
    pub by: FoundBy,
}

/// What led to a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// `--ort`.
    Option,
    /// `ORT_DYLIB_PATH`.
    Variable,
    /// The Python environment that this variable names.
    Environment(&'static str),
    /// The Python interpreter of this name.
    Python(PathBuf),
    /// The system's loader.
    System,
    /// This process had it already, and handed it over: see [`adopt`](super::adopt).
    Process,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ONNX Runtime {}, {} (", self.version, self.path.display())?;
        match &self.by {
            FoundBy::Option => f.write_str("--ort"),
            FoundBy::Variable => f.write_str("ORT_DYLIB_PATH"),
            FoundBy::Environment(variable) => f.write_str(variable),
            FoundBy::Python(name) => write!(f, "of {}", name.display()),
            FoundBy::System => f.write_str("of the system"),
            FoundBy::Process => f.write_str("of this process"),
        }?;
        f.write_str(")")
    }
}

/// Finds the library; nothing of it stays loaded.
pub fn find(search: &Search) -> EngineResult<Found> {
    for (named, origin, by) in
        [(&search.option, "--ort", FoundBy::Option), (&search.variable, "ORT_DYLIB_PATH", FoundBy::Variable)]
    {
        if let Some(path) = named {
            let bad = |problem| EngineError::BadLibrary { path: path.clone(), origin, problem };
            let library = locate(path, by == FoundBy::Variable).map_err(bad)?;
            let version = probe(&library).map_err(bad)?;
            return Ok(Found { path: library, version, by });
        }
    }
    let mut tried = Vec::new();
    let mut consider = |library: PathBuf, by: FoundBy| match probe(&library) {
        Ok(version) => Some(Found { path: library, version, by }),
        Err(problem) => {
            tried.push(format!("{}: {problem}", library.display()));
            None
        }
    };
    let mut missing = Vec::new();
    let python = |python: &PathBuf| (wheel_of(python), FoundBy::Python(python.clone()), python.display().to_string());
    let environment = |(variable, root): &(&'static str, PathBuf)| {
        (locate(root, false), FoundBy::Environment(variable), format!("{variable}={}", root.display()))
    };
    let interpreter = search.interpreter.iter().map(python);
    for (library, by, name) in
        interpreter.chain(search.environments.iter().map(environment)).chain(search.python.iter().map(python))
    {
        match library {
            Ok(library) => {
                if let Some(found) = consider(library, by) {
                    return Ok(found);
                }
            }
            Err(problem) => missing.push(format!("{name}: {problem}")),
        }
    }
    if search.system {
        for name in SYSTEM_NAMES {
            if let Some(found) = consider(PathBuf::from(name), FoundBy::System) {
                return Ok(found);
            }
        }
    }
    // That the loader knows no such name is what it mostly says, in many words.
    let is_known =
        |problem: &String| !SYSTEM_NAMES.iter().any(|n| problem.starts_with(n) && problem.contains("No such file"));
    tried.retain(is_known);
    if search.system {
        tried.push(format!("the system's loader: no usable {}", SYSTEM_NAMES[0]));
    }
    Err(EngineError::NoRuntime { tried: missing.into_iter().chain(tried).collect() })
}

/// What the system's loader is asked for.
const SYSTEM_NAMES: &[&str] = if cfg!(windows) {
    &["onnxruntime.dll"]
} else if cfg!(target_os = "macos") {
    &["libonnxruntime.dylib"]
} else {
    // The second is what a package without its development files installs.
    &["libonnxruntime.so", "libonnxruntime.so.1"]
};

/// The library that a path stands for: itself, or the one in that folder or Python environment.
fn locate(path: &Path, or_a_name: bool) -> Result<PathBuf, String> {
    if or_a_name && path.components().count() == 1 && !path.exists() {
        return Ok(path.to_owned());
    }
    let kind = path.metadata().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        _ => e.to_string(),
    })?;
    // `ort` takes a relative path relative to the program.
    let path = std::path::absolute(path).map_err(|e| e.to_string())?;
    if !kind.is_dir() {
        return Ok(path);
    }
    let mut folders = vec![path.clone(), path.join("capi"), path.join("onnxruntime/capi")];
    for lib in ["lib", "lib64"] {
        folders.extend(subfolders(&path.join(lib), "python").map(|p| p.join("site-packages/onnxruntime/capi")));
    }
    folders.push(path.join("Lib/site-packages/onnxruntime/capi"));
    folders.extend(["lib", "lib64", "bin", "Library/bin"].map(|lib| path.join(lib)));
    library_in_one_of(&folders)
}

/// The library of the wheel that a Python interpreter would import.
fn wheel_of(python: &Path) -> Result<PathBuf, String> {
    let asked = Command::new(python)
        .args(["-c", "import sys; print('\\n'.join(sys.path))"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let answer = asked.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "it is not on the PATH".to_owned(),
        _ => e.to_string(),
    })?;
    let answer = String::from_utf8_lossy(&answer.stdout);
    // An entry that is not absolute is the current folder, which is no place to load libraries from.
    let folders: Vec<_> =
        answer.lines().map(Path::new).filter(|p| p.is_absolute()).map(|p| p.join("onnxruntime/capi")).collect();
    library_in_one_of(&folders)
        .map_err(|problem| if problem == NOTHING { "it has no package onnxruntime".to_owned() } else { problem })
}

const NOTHING: &str = "it holds no ONNX Runtime";

fn library_in_one_of(folders: &[PathBuf]) -> Result<PathBuf, String> {
    let mut module = None;
    for folder in folders {
        let mut best: Option<(Vec<u64>, PathBuf)> = None;
        for name in names_in(folder) {
            if let Some(version) = version_of_name(&name)
                && best.as_ref().is_none_or(|(best, _)| version > *best)
            {
                best = Some((version, folder.join(&name)));
            } else if name.starts_with(PYTHON_MODULE) {
                module.get_or_insert_with(|| folder.join(&name));
            }
        }
        if let Some((_, path)) = best {
            return Ok(path);
        }
    }
    Err(module.map_or(NOTHING.to_owned(), |path| {
        format!("it holds only the module that Python loads, {}; {NO_LIBRARY}", path.display())
    }))
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).ok().into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn subfolders(folder: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    names_in(folder).filter(move |n| n.starts_with(prefix)).map(|n| folder.join(n))
}

/// The numbers in the name of a library, none for a plain name; `None` for other files, the providers' libraries among them.
fn version_of_name(name: &str) -> Option<Vec<u64>> {
    let rest = if cfg!(windows) {
        name.strip_prefix("onnxruntime")?.strip_suffix(".dll")?
    } else if cfg!(target_os = "macos") {
        name.strip_prefix("libonnxruntime")?.strip_suffix(".dylib")?
    } else {
        name.strip_prefix("libonnxruntime.so")?
    };
    let numbers = rest.split('.').skip(1).map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    (rest.is_empty() || rest.starts_with('.')).then_some(numbers)
}
