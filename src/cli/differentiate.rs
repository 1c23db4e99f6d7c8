//! `per-inject differentiate MODEL -o STEP`.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use per_inject::autodiff::{Clip, Group, LossScale, Optimizer, Options, Setting, differentiate};
use per_inject::engine::Device;
use per_inject::wire::Model;

use super::args::{ExternalArg, yes_or_no};
use super::deliver::deliver;
use super::failure::Failure;
use super::{render, streams};

/// What the command takes.
#[derive(Debug, Args)]
pub struct DifferentiateArgs {
    /// The forward graph with its loss, an ONNX file; - reads standard input
    pub model: PathBuf,
    /// Where to write the step graph; - is standard output
    #[arg(short, long, value_name = "OUT", env = "PER_INJECT_OUTPUT")]
    pub output: PathBuf,
    /// How parameters change; none makes gradients outputs
    #[arg(long, value_enum, default_value = "none", env = "PER_INJECT_OPTIMIZER")]
    pub optimizer: OptimizerArg,
    #[command(flatten)]
    pub constants: OptimizerConstants,
    #[command(flatten)]
    pub gradients: GradientArgs,
    /// Make the norm of all gradients together an output, `gradient_norm`; --clip-norm always does
    #[arg(long, env = "PER_INJECT_GRADIENT_NORM", value_parser = yes_or_no())]
    pub gradient_norm: bool,
    /// Sum gradients from run to run, and step with their mean only when the input `apply` is true
    #[arg(long, env = "PER_INJECT_ACCUMULATE", value_parser = yes_or_no())]
    pub accumulate: bool,
    /// Multiply the loss by X on the way back and divide gradients by it in float32; where one is not finite nothing changes, and the output
    /// `gradients_finite` is false
    #[arg(
        long,
        value_name = "X",
        env = "PER_INJECT_LOSS_SCALE",
        conflicts_with = "loss_scale_input",
        allow_negative_numbers = true
    )]
    pub loss_scale: Option<f64>,
    /// The same with the factor as an input, `loss_scale`, so that a loop can change it
    #[arg(long, env = "PER_INJECT_LOSS_SCALE_INPUT", value_parser = yes_or_no())]
    pub loss_scale_input: bool,
    /// Raise the model to this operator set first, for gradients that need a newer one than its own
    #[arg(long, value_name = "N", env = "PER_INJECT_OPSET", allow_negative_numbers = true)]
    pub opset: Option<i64>,
    /// Where the step graph is to run, cpu or cuda: it is right on both, but on a CPU convolutions of 3×3 take half the time in parts
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu, env = "PER_INJECT_DEVICE")]
    pub device: Device,
    /// Which output is the loss, where several could be
    #[arg(long, value_name = "NAME", env = "PER_INJECT_LOSS")]
    pub loss: Option<String>,
    /// Initializers that are trained whatever their role
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_WRT")]
    pub wrt: Option<String>,
    /// Initializers that are not trained whatever their role
    #[arg(long, value_name = "SELECTOR", env = "PER_INJECT_FREEZE")]
    pub freeze: Option<String>,
    /// What happens to external data when OUT is in another folder
    #[arg(long, value_enum, default_value = "copy", env = "PER_INJECT_EXTERNAL")]
    pub external: ExternalArg,
    /// Print the report as JSON
    #[arg(long, env = "PER_INJECT_JSON", value_parser = yes_or_no())]
    pub json: bool,
    /// Flush to disk before the rename, also above 64 MB
    #[arg(long, env = "PER_INJECT_SYNC", value_parser = yes_or_no())]
    pub sync: bool,
}

/// μ, also for an optimiser that has none: a slip of the pen is told either way.
fn momentum(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim().parse().map_err(|_| format!("{text:?} is no number"))?;
    Setting::Momentum.refusal(number).map_or(Ok(number), |expected| Err(format!("it has to be {expected}")))
}

/// The constants of optimisers; one that the chosen optimiser does not have is refused.
#[derive(Debug, Args)]
pub struct OptimizerConstants {
    /// μ of momentum and nesterov [default: 0.9]
    #[arg(long, value_name = "μ", env = "PER_INJECT_MOMENTUM", value_parser = momentum)]
    pub momentum: Option<f64>,
    /// Weight decay λ: added to the gradient, with adamw decoupled from it
    #[arg(long, value_name = "λ", default_value_t = 0.0, env = "PER_INJECT_WEIGHT_DECAY")]
    pub weight_decay: f64,
    /// β₁ of adam and adamw [default: 0.9]
    #[arg(long, value_name = "β₁", env = "PER_INJECT_BETA1")]
    pub beta1: Option<f64>,
    /// β₂ of adam and adamw [default: 0.999]
    #[arg(long, value_name = "β₂", env = "PER_INJECT_BETA2")]
    pub beta2: Option<f64>,
    /// α of rmsprop [default: 0.99]
    #[arg(long, value_name = "α", env = "PER_INJECT_ALPHA")]
    pub alpha: Option<f64>,
    /// ε of adam, adamw and rmsprop [default: 1e-8]
    #[arg(long, value_name = "ε", env = "PER_INJECT_EPSILON")]
    pub epsilon: Option<f64>,
}

