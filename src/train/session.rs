//! Training by an engine: one step at a time, and one batch to evaluate at a time.

use std::collections::HashMap;
use std::path::Path;

use super::edit::changed;
use super::error::{TrainError, TrainResult};
use super::feeds::{Input, Preparation, Prepared};
use super::graphs::{Graphs, Interface, Outputs};
use super::noise::Draw;
use super::weights;
use crate::autodiff;
use crate::engine::{Data, Engine, LoadOptions, Placed, Program, Source, StepPlan, Stepper, Tensor, element_size};
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{NodeProto, ValueInfoProto};
use crate::patch::Change;
use crate::weights::stored;
use crate::wire::{Model, external_files};

/// The numbers of one step, or of one batch that is evaluated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// What is minimised.
    pub loss: f64,
    /// The loss without the regulariser.
    pub task: f64,
    /// PER of each layer.
    pub layers: Vec<f64>,
    /// How many labels were right, and how many there were.
    pub counts: Option<(f64, f64)>,
    /// The norm of all gradients.
    pub gradient_norm: Option<f64>,
}

impl Numbers {
    /// What is not finite, if anything is.
    pub fn not_finite(&self) -> Option<String> {
        let norm = self.gradient_norm.unwrap_or_default();
        let all = [("a loss", self.loss), ("a task loss", self.task), ("a gradient norm", norm)];
        let wrong = all.into_iter().find(|(_, v)| !v.is_finite());
        wrong.map(|(what, v)| format!("{what} of {v}"))
    }
}

/// The first counter of batches that are evaluated. Those of steps count up from 0, those of the data's order down from the end.
pub const EVALUATIONS: u64 = 1 << 47;

/// Where in a run a step is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// The learning rate.
    pub rate: f64,
    /// How often the parameters changed before.
    pub updates: u64,
    /// Batches whose gradients are summed up since.
    pub held: u64,
    /// Whether the parameters change now, by the mean of those gradients and this batch's; always, where nothing is accumulated.
    pub is_update: bool,
}

/// The training of a model by an engine.
pub struct Session<'m> {
    engine: &'m dyn Engine,
    interface: &'m Interface,
    options: LoadOptions,
    inputs: Vec<Input>,
    seed: u64,
    /// The model, as messages call it.
    name: String,
    stepper: Box<dyn Stepper + 'm>,
    counts_steps: bool,
    accumulates: bool,
    shapes: Shapes,
    /// λ of each coefficient that is an input.
    coefficients: Vec<(String, f64)>,
}

/// Loads the graphs of a run, with the values that the model has.
///
/// # Errors
/// When a value cannot be read, or the engine does not take the graph.
pub fn stepper<'m>(
    engine: &dyn Engine,
    model: &Model,
    graphs: &'m Graphs,
    options: &LoadOptions,
) -> TrainResult<Box<dyn Stepper + 'm>> {
    let declared: HashMap<&str, TensorType> =
        graphs.step.graph.inputs.iter().filter_map(|i| Some((i.name(), TensorType::of_value(i)?))).collect();
    let mut carried = Vec::new();
    let stored = stored(model)?;
    for each in &graphs.carried {
        let initial = match stored.iter().find(|t| t.name == each.input) {
            Some(initializer) => weights::read(model, initializer)?,
            None => {
                let missing = || TrainError::Weights {
                    name: each.input.clone(),
                    problem: "has no type or shape that is known".into(),
                };
                zeros(declared.get(each.input.as_str()).ok_or_else(missing)?).ok_or_else(missing)?
            }
        };
        carried.push((each.clone(), initial));
    }
    let plan = StepPlan {
        step: source(&graphs.step)?,
        evaluation: source(&graphs.evaluation)?,
        carried,
        step_outputs: graphs.interface.step.outputs.names(),
        evaluation_outputs: graphs.interface.evaluation.outputs.names(),
    };
    Ok(engine.stepper(plan, options)?)
}

impl<'m> Session<'m> {
    /// Training by `stepper` of what messages call `name`. `engine` runs what is not a step: the forward pass, for the shapes of random numbers.
    pub fn new(
        engine: &'m dyn Engine,
        interface: &'m Interface,
        stepper: Box<dyn Stepper + 'm>,
        name: &str,
        inputs: Vec<Input>,
        options: LoadOptions,
        seed: u64,
    ) -> Self {
        Session {
            engine,
            interface,
            options,
            inputs,
            seed,
            name: name.to_owned(),
            counts_steps: stepper.inputs().iter().any(|p| p.name == autodiff::STEP),
            accumulates: stepper.inputs().iter().any(|p| p.name == autodiff::APPLY),
            stepper,
            shapes: Shapes::default(),
            coefficients: interface.coefficients.iter().map(|c| (c.input.clone(), c.value)).collect(),
        }
    }

    /// Which provider took which nodes of the step, where that was asked for.
    pub fn placed(&self) -> &[Placed] {
        self.stepper.placed()
    }

