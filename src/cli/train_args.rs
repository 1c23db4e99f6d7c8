//! What `per-inject train` takes.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use per_inject::engine::choice::Wish;
use per_inject::engine::{Arena, ConvolutionSearch, CudaOptions, Device, LoadOptions};
use per_inject::inject;
use per_inject::train::data::{Augment, Normalize, parse_map};
use per_inject::train::schedule::Schedule;

use super::args::{from_one, threads, whole_number, yes_or_no};
use super::differentiate::{GradientArgs, OptimizerArg, OptimizerConstants};
use super::host::Host;
use super::measure_args::MeasureArgs;

/// What the command takes.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The forward graph with its loss, an ONNX file
    pub model: PathBuf,
    /// What to train on, rows of which are samples: .npz, .npy, safetensors, IDX (also .gz), CIFAR's binaries, or folders of them
    #[arg(long, value_name = "PATH", required = true, num_args = 1.., env = "PER_INJECT_DATA", value_delimiter = ',')]
    pub data: Vec<PathBuf>,
    /// What to evaluate on after every epoch
    #[arg(long, value_name = "PATH", num_args = 1.., env = "PER_INJECT_EVAL", value_delimiter = ',')]
    pub eval: Vec<PathBuf>,
    /// The folder of the run: checkpoints, log.jsonl, tensorboard, and at the end model.onnx and model.safetensors
    #[arg(short, long, value_name = "FOLDER", env = "PER_INJECT_OUT")]
    pub out: PathBuf,
    /// How often the data is gone through
    #[arg(long, value_name = "N", default_value_t = 10, env = "PER_INJECT_EPOCHS", value_parser = whole_number)]
    pub epochs: u64,
    /// The learning rate: a number, or a schedule such as cosine:0.05..0, warmup:2,step:0.1@30,60 or plateau:0.05@3
    #[arg(long, value_name = "η", default_value = "0.05", env = "PER_INJECT_LR", value_parser = Schedule::parse)]
    pub lr: Schedule,
    /// How parameters change
    #[arg(long, value_enum, default_value = "sgd", env = "PER_INJECT_OPTIMIZER")]
    pub optimizer: OptimizerArg,
    #[command(flatten)]
    pub constants: OptimizerConstants,
    #[command(flatten)]
    pub gradients: GradientArgs,
    /// Sum gradients over N batches and change the parameters by their mean, and at the end of an epoch
    #[arg(long, value_name = "N", default_value = "1", env = "PER_INJECT_ACCUMULATE_BATCHES")]
    pub accumulate: NonZeroU64,
    /// Multiply the loss by X on the way back and divide gradients by it in float32, for half precision; one that is not finite is no
    /// number (--on-nan)
    #[arg(long, value_name = "X", env = "PER_INJECT_LOSS_SCALE", allow_negative_numbers = true)]
    pub loss_scale: Option<f64>,
    /// Samples of a batch; 128 where the graph does not say it
    #[arg(long, value_name = "N", env = "PER_INJECT_BATCH_SIZE")]
    pub batch_size: Option<NonZeroUsize>,
    /// The axis of an input that counts samples, where it is neither its only open one nor the first
    #[arg(long, value_name = "INPUT=AXIS", env = "PER_INJECT_BATCH_AXIS", value_delimiter = ',', value_parser = parse_axis)]
    pub batch_axis: Vec<(String, usize)>,
    /// The array that an input takes, where it has another name
    #[arg(long, value_name = "INPUT=ARRAY", env = "PER_INJECT_MAP", value_delimiter = ',', value_parser = parse_map)]
    pub map: Vec<(String, String)>,
    /// Bring an input to mean 0 and standard deviation 1: [INPUT=]MEAN,STD, or a mean and then a deviation for each channel
    #[arg(long, value_name = "MEAN,STD", env = "PER_INJECT_NORMALIZE", value_parser = Normalize::parse, allow_hyphen_values = true)]
    pub normalize: Vec<Normalize>,
    /// Move and mirror images by chance: pad-crop:4,flip, or one of the two
    #[arg(long, value_name = "HOW", env = "PER_INJECT_AUGMENT", value_parser = Augment::parse)]
    pub augment: Option<Augment>,
    /// Batches that another thread reads ahead, where there is a core for it or they take time; 0 reads each when it is wanted
    #[arg(long, value_name = "N", default_value_t = 2, env = "PER_INJECT_AHEAD")]
    pub ahead: usize,
    /// Take samples in the order of the data
    #[arg(long, env = "PER_INJECT_NO_SHUFFLE", value_parser = yes_or_no())]
    pub no_shuffle: bool,
    /// Seed of the order of samples, of slices, and of Dropout
    #[arg(long, value_name = "N", default_value_t = 0, env = "PER_INJECT_SEED", value_parser = whole_number, allow_negative_numbers = true)]
    pub seed: u64,
    #[command(flatten)]
    pub term: TermArgs,
    #[command(flatten)]
    pub course: CourseArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The program that this run is a part of, where it is none of its own.
    #[arg(skip)]
    pub host: Option<Arc<Host>>,
}

