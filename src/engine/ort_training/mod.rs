//! ONNX Runtime's own training API as a [`Stepper`]: forward, backward and the optimiser are the runtime's.
//!
//! It runs what `generate_artifacts` makes, on a runtime that was built with the training API. Of a step, TrainStep is what is tried, and
//! OptimizerStep what keeps it.

mod api;
mod artifacts;

use std::collections::HashMap;
use std::path::Path;

use ort::memory::Allocator;
use ort::training::Checkpoint;
use ort::value::DynTensor;

pub use artifacts::Artifacts;

use self::api::TrainingSession;
use self::artifacts::refuse;
use super::device::Device;
use super::error::{EngineError, EngineResult};
use super::onnx_runtime::{Runtime, guarded, one_line, tensor_of};
use super::program::{LoadOptions, Port, check_feeds};
use super::resident::{aligned, read};
use super::stepper::Stepper;
use super::tensor::{Data, Tensor};
use crate::graph::types::TensorType;
use crate::onnx::tensor_proto::DataType;
use crate::wire::Model;

/// The input that is no input of the training model, but of the optimiser.
const LEARNING_RATE: &str = "learning_rate";

/// Under this name the state holds all that the runtime keeps, the optimiser's moments and its count of steps included: the bytes of the
/// checkpoint that it writes.
const CHECKPOINT: &str = "per_inject/ort_training_checkpoint";

/// What the artifacts are, as far as it shows without a runtime.
struct Declared {
    /// Inputs of the training model with their types.
    inputs: HashMap<String, Option<TensorType>>,
    /// Parameters, trained or not, in the order of the model.
    parameters: Vec<String>,
}

/// A model that is trained by ONNX Runtime's training API.
pub struct OrtTraining {
    runtime: Runtime,
    options: LoadOptions,
    artifacts: Artifacts,
    session: TrainingSession,
    declared: Declared,
    /// What a step takes.
    ports: Vec<Port>,
    step_outputs: Wanted,
    evaluation_outputs: Wanted,
    fed: Vec<(String, DynTensor)>,
    rate: f32,
}

/// Outputs that are wanted: their names, and their positions among those of the model.
#[derive(Debug, Clone, Default)]
struct Wanted {
    names: Vec<String>,
    at: Vec<usize>,
}

impl Wanted {
    fn of(names: Vec<String>, all: &[String], model: &str) -> EngineResult<Self> {
        let position = |name: &String| {
            let unknown =
                || EngineError::UnknownOutput { model: model.to_owned(), name: name.clone(), all: all.join(", ") };
            all.iter().position(|n| n == name).ok_or_else(unknown)
        };
        let at = names.iter().map(position).collect::<EngineResult<_>>()?;
        Ok(Wanted { names, at })
    }
}

impl Runtime {
    /// Whether this runtime was built with the training API.
    ///
    /// # Errors
    /// When it was not: a sentence that says what to do.
    pub fn require_training(&self) -> EngineResult<()> {
        guarded(|| api::api().map(|_| ()).map_err(|e| e.to_string()))
            .map_err(|_| EngineError::NoTraining { runtime: self.found().to_string() })
    }

    /// Loads artifacts of `generate_artifacts` to train with the runtime's own training API. No output comes down before
    /// [`OrtTraining::want`] says which.
    ///
    /// # Errors
    /// When the runtime was built without that API, or refuses the artifacts.
    pub fn ort_training(&self, artifacts: Artifacts, options: &LoadOptions) -> EngineResult<OrtTraining> {
        self.require_training()?;
        let declared = Declared::read(&artifacts)?;
        let mut options = *options;
        options.cuda.graph = false;
        let session = open(self, &options, &artifacts, &State::File(&artifacts.checkpoint))?;
        let float = TensorType { elem: DataType::Float as i32, dims: Some(Vec::new()) };
        let port = |name: &str, tensor| Port { name: name.to_owned(), tensor, has_default: false };
        let mut ports: Vec<Port> =
            session.train.inputs.iter().map(|name| port(name, declared.inputs.get(name).cloned().flatten())).collect();
        ports.push(port(LEARNING_RATE, Some(float)));
        Ok(OrtTraining {
            runtime: self.clone(),
            options,
            artifacts,
            session,
            declared,
            ports,
            step_outputs: Wanted::default(),
            evaluation_outputs: Wanted::default(),
            fed: Vec::new(),
            rate: 0.0,
        })
    }
}

impl OrtTraining {
    /// Parameters, trained or not, in the order of the training model.
    pub fn parameters(&self) -> &[String] {
        &self.declared.parameters
    }

