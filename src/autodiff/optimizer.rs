//! How parameters change in a step, given their gradients g and the learning rate η.

use crate::graph::types::TensorType;
use crate::lower::builder::Builder;
use crate::regularizer::emit::{Elem, Tensor};

use super::{Parameter, Successor};
use crate::graph::ValueId;

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

/// What an optimiser adds.
#[derive(Debug, Default)]
pub struct Written {
    /// Outputs: their names, and what they are.
    pub results: Vec<(String, Tensor)>,
    /// Inputs beside the parameters.
    pub inputs: Vec<(String, Tensor)>,
    /// What the report says of each parameter.
    pub parameters: Vec<Parameter>,
}

/// One parameter on its way.
struct Update<'b> {
    b: &'b mut Builder,
    written: &'b mut Written,
    name: String,
    state: Vec<Successor>,
}

impl Update<'_> {
    /// A state of the parameter, as an input.
    fn state(&mut self, what: &str, like: &Tensor) -> Tensor {
        let tensor = Tensor { name: format!("{}_{what}", self.name), ty: like.ty.clone() };
        self.written.inputs.push((tensor.name.clone(), tensor.clone()));
        tensor
    }

    /// What a state is after the step.
    fn next(&mut self, state: &Tensor, next: &Tensor) {
        let successor = Successor { name: state.name.clone(), next: format!("{}_next", state.name) };
        self.written.results.push((successor.next.clone(), Tensor { ty: state.ty.clone(), ..next.clone() }));
        self.state.push(successor);
    }

    /// β·old + (1 − β)·new.
    fn blend(&mut self, beta: f64, old: &Tensor, new: &Tensor) -> Tensor {
        let (kept, added) = (self.b.times(old, beta), self.b.times(new, 1.0 - beta));
        self.b.binary("Add", &kept, &added)
    }
}

/// Writes the step of every parameter, given as value, tensor and gradient.
pub fn write(b: &mut Builder, optimizer: &Optimizer, parameters: &[(ValueId, Tensor, Tensor)]) -> Written {
    let mut written = Written::default();
    if *optimizer == Optimizer::None {
        for (_, p, g) in parameters {
            let gradient = format!("{}_grad", p.name);
            written.results.push((gradient.clone(), Tensor { ty: p.ty.clone(), ..g.clone() }));
            let (next, state) = (None, Vec::new());
            written.parameters.push(Parameter { name: p.name.clone(), gradient: Some(gradient), next, state });
        }
        return written;
    }
    let scalar = |elem: Elem| TensorType { elem: elem.onnx(), dims: Some(Vec::new()) };
    let rate = Tensor { name: "learning_rate".into(), ty: scalar(Elem::F32) };
    written.inputs.push((rate.name.clone(), rate.clone()));
    let corrections = if let Optimizer::Adam { betas, .. } = optimizer {
        let step = Tensor { name: "step".into(), ty: scalar(Elem::I64) };
        written.inputs.push((step.name.clone(), step.clone()));
        // 1 − βᵗ with t counted from 1, in double precision: it is a difference of nearly equal numbers.
        let double = b.cast(&step, Elem::F64.onnx());
        let t = b.plus(&double, 1.0);
        betas.map(|beta| {
            let (base, one) = (b.number(beta, &t), b.number(1.0, &t));
            let power = b.binary("Pow", &base, &t);
            Some(b.binary("Sub", &one, &power))
        })
    } else {
        [None, None]
    };
    for (_, parameter, g) in parameters {
        // float16 and bfloat16 are stepped in float32, which their state is in as well.
        let (p, g) = (&b.widened(parameter), &b.widened(g));
        let elem = p.ty.elem;
        let eta = b.cast(&rate, elem);
        let corrections = corrections.clone().map(|c| c.map(|c| b.cast(&c, elem)));
        let mut update = Update { b, written: &mut written, name: parameter.name.clone(), state: Vec::new() };
        let decayed = |u: &mut Update<'_>, decay: f64| {
            if decay == 0.0 {
                return g.clone();
            }
            let pull = u.b.times(p, decay);
            u.b.binary("Add", g, &pull)
        };
        let change = match optimizer {
            Optimizer::None => g.clone(),
            Optimizer::Sgd { decay } => decayed(&mut update, *decay),
            Optimizer::Momentum { momentum, decay, nesterov } => {
                let g = decayed(&mut update, *decay);
                let m = update.state("momentum", p);
                let kept = update.b.times(&m, *momentum);
                let m_next = update.b.binary("Add", &kept, &g);
                update.next(&m, &m_next);
                if *nesterov {
                    let ahead = update.b.times(&m_next, *momentum);
                    update.b.binary("Add", &g, &ahead)
                } else {
                    m_next
                }
            }
            Optimizer::Adam { betas, epsilon, decay, is_decoupled } => {
                let g = if *is_decoupled { g.clone() } else { decayed(&mut update, *decay) };
                let (m, v) = (update.state("mean", p), update.state("square", p));
                let m_next = update.blend(betas[0], &m, &g);
                let square = update.b.binary("Mul", &g, &g);
                let v_next = update.blend(betas[1], &v, &square);
                update.next(&m, &m_next);
                update.next(&v, &v_next);
                let [first, second] = corrections.map(|c| c.unwrap_or_else(|| eta.clone()));
                let spread = update.b.binary("Div", &v_next, &second);
                let root = update.b.unary("Sqrt", &spread);
                let below = update.b.plus(&root, *epsilon);
                let mean = update.b.binary("Div", &m_next, &first);
                let change = update.b.binary("Div", &mean, &below);
                if *is_decoupled && *decay != 0.0 {
                    let pull = update.b.times(p, *decay);
                    update.b.binary("Add", &change, &pull)
                } else {
                    change
                }
            }
            Optimizer::RmsProp { alpha, epsilon, decay } => {
                let g = decayed(&mut update, *decay);
                let v = update.state("square", p);
                let square = update.b.binary("Mul", &g, &g);
                let v_next = update.blend(*alpha, &v, &square);
                update.next(&v, &v_next);
                let root = update.b.unary("Sqrt", &v_next);
                let below = update.b.plus(&root, *epsilon);
                update.b.binary("Div", &g, &below)
            }
        };
        let state = std::mem::take(&mut update.state);
        let scaled = b.binary("Mul", &change, &eta);
        let next = b.binary("Sub", p, &scaled);
        let next = b.cast(&next, parameter.ty.elem);
        let name = format!("{}_next", parameter.name);
        written.results.push((name.clone(), Tensor { ty: parameter.ty.clone(), ..next }));
        written.parameters.push(Parameter { name: parameter.name.clone(), gradient: None, next: Some(name), state });
    }
    written
}
