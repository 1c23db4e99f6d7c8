//! A model whose state stays on its device from run to run: parameters, optimiser state, running statistics.
//!
//! Every carried value has two buffers. One run reads the first and writes the second, the next one reads the second and writes the
//! first; nothing is allocated or copied in between, and what a run started from is still there when its result is not wanted.
//! Only what a run is fed goes up, and only the outputs that are asked for come down.

use std::collections::HashMap;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions};
use ort::value::{DynTensor, DynValue, PrimitiveTensorElementType, Tensor as OrtTensor};

use super::cuda;
use super::device::Device;
use super::differentiated::Stateful;
use super::error::{EngineError, EngineResult};
use super::onnx_runtime::{Loaded, guarded, one_line, tensor_of};
use super::placement::Placed;
use super::program::{LoadOptions, Port, check_named, require_output};
use super::tensor::{Element, Tensor, with_elements};

/// An input, and the output that takes its place in the next run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The input.
    pub input: String,
    /// The output.
    pub output: String,
}

/// Where a carried value stands among those of a model, by its input.
pub(super) fn position_of(
    model: &str,
    carried: &[Carried],
    positions: &HashMap<String, usize>,
    input: &str,
) -> EngineResult<usize> {
    let unknown = || EngineError::UnknownInput {
        model: model.to_owned(),
        name: input.to_owned(),
        all: carried.iter().map(|c| c.input.as_str()).collect::<Vec<_>>().join(", "),
    };
    positions.get(input).copied().ok_or_else(unknown)
}

/// What of a model stays on the device, and what comes down.
#[derive(Debug, Clone, Default)]
pub struct Residence {
    /// Values that every run replaces, with what they are before the first.
    pub carried: Vec<(Carried, Tensor)>,
    /// Outputs that come down, in this order.
    pub wanted: Vec<String>,
}

/// A loaded model with its state.
pub struct Resident {
    loaded: Loaded,
    device: Device,
    placed: Vec<Placed>,
    carried: Vec<Carried>,
    /// By carried value: its position.
    positions: HashMap<String, usize>,
    wanted: Vec<String>,
    /// Binding 0 reads buffers 0 and writes buffers 1, binding 1 the other way round. Without state there is only one.
    bindings: Vec<IoBinding>,
    buffers: [Vec<DynTensor>; 2],
    turn: usize,
    /// What was fed last, by input: on a GPU with a graph its place on the device.
    fed: HashMap<String, DynTensor>,
    /// Whether inputs keep their place on the device, as a recorded CUDA graph wants.
    in_place: bool,
}

impl Resident {
    pub(super) fn new(
        loaded: Loaded,
        options: &LoadOptions,
        plan: &Residence,
        placed: Vec<Placed>,
    ) -> EngineResult<Self> {
        let mut resident = Resident {
            device: options.device,
            placed,
            carried: plan.carried.iter().map(|(c, _)| c.clone()).collect(),
            positions: plan.carried.iter().enumerate().map(|(i, (c, _))| (c.input.clone(), i)).collect(),
            wanted: plan.wanted.clone(),
            bindings: Vec::new(),
            buffers: [Vec::new(), Vec::new()],
            turn: 0,
            fed: HashMap::new(),
            in_place: options.cuda.graph && options.device != Device::Cpu,
            loaded,
        };
        let outputs = plan.carried.iter().map(|(c, _)| &c.output).chain(&plan.wanted);
        for name in outputs {
            require_output(&resident.loaded.name, &resident.loaded.outputs, name)?;
        }
        for (carried, initial) in &plan.carried {
            resident.check(&carried.input, initial)?;
        }
        let device = options.device;
        let (bindings, buffers) = guarded(|| build(&resident.loaded, device, plan).map_err(|e| e.to_string()))
            .map_err(|message| resident.failed(&message))?;
        (resident.bindings, resident.buffers) = (bindings, buffers);
        for (carried, initial) in &plan.carried {
            resident.set(&carried.input, initial)?;
        }
        Ok(resident)
    }

    /// How messages name the model.
    pub fn name(&self) -> &str {
        &self.loaded.name
    }

    /// What it takes, carried values included.
    pub fn inputs(&self) -> &[Port] {
        &self.loaded.inputs
    }

    /// Which provider took which nodes; empty unless [`LoadOptions::placements`] asks for it.
    pub fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// What is carried.
    pub fn carried(&self) -> &[Carried] {
        &self.carried
    }

    /// Gives a carried value, by its input.
    ///
    /// # Errors
    /// For a name that is not carried, and a tensor of another type or shape.
    pub fn set(&mut self, input: &str, value: &Tensor) -> EngineResult<()> {
        let i = self.position(input)?;
        self.check(input, value)?;
        let (turn, device) = (self.turn, self.device);
        let target = &mut self.buffers[turn][i];
        guarded(|| fill(target, value, device)).map_err(|message| self.failed(&message))
    }

