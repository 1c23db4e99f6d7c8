//! `per-inject train MODEL --data D --out RUN`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::error::ErrorKind;
use per_inject::autodiff::{DifferentiateError, LossScale, Optimizer};
use per_inject::engine::choice::{Chosen, choose};
use per_inject::engine::{Artifacts, Device, Search, Stepper};
use per_inject::graph::Graph;
use per_inject::graph::kind::backward_evidence;
use per_inject::train::checkpoint::Shelf;
use per_inject::train::data::{Dataset, Part, Plan};
use per_inject::train::event::{Logged, Observer, now};
use per_inject::train::feeds::{Input, inputs, inputs_among};
use per_inject::train::graphs::{Interface, Recipe, build};
use per_inject::train::log::{JsonLines, Sink, TensorBoard};
use per_inject::train::metrics::Metric;
use per_inject::train::rows::{HANDOFF, Rows};
use per_inject::train::run::{Left, OnNan, Settings, Summary, Work, refuse_over, train};
use per_inject::train::session::{Session, stepper};
use per_inject::train::{TrainError, TrainResult, artifacts};
use per_inject::wire::{Model, structure_digest};

use super::differentiate::OptimizerArg;
use super::failure::Failure;
use super::host::Asking;
use super::render;
use super::train_args::{Coefficient, EngineArg, MetricArg, OnNanArg, TrainArgs};
use super::training::{Progress, summary};

/// Rows of a batch where neither the graph nor an option says it.
const BATCH: usize = 128;

impl TrainArgs {
    fn recipe(&self) -> Recipe {
        Recipe {
            regularizer: self.term.options(),
            optimizer: self.constants.of(self.optimizer),
            groups: self.gradients.group.clone(),
            clip: self.gradients.clip(),
            accumulate: self.accumulate.get() > 1,
            loss_scale: self.loss_scale.map_or(LossScale::None, LossScale::Fixed),
            loss: self.term.loss.clone(),
            wrt: self.term.wrt.clone(),
            freeze: self.term.freeze.clone(),
            metric: match self.course.metric {
                MetricArg::Auto => Metric::Auto,
                MetricArg::Accuracy => Metric::Accuracy,
                MetricArg::Perplexity => Metric::Perplexity,
                MetricArg::None => Metric::None,
            },
        }
    }

    /// What a checkpoint must have been made with for this run to go on from it.
    fn identity(&self, model: &Model, recipe: &Recipe, data: &Rows) -> BTreeMap<String, String> {
        let schedule =
            |c: &Coefficient| format!("{}{}", c.item.as_ref().map_or(String::new(), |i| format!("{i}=")), c.schedule);
        let term = recipe.regularizer.as_ref().map_or_else(|| "none".to_owned(), |o| o.arguments().join(" "));
        let text = |key: &str, value: String| (key.to_owned(), value);
        let fields: Vec<String> = data.data.fields().iter().map(|f| format!("{} {}", f.name, f.describe())).collect();
        BTreeMap::from([
            text("the model", structure_digest(model)),
            text("the regulariser", term),
            text("--optimizer", format!("{:?}", recipe.optimizer)),
            text("--group", format!("{:?}", recipe.groups)),
            text("the clipping", format!("{:?}", recipe.clip)),
            text("--accumulate", self.accumulate.to_string()),
            text("--loss-scale", format!("{:?}", recipe.loss_scale)),
            text("--loss", format!("{:?}", recipe.loss)),
            text("--wrt", format!("{:?}", recipe.wrt)),
            text("--freeze", format!("{:?}", recipe.freeze)),
            text("--lr", self.lr.to_string()),
            text("--coef", self.term.coef.iter().map(schedule).collect::<Vec<_>>().join(" ")),
            text("--seed", self.seed.to_string()),
            text("--batch-size", data.plan.batch.to_string()),
            text("--no-shuffle", self.no_shuffle.to_string()),
            text("--augment", format!("{:?}", data.plan.augment)),
            text("--normalize", format!("{:?}", self.normalize)),
            text("the data", fields.join(", ")),
        ])
    }