    /// What makes batches ready for steps, or for evaluations.
    pub fn preparation(&self, is_step: bool) -> Preparation {
        let traffic = if is_step { &self.interface.step } else { &self.interface.evaluation };
        Preparation {
            inputs: self.inputs.clone(),
            draws: traffic.draws.clone(),
            seed: self.seed,
            model: self.name.clone(),
        }
    }

    /// Sets coefficients that are inputs, from now on.
    pub fn set_coefficients(&mut self, values: &[(String, f64)]) {
        for (input, value) in &mut self.coefficients {
            if let Some((_, new)) = values.iter().find(|(name, _)| name == input) {
                *value = *new;
            }
        }
    }

    /// One step on a batch, which [`Session::preparation`] for steps made ready. The state stays what it was until [`Session::advance`].
    ///
    /// # Errors
    /// When the runtime does not take the batch, or fails.
    pub fn step(&mut self, moment: &Moment, batch: Prepared) -> TrainResult<Numbers> {
        let count = |n: u64| Tensor::scalar(i64::try_from(n).unwrap_or(i64::MAX));
        let mut feeds = vec![(autodiff::LEARNING_RATE.to_owned(), Tensor::scalar(moment.rate as f32))];
        if self.counts_steps {
            feeds.push((autodiff::STEP.to_owned(), count(moment.updates)));
        }
        if self.accumulates {
            feeds.push((autodiff::APPLY.to_owned(), Tensor::scalar(moment.is_update)));
            feeds.push((autodiff::ACCUMULATED.to_owned(), count(moment.held)));
        }
        self.run(true, batch, feeds)
    }

    /// Makes what the last step gave the state of the next.
    ///
    /// # Errors
    /// When the engine fails at it.
    pub fn advance(&mut self) -> TrainResult<()> {
        Ok(self.stepper.advance()?)
    }

    /// Makes the state as it is now what [`Session::evaluate`] works on.
    ///
    /// # Errors
    /// When the engine does not take the graph that evaluates.
    pub fn prepare_evaluation(&mut self) -> TrainResult<()> {
        Ok(self.stepper.prepare_evaluation()?)
    }

    /// Evaluates a batch, which [`Session::preparation`] for evaluations made ready, with the state of the last
    /// [`Session::prepare_evaluation`].
    ///
    /// # Errors
    /// When the runtime does not take the batch, or fails.
    pub fn evaluate(&mut self, batch: Prepared) -> TrainResult<Numbers> {
        self.run(false, batch, Vec::new())
    }

    fn run(&mut self, is_step: bool, batch: Prepared, mut feeds: Vec<(String, Tensor)>) -> TrainResult<Numbers> {
        let traffic = if is_step { &self.interface.step } else { &self.interface.evaluation };
        for (i, (draw, drawn)) in traffic.draws.iter().zip(batch.drawn).enumerate() {
            let numbers = match drawn {
                Some(numbers) => Some(numbers),
                None => {
                    let shape = self.shapes.of(self.engine, self.interface, draw, &batch.feeds)?;
                    draw.numbers(self.seed, batch.counter, i, shape)
                }
            };
            feeds.extend(numbers.map(|n| (draw.input.clone(), n)));
        }
        let is_double = |name: &str| {
            let port = self.stepper.inputs().iter().find(|p| p.name == name);
            port.and_then(|p| p.tensor.as_ref()).is_some_and(|t| t.elem == DataType::Double as i32)
        };
        for (name, value) in &self.coefficients {
            let value = if is_double(name) { Tensor::scalar(*value) } else { Tensor::scalar(*value as f32) };
            feeds.push((name.clone(), value));
        }
        feeds.extend(batch.feeds);
        let made = if is_step { self.stepper.step(feeds)? } else { self.stepper.evaluate(feeds)? };
        Ok(traffic.outputs.numbers(&made))
    }

    /// The state: name and value, in an order that stays.
    ///
    /// # Errors
    /// When a copy from the device fails.
    pub fn state(&self) -> TrainResult<Vec<(String, Tensor)>> {
        Ok(self.stepper.state()?)
    }

    /// Sets the state.
    ///
    /// # Errors
    /// For a value that is missing, or of another type or shape.
    pub fn set_state(&mut self, values: &HashMap<String, Tensor>) -> TrainResult<()> {
        Ok(self.stepper.set_state(values)?)
    }

    /// What the last step was fed, and the state that it started from.
    ///
    /// # Errors
    /// When a copy from the device fails.
    pub fn last_feeds(&self) -> TrainResult<Vec<(String, Tensor)>> {
        let mut feeds = self.stepper.fed()?;
        feeds.extend(self.stepper.state()?);
        Ok(feeds)
    }

    /// Writes the trained model where only the engine has it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn export(&self, path: &Path) -> TrainResult<()> {
        Ok(self.stepper.export(path)?)
    }

    /// What runs graphs, and how: for looking into a step.
    pub fn engine(&self) -> (&dyn Engine, &LoadOptions) {
        (self.engine, &self.options)
    }
}

