//! How parameters change in a step, given their gradients g and the learning rate η.
//!
//! First the gradients are [handled](gradient): unscaled, summed, measured and clipped. Then every parameter is [updated](update) with
//! its own [settings](group).

mod gradient;
mod group;
mod update;

pub use group::{Group, GroupError, Setting};

use std::fmt;

use crate::graph::ValueId;
use crate::graph::types::TensorType;
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::{Elem, Tensor};
use crate::rewrite::builder::Builder;

use super::report::{Inputs, Outputs, Parameter, Successor};
use super::{DifferentiateError, Options};

/// Input: η, a float32 scalar.
pub const LEARNING_RATE: &str = "learning_rate";
/// Counter of the steps made before, for Adam and AdamW.
pub const STEP: &str = "step";
/// Input: whether to step with what was accumulated, a bool scalar.
pub const APPLY: &str = "apply";
/// Counter of the gradients that the sums hold.
pub const ACCUMULATED: &str = "accumulated";
/// Input: what the loss is multiplied by on the way back, a float32 scalar.
pub const LOSS_SCALE: &str = "loss_scale";
/// Output: √Σg² over the gradients of all parameters before clipping, a float32 scalar.
pub const GRADIENT_NORM: &str = "gradient_norm";
/// Output: whether every gradient was finite, a bool scalar.
pub const GRADIENTS_FINITE: &str = "gradients_finite";

/// An optimiser with its constants. Formulas are PyTorch's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Optimizer {
    /// Gradients are outputs.
    #[default]
    None,
    /// p ← p − η·(g + λp).
    Sgd {
        /// λ.
        decay: f64,
    },
    /// m ← μm + g + λp; p ← p − ηm. Nesterov: p ← p − η(g + λp + μm).
    Momentum {
        /// μ.
        momentum: f64,
        /// λ.
        decay: f64,
        /// Whether it looks ahead.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba, 2015): m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², p ← p − η·m̂/(√v̂ + ε) with m̂ = m/(1 − β₁ᵗ),
    /// v̂ = v/(1 − β₂ᵗ). With decoupled decay (AdamW), p ← (1 − ηλ)p first; else g ← g + λp.
    Adam {
        /// β₁ and β₂.
        betas: [f64; 2],
        /// ε.
        epsilon: f64,
        /// λ.
        decay: f64,
        /// Whether the decay is decoupled.
        is_decoupled: bool,
    },
    /// v ← αv + (1 − α)g²; p ← p − η·g/(√v + ε).
    RmsProp {
        /// α.
        alpha: f64,
        /// ε.
        epsilon: f64,
        /// λ, added to the gradient.
        decay: f64,
    },
}

impl Optimizer {
    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Optimizer::None => "none",
            Optimizer::Sgd { .. } => "sgd",
            Optimizer::Momentum { nesterov: false, .. } => "momentum",
            Optimizer::Momentum { .. } => "nesterov",
            Optimizer::Adam { is_decoupled: false, .. } => "adam",
            Optimizer::Adam { .. } => "adamw",
            Optimizer::RmsProp { .. } => "rmsprop",
        }
    }
}

/// As it is given on the command line, with all of its constants: `adam --beta1 0.9 …`.
impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        let decay = match self {
            Optimizer::None => return Ok(()),
            Optimizer::Sgd { decay } => decay,
            Optimizer::Momentum { momentum, decay, .. } => {
                write!(f, " --momentum {momentum:?}")?;
                decay
            }
            Optimizer::Adam { betas: [beta1, beta2], epsilon, decay, .. } => {
                write!(f, " --beta1 {beta1:?} --beta2 {beta2:?} --epsilon {epsilon:?}")?;
                decay
            }
            Optimizer::RmsProp { alpha, epsilon, decay } => {
                write!(f, " --alpha {alpha:?} --epsilon {epsilon:?}")?;
                decay
            }
        };
        write!(f, " --weight-decay {decay:?}")
    }
}

/// What keeps gradients small. Formulas are PyTorch's; weight decay comes afterwards, as there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// g ← g·min(1, X/(‖g‖ + 1e-6)), with the norm over all parameters together.
    Norm(f64),
    /// Every entry between −X and X.
    Value(f64),
}

/// What the loss is multiplied by before the way back, so that half-precision gradients do not vanish. They are divided by it again in
/// float32, and a step whose gradients are not all finite changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum LossScale {
    /// Nothing.
    #[default]
    None,
    /// This number.
    Fixed(f64),
    /// The input [`LOSS_SCALE`].
    Input,
}

