//! `per-inject train MODEL --data D --out RUN`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use per_inject::autodiff::{DifferentiateError, LossScale, Optimizer};
use per_inject::engine::choice::{Chosen, choose};
use per_inject::engine::{Artifacts, Device, Search, Stepper};
use per_inject::graph::Graph;
use per_inject::graph::kind::backward_evidence;
use per_inject::inject::InjectError;
use per_inject::train::checkpoint::{Position, Shelf};
use per_inject::train::claim::claim;
use per_inject::train::data::{Dataset, Part, Plan};
use per_inject::train::event::{Logged, Observer, now};
use per_inject::train::feeds::{Input, inputs, inputs_among};
use per_inject::train::graphs::{Interface, Recipe, build};
use per_inject::train::log::{JsonLines, Sink, TensorBoard};
use per_inject::train::metrics::Metric;
use per_inject::train::rows::{HANDOFF, Rows};
use per_inject::train::run::{Summary, Work, refuse_over, train};
use per_inject::train::session::{Session, stepper};
use per_inject::train::settings::{Left, OnNan, Settings};
use per_inject::train::{TrainError, TrainResult, artifacts};
use per_inject::wire::Model;

use super::differentiate::OptimizerArg;
use super::failure::Failure;
use super::host::Asking;
use super::inject::refuse_drowning;
use super::train_args::{EngineArg, MetricArg, OnNanArg, TrainArgs};
use super::training::{Progress, summary};
use super::{render, signals, streams};

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
            trained: None,
            metric: match self.course.metric {
                MetricArg::Auto => Metric::Auto,
                MetricArg::Accuracy => Metric::Accuracy,
                MetricArg::Perplexity => Metric::Perplexity,
                MetricArg::None => Metric::None,
            },
            device: self.machine.device,
        }
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
        data.suits(&plan).map_err(|e| e.of(&place))?;
        let (rows, left) = (data.rows(), data.rows() % batch);
        data.notes().iter().for_each(|note| self.tell("", note));
        if !keep_rest && left > 0 {
            let who = if fixed.is_some() { "the graph takes" } else { "a CUDA graph takes" };
            let of = if is_training { "epoch" } else { "evaluation" };
            self.tell(
                "",
                &format!("{who} {batch} samples at once; the last {left} of {rows} are left out of every {of}"),
            );
        }
        let handoff = if self.machine.fills_all_cores() { HANDOFF } else { Duration::ZERO };
        Ok(Rows { data, plan, handoff })
    }

    /// How messages name the data.
    fn place(&self, paths: &[PathBuf], part: Part) -> String {
        let (part, option) = match part {
            Part::Training => ("the training data", "--data"),
            Part::Evaluation => ("the evaluation data", "--eval"),
        };
        match &self.host {
            Some(_) => part.to_owned(),
            None => {
                let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
                format!("{part}, {option} {}", paths.join(" "))
            }
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
            None => streams::tell(&format!("{what}{}\n", super::text::legible(sentence))),
        }
    }

    /// The logs of a run, and what is seen of it. `behind` is where a run was that goes on.
    fn observers(&self, behind: Option<&Position>) -> TrainResult<Vec<Box<dyn Observer>>> {
        let failed = |source| TrainError::Io { path: self.out.clone(), source };
        let log = self.out.join("log.jsonl");
        let lines = match behind {
            Some(position) => JsonLines::resume(&log, position.step, position.evaluation_due),
            None => JsonLines::create(&log),
        };
        let board = TensorBoard::create(&self.out.join("tensorboard"), now(), behind.map(|position| position.step));
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
        streams::tell(&format!(
            "stopped after step {}; the state is in {}; go on with the same command and --resume\n",
            done.steps,
            args.out.join("checkpoints").display()
        ));
        return Ok(signals::exit_code());
    }
    let shown = if args.course.json {
        render::json(&done)
    } else if args.course.quiet {
        Ok(())
    } else {
        streams::print(&summary(&done))
    };
    let advice = format!("the run is over all the same, and what it made is in {}", args.out.display());
    shown.map(|()| 0).map_err(|failure| failure.with_advice(&advice))
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
    for coefficient in &args.term.coef {
        refuse_drowning(coefficient.schedule.highest(), args.term.any_coef)?;
    }
    let slices = args.term.measure.slices;
    if slices == 0 {
        // Also where nothing draws them.
        return Err(InjectError::BadSlices { slices }.into());
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
            let _claimed = claim(&args.out)?;
            made = artifacts::make(&model, &recipe, &args.machine.pythons(), &args.out.join("artifacts"))?;
            let (artifacts, interface) = &made;
            let mut stepper = runtime.ort_training(artifacts.clone(), &load)?;
            stepper.want(interface.step.outputs.names(), interface.evaluation.outputs.names())?;
            (None, interface, Box::new(stepper) as Box<dyn Stepper>)
        }
    };
    let mut identity = args.identity(&model, &recipe, &data, evaluation.as_ref());
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
    let mut identity = args.identity(&model, &args.recipe(), &data, evaluation.as_ref());
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
    let _claimed = claim(&args.out)?;
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
    match last.as_ref() {
        _ if !args.course.resume => {}
        Some(checkpoint) => {
            for problem in &checkpoint.passed_over {
                let sentence =
                    format!("{problem}; it is passed over, and the run goes on from {}", checkpoint.path.display());
                args.tell("warning: ", &sentence);
            }
            // Before the log of that run is touched.
            checkpoint.check(&settings.identity)?;
        }
        None => args.tell("", &format!("no checkpoint in {}: the run starts anew", shelf.folder.display())),
    }
    let last = last.map(|c| c.meta.position);
    // A run that is refused leaves the log of the one that is there.
    let mut observers = match (last, args.course.resume) {
        (Some(_), false) => Vec::new(),
        (last, true) => args.observers(Some(&last.unwrap_or_default()))?,
        (None, false) => args.observers(None)?,
    };
    let stop = args.host.as_ref().map_or_else(signals::stop, |host| Arc::clone(&host.stop));
    train(session, work, &settings, &mut observers, &stop)
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