    /// What the training model gives.
    pub fn outputs(&self) -> &[String] {
        &self.session.train.outputs
    }

    /// Says which outputs come down of a step, and which of an evaluation, each in this order.
    ///
    /// # Errors
    /// For an output that the artifacts lack.
    pub fn want(&mut self, of_steps: Vec<String>, of_evaluations: Vec<String>) -> EngineResult<()> {
        let model = self.artifacts.training_model.display().to_string();
        self.step_outputs = Wanted::of(of_steps, &self.session.train.outputs, &model)?;
        if let Some(path) = &self.artifacts.eval_model {
            let model = path.display().to_string();
            self.evaluation_outputs = Wanted::of(of_evaluations, &self.session.evaluate.outputs, &model)?;
        }
        Ok(())
    }

    fn failed(&self, message: &str) -> EngineError {
        EngineError::Run { model: self.artifacts.training_model.display().to_string(), message: one_line(message) }
    }

    /// Values in the order of `names`, of which each has one.
    fn ordered<'a>(names: &[String], values: &'a [(String, DynTensor)]) -> Result<Vec<&'a DynTensor>, String> {
        let find = |name: &String| {
            let found = values.iter().find(|(n, _)| n == name).map(|(_, value)| value);
            found.ok_or_else(|| format!("nothing is fed to {name:?}"))
        };
        names.iter().map(find).collect()
    }

    /// Checks what is fed and brings it to the runtime; the learning rate stays here.
    fn take(&mut self, feeds: Vec<(String, Tensor)>, with_rate: bool) -> EngineResult<Vec<(String, DynTensor)>> {
        let model = self.artifacts.training_model.display().to_string();
        let all: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let ports = if with_rate { &self.ports[..] } else { &self.ports[..self.ports.len().saturating_sub(1)] };
        check_feeds(&model, ports, &all)?;
        let mut taken = Vec::with_capacity(feeds.len());
        for (name, tensor) in feeds {
            if name == LEARNING_RATE {
                if let Data::Float(values) = tensor.data() {
                    self.rate = values.first().copied().unwrap_or_default();
                }
                continue;
            }
            let value = guarded(|| aligned(&Allocator::default(), tensor)).map_err(|m| self.failed(&m))?;
            taken.push((name, value));
        }
        Ok(taken)
    }
}

impl Stepper for OrtTraining {
    fn inputs(&self) -> &[Port] {
        &self.ports
    }