/// The regulariser.
#[derive(Debug, Args)]
#[command(next_help_heading = "The regulariser")]
pub struct TermArgs {
    /// Which layers to regularise (see Selectors in per-inject --help); without it none
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_LAYERS", allow_hyphen_values = true)]
    pub layers: Option<String>,
    /// The coefficient λ, a number or a schedule, or SELECTOR=λ for some of the layers; 0 measures PER and leaves the loss alone
    #[arg(long, value_name = "λ", env = "PER_INJECT_COEF", value_parser = parse_coefficient, allow_hyphen_values = true)]
    pub coef: Vec<Coefficient>,
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Accept a coefficient of 1000 and more
    #[arg(long, env = "PER_INJECT_ANY_COEF", value_parser = yes_or_no())]
    pub any_coef: bool,
    /// Refuse when a selected activation cannot be regularised, instead of leaving it out with a warning
    #[arg(long, env = "PER_INJECT_STRICT", value_parser = yes_or_no())]
    pub strict: bool,
    /// The loss, where several outputs could be it
    #[arg(long, value_name = "NAME", env = "PER_INJECT_LOSS")]
    pub loss: Option<String>,
    /// Initializers that are trained, instead of those whose role says so (a selector over names)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_WRT")]
    pub wrt: Option<String>,
    /// Initializers that are not trained (a selector over names)
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_FREEZE")]
    pub freeze: Option<String>,
}

/// How the run goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "The run")]
pub struct CourseArgs {
    /// Go on from the last checkpoint in the folder of the run
    #[arg(long, env = "PER_INJECT_RESUME", value_parser = yes_or_no())]
    pub resume: bool,
    /// Steps between two checkpoints; without it there is one after every epoch
    #[arg(long, value_name = "N", env = "PER_INJECT_CHECKPOINT_EVERY", value_parser = from_one::<u64>)]
    pub checkpoint_every: Option<u64>,
    /// How many of the last checkpoints are kept, beside the best
    #[arg(long, value_name = "N", default_value_t = 3, env = "PER_INJECT_KEEP", value_parser = from_one::<usize>)]
    pub keep: usize,
    /// What happens when a step gives a loss or a gradient that is no number
    #[arg(long, value_enum, default_value = "stop", env = "PER_INJECT_ON_NAN")]
    pub on_nan: OnNanArg,
    /// What is measured beside the loss; auto is accuracy, for sequences perplexity
    #[arg(long, value_enum, default_value = "auto", env = "PER_INJECT_METRIC")]
    pub metric: MetricArg,
    /// No bars and no table, only errors
    #[arg(short, long, env = "PER_INJECT_QUIET", value_parser = yes_or_no())]
    pub quiet: bool,
    /// Say where ONNX Runtime put the nodes of the step
    #[arg(long, env = "PER_INJECT_VERBOSE", value_parser = yes_or_no())]
    pub verbose: bool,
    /// Print the summary as JSON (schemas/train.schema.json)
    #[arg(long, env = "PER_INJECT_JSON", value_parser = yes_or_no())]
    pub json: bool,
}

/// What it runs on.
#[derive(Debug, Args)]
#[command(next_help_heading = "The machine")]
pub struct MachineArgs {
    /// cpu, cuda or cuda:N; nothing falls back to another one
    #[arg(long, value_name = "DEVICE", env = "PER_INJECT_DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    /// Threads on the CPU; all cores where it is not given
    #[arg(long, value_name = "N", env = "PER_INJECT_THREADS", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
    /// What makes the steps: auto is ort where ONNX Runtime is found, else tract where this program has it inside
    #[arg(long, value_enum, default_value = "auto", env = "PER_INJECT_ENGINE")]
    pub engine: EngineArg,
    /// ONNX Runtime: its library, a folder that holds it, or a Python environment; else ORT_DYLIB_PATH, the active Python
    /// environment, python3's packages, the system
    #[arg(long, value_name = "PATH", env = "PER_INJECT_ORT")]
    pub ort: Option<PathBuf>,
    /// --engine ort-training: the Python that makes artifacts of a model, with onnxruntime-training; else that of the active
    /// environment, and python3
    #[arg(long, value_name = "PATH", env = "PER_INJECT_PYTHON")]
    pub python: Option<PathBuf>,
    /// CUDA: let float32 products round their operands to TF32, with 10 bits of fraction
    #[arg(long, env = "PER_INJECT_TF32", value_parser = yes_or_no())]
    pub tf32: bool,
    /// CUDA: how cuDNN's algorithm for a convolution is chosen; exhaustive times all of them, and need not choose the same twice
    #[arg(long, value_enum, default_value = "exhaustive", env = "PER_INJECT_CUDNN_SEARCH")]
    pub cudnn_search: SearchArg,
    /// CUDA: record the step once and replay it; wants batches of one size, so an epoch's last incomplete batch is left out
    #[arg(long, env = "PER_INJECT_CUDA_GRAPH", value_parser = yes_or_no())]
    pub cuda_graph: bool,
    /// CUDA: how memory grows, by powers of two or by what is needed
    #[arg(long, value_enum, default_value = "doubling", env = "PER_INJECT_CUDA_ARENA")]
    pub cuda_arena: ArenaArg,
    /// CUDA: bytes that memory may grow to
    #[arg(long, value_name = "BYTES", env = "PER_INJECT_CUDA_MEMORY")]
    pub cuda_memory: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    Auto,
    /// ONNX Runtime, with a graph that is differentiated into standard operators
    Ort,
    /// The training API of ONNX Runtime, where its build has it; MODEL may be the folder of generate_artifacts' artifacts
    OrtTraining,
    /// tract, which wants nothing installed, where this program was built with it
    Tract,
}