/// What is trained: the initializer, the parameter and its gradient.
pub type Trained = (ValueId, Tensor, Tensor);

/// What an optimiser adds.
#[derive(Debug, Default)]
pub struct Written {
    /// Outputs: their names, and what they are.
    pub results: Vec<(String, Tensor)>,
    /// Inputs beside the parameters.
    pub inputs: Vec<(String, Tensor)>,
    /// What the report says of each parameter.
    pub parameters: Vec<Parameter>,
    /// Counters that a step hands on.
    pub counters: Vec<Successor>,
    /// Inputs that a loop decides about.
    pub decided: Inputs,
    /// Outputs that tell about the step.
    pub told: Outputs,
    /// Whether anything may change, statistics included; `None` where it always may.
    pub is_finite: Option<Tensor>,
}

impl Written {
    /// An input of rank 0.
    fn scalar(&mut self, name: &str, elem: i32) -> Tensor {
        self.input(name, TensorType { elem, dims: Some(Vec::new()) })
    }

    fn input(&mut self, name: &str, ty: TensorType) -> Tensor {
        let tensor = Tensor { name: name.to_owned(), ty };
        self.inputs.push((tensor.name.clone(), tensor.clone()));
        tensor
    }

    /// What takes an input's place in the next step.
    fn successor(&mut self, input: &Tensor, next: Tensor) -> Successor {
        let successor = Successor { name: input.name.clone(), next: format!("{}_next", input.name) };
        self.results.push((successor.next.clone(), Tensor { ty: input.ty.clone(), ..next }));
        successor
    }
}

/// The type that a step computes in: float32 for half precision, which could not hold the squares of small gradients.
fn wide(elem: i32) -> i32 {
    let is_half = [DataType::Float16, DataType::Bfloat16].iter().any(|half| *half as i32 == elem);
    if is_half { Elem::F32.onnx() } else { elem }
}

/// The new value where a condition holds, else the old one; in a type that Where takes everywhere.
pub fn where_allowed(b: &mut Builder, condition: &Tensor, new: &Tensor, old: &Tensor) -> Tensor {
    let elem = old.ty.elem;
    let (new, old) = (b.cast(new, wide(elem)), b.cast(old, wide(elem)));
    let chosen = b.choose(condition, &new, &old);
    let chosen = Tensor { ty: old.ty, ..chosen };
    b.cast(&chosen, elem)
}

/// Whether η may stand where the way back starts, so that every gradient comes as η·g and costs no pass of its own: nothing but plain SGD
/// reads them, as they are.
pub fn takes_rate(options: &Options) -> bool {
    let is_plain = options.optimizer == Optimizer::Sgd { decay: 0.0 }
        && options.groups.iter().flat_map(|g| &g.values).all(|(setting, v)| *setting != Setting::Decay || *v == 0.0);
    let is_read = options.accumulate || options.gradient_norm || options.clip.is_some();
    is_plain && !is_read && options.loss_scale == LossScale::None
}

/// Writes the step of every parameter; `has_rate` where gradients come as η·g.
///
/// # Errors
///
/// Groups that do not fit, and numbers that no optimiser has.
pub fn write(
    b: &mut Builder,
    options: &Options,
    parameters: &[Trained],
    has_rate: bool,
) -> Result<Written, DifferentiateError> {
    let names: Vec<&str> = parameters.iter().map(|(_, p, _)| p.name.as_str()).collect();
    let settings = group::resolve(options, &names)?;
    let mut written = Written::default();
    let handled = gradient::handle(b, options, parameters, &mut written);
    if options.optimizer == Optimizer::None {
        for ((_, p, _), g) in parameters.iter().zip(handled.gradients) {
            // What the loss was scaled for would be lost again in half precision.
            let is_scaled = options.loss_scale != LossScale::None;
            let g = b.cast(&g, if is_scaled { wide(p.ty.elem) } else { p.ty.elem });
            let gradient = format!("{}_grad", p.name);
            let ty = TensorType { elem: g.ty.elem, dims: p.ty.dims.clone() };
            written.results.push((gradient.clone(), Tensor { ty, ..g }));
            let parameter = Parameter { name: p.name.clone(), gradient: Some(gradient), ..Parameter::default() };
            written.parameters.push(parameter);
        }
    } else {
        update::write(b, &settings, parameters, handled, has_rate, &mut written);
    }
    Ok(written)
}