    /// Reads data for the inputs, with as many samples a batch as the graph takes, and looks through all of it once.
    fn rows(&self, paths: &[PathBuf], inputs: &[Input], part: Part) -> TrainResult<Rows> {
        let wanted: Vec<_> = inputs.iter().map(Input::for_data).collect();
        let place = self.place(paths, part);
        let data = self.dataset(paths, part)?.fit(&wanted, &self.normalize).map_err(|e| e.of(&place))?;
        data.check().map_err(|e| e.of(&place))?;
        let fixed = inputs.iter().find_map(|i| Some((i, usize::try_from(i.fixed_batch()?).ok()?)));
        let batch = match (fixed, self.batch_size.map(NonZeroUsize::get)) {
            (Some((input, fixed)), Some(asked)) if fixed != asked => {
                return Err(TrainError::Options(format!(
                    "the input {:?} is {}, so the graph takes {fixed} samples at once, and --batch-size asks for {asked}; export the \
                     model with a batch axis that is open, or leave --batch-size out",
                    input.port.name,
                    input.port.shown()
                )));
            }
            (Some((_, fixed)), _) => fixed,
            (None, asked) => asked.unwrap_or(BATCH),
        };
        let keep_rest = fixed.is_none() && !self.machine.cuda_graph;
        let (rows, left) = (data.rows(), data.rows() % batch);
        data.notes().iter().for_each(|note| self.tell("", note));
        if !keep_rest && left > 0 {
            let who = if fixed.is_some() { "the graph takes" } else { "a CUDA graph takes" };
            self.tell(
                "",
                &format!("{who} {batch} samples at once; the last {left} of {rows} are left out of every epoch"),
            );
        }
        let is_training = part == Part::Training;
        let plan = Plan {
            batch,
            seed: self.seed,
            shuffle: is_training && !self.no_shuffle,
            keep_rest,
            first: 0,
            augment: self.augment.filter(|_| is_training).unwrap_or_default(),
            ahead: self.ahead,
        };
        let handoff = if self.machine.fills_all_cores() { HANDOFF } else { Duration::ZERO };
        Ok(Rows { data, plan, handoff })
    }

