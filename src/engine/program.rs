//! The interface between what wants models run and what runs them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cuda::CudaOptions;
use super::device::Device;
use super::error::{EngineError, EngineResult};
use super::stepper::{StepPlan, Stepper};
use super::tensor::{Tensor, element_size};
use crate::graph::Graph;
use crate::graph::types::{Dim, TensorType, elem_name};
use crate::wire::Model;

/// Something that runs models.
pub trait Engine {
    /// What it is, as a line of a report.
    fn description(&self) -> String;

    /// Its version.
    fn version(&self) -> &str;

    /// Makes a model ready to run.
    ///
    /// # Errors
    /// When the engine does not take the model, or cannot have the device.
    fn load(&self, source: Source<'_>, options: &LoadOptions) -> EngineResult<Box<dyn Program>>;

    /// Makes a step graph ready to train with.
    ///
    /// # Errors
    /// As [`Engine::load`]; for a carried or wanted value that the graph lacks, or whose shape is not known.
    fn stepper<'a>(&self, plan: StepPlan<'a>, options: &LoadOptions) -> EngineResult<Box<dyn Stepper + 'a>>;
}

/// A model that is ready to run.
pub trait Program {
    /// How messages name it.
    fn name(&self) -> &str;

    /// What it takes; inputs with a default come last.
    fn inputs(&self) -> &[Port];

    /// What it gives, in the model's order.
    fn outputs(&self) -> &[Port];

    /// Runs it once. `wanted` are the outputs to compute, in the order of the result; `None` for all.
    ///
    /// # Errors
    /// For an input that is missing, unknown, or of another type or shape than declared; for an output that is unknown or no tensor
    /// of numbers; when the run itself fails.
    fn run(&mut self, feeds: &[(&str, &Tensor)], wanted: Option<&[&str]>) -> EngineResult<Vec<(String, Tensor)>>;
}

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file; external data lies beside it.
    File(&'a Path),
    /// The bytes of a model.
    Memory {
        /// The bytes.
        bytes: &'a [u8],
        /// The folder that its external data is relative to; none where it has none.
        folder: Option<&'a Path>,
        /// How messages name it.
        name: &'a Path,
    },
}

impl<'a> Source<'a> {
    /// The file of a model where it has one, else its bytes.
    pub fn of(model: &'a Model) -> Self {
        match model.file.file {
            Some(_) if model.file.folder().is_some() => Source::File(&model.file.path),
            _ => Source::Memory { bytes: &model.file.bytes, folder: model.file.folder(), name: &model.file.path },
        }
    }

    /// How messages name the model.
    pub fn name(&self) -> String {
        let path: PathBuf = match self {
            Source::File(path) | Source::Memory { name: path, .. } => path.into(),
        };
        match path.to_str() {
            Some("") => "the model".into(),
            Some("-") => "the model from standard input".into(),
            _ => path.display().to_string(),
        }
    }
}

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// On which processor.
    pub device: Device,
    /// Threads on the CPU; `None` leaves it to the engine, which takes all cores.
    pub threads: Option<NonZeroUsize>,
    /// How much the engine may rewrite the graph.
    pub optimisation: Optimisation,
    /// Whether kernels whose result depends on the order of threads are avoided, where the engine has others.
    pub deterministic: bool,
    /// What only CUDA has.
    pub cuda: CudaOptions,
    /// Whether [`Resident`](super::Resident) says which provider took which nodes. Loading takes longer then.
    pub placements: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            device: Device::Cpu,
            threads: None,
            optimisation: Optimisation::All,
            deterministic: true,
            cuda: CudaOptions::default(),
            placements: false,
        }
    }
}

/// How much an engine may rewrite a graph before it runs it: the levels of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimisation {
    /// Not at all: every node runs as it stands.
    Disabled,
    /// Constant folding and the like.
    Basic,
    /// Fusions of several nodes into one kernel as well.
    Extended,
    /// Everything, other memory layouts included.
    #[default]
    All,
}

impl Optimisation {
    /// The name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Optimisation::Disabled => "disabled",
            Optimisation::Basic => "basic",
            Optimisation::Extended => "extended",
            Optimisation::All => "all",
        }
    }
}

/// An input or an output of a program.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its type; `None` for what is no tensor.
    pub tensor: Option<TensorType>,
    /// Whether the model has a value for it that holds when none is given: an initializer of the same name.
    pub has_default: bool,
}

