//! One parameter after another, each by the formula of its [`Optimizer`].

use std::collections::HashMap;

use super::gradient::Handled;
use super::group::Settings;
use super::{LEARNING_RATE, Optimizer, STEP, Trained, Written, where_allowed, wide};
use crate::autodiff::report::{Parameter, Successor};
use crate::graph::types::TensorType;
use crate::regularizer::emit::{Elem, Tensor};
use crate::rewrite::builder::{Builder, Extent, ends_in_one};

/// Scalars that parameters share, by their number, type and rank.
type Shared = HashMap<(u64, i32, usize), Tensor>;

/// One parameter on its way.
struct Update<'b> {
    b: &'b mut Builder,
    written: &'b mut Written,
    /// The parameter, in the type that is computed in.
    p: Tensor,
    gate: Option<&'b Tensor>,
    state: Vec<Successor>,
}

impl Update<'_> {
    /// A state of the parameter, as an input.
    fn state(&mut self, what: &str) -> Tensor {
        self.written.input(&format!("{}_{what}", self.name()), self.p.ty.clone())
    }

    fn name(&self) -> String {
        self.written.parameters.last().map(|p| p.name.clone()).unwrap_or_default()
    }

    /// What a state is after the step.
    fn next(&mut self, state: &Tensor, next: &Tensor) {
        let next = self.allowed(next, state);
        self.state.push(self.written.successor(state, next));
    }

    /// The new value, or the old one where nothing may change.
    fn allowed(&mut self, new: &Tensor, old: &Tensor) -> Tensor {
        self.gate.map_or(new.clone(), |gate| where_allowed(self.b, gate, new, old))
    }

    /// β·old + (1 − β)·new.
    fn blend(&mut self, beta: f64, old: &Tensor, new: &Tensor) -> Tensor {
        let (kept, added) = (self.b.times(old, beta), self.b.times(new, 1.0 - beta));
        self.b.binary("Add", &kept, &added)
    }

    /// x + λp.
    fn decayed(&mut self, x: &Tensor, decay: f64) -> Tensor {
        if decay == 0.0 {
            return x.clone();
        }
        let pull = self.b.times(&self.p, decay);
        self.b.binary("Add", x, &pull)
    }

    /// What η is multiplied by; `correction` gives 1 − βᵗ.
    fn change(
        &mut self,
        optimizer: &Optimizer,
        g: &Tensor,
        correction: &mut dyn FnMut(&mut Builder, f64) -> Tensor,
    ) -> Tensor {
        match *optimizer {
            Optimizer::None => g.clone(),
            Optimizer::Sgd { decay } => self.decayed(g, decay),
            Optimizer::Momentum { momentum, decay, nesterov } => {
                let g = self.decayed(g, decay);
                let m = self.state("momentum");
                let kept = self.b.times(&m, momentum);
                let m_next = self.b.binary("Add", &kept, &g);
                self.next(&m, &m_next);
                if nesterov {
                    let ahead = self.b.times(&m_next, momentum);
                    self.b.binary("Add", &g, &ahead)
                } else {
                    m_next
                }
            }
            Optimizer::Adam { betas, epsilon, decay, is_decoupled } => {
                let g = if is_decoupled { g.clone() } else { self.decayed(g, decay) };
                let (m, v) = (self.state("mean"), self.state("square"));
                let m_next = self.blend(betas[0], &m, &g);
                let square = self.b.binary("Mul", &g, &g);
                let v_next = self.blend(betas[1], &v, &square);
                self.next(&m, &m_next);
                self.next(&v, &v_next);
                let [first, second] = betas.map(|beta| correction(self.b, beta));
                let spread = self.b.binary("Div", &v_next, &second);
                let root = self.b.unary("Sqrt", &spread);
                let below = self.b.plus(&root, epsilon);
                let mean = self.b.binary("Div", &m_next, &first);
                let change = self.b.binary("Div", &mean, &below);
                if is_decoupled { self.decayed(&change, decay) } else { change }
            }
            Optimizer::RmsProp { alpha, epsilon, decay } => {
                let g = self.decayed(g, decay);
                let v = self.state("square");
                let square = self.b.binary("Mul", &g, &g);
                let v_next = self.blend(alpha, &v, &square);
                self.next(&v, &v_next);
                let root = self.b.unary("Sqrt", &v_next);
                let below = self.b.plus(&root, epsilon);
                self.b.binary("Div", &g, &below)
            }
        }
    }
}