    fn step(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>> {
        self.fed = self.take(feeds, true)?;
        let (session, fed) = (&mut self.session, &self.fed);
        let made = guarded(|| {
            let inputs = Self::ordered(&session.train.inputs, fed)?;
            // Gradients of a step that was left out do not count.
            session.reset_gradients().map_err(|e| e.to_string())?;
            let made = session.train_step(&inputs).map_err(|e| e.to_string())?;
            self.step_outputs.at.iter().map(|i| tensor_of(&made[*i])).collect()
        });
        made.map_err(|m| self.failed(&m))
    }

    fn advance(&mut self) -> EngineResult<()> {
        let (session, rate) = (&mut self.session, self.rate);
        guarded(|| session.optimizer_step(rate).map_err(|e| e.to_string())).map_err(|m| self.failed(&m))
    }

    fn prepare_evaluation(&mut self) -> EngineResult<()> {
        match self.artifacts.eval_model {
            Some(_) => Ok(()),
            None => Err(refuse(
                &self.artifacts.training_model,
                "there is no eval_model.onnx beside it to evaluate with; make it with generate_artifacts, or leave --eval out".into(),
            )),
        }
    }

    fn evaluate(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>> {
        let taken = self.take(feeds, false)?;
        let session = &mut self.session;
        let made = guarded(|| {
            let inputs = Self::ordered(&session.evaluate.inputs, &taken)?;
            let made = session.eval_step(&inputs).map_err(|e| e.to_string())?;
            self.evaluation_outputs.at.iter().map(|i| tensor_of(&made[*i])).collect()
        });
        made.map_err(|m| self.failed(&m))
    }

    fn state(&self) -> EngineResult<Vec<(String, Tensor)>> {
        let copy = |name: &String| {
            let tensor = guarded(|| {
                let value = self.session.parameter(name).map_err(|e| e.to_string())?;
                read(&value, Device::Cpu)
            });
            Ok((name.clone(), tensor.map_err(|m| self.failed(&m))?))
        };
        let mut state = self.declared.parameters.iter().map(copy).collect::<EngineResult<Vec<_>>>()?;
        state.push((CHECKPOINT.to_owned(), self.checkpoint()?));
        Ok(state)
    }

    fn set_state(&mut self, values: &HashMap<String, Tensor>) -> EngineResult<()> {
        // The parameters are in the checkpoint as well.
        let Some(Data::Uint8(bytes)) = values.get(CHECKPOINT).map(Tensor::data) else {
            return Err(EngineError::NoState { name: CHECKPOINT.to_owned() });
        };
        self.session = open(&self.runtime, &self.options, &self.artifacts, &State::Bytes(bytes))?;
        Ok(())
    }

    fn fed(&self) -> EngineResult<Vec<(String, Tensor)>> {
        let copy = |(name, value): &(String, DynTensor)| {
            Ok((name.clone(), guarded(|| read(value, Device::Cpu)).map_err(|m| self.failed(&m))?))
        };
        self.fed.iter().map(copy).collect()
    }

    fn export(&self, path: &Path) -> EngineResult<()> {
        // The loss wants labels, which nobody has who only wants to know what the model says.
        let losses = &self.evaluation_outputs.names;
        let all = &self.session.evaluate.outputs;
        let said: Vec<String> = all.iter().filter(|name| !losses.contains(name)).cloned().collect();
        let outputs = if said.is_empty() { all.clone() } else { said };
        if outputs.is_empty() {
            return Err(refuse(
                &self.artifacts.training_model,
                "there is no eval_model.onnx beside it, of which the trained model is made".into(),
            ));
        }
        guarded(|| self.session.export(path, &outputs).map_err(|e| e.to_string())).map_err(|m| self.failed(&m))
    }
}

impl OrtTraining {
    /// The runtime's own checkpoint, which it writes to files alone.
    fn checkpoint(&self) -> EngineResult<Tensor> {
        let failed = |e: std::io::Error| self.failed(&format!("the state cannot be written to a temporary file: {e}"));
        let folder = tempfile::tempdir().map_err(failed)?;
        let path = folder.path().join("checkpoint");
        guarded(|| self.session.save(&path).map_err(|e| e.to_string())).map_err(|m| self.failed(&m))?;
        let bytes = std::fs::read(&path).map_err(failed)?;
        Tensor::new(vec![bytes.len()], bytes).ok_or_else(|| self.failed("the state has no size"))
    }
}

/// Where a state comes from.
enum State<'a> {
    File(&'a Path),
    Bytes(&'a [u8]),
}

fn open(
    runtime: &Runtime,
    options: &LoadOptions,
    artifacts: &Artifacts,
    state: &State<'_>,
) -> EngineResult<TrainingSession> {
    let refused = |message: String| refuse(&artifacts.training_model, explained(runtime, &message));
    let builder = runtime.builder(options).map_err(refused)?;
    let builder = runtime.on_device(builder, options)?;
    let loaded = guarded(|| match state {
        State::File(path) => Checkpoint::load(path).map_err(|e| e.to_string()),
        State::Bytes(bytes) => Checkpoint::load_from_buffer(bytes).map_err(|e| e.to_string()),
    });
    let state = loaded.map_err(|message| refuse(&artifacts.checkpoint, explained(runtime, &message)))?;
    guarded(|| TrainingSession::new(runtime.environment(), builder, artifacts, state).map_err(|e| e.to_string()))
        .map_err(refused)
}

/// What the runtime said of artifacts, with what to do where that is known.
fn explained(runtime: &Runtime, message: &str) -> String {
    let message = one_line(message);
    let version = &runtime.found().version;
    let advice = if message.contains("Unsupported model IR version") {
        "; generate_artifacts wrote it with a newer onnx than this runtime reads: make the artifacts again with 'pip install \"onnx<1.18\"' in \
         the environment of onnxruntime-training"
    } else {
        ""
    };
    format!("ONNX Runtime {version} refuses it: {message}{advice}")
}

impl Declared {
    fn read(artifacts: &Artifacts) -> EngineResult<Self> {
        let model = Model::open(&artifacts.training_model)?;
        let inputs = &model.graph.inputs;
        let buffers: Vec<&str> =
            inputs.iter().filter_map(|i| i.name().strip_suffix("_grad.accumulation.buffer")).collect();
        if buffers.is_empty() {
            return Err(refuse(
                &artifacts.training_model,
                "it accumulates no gradient, so it is no training model of generate_artifacts; a forward model is taken by its own name, \
                 and its artifacts are made then"
                    .into(),
            ));
        }
        let parameters = inputs.iter().map(|i| i.name()).filter(|name| buffers.contains(name));
        Ok(Declared {
            parameters: parameters.map(str::to_owned).collect(),
            inputs: inputs.iter().map(|i| (i.name().to_owned(), TensorType::of_value(i))).collect(),
        })
    }
}