impl Port {
    /// Its type as messages show it.
    pub fn shown(&self) -> String {
        self.tensor.as_ref().map_or_else(|| "no tensor".into(), ToString::to_string)
    }
}

/// The main graph of a model, or why it has none, with the model's name.
pub(crate) fn graph_of(model: &Model) -> EngineResult<Graph<'_>> {
    Graph::of(model).map_err(|source| EngineError::Graph { model: Source::of(model).name(), source })
}

/// Checks values against what a program takes: every input has one, and each fits.
pub fn check_feeds(model: &str, inputs: &[Port], feeds: &[(&str, &Tensor)]) -> EngineResult<()> {
    let all = || match inputs.iter().map(|p| format!("{} {}", p.name, p.shown())).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "none".into(),
        all => all,
    };
    for port in inputs.iter().filter(|p| !p.has_default) {
        if !feeds.iter().any(|(name, _)| *name == port.name) {
            let (name, wanted) = (port.name.clone(), port.shown());
            return Err(EngineError::MissingInput { model: model.into(), name, wanted, all: all() });
        }
    }
    for (name, tensor) in feeds {
        let Some(port) = inputs.iter().find(|p| p.name == *name) else {
            return Err(EngineError::UnknownInput { model: model.into(), name: (*name).into(), all: all() });
        };
        check_feed(model, port, tensor)?;
    }
    Ok(())
}

/// Checks one value, by the name of the input that it is for.
pub(super) fn check_named(model: &str, inputs: &[Port], name: &str, tensor: &Tensor) -> EngineResult<()> {
    match inputs.iter().find(|p| p.name == name) {
        Some(port) => check_feed(model, port, tensor),
        None => Err(EngineError::UnknownInput { model: model.into(), name: name.into(), all: names(inputs) }),
    }
}

/// Checks that a program gives an output.
pub(super) fn require_output(model: &str, outputs: &[Port], name: &str) -> EngineResult<()> {
    if outputs.iter().any(|o| o.name == name) {
        return Ok(());
    }
    Err(EngineError::UnknownOutput { model: model.into(), name: name.into(), all: names(outputs) })
}

/// The outputs that a run is to give: those that are wanted, which must be there, else all.
pub(super) fn outputs_to_give(model: &str, outputs: &[Port], wanted: Option<&[&str]>) -> EngineResult<Vec<String>> {
    let Some(wanted) = wanted else { return Ok(outputs.iter().map(|o| o.name.clone()).collect()) };
    wanted.iter().map(|name| require_output(model, outputs, name).map(|()| (*name).to_owned())).collect()
}

fn names(ports: &[Port]) -> String {
    ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn check_feed(model: &str, port: &Port, tensor: &Tensor) -> EngineResult<()> {
    let no_tensor = |what| EngineError::NoTensor { model: model.into(), name: port.name.clone(), what };
    let wanted = port.tensor.as_ref().ok_or_else(|| no_tensor(port.shown()))?;
    if wanted.elem != 0 && element_size(wanted.elem).is_none() {
        return Err(no_tensor(format!("a tensor of {}", elem_name(wanted.elem))));
    }
    let given = tensor.tensor_type();
    let refuse = |advice| {
        let (name, wanted, given) = (port.name.clone(), wanted.to_string(), given.to_string());
        Err(EngineError::WrongInput { model: model.into(), name, wanted, given, advice })
    };
    if wanted.elem != 0 && wanted.elem != given.elem {
        return refuse(format!("; convert it, in NumPy with .astype({})", numpy_name(wanted.elem)));
    }
    let Some(dims) = &wanted.dims else { return Ok(()) };
    if dims.len() != tensor.shape().len() {
        return refuse(format!("; its rank must be {}", dims.len()));
    }
    let differs = |(dim, size): (&Dim, &usize)| dim.known().is_some_and(|n| n != *size as u64);
    match dims.iter().zip(tensor.shape()).position(differs) {
        Some(axis) => refuse(format!("; axis {axis} must have {} elements", dims[axis])),
        None => Ok(()),
    }
}

fn numpy_name(elem: i32) -> String {
    match elem_name(elem).as_str() {
        "float" => "numpy.float32".into(),
        "double" => "numpy.float64".into(),
        "bfloat16" => "ml_dtypes.bfloat16".into(),
        other => format!("numpy.{other}"),
    }
}
