//! ONNX Runtime behind the [`Engine`] interface.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use tempfile::NamedTempFile;

use super::adopted::adopted;
use super::cuda;
use super::device::Device;
use super::differentiated::Differentiated;
use super::error::{EngineError, EngineResult};
use super::find::{Found, FoundBy, Search, find};
use super::placement;
use super::program::{Engine, LoadOptions, Optimisation, Port, Program, Source, check_feeds, outputs_to_give};
use super::resident::{Residence, Resident};
use super::stepper::{StepPlan, Stepper};
use super::tensor::{Element, Tensor, with_elements};
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// An ONNX Runtime that is loaded. A process loads one and keeps it to its end.
#[derive(Debug, Clone)]
pub struct Runtime {
    found: Found,
    environment: Environment,
}

/// The one that this process has loaded.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

/// What the runtime logged as an error and did not say to whoever called it.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Runtime {
    /// Finds and loads a runtime; gives the one that is loaded already where that is the one. In a process that handed over its own
    /// ([`adopt`](super::adopt)) that is the one, unless another one is asked for by an option.
    pub fn open(search: &Search) -> EngineResult<Self> {
        let adopted = adopted();
        let found = match (&adopted, &search.option) {
            (Some(adopted), None) => adopted.clone(),
            (Some(adopted), Some(asked)) => {
                return Err(EngineError::AlreadyLoaded { loaded: adopted.path.clone(), asked: asked.clone() });
            }
            (None, _) => find(search)?,
        };
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = loaded.as_ref() {
            if runtime.found.path == found.path {
                return Ok(runtime.clone());
            }
            return Err(EngineError::AlreadyLoaded { loaded: runtime.found.path.clone(), asked: found.path });
        }
        let start = |message: String| EngineError::Start { path: found.path.clone(), message: one_line(&message) };
        let environment = guarded(|| {
            let builder = match found.by {
                FoundBy::Process => ort::init(),
                _ => ort::init_from(&found.path).map_err(|e| e.to_string())?,
            };
            // Nobody is told of what runs here.
            let builder = builder.with_name("per-inject").with_telemetry(false).with_logger(Arc::new(log));
            builder.build().map_err(|e| e.to_string())
        })
        .map_err(start)?;
        environment.set_log_level(LogLevel::Error);
        let runtime = Runtime { found, environment };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// Which library it is, and why.
    pub fn found(&self) -> &Found {
        &self.found
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    fn minor(&self) -> u32 {
        self.found.version.split('.').nth(1).and_then(|n| n.parse().ok()).unwrap_or_default()
    }

    pub(super) fn builder(&self, options: &LoadOptions) -> Result<SessionBuilder, String> {
        let level = match options.optimisation {
            Optimisation::Disabled => GraphOptimizationLevel::Disable,
            Optimisation::Basic => GraphOptimizationLevel::Level1,
            Optimisation::Extended => GraphOptimizationLevel::Level2,
            Optimisation::All => GraphOptimizationLevel::All,
        };
        let failed = |e: ort::Error<SessionBuilder>| e.to_string();
        let mut builder = Session::builder(&self.environment).map_err(|e| e.to_string())?;
        // Which provider takes which node is told at this level alone.
        let level_of_log = if options.placements { LogLevel::Verbose } else { LogLevel::Error };
        builder = builder.with_log_level(level_of_log).map_err(failed)?;
        builder = builder.with_optimization_level(level).map_err(failed)?;
        builder = builder.with_deterministic_compute(options.deterministic).map_err(failed)?;
        // The pattern of the first run becomes one more block of memory beside what that run left in the arena: a third more in a step, and
        // no time saved.
        builder = builder.with_memory_pattern(false).map_err(failed)?;
        if let Some(threads) = options.threads {
            builder = builder.with_intra_threads(threads.get()).map_err(failed)?;
        }
        Ok(builder)
    }

    /// Puts the device in front of the CPU, which ONNX Runtime keeps for nodes that the device has no kernel for.
    pub(super) fn on_device(&self, builder: SessionBuilder, options: &LoadOptions) -> EngineResult<SessionBuilder> {
        let device = options.device;
        let Device::Cuda { index } = device else { return Ok(builder) };
        let refuse = |problem| EngineError::Device { device: device.to_string(), problem };
        cuda::refuse_without_provider(&self.found).map_err(refuse)?;
        cuda::preload(&self.found);
        forget_log();
        let id = i32::try_from(index).map_err(|_| refuse(format!("there is no GPU {index}")))?;
        let provider = cuda::provider(id, &options.cuda).build().error_on_failure();
        guarded(|| builder.with_execution_providers([provider]).map_err(|e| e.to_string()))
            .map_err(|message| refuse(cuda::explain(&with_log(&message), index)))
    }

    /// A session, with what it takes and gives.
    fn open_session(&self, source: Source<'_>, options: &LoadOptions) -> EngineResult<Loaded> {
        let name = source.name();
        let refuse = |message: String| {
            let problem = one_line(&message);
            match options.device {
                // The GPU itself is asked for only now.
                Device::Cuda { index } if problem.contains("CUDA") || problem.contains("CUDNN") => {
                    EngineError::Device { device: options.device.to_string(), problem: cuda::explain(&problem, index) }
                }
                _ => {
                    EngineError::Refused { version: self.found.version.clone(), model: name.clone(), message: problem }
                }
            }
        };
        let builder = self.builder(options).map_err(refuse)?;
        let mut builder = self.on_device(builder, options)?;
        let session = guarded(|| {
            let made = match source {
                Source::File(path) => builder.commit_from_file(path),
                Source::Memory { bytes, folder: None, .. } => builder.commit_from_memory(bytes),
                Source::Memory { bytes, folder: Some(folder), .. } if self.minor() >= TAKES_A_FOLDER => {
                    let folder = std::path::absolute(folder).map_err(|e| e.to_string())?;
                    let value = folder.to_str().ok_or("the name of its folder is not UTF-8")?;
                    let key = "session.model_external_initializers_file_folder_path";
                    let mut builder = builder.clone().with_config_entry(key, value).map_err(|e| e.to_string())?;
                    builder.commit_from_memory(bytes)
                }
                Source::Memory { bytes, folder: Some(folder), .. } => {
                    let file = beside_its_data(bytes, folder).map_err(|e| {
                        let version = &self.found.version;
                        format!(
                            "version {version} wants a file in {}, which cannot be made there: {e}",
                            folder.display()
                        )
                    })?;
                    builder.commit_from_file(file.path())
                }
            };
            made.map_err(|e| e.to_string())
        })
        .map_err(refuse)?;
        let overridable = guarded(|| Ok(session.overridable_initializers())).map_err(refuse)?;
        let inputs = session.inputs().iter().map(|i| port(i.name(), i.dtype(), false));
        let inputs = inputs.chain(overridable.iter().map(|i| port(i.name(), i.dtype(), true))).collect();
        let outputs = session.outputs().iter().map(|o: &Outlet| port(o.name(), o.dtype(), false)).collect();
        Ok(Loaded { name, session, inputs, outputs })
    }

    /// Loads a model whose `carried` values stay on the device from run to run; see [`Resident`].
    ///
    /// # Errors
    /// As [`Engine::load`]; for a carried or wanted value that the model lacks, or whose shape is not known.
    pub fn resident(&self, source: Source<'_>, options: &LoadOptions, plan: &Residence) -> EngineResult<Resident> {
        if options.placements {
            placement::listen();
        }
        let loaded = self.open_session(source, options);
        let placed = if options.placements { placement::heard() } else { Vec::new() };
        Resident::new(loaded?, options, plan, placed)
    }
}

impl Engine for Runtime {
    fn description(&self) -> String {
        self.found.to_string()
    }

    fn version(&self) -> &str {
        &self.found.version
    }

    fn load(&self, source: Source<'_>, options: &LoadOptions) -> EngineResult<Box<dyn Program>> {
        Ok(Box::new(self.open_session(source, options)?))
    }

    fn stepper<'a>(&self, plan: StepPlan<'a>, options: &LoadOptions) -> EngineResult<Box<dyn Stepper + 'a>> {
        let (runtime, options) = (self.clone(), *options);
        let load = move |source: Source<'_>, residence: &Residence, is_step: bool| {
            let mut options = LoadOptions { placements: is_step && options.placements, ..options };
            // Recorded once, the graph that evaluates would read the state of that time for ever.
            options.cuda.graph &= is_step;
            runtime.resident(source, &options, residence)
        };
        Ok(Box::new(Differentiated::new(plan, load)?))
    }
}