    /// A copy of what a carried value is now.
    ///
    /// # Errors
    /// For a name that is not carried; when the copy fails.
    pub fn get(&self, input: &str) -> EngineResult<Tensor> {
        let value = &self.buffers[self.turn][self.position(input)?];
        guarded(|| read(value, self.device)).map_err(|message| self.failed(&message))
    }

    /// Copies of what was fed to the last run.
    ///
    /// # Errors
    /// When a copy fails.
    pub fn fed(&self) -> EngineResult<Vec<(String, Tensor)>> {
        let copy = |(name, value): (&String, &DynTensor)| {
            let device = if self.in_place { self.device } else { Device::Cpu };
            let tensor = guarded(|| read(value, device)).map_err(|message| self.failed(&message))?;
            Ok((name.clone(), tensor))
        };
        self.fed.iter().map(copy).collect()
    }

    /// Lends the carried values as they are now to another model on the same device, for inputs of the same names.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub fn lend(&self, to: &mut Resident) -> EngineResult<()> {
        for (carried, value) in self.carried.iter().zip(&self.buffers[self.turn]) {
            if to.loaded.inputs.iter().any(|p| p.name == carried.input) {
                for binding in &mut to.bindings {
                    guarded(|| binding.bind_input(carried.input.as_str(), value).map_err(|e| e.to_string()))
                        .map_err(|message| self.failed(&message))?;
                }
            }
        }
        Ok(())
    }

    /// Runs it on the state as it is, which stays so until [`Resident::advance`]. An input that is not fed keeps its last value.
    ///
    /// # Errors
    /// For an input that is unknown or of another type or shape than declared; when the run itself fails.
    pub fn run(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>> {
        for (name, tensor) in feeds {
            self.check(&name, &tensor)?;
            guarded(|| self.feed(&name, tensor)).map_err(|message| self.failed(&message))?;
        }
        let has_state = !self.carried.is_empty();
        let turn = if has_state { self.turn } else { 0 };
        let down = self.wanted.clone();
        let (loaded, bindings) = (&mut self.loaded, &mut self.bindings);
        let graph = self.in_place.then(|| (turn + 1).to_string());
        let run = || -> ort::Result<Result<Vec<Tensor>, String>> {
            let Some(binding) = bindings.get_mut(turn) else { return Ok(Err("there is nothing bound".into())) };
            // A bound output that is there already would be written to again, whatever its shape.
            let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
            for name in &down {
                binding.bind_output_to_device(name.as_str(), &host)?;
            }
            let outputs = match graph {
                None => loaded.session.run_binding(binding)?,
                Some(id) => {
                    let mut options: RunOptions<NoSelectedOutputs> = RunOptions::new()?;
                    options.set("gpu_graph_id", id)?;
                    loaded.session.run_binding_with_options(binding, &options)?
                }
            };
            let value = |name: &String| outputs.get(name).ok_or_else(|| format!("it gives no {name:?}"));
            Ok(down.iter().map(|name| tensor_of(value(name)?)).collect())
        };
        let made = guarded(|| run().map_err(|e| e.to_string()));
        made.and_then(|made| made).map_err(|message| self.failed(&message))
    }

    /// Makes what the last run gave the state of the next.
    pub fn advance(&mut self) {
        self.turn = 1 - self.turn;
    }

    fn feed(&mut self, name: &str, tensor: Tensor) -> Result<(), String> {
        let said = |e: ort::Error| e.to_string();
        let mut value = aligned(&Allocator::default(), tensor)?;
        if self.in_place {
            if let Some(place) = self.fed.get_mut(name).filter(|p| p.shape() == value.shape()) {
                return value.copy_into(place).map_err(said);
            }
            let Device::Cuda { index } = self.device else { return Err("a graph without a GPU".into()) };
            value = value.to(AllocationDevice::CUDA, id(index)).map_err(said)?;
        }
        for binding in &mut self.bindings {
            binding.bind_input(name, &value).map_err(said)?;
        }
        self.fed.insert(name.to_owned(), value);
        Ok(())
    }

    fn position(&self, input: &str) -> EngineResult<usize> {
        position_of(&self.loaded.name, &self.carried, &self.positions, input)
    }

    fn check(&self, name: &str, tensor: &Tensor) -> EngineResult<()> {
        check_named(&self.loaded.name, &self.loaded.inputs, name, tensor)
    }

    fn failed(&self, message: &str) -> EngineError {
        let message = one_line(message);
        match self.device {
            // The arena's words when the GPU is full name no CUDA.
            Device::Cuda { index } if ["CUDA", "CUDNN", "allocate memory"].iter().any(|w| message.contains(w)) => {
                EngineError::Device { device: self.device.to_string(), problem: cuda::explain(&message, index) }
            }
            _ => EngineError::Run { model: self.loaded.name.clone(), message },
        }
    }
}

impl Stateful for Resident {
    fn inputs(&self) -> &[Port] {
        self.inputs()
    }

    fn carried(&self) -> &[Carried] {
        self.carried()
    }

    fn set(&mut self, input: &str, value: &Tensor) -> EngineResult<()> {
        self.set(input, value)
    }

