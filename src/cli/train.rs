//! `per-inject train MODEL --data D --out RUN`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::error::ErrorKind;
use per_inject::engine::{Device, Runtime, Search};
use per_inject::train::checkpoint::Shelf;
use per_inject::train::data::{Dataset, Part, Plan};
use per_inject::train::event::{Logged, Observer, now};
use per_inject::train::feeds::{Input, inputs};
use per_inject::train::graphs::{Recipe, build};
use per_inject::train::log::{JsonLines, Sink, TensorBoard};
use per_inject::train::metrics::Metric;
use per_inject::train::run::{OnNan, Rows, Settings, Work, refuse_over, train};
use per_inject::train::{TrainError, TrainResult};
use per_inject::wire::{Model, structure_digest};

use super::differentiate::OptimizerArg;
use super::failure::Failure;
use super::render;
use super::train_args::{Coefficient, MetricArg, OnNanArg, TrainArgs};
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
        let data = Dataset::open_part(paths, &self.map, part)?.fit(&wanted, &self.normalize)?;
        data.check()?;
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
        if !self.course.quiet {
            data.notes().iter().for_each(|note| eprintln!("{}", super::text::legible(note)));
            if !keep_rest && left > 0 {
                let who = if fixed.is_some() { "the graph takes" } else { "a CUDA graph takes" };
                eprintln!("{who} {batch} samples at once; the last {left} of {rows} are left out of every epoch");
            }
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
        Ok(Rows { data, plan })
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
        Ok(observers)
    }
}

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<ExitCode, Failure> {
    if args.optimizer == OptimizerArg::None {
        let message =
            "--optimizer none changes no parameter; per-inject differentiate makes graphs that give gradients";
        return Err(Failure::usage(ErrorKind::InvalidValue, message));
    }
    if args.term.layers.is_none() && !args.term.coef.is_empty() {
        let message = "--coef without --layers: which layers? add --layers relu, or --layers all";
        return Err(Failure::usage(ErrorKind::MissingRequiredArgument, message));
    }
    if args.machine.device == Device::Cpu
        && let Some(option) = args.machine.only_for_cuda()
    {
        return Err(Failure::usage(ErrorKind::ArgumentConflict, format!("{option} is for --device cuda")));
    }
    go(args).map_err(failure)
}

fn go(args: &TrainArgs) -> TrainResult<ExitCode> {
    let model = Model::open(&args.model)?;
    refuse_over(&model, &args.out)?;
    let recipe = args.recipe();
    if args.lr.needs_metric() && args.eval.is_empty() {
        let problem = "a learning rate that goes by evaluations needs data for them: --eval PATH";
        return Err(TrainError::Options(problem.into()));
    }
    let inputs = inputs(&model, &args.batch_axis)?;
    let data = args.rows(&args.data, &inputs, Part::Training)?;
    let evaluation = match args.eval.as_slice() {
        [] => None,
        paths => Some(args.rows(paths, &inputs, Part::Evaluation)?),
    };
    let runtime = Runtime::open(&Search::of_process(args.machine.ort.clone()))?;
    let graphs = build(&model, &recipe)?;
    if !args.course.quiet {
        graphs.warnings.iter().for_each(|warning| eprintln!("warning: {}", super::text::legible(warning)));
    }
    std::fs::create_dir_all(&args.out).map_err(|source| TrainError::Io { path: args.out.clone(), source })?;
    let epochs = args.epochs as f64;
    let changing = args.term.coef.iter().filter(|c| !c.schedule.is_constant());
    let settings = Settings {
        epochs: args.epochs,
        rate: args.lr.clone().over(epochs),
        coefficients: changing.map(|c| (c.item.clone(), c.schedule.clone().over(epochs))).collect(),
        seed: args.seed,
        load: args.machine.load(args.course.verbose),
        batch_axes: args.batch_axis.clone(),
        on_nan: match args.course.on_nan {
            OnNanArg::Stop => OnNan::Stop,
            OnNanArg::Skip => OnNan::Skip,
        },
        checkpoint_every: args.course.checkpoint_every,
        keep: args.course.keep,
        identity: args.identity(&model, &recipe, &data),
        resume: args.course.resume,
        out: args.out.clone(),
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
    let stop = stop_on_signals();
    let work = Work { model: &model, graphs: &graphs, engine: &runtime, data: &data, evaluation: evaluation.as_ref() };
    let done = train(&work, &settings, &mut observers, &stop)?;
    if done.interrupted {
        eprintln!(
            "stopped after step {}; the state is in {}; go on with the same command and --resume",
            done.steps,
            args.out.join("checkpoints").display()
        );
        // What a shell reports of a process that Ctrl-C ended.
        return Ok(ExitCode::from(130));
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
    Ok(ExitCode::SUCCESS)
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
        error => error.into(),
    }
}
