//! tract inside the binary: the engine for a machine on which nothing is installed. On the CPU, one thread.
//!
//! tract plans a graph for shapes that are known, so a model is prepared when its first batch is there, and again for a batch of other
//! shapes; what was prepared is kept. What tract lacks is written in operators that it has; what cannot be is refused by name.

mod plan;
mod resident;
mod rules;
mod shaped;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::device::Device;
use super::differentiated::Differentiated;
use super::error::{EngineError, EngineResult};
use super::program::{Engine, LoadOptions, Port, Program, Source, check_feeds, graph_of, outputs_to_give};
use super::resident::Residence;
use super::stepper::{StepPlan, Stepper};
use super::tensor::Tensor;
use crate::graph::infer::Types;
use crate::graph::types::TensorType;
use crate::wire::Model;
use plan::{Plan, Value, has_operator, tensor_of, value_of};

/// The version that is compiled in; `Cargo.toml` pins it.
pub const VERSION: &str = "0.23.9";

/// How many shapes of one model stay prepared: those of full batches, of the last one, and some of sentences of different lengths.
const MOST_PLANS: usize = 8;

/// The engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tract;

impl Engine for Tract {
    fn description(&self) -> String {
        format!("tract {VERSION}, which is part of this program, on one thread")
    }

    fn version(&self) -> &str {
        VERSION
    }

    fn load(&self, source: Source<'_>, options: &LoadOptions) -> EngineResult<Box<dyn Program>> {
        Ok(Box::new(Loaded::open(source, options)?))
    }

    fn stepper<'a>(&self, plan: StepPlan<'a>, options: &LoadOptions) -> EngineResult<Box<dyn Stepper + 'a>> {
        let options = *options;
        let load = move |source: Source<'_>, residence: &Residence, _: bool| {
            resident::Resident::new(Loaded::open(source, &options)?, residence)
        };
        Ok(Box::new(Differentiated::new(plan, load)?))
    }
}

/// A model with what was prepared of it so far.
struct Loaded {
    name: String,
    bytes: Bytes,
    folder: Option<PathBuf>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// The last used comes last.
    plans: Vec<(Key, Plan)>,
}

/// What a model is prepared for: types of what it is fed, by name, and the outputs that are computed.
type Key = (Vec<(String, TensorType)>, Vec<String>);

impl Loaded {
    fn open(source: Source<'_>, options: &LoadOptions) -> EngineResult<Self> {
        if options.device != Device::Cpu {
            let problem = "tract runs on the CPU alone; --engine ort runs on a GPU".into();
            return Err(EngineError::Device { device: options.device.to_string(), problem });
        }
        let name = source.name();
        let model = match source {
            Source::File(path) => Model::open(path)?,
            Source::Memory { bytes, .. } => Model::from_bytes(bytes.to_vec())?,
        };
        let folder = match source {
            Source::File(_) => model.file.folder().map(Path::to_owned),
            Source::Memory { folder, .. } => folder.map(Path::to_owned),
        };
        let graph = graph_of(&model)?;
        let types = Types::of(&graph, &model);
        let port = |value: &crate::graph::ValueId, has_default| {
            let tensor = types.is_tensor(*value).then(|| types.get(*value).clone());
            Port { name: graph.name(*value).to_owned(), tensor, has_default }
        };
        let (with, without): (Vec<_>, Vec<_>) = graph.inputs.iter().partition(|v| graph.initializer(**v).is_some());
        let inputs = without.iter().map(|v| port(v, false)).chain(with.iter().map(|v| port(v, true))).collect();
        let outputs = graph.outputs.iter().map(|v| port(v, false)).collect();
        Ok(Loaded { name, bytes: model.file.bytes.clone(), folder, inputs, outputs, plans: Vec::new() })
    }

    /// What computes these outputs of what is fed with these types.
    fn plan(&mut self, mut fed: Vec<(String, TensorType)>, wanted: &[String]) -> EngineResult<&mut Plan> {
        fed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let key = (fed, wanted.to_vec());
        let ready = match self.plans.iter().position(|(known, _)| *known == key) {
            Some(at) => self.plans.remove(at),
            None => {
                let types: HashMap<&str, TensorType> = key.0.iter().map(|(n, ty)| (n.as_str(), ty.clone())).collect();
                let made = shaped::shaped(&self.bytes, &types, wanted, has_operator());
                let plan = made.and_then(|bytes| Plan::new(&bytes, self.folder.as_deref()));
                (key, plan.map_err(|problem| self.refused(problem))?)
            }
        };
        if self.plans.len() >= MOST_PLANS {
            self.plans.remove(0);
        }
        self.plans.push(ready);
        match self.plans.last_mut() {
            Some((_, plan)) => Ok(plan),
            None => Err(EngineError::Run { model: self.name.clone(), message: "nothing is prepared".into() }),
        }
    }

    fn refused(&self, problem: String) -> EngineError {
        EngineError::Tract { version: VERSION, model: self.name.clone(), problem }
    }

    fn failed(&self, message: String) -> EngineError {
        EngineError::Run { model: self.name.clone(), message: format!("{message} (tract {VERSION})") }
    }
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
        check_feeds(&self.name, &self.inputs, feeds)?;
        let names = outputs_to_give(&self.name, &self.outputs, wanted)?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let types = feeds.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.tensor_type())).collect();
        let values = feeds.iter().map(|(name, tensor)| Ok(((*name).to_owned(), value_of(tensor)?)));
        let values: HashMap<String, Value> =
            values.collect::<Result<_, String>>().map_err(|problem| self.refused(problem))?;
        let plan = self.plan(types, &names)?;
        let made = plan.run(|name| values.get(name).cloned()).map_err(|message| self.failed(message))?;
        let named = |(name, value): (String, Value)| {
            let no_tensor = |what| EngineError::NoTensor { model: self.name.clone(), name: name.clone(), what };
            Ok((name.clone(), tensor_of(&value).map_err(no_tensor)?))
        };
        names.into_iter().zip(made).map(named).collect()
    }
}