/// The first minor version of ONNX Runtime that looks for external data of a model in memory in a folder that it is told.
const TAKES_A_FOLDER: u32 = 21;

/// The model as a file in the folder of its external data, which goes away with the handle. Only the loading needs it.
fn beside_its_data(bytes: &[u8], folder: &Path) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".per-inject-").suffix(".tmp").tempfile_in(folder)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// A session with what it takes and gives.
pub(super) struct Loaded {
    pub name: String,
    pub session: Session,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

impl Program for Loaded {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(&mut self, feeds: &[(&str, &Tensor)], wanted: Option<&[&str]>) -> EngineResult<Vec<(String, Tensor)>> {
        let model = self.name.clone();
        check_feeds(&model, &self.inputs, feeds)?;
        let names = outputs_to_give(&model, &self.outputs, wanted)?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |message: String| EngineError::Run { model: model.clone(), message: one_line(&message) };
        let selector = names.iter().fold(OutputSelector::no_default(), |s, name| s.with(name.as_str()));
        let session = &mut self.session;
        let options = guarded(|| RunOptions::new().map_err(|e| e.to_string())).map_err(failed)?.with_outputs(selector);
        guarded(|| {
            let values = feeds.iter().map(|(name, tensor)| Ok((Cow::Borrowed(*name), view(tensor)?)));
            let values = values.collect::<ort::Result<Vec<(Cow<'_, str>, SessionInputValue<'_>)>>>();
            let values = values.map_err(|e| e.to_string())?;
            let outputs = session.run_with_options(values, &options).map_err(|e| e.to_string())?;
            Ok(names
                .iter()
                .map(|name| {
                    let value = outputs.get(name).ok_or_else(|| failed(format!("it gives no {name:?}")))?;
                    let no_tensor = |what| EngineError::NoTensor { model: model.clone(), name: name.clone(), what };
                    Ok((name.clone(), tensor_of(value).map_err(no_tensor)?))
                })
                .collect())
        })
        .map_err(failed)?
    }
}

/// A tensor's elements as the runtime reads them, without a copy.
fn view(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    let shape: Vec<i64> = tensor.shape().iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
    with_elements!(tensor.data(), values => Ok(TensorRef::from_array_view((shape, values.as_slice()))?.into()))
}

/// A copy of what the runtime gave.
pub(super) fn tensor_of(value: &DynValue) -> Result<Tensor, String> {
    fn copy<T: Element + PrimitiveTensorElementType>(value: &DynValue) -> Result<Tensor, String> {
        let (shape, values) = value.try_extract_tensor::<T>().map_err(|e| one_line(&e.to_string()))?;
        let shape = shape.iter().map(|d| usize::try_from(*d).map_err(|e| e.to_string())).collect::<Result<_, _>>()?;
        Tensor::new(shape, values.to_vec()).ok_or_else(|| "of another size than its shape says".to_owned())
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err("no tensor".into()) };
    match ty {
        TensorElementType::Float16 => copy::<f16>(value),
        TensorElementType::Bfloat16 => copy::<bf16>(value),
        TensorElementType::Float32 => copy::<f32>(value),
        TensorElementType::Float64 => copy::<f64>(value),
        TensorElementType::Int8 => copy::<i8>(value),
        TensorElementType::Int16 => copy::<i16>(value),
        TensorElementType::Int32 => copy::<i32>(value),
        TensorElementType::Int64 => copy::<i64>(value),
        TensorElementType::Uint8 => copy::<u8>(value),
        TensorElementType::Uint16 => copy::<u16>(value),
        TensorElementType::Uint32 => copy::<u32>(value),
        TensorElementType::Uint64 => copy::<u64>(value),
        TensorElementType::Bool => copy::<bool>(value),
        other => Err(format!("a tensor of {}", crate::graph::types::elem_name(data_type(*other) as i32))),
    }
}

fn port(name: &str, kind: &ValueType, has_default: bool) -> Port {
    let tensor = match kind {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let dims = shape.iter().enumerate().map(|(axis, n)| match u64::try_from(*n) {
                Ok(n) => Dim::Known(n),
                Err(_) => match dimension_symbols.get(axis).map(String::as_str) {
                    None | Some("") => Dim::Unknown,
                    Some(symbol) => Dim::Symbol(symbol.into()),
                },
            });
            Some(TensorType { elem: data_type(*ty) as i32, dims: Some(dims.collect()) })
        }
        _ => None,
    };
    Port { name: name.to_owned(), tensor, has_default }
}