    /// How messages name the data.
    fn place(&self, paths: &[PathBuf], part: Part) -> String {
        let part = match part {
            Part::Training => "data to train on",
            Part::Evaluation => "data to evaluate on",
        };
        match &self.host {
            Some(_) => part.to_owned(),
            None => format!("{part}, {}", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")),
        }
    }

    /// Says which axis is taken for the samples, where every size is fixed and nobody says it: a wrong one trains without a word.
    fn tell_guessed_axes(&self, inputs: &[Input]) {
        let has_choice = |i: &Input| i.port.tensor.as_ref().is_some_and(|t| t.rank().is_some_and(|rank| rank > 1));
        let is_fixed = |i: &Input| i.fixed_batch().is_some();
        if !self.batch_axis.is_empty() || !inputs.iter().all(is_fixed) {
            return;
        }
        if let Some(input) = inputs.iter().find(|i| has_choice(i)) {
            self.tell(
                "",
                &format!(
                    "every size of {:?}, {}, is fixed; its first axis is taken for the samples (--batch-axis {}=1 takes another one)",
                    input.port.name,
                    input.port.shown(),
                    input.port.name
                ),
            );
        }
    }

    /// The data to train on, and that to evaluate on.
    fn all_rows(&self, inputs: &[Input]) -> TrainResult<(Rows, Option<Rows>)> {
        let data = self.rows(&self.data, inputs, Part::Training)?;
        let evaluation = match self.eval.as_slice() {
            [] => None,
            paths => Some(self.rows(paths, inputs, Part::Evaluation)?),
        };
        Ok((data, evaluation))
    }

    /// The engine, and why it is the one.
    fn choose(&self) -> TrainResult<(Chosen, String)> {
        Ok(choose(self.machine.engine.wish(), &Search::of_process(self.machine.ort.clone()))?)
    }

    /// The first option that says what artifacts say themselves.
    fn decided_by_artifacts(&self) -> Option<&'static str> {
        let is_default = self.constants.of(self.optimizer) == Optimizer::Sgd { decay: 0.0 };
        let given = [
            ("--layers", self.term.layers.is_some()),
            ("--optimizer", !is_default),
            ("--group", !self.gradients.group.is_empty()),
            ("--clip-norm and --clip-value", self.gradients.clip().is_some()),
            ("--accumulate", self.accumulate.get() > 1),
            ("--loss-scale", self.loss_scale.is_some()),
            ("--wrt", self.term.wrt.is_some()),
            ("--freeze", self.term.freeze.is_some()),
            ("--metric", !matches!(self.course.metric, MetricArg::Auto | MetricArg::None)),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }

    fn open_model(&self) -> TrainResult<Model> {
        Ok(self.host.as_ref().and_then(|host| host.model()).unwrap_or_else(|| Model::open(&self.model))?)
    }

    fn dataset(&self, paths: &[PathBuf], part: Part) -> TrainResult<Dataset> {
        match &self.host {
            Some(host) => host.dataset(&self.map, part),
            None => Ok(Dataset::open_part(paths, &self.map, part)?),
        }
    }

    /// Tells what a person should know.
    fn tell(&self, what: &str, sentence: &str) {
        match &self.host {
            Some(host) => host.remark(sentence),
            None if self.course.quiet => {}
            None => eprintln!("{what}{}", super::text::legible(sentence)),
        }
    }

    /// The logs of a run, and what is seen of it. `behind` are the steps of a run that goes on.
    fn observers(&self, behind: Option<u64>) -> TrainResult<Vec<Box<dyn Observer>>> {
        let failed = |source| TrainError::Io { path: self.out.clone(), source };
        let log = self.out.join("log.jsonl");
        let lines = match behind {
            Some(step) => JsonLines::resume(&log, step),
            None => JsonLines::create(&log),
        };
        let board = TensorBoard::create(&self.out.join("tensorboard"), now(), behind);
        let logs: Vec<Box<dyn Sink>> = vec![Box::new(lines.map_err(failed)?), Box::new(board.map_err(failed)?)];
        let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(Logged::new(logs))];
        if !self.course.quiet {
            observers.push(Box::new(Progress::default()));
        }
        if let Some(host) = &self.host {
            observers.push(Box::new(Asking(Arc::clone(host))));
        }
        Ok(observers)
    }
}

/// Runs the command; gives its exit code.
pub fn run(args: &TrainArgs) -> Result<u8, Failure> {
    let done = carry_out(args)?;
    if done.interrupted {
        eprintln!(
            "stopped after step {}; the state is in {}; go on with the same command and --resume",
            done.steps,
            args.out.join("checkpoints").display()
        );
        // What a shell reports of a process that Ctrl-C ended.
        return Ok(130);
    }
    let shown = if args.course.json {
        render::json(&done)
    } else if args.course.quiet {
        Ok(())
    } else {
        render::print(&summary(&done))
    };
    // Whoever does not read the summary has the run all the same.
    let _ = shown;
    Ok(0)
}

/// Trains.
pub fn carry_out(args: &TrainArgs) -> Result<Summary, Failure> {
    refuse_slips(args)?;
    go(args).map_err(failure)
}