impl EngineArg {
    pub fn wish(self) -> Wish {
        match self {
            EngineArg::Auto => Wish::Auto,
            EngineArg::Ort => Wish::Ort,
            EngineArg::OrtTraining => Wish::OrtTraining,
            EngineArg::Tract => Wish::Tract,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnNanArg {
    /// Keep the state before it, name the first value that went wrong, and stop
    Stop,
    /// Leave the step out
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricArg {
    Auto,
    Accuracy,
    Perplexity,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SearchArg {
    Exhaustive,
    Heuristic,
    Default,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArenaArg {
    Doubling,
    Exact,
}

fn parse_axis(text: &str) -> Result<(String, usize), String> {
    let wrong = || "write it as INPUT=AXIS, such as x=1; axes count from 0".to_owned();
    let (name, axis) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    Ok((name.to_owned(), axis.trim().parse().map_err(|_| wrong())?))
}

/// A value of `--coef`.
#[derive(Debug, Clone)]
pub struct Coefficient {
    /// The layers it is for; `None` for all others.
    pub item: Option<String>,
    /// λ.
    pub schedule: Schedule,
}

fn parse_coefficient(text: &str) -> Result<Coefficient, String> {
    let (item, schedule) = match text.rsplit_once('=') {
        Some(("", _)) => return Err("there is nothing before the =; write SELECTOR=λ".into()),
        Some((item, schedule)) => (Some(item.to_owned()), schedule),
        None => (None, text),
    };
    Ok(Coefficient { item, schedule: Schedule::parse(schedule)? })
}

impl MachineArgs {
    /// The first option that says something to CUDA alone.
    pub fn only_for_cuda(&self) -> Option<&'static str> {
        let given = [
            ("--tf32", self.tf32),
            ("--cudnn-search", self.cudnn_search != SearchArg::Exhaustive),
            ("--cuda-graph", self.cuda_graph),
            ("--cuda-arena", self.cuda_arena != ArenaArg::Doubling),
            ("--cuda-memory", self.cuda_memory.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }

    /// Whether steps leave no core to another thread.
    pub fn fills_all_cores(&self) -> bool {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.device == Device::Cpu && self.threads.is_none_or(|threads| threads >= cores)
    }

    /// The Pythons to ask for artifacts, the most likely one first.
    pub fn pythons(&self) -> Vec<PathBuf> {
        if let Some(python) = &self.python {
            return vec![python.clone()];
        }
        let (folder, name) = if cfg!(windows) { ("Scripts", "python") } else { ("bin", "python3") };
        let of = |variable| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(of);
        environments.map(|root| root.join(folder).join(name)).chain([PathBuf::from(name)]).collect()
    }

    pub fn load(&self, placements: bool) -> LoadOptions {
        let search = match self.cudnn_search {
            SearchArg::Exhaustive => ConvolutionSearch::Exhaustive,
            SearchArg::Heuristic => ConvolutionSearch::Heuristic,
            SearchArg::Default => ConvolutionSearch::Default,
        };
        let arena = match self.cuda_arena {
            ArenaArg::Doubling => Arena::Doubling,
            ArenaArg::Exact => Arena::Exact,
        };
        let memory_limit = self.cuda_memory.map(NonZeroUsize::get);
        let cuda = CudaOptions { tf32: self.tf32, search, graph: self.cuda_graph, arena, memory_limit };
        LoadOptions { device: self.device, threads: self.threads, cuda, placements, ..LoadOptions::default() }
    }
}

impl Coefficient {
    /// λ itself where it is constant; else a number that stands in the graph and is fed over.
    fn nominal(&self) -> f64 {
        if self.schedule.is_constant() { self.schedule.at(0, 1, &[]) } else { 1.0 }
    }
}

impl TermArgs {
    pub fn options(&self) -> Option<inject::Options> {
        Some(inject::Options {
            layers: self.layers.clone()?,
            coef: self.coef.iter().rfind(|c| c.item.is_none()).map(Coefficient::nominal),
            coef_overrides: self.coef.iter().filter_map(|c| Some((c.item.clone()?, c.nominal()))).collect(),
            coef_input: self.coef.iter().any(|c| !c.schedule.is_constant()),
            wrt: self.wrt.clone(),
            freeze: self.freeze.clone(),
            strict: self.strict,
            ..self.measure.options()
        })
    }
}