/// What happens to gradients on their way to the optimiser.
#[derive(Debug, Args)]
pub struct GradientArgs {
    /// Parameters with settings of their own: a selector, = and a factor of the learning rate (lr), decay or another of the
    /// optimizer's constants. Where groups share a parameter, the last one counts for what several set; may be repeated
    #[arg(long, value_name = "SELECTOR=SETTINGS", value_delimiter = ';', env = "PER_INJECT_GROUP")]
    pub group: Vec<Group>,
    /// Scale gradients down where their norm, over all parameters together, is greater
    #[arg(
        long,
        value_name = "X",
        env = "PER_INJECT_CLIP_NORM",
        conflicts_with = "clip_value",
        allow_negative_numbers = true
    )]
    pub clip_norm: Option<f64>,
    /// Bring every entry of the gradients between -X and X
    #[arg(long, value_name = "X", env = "PER_INJECT_CLIP_VALUE", allow_negative_numbers = true)]
    pub clip_value: Option<f64>,
}

impl GradientArgs {
    /// What keeps them small.
    pub fn clip(&self) -> Option<Clip> {
        self.clip_norm.map(Clip::Norm).or(self.clip_value.map(Clip::Value))
    }
}

/// An optimiser's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OptimizerArg {
    None,
    Sgd,
    Momentum,
    Nesterov,
    Adam,
    Adamw,
    Rmsprop,
}

impl OptimizerConstants {
    /// The optimiser of a name with these constants.
    pub fn of(&self, name: OptimizerArg) -> Optimizer {
        let (decay, epsilon) = (self.weight_decay, self.epsilon.unwrap_or(1e-8));
        let betas = [self.beta1.unwrap_or(0.9), self.beta2.unwrap_or(0.999)];
        let momentum = |nesterov| Optimizer::Momentum { momentum: self.momentum.unwrap_or(0.9), decay, nesterov };
        let adam = |is_decoupled| Optimizer::Adam { betas, epsilon, decay, is_decoupled };
        match name {
            OptimizerArg::None => Optimizer::None,
            OptimizerArg::Sgd => Optimizer::Sgd { decay },
            OptimizerArg::Momentum => momentum(false),
            OptimizerArg::Nesterov => momentum(true),
            OptimizerArg::Adam => adam(false),
            OptimizerArg::Adamw => adam(true),
            OptimizerArg::Rmsprop => Optimizer::RmsProp { alpha: self.alpha.unwrap_or(0.99), epsilon, decay },
        }
    }

    /// Refuses a constant that is given to an optimiser without it: it would do nothing, and nobody would notice.
    pub fn refuse_others(&self, name: OptimizerArg) -> Result<(), Failure> {
        use OptimizerArg::{Adam, Adamw, Momentum, Nesterov, Rmsprop};
        let constants: [(&str, Option<f64>, &[OptimizerArg]); 5] = [
            ("--momentum", self.momentum, &[Momentum, Nesterov]),
            ("--beta1", self.beta1, &[Adam, Adamw]),
            ("--beta2", self.beta2, &[Adam, Adamw]),
            ("--alpha", self.alpha, &[Rmsprop]),
            ("--epsilon", self.epsilon, &[Adam, Adamw, Rmsprop]),
        ];
        let shown = |o: &OptimizerArg| o.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
        match constants.into_iter().find(|(_, value, of)| value.is_some() && !of.contains(&name)) {
            None => Ok(()),
            Some((option, _, of)) => {
                let names: Vec<String> = of.iter().map(shown).collect();
                let message =
                    format!("{option} is of --optimizer {}, and this is {}", names.join(" or "), shown(&name));
                Err(Failure::usage(ErrorKind::ArgumentConflict, message))
            }
        }
    }
}

impl DifferentiateArgs {
    /// The library's options.
    pub fn options(&self) -> Options {
        Options {
            loss: self.loss.clone(),
            wrt: self.wrt.clone(),
            freeze: self.freeze.clone(),
            trained: None,
            optimizer: self.constants.of(self.optimizer),
            groups: self.gradients.group.clone(),
            clip: self.gradients.clip(),
            gradient_norm: self.gradient_norm,
            accumulate: self.accumulate,
            loss_scale: match self.loss_scale {
                Some(scale) => LossScale::Fixed(scale),
                None if self.loss_scale_input => LossScale::Input,
                None => LossScale::None,
            },
            opset: self.opset,
            device: self.device,
        }
    }
}

/// Runs the command.
pub fn run(args: &DifferentiateArgs) -> Result<(), Failure> {
    args.constants.refuse_others(args.optimizer)?;
    let model = Model::open(&args.model)?;
    let step = differentiate(&model, &args.options())?;
    let remarks = deliver(&model, &step.patch, &args.output, args.external.into(), args.sync)?;
    // The process ends here: freeing a large graph piece by piece would only take time.
    std::mem::forget((model, step.patch));
    let text = if args.json {
        serde_json::to_string_pretty(&step.report).unwrap_or_default() + "\n"
    } else {
        render::differentiated(&step.report, &args.output, &remarks)
    };
    if args.output.as_os_str() == "-" {
        streams::tell(&text);
        return Ok(());
    }
    streams::print(&text)
}