/// Refuses options that cannot be together.
pub fn refuse_slips(args: &TrainArgs) -> Result<(), Failure> {
    if args.optimizer == OptimizerArg::None {
        let message =
            "--optimizer none changes no parameter; per-inject differentiate makes graphs that give gradients";
        return Err(Failure::usage(ErrorKind::InvalidValue, message));
    }
    args.constants.refuse_others(args.optimizer)?;
    if args.term.layers.is_none() && !args.term.coef.is_empty() {
        let message = "--coef without --layers: which layers? add --layers relu, or --layers all";
        return Err(Failure::usage(ErrorKind::MissingRequiredArgument, message));
    }
    if args.machine.device == Device::Cpu
        && let Some(option) = args.machine.only_for_cuda()
    {
        return Err(Failure::usage(ErrorKind::ArgumentConflict, format!("{option} is for --device cuda")));
    }
    Ok(())
}

fn go(args: &TrainArgs) -> TrainResult<Summary> {
    if args.lr.needs_metric() && args.eval.is_empty() {
        let problem = "a learning rate that goes by evaluations needs data for them: --eval PATH";
        return Err(TrainError::Options(problem.into()));
    }
    let is_for_artifacts = args.machine.engine == EngineArg::OrtTraining;
    match Artifacts::at(&args.model) {
        found if is_for_artifacts => match found? {
            Some(artifacts) => of_artifacts(args, artifacts),
            None => of_model(args),
        },
        Ok(Some(_)) if args.model.is_dir() => Err(TrainError::Options(format!(
            "{} holds artifacts of generate_artifacts, which --engine ort-training takes; other engines take the forward model",
            args.model.display()
        ))),
        _ => of_model(args),
    }
}

/// Trains a forward model, differentiated here or by the engine.
fn of_model(args: &TrainArgs) -> TrainResult<Summary> {
    let model = args.open_model()?;
    refuse_over(&model, &args.out)?;
    // Before data is missed for inputs that only the gradients have.
    if let Some(evidence) = backward_evidence(&Graph::of(&model)?) {
        return Err(DifferentiateError::HasGradients { evidence }.into());
    }
    let recipe = args.recipe();
    let inputs = inputs(&model, &args.batch_axis)?;
    args.tell_guessed_axes(&inputs);
    let (data, evaluation) = args.all_rows(&inputs)?;
    let (chosen, why) = args.choose()?;
    let load = args.machine.load(args.course.verbose);
    let (graphs, made);
    let (step, interface, stepper) = match &chosen {
        Chosen::OfGraphs(engine) => {
            graphs = build(&model, &recipe)?;
            (Some(&graphs.step), &graphs.interface, stepper(&**engine, &model, &graphs, &load)?)
        }
        Chosen::OrtTraining(runtime) => {
            made = artifacts::make(&model, &recipe, &args.machine.pythons(), &args.out.join("artifacts"))?;
            let (artifacts, interface) = &made;
            let mut stepper = runtime.ort_training(artifacts.clone(), &load)?;
            stepper.want(interface.step.outputs.names(), interface.evaluation.outputs.names())?;
            (None, interface, Box::new(stepper) as Box<dyn Stepper>)
        }
    };
    let mut identity = args.identity(&model, &recipe, &data);
    if let Chosen::OrtTraining(_) = chosen {
        // Its state is its own.
        identity.insert("--engine".into(), "ort-training".into());
    }
    let name = model.file.display_name().display().to_string();
    let session = Session::new(chosen.engine(), interface, stepper, &name, inputs, load, args.seed);
    let work = Work { name: &name, model: Some(&model), step, interface, data: &data, evaluation: evaluation.as_ref() };
    drive(args, session, &work, identity, &why)
}