/// Writes the step of every parameter with its settings; `has_rate` where gradients come as η·g.
pub fn write(
    b: &mut Builder,
    settings: &[Settings],
    parameters: &[Trained],
    handled: Handled,
    has_rate: bool,
    written: &mut Written,
) {
    let rate = written.scalar(LEARNING_RATE, Elem::F32.onnx());
    written.decided.learning_rate = Some(LEARNING_RATE);
    let gate = handled.gate;
    let is_adam = settings.iter().any(|s| matches!(s.optimizer, Optimizer::Adam { .. }));
    // t counts steps from 1; in double precision, because 1 − βᵗ is a difference of nearly equal numbers.
    let t = is_adam.then(|| counted(b, gate.as_ref(), written));
    let (mut rates, mut corrections) = (Shared::new(), Shared::new());
    let gradients = handled.gradients.iter().zip(handled.sums);
    for (((_, p, _), settings), (g, sum)) in parameters.iter().zip(settings).zip(gradients) {
        written.parameters.push(Parameter { name: p.name.clone(), ..Parameter::default() });
        let elem = wide(p.ty.elem);
        let wide_p = b.cast(p, elem);
        let state = sum.into_iter().collect();
        let mut update = Update { b: &mut *b, written: &mut *written, p: wide_p, gate: gate.as_ref(), state };
        let change = update.change(&settings.optimizer, g, &mut |b, beta| {
            shared(&mut corrections, (beta, elem, 0), || {
                let Some(t) = &t else { return b.number(1.0, g) };
                let (base, one) = (b.number(beta, t), b.number(1.0, t));
                let power = b.binary("Pow", &base, t);
                let correction = b.binary("Sub", &one, &power);
                b.cast(&correction, elem)
            })
        });
        let scaled = if has_rate {
            update.b.times(&change, settings.rate)
        } else {
            // For a last axis of extent 1, see `Builder::operand`.
            let rank = ends_in_one(p).unwrap_or(0);
            let eta = shared(&mut rates, (settings.rate, elem, rank), || {
                let b = &mut *update.b;
                let rate = b.times(&rate, settings.rate);
                let rate = b.cast(&rate, elem);
                if rank == 0 { rate } else { b.reshape(&rate, &vec![Extent::Fixed(1); rank]) }
            });
            update.b.binary("Mul", &change, &eta)
        };
        let p_next = update.b.binary("Sub", &update.p, &scaled);
        let old = update.p.clone();
        let p_next = update.allowed(&p_next, &old);
        let state = update.state;
        let p_next = b.cast(&p_next, p.ty.elem);
        let name = format!("{}_next", p.name);
        written.results.push((name.clone(), Tensor { ty: p.ty.clone(), ..p_next }));
        if let Some(last) = written.parameters.last_mut() {
            (last.next, last.state, last.settings) = (Some(name), state, settings.by_name());
        }
    }
}

/// Counts the step; returns its number from 1 as a double.
fn counted(b: &mut Builder, gate: Option<&Tensor>, written: &mut Written) -> Tensor {
    let step = written.scalar(STEP, Elem::I64.onnx());
    let following = b.plus(&step, 1.0);
    let next = gate.map_or(following.clone(), |gate| where_allowed(b, gate, &following, &step));
    let counter = written.successor(&step, next);
    written.counters.push(counter);
    let double = TensorType { elem: Elem::F64.onnx(), ..following.ty.clone() };
    Tensor { ty: double, ..b.cast(&following, Elem::F64.onnx()) }
}

fn shared(known: &mut Shared, (number, elem, rank): (f64, i32, usize), make: impl FnOnce() -> Tensor) -> Tensor {
    known.entry((number.to_bits(), elem, rank)).or_insert_with(make).clone()
}