/// A model in memory, with the folder of its external data.
fn source(model: &Model) -> TrainResult<Source<'_>> {
    let is_external = !external_files(model)?.is_empty();
    let folder = model.file.folder().filter(|_| is_external);
    Ok(Source::Memory { bytes: &model.file.bytes, folder, name: &model.file.path })
}

/// Zeros; `None` where the type is not one of numbers or a dimension is not known.
fn zeros(ty: &TensorType) -> Option<Tensor> {
    let size = |d: &Dim| usize::try_from(d.known()?).ok();
    let shape = ty.dims.as_ref()?.iter().map(size).collect::<Option<Vec<_>>>()?;
    let bytes = shape.iter().product::<usize>().checked_mul(element_size(ty.elem)?)?;
    weights::from_bytes(ty.elem, shape, &vec![0; bytes])
}

impl Outputs {
    /// From values in the order of [`Outputs::names`].
    fn numbers(&self, values: &[Tensor]) -> Numbers {
        let mut values = values.iter().map(number);
        let mut next = || values.next().unwrap_or(f64::NAN);
        let loss = next();
        let task = if self.task == self.loss { loss } else { next() };
        let layers = self.layers.iter().map(|_| next()).collect();
        let counts = self.counts.is_some().then(|| (next(), next()));
        Numbers { loss, task, layers, counts, gradient_norm: self.gradient_norm.is_some().then(next) }
    }
}

/// The only element of a tensor.
fn number(tensor: &Tensor) -> f64 {
    let value = match tensor.data() {
        Data::Float(values) => values.first().map(|v| f64::from(*v)),
        Data::Double(values) => values.first().copied(),
        Data::Float16(values) => values.first().map(|v| v.to_f64()),
        Data::Bfloat16(values) => values.first().map(|v| v.to_f64()),
        _ => None,
    };
    value.unwrap_or(f64::NAN)
}

/// The shapes of draws that depend on the batch.
#[derive(Default)]
struct Shapes {
    /// Runs the forward pass and tells shapes.
    program: Option<Box<dyn Program>>,
    /// What it told, by the shapes of a batch and by value.
    known: HashMap<Vec<Vec<usize>>, HashMap<String, Vec<usize>>>,
}

impl Shapes {
    fn of(
        &mut self,
        engine: &dyn Engine,
        interface: &Interface,
        draw: &Draw,
        batch: &[(String, Tensor)],
    ) -> TrainResult<Vec<usize>> {
        let asked = draw.asks_for().unwrap_or_default();
        let key: Vec<Vec<usize>> = batch.iter().map(|(_, t)| t.shape().to_vec()).collect();
        if !self.known.contains_key(&key) {
            let told = self.ask(engine, interface, batch)?;
            self.known.insert(key.clone(), told);
        }
        let unknown =
            || TrainError::Options(format!("the shape of {asked:?} cannot be told, and random numbers have it"));
        self.known.get(&key).and_then(|told| told.get(asked)).cloned().ok_or_else(unknown)
    }

    /// Runs the forward pass once on the CPU and takes down the shapes that draws ask for.
    fn ask(
        &mut self,
        engine: &dyn Engine,
        interface: &Interface,
        batch: &[(String, Tensor)],
    ) -> TrainResult<HashMap<String, Vec<usize>>> {
        let all = interface.step.draws.iter().chain(&interface.evaluation.draws);
        let mut values: Vec<&str> = all.filter_map(Draw::asks_for).collect();
        values.sort_unstable();
        values.dedup();
        let output = |i: usize| format!("per_inject/shape_of/{i}");
        if let (None, Some(forward)) = (&self.program, &interface.forward) {
            let ty = TensorType { elem: DataType::Int64 as i32, dims: Some(vec![Dim::Unknown]) };
            let node = |(i, value): (usize, &&str)| NodeProto {
                op_type: Some("Shape".into()),
                input: vec![(*value).to_owned()],
                output: vec![output(i)],
                ..NodeProto::default()
            };
            let outputs: Vec<ValueInfoProto> = (0..values.len()).filter_map(|i| ty.declare(&output(i))).collect();
            let change = Change {
                reason: "shapes are told".into(),
                nodes: values.iter().enumerate().map(node).collect::<Vec<_>>().into(),
                outputs,
                ..Change::default()
            };
            let model = changed(forward, change)?;
            self.program = Some(engine.load(source(&model)?, &LoadOptions::default())?);
        }
        let Some(program) = &mut self.program else { return Ok(HashMap::new()) };
        let names: Vec<String> = (0..values.len()).map(output).collect();
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let feeds: Vec<(&str, &Tensor)> = batch.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let told = program.run(&feeds, Some(&wanted))?;
        let shape = |(value, (_, tensor)): (&&str, (String, Tensor))| match tensor.data() {
            Data::Int64(sizes) => {
                let sizes = sizes.iter().map(|n| usize::try_from(*n).unwrap_or_default()).collect();
                Some(((*value).to_owned(), sizes))
            }
            _ => None,
        };
        Ok(values.iter().zip(told).filter_map(shape).collect())
    }
}