fn data_type(ty: TensorElementType) -> DataType {
    match ty {
        TensorElementType::Float16 => DataType::Float16,
        TensorElementType::Bfloat16 => DataType::Bfloat16,
        TensorElementType::Float32 => DataType::Float,
        TensorElementType::Float64 => DataType::Double,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::String => DataType::String,
        TensorElementType::Complex64 => DataType::Complex64,
        TensorElementType::Complex128 => DataType::Complex128,
        TensorElementType::Float8E4M3FN => DataType::Float8e4m3fn,
        TensorElementType::Float8E4M3FNUZ => DataType::Float8e4m3fnuz,
        TensorElementType::Float8E5M2 => DataType::Float8e5m2,
        TensorElementType::Float8E5M2FNUZ => DataType::Float8e5m2fnuz,
        TensorElementType::Uint4 => DataType::Uint4,
        TensorElementType::Int4 => DataType::Int4,
        TensorElementType::Float4E2M1 => DataType::Float4e2m1,
        _ => DataType::Undefined,
    }
}

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call to the binding, whose panics are no bugs of ours: for the panic hook of a program that is built to
/// abort, which has the last word there.
pub fn is_in_binding() -> bool {
    IS_GUARDED.get()
}

/// Calls into `ort`, which panics where a runtime does what it does not expect. A program that is built to abort never gets here then.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let outer = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(outer);
    result.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(gave_up(&words.unwrap_or_default()))
    })
}

/// What to say of a panic of the binding.
pub fn gave_up(words: &str) -> String {
    format!("the engine gave up: {words}")
}

fn log(level: LogLevel, _category: &str, _id: &str, _location: &str, message: &str) {
    placement::hear(message);
    if matches!(level, LogLevel::Error | LogLevel::Fatal) {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < 16 {
            log.push(message.to_owned());
        }
    }
}

fn forget_log() {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A message with what was logged since [`forget_log`], which often has the reason.
fn with_log(message: &str) -> String {
    let log = std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner));
    let mut whole = one_line(message);
    for line in log.iter().map(|l| one_line(l)).filter(|l| !message.contains(l.as_str())) {
        whole = format!("{whole}; {line}");
    }
    whole
}

/// A message of ONNX Runtime on one line, without the place in its source that some begin with.
pub(super) fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // "…/provider_bridge_ort.cc:2043 onnxruntime::Provider& … [ONNXRuntimeError] : 1 : FAIL : Failed to load …"
    let said = line.split_once("[ONNXRuntimeError] : ").and_then(|(_, rest)| rest.splitn(3, " : ").nth(2));
    said.unwrap_or(&line).trim_end_matches('.').to_owned()
}