/// Trains artifacts of generate_artifacts as they are.
fn of_artifacts(args: &TrainArgs, artifacts: Artifacts) -> TrainResult<Summary> {
    if let Some(option) = args.decided_by_artifacts() {
        return Err(TrainError::Options(format!(
            "{option}: artifacts hold the loss, what is regularised and the optimiser already; 'per-inject training_model.onnx --layers …' puts PER into their gradients"
        )));
    }
    let (chosen, why) = args.choose()?;
    let Chosen::OrtTraining(runtime) = &chosen else {
        return Err(TrainError::Options("artifacts are for --engine ort-training".into()));
    };
    let model = Model::open(&artifacts.training_model)?;
    let load = args.machine.load(args.course.verbose);
    let name = artifacts.training_model.display().to_string();
    let mut stepper = runtime.ort_training(artifacts, &load)?;
    let found = artifacts::interface_of(stepper.outputs(), args.term.loss.as_deref())?;
    let interface = Interface { stored: stepper.parameters().to_vec(), ..found };
    stepper.want(interface.step.outputs.names(), interface.evaluation.outputs.names())?;
    let for_data = |name: &str| stepper.inputs().iter().any(|p| p.name == name);
    let inputs = inputs_among(&model, &args.batch_axis, for_data)?;
    let (data, evaluation) = args.all_rows(&inputs)?;
    let mut identity = args.identity(&model, &args.recipe(), &data);
    identity.insert("--engine".into(), "ort-training".into());
    let session = Session::new(chosen.engine(), &interface, Box::new(stepper), &name, inputs, load, args.seed);
    let evaluation = evaluation.as_ref();
    let work = Work { name: &name, model: None, step: None, interface: &interface, data: &data, evaluation };
    drive(args, session, &work, identity, &why)
}

fn drive(
    args: &TrainArgs,
    session: Session<'_>,
    work: &Work<'_>,
    identity: BTreeMap<String, String>,
    engine: &str,
) -> TrainResult<Summary> {
    if args.host.is_none() {
        args.tell("engine: ", engine);
    }
    work.interface.warnings.iter().for_each(|warning| args.tell("warning: ", warning));
    std::fs::create_dir_all(&args.out).map_err(|source| TrainError::Io { path: args.out.clone(), source })?;
    let epochs = args.epochs as f64;
    let changing = args.term.coef.iter().filter(|c| !c.schedule.is_constant());
    let settings = Settings {
        epochs: args.epochs,
        rate: args.lr.clone().over(epochs),
        coefficients: changing.map(|c| (c.item.clone(), c.schedule.clone().over(epochs))).collect(),
        seed: args.seed,
        on_nan: match args.course.on_nan {
            OnNanArg::Stop => OnNan::Stop,
            OnNanArg::Skip => OnNan::Skip,
        },
        accumulate: args.accumulate.get(),
        checkpoint_every: args.course.checkpoint_every,
        keep: args.course.keep,
        identity,
        resume: args.course.resume,
        out: args.out.clone(),
        left: args.host.as_ref().map_or_else(Left::default, |host| Left::Model { kept: host.kept.clone() }),
    };
    let shelf = Shelf { folder: args.out.join("checkpoints"), keep: settings.keep };
    let last = shelf.last()?;
    if let Some(checkpoint) = last.as_ref().filter(|_| args.course.resume) {
        // Before the log of that run is touched.
        checkpoint.check(&settings.identity)?;
    }
    let last = last.map(|c| c.meta.position.step);
    // A run that is refused leaves the log of the one that is there.
    let mut observers = match (last, args.course.resume) {
        (Some(_), false) => Vec::new(),
        (last, true) => args.observers(Some(last.unwrap_or_default()))?,
        (None, false) => args.observers(None)?,
    };
    let stop = args.host.as_ref().map_or_else(stop_on_signals, |host| Arc::clone(&host.stop));
    train(session, work, &settings, &mut observers, &stop)
}

/// Set by Ctrl-C and by SIGTERM; the second time ends the process at once.
fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    let handler = move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    // Without a handler the process ends at once, and the last checkpoint counts.
    let _ = ctrlc::set_handler(handler);
    stop
}

/// Errors about the model are told with its name.
fn failure(error: TrainError) -> Failure {
    match error {
        TrainError::Wire(error) => error.into(),
        TrainError::Inject(error) => error.into(),
        TrainError::Analysis(error) => error.into(),
        TrainError::Differentiate(error) => error.into(),
        TrainError::Engine(error) => error.into(),
        error => error.into(),
    }
}