    fn get(&self, input: &str) -> EngineResult<Tensor> {
        self.get(input)
    }

    fn fed(&self) -> EngineResult<Vec<(String, Tensor)>> {
        self.fed()
    }

    fn lend(&self, to: &mut Resident) -> EngineResult<()> {
        self.lend(to)
    }

    fn run(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>> {
        self.run(feeds)
    }

    fn advance(&mut self) {
        self.advance();
    }

    fn placed(&self) -> &[Placed] {
        self.placed()
    }
}

fn id(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

/// The bindings and the buffers, whose contents are not set yet.
fn build(loaded: &Loaded, device: Device, plan: &Residence) -> ort::Result<(Vec<IoBinding>, [Vec<DynTensor>; 2])> {
    let on_device = match device {
        Device::Cpu => None,
        Device::Cuda { index } => Some(Allocator::new(
            &loaded.session,
            MemoryInfo::new(AllocationDevice::CUDA, id(index), AllocatorType::Device, MemoryType::Default)?,
        )?),
    };
    let allocator = on_device.as_ref().unwrap_or_else(|| loaded.session.allocator());
    let make = || plan.carried.iter().map(|(_, t)| empty(allocator, t)).collect::<ort::Result<Vec<_>>>();
    let mut buffers = if plan.carried.is_empty() { [Vec::new(), Vec::new()] } else { [make()?, make()?] };
    let mut bindings = Vec::new();
    for turn in 0..if plan.carried.is_empty() { 1 } else { 2 } {
        let mut binding = loaded.session.create_binding()?;
        for (i, (carried, _)) in plan.carried.iter().enumerate() {
            if let Some(value) = buffers[turn].get(i) {
                binding.bind_input(carried.input.as_str(), value)?;
            }
            if let Some(value) = buffers[1 - turn].get_mut(i) {
                binding.bind_output(carried.output.as_str(), value)?;
            }
        }
        bindings.push(binding);
    }
    Ok((bindings, buffers))
}

fn dims(tensor: &Tensor) -> Vec<i64> {
    tensor.shape().iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect()
}

/// A tensor of the same type and shape whose elements are anything.
fn empty(allocator: &Allocator, like: &Tensor) -> ort::Result<DynTensor> {
    fn of<T: PrimitiveTensorElementType + std::fmt::Debug>(
        _: &[T],
        allocator: &Allocator,
        dims: Vec<i64>,
    ) -> ort::Result<DynTensor> {
        Ok(OrtTensor::<T>::new(allocator, dims)?.upcast())
    }
    with_elements!(like.data(), values => of(values, allocator, dims(like)))
}

/// Where elements begin in the runtime's own buffers. Kernels that add numbers up may begin at a round address, so that the last bits depend
/// on where the allocator happened to put a batch: ReduceSum and ReduceMean of ONNX Runtime 1.32 on x86-64 do where elements begin 4 or 8
/// bytes off a multiple of 16. From multiples of 16 on, the results of those and of 20 more kernels were the same bit for bit.
const ALIGNMENT: usize = 64;

/// A tensor of the runtime in the host's memory, without a copy where its elements begin as those of the runtime do.
pub(super) fn aligned(allocator: &Allocator, tensor: Tensor) -> Result<DynTensor, String> {
    let said = |e: ort::Error| e.to_string();
    if with_elements!(tensor.data(), values => values.as_ptr().addr().is_multiple_of(ALIGNMENT)) {
        return owned(tensor).map_err(said);
    }
    let mut copy = empty(allocator, &tensor).map_err(said)?;
    fill(&mut copy, &tensor, Device::Cpu)?;
    Ok(copy)
}

/// A tensor of the runtime that owns its elements, without a copy.
fn owned(tensor: Tensor) -> ort::Result<DynTensor> {
    let dims = dims(&tensor);
    with_elements!(tensor.into_data(), values => Ok(OrtTensor::from_array((dims, values))?.upcast()))
}

/// Writes elements into a buffer of the same type and shape.
fn fill(target: &mut DynTensor, value: &Tensor, device: Device) -> Result<(), String> {
    fn copy<T: Element + PrimitiveTensorElementType>(target: &mut DynTensor, values: &[T]) -> ort::Result<()> {
        let (_, place) = target.try_extract_tensor_mut::<T>()?;
        // Both have the size that their shape says, and the shapes were compared.
        place.copy_from_slice(values);
        Ok(())
    }
    let said = |e: ort::Error| e.to_string();
    if device != Device::Cpu {
        return owned(value.clone()).and_then(|v| v.copy_into(target)).map_err(said);
    }
    with_elements!(value.data(), values => copy(target, values)).map_err(said)
}

/// A copy in the host's memory.
pub(super) fn read(value: &DynTensor, device: Device) -> Result<Tensor, String> {
    if device == Device::Cpu {
        return tensor_of(&value.view().into_dyn());
    }
    let down = value.to(AllocationDevice::CPU, 0).map_err(|e| e.to_string())?;
    let down: DynValue = down.into_dyn();
    tensor_of(&down)
}
