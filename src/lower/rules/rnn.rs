//! **What.** RNN over a sequence of fixed length, forward, backward or both ways.
//!
//! **Why.** No gradient of it is registered.
//!
//! **Equation.** Unrolled: hₜ = f(xₜ·Wᵀ + W_b + hₜ₋₁·Rᵀ + R_b), with the products xₜ·Wᵀ of all steps made at once.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::builder::{Builder, Made};
use crate::lower::registry::{Rule, on_path};
use crate::lower::rules::recurrent::direction;
use crate::lower::site::{Known, Refusal, Site, extent, size};
use crate::regularizer::emit::Tensor;

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["RNN"], because: "no gradient of it is registered", applies: on_path, rewrite }];

/// Longest sequence: every step becomes three nodes.
const LONGEST: u64 = 1024;

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, weight, recurrence) = (site.required(0)?, site.required(1)?, site.required(2)?);
    let (directions, hidden) = (size(&recurrence, 0)?, size(&recurrence, 2)?);
    if directions > 2 {
        return Err("it has more than two directions".into());
    }
    let steps = size(&x, 0)?;
    if steps == 0 || steps > LONGEST {
        return Err(Refusal(format!("it has {steps} steps, and 1 to {LONGEST} can be unrolled")));
    }
    if site.input(4).is_some() || site.int("layout", 0) != 0 || site.node.attribute("clip").is_some() {
        return Err("it has sequence_lens, layout 1 or clip".into());
    }
    let (mut all, mut last) = (Vec::new(), Vec::new());
    for d in 0..directions {
        let activation = activation(site, d)?;
        let own = |b: &mut Builder, each: &Tensor| {
            let one = if directions > 1 { b.pick(each, 0, &[extent(d)]) } else { each.clone() };
            b.squeeze(&one, &[0])
        };
        let (w, r) = (own(b, &weight), own(b, &recurrence));
        let (w, r) = (b.transpose(&w, &[1, 0]), b.transpose(&r, &[1, 0]));
        let mut projected = b.matmul(&x, &w);
        if let Some(bias) = site.input(3) {
            let bias = own(b, &bias);
            let (of_w, of_r) =
                (b.slice(&bias, 0, 0, extent(hidden), 1), b.slice(&bias, 0, extent(hidden), extent(2 * hidden), 1));
            let sum = b.binary("Add", &of_w, &of_r);
            projected = b.binary("Add", &projected, &sum);
        }
        let initial = site.input(5).map(|h| if directions > 1 { b.pick(&h, 0, &[extent(d)]) } else { h });
        let is_backward = direction(site) == "reverse" || d == 1;
        let states = unrolled(b, &projected, &r, initial, steps, activation, is_backward);
        last.push(if is_backward { states[0].clone() } else { states[states.len() - 1].clone() });
        let sequence = b.concat(&states, 0);
        all.push(b.unsqueeze(&sequence, &[1]));
    }
    let sequence = if all.len() == 1 { all[0].clone() } else { b.concat(&all, 1) };
    let last = if last.len() == 1 { last[0].clone() } else { b.concat(&last, 0) };
    let is_there = |slot: usize| site.node.output.get(slot).is_some_and(|o| !o.is_empty());
    let made = |slot: usize, tensor: Tensor| if is_there(slot) { tensor.into() } else { Made::nothing() };
    Ok(vec![made(0, sequence), made(1, last)])
}

fn activation(site: &Site, direction: u64) -> Known<&'static str> {
    let index = usize::try_from(direction).unwrap_or_default();
    let name = site.node.attribute("activations").and_then(|a| a.strings.get(index)).map(|s| s.to_ascii_lowercase());
    match name.as_deref() {
        None | Some(b"tanh") => Ok("Tanh"),
        Some(b"relu") => Ok("Relu"),
        Some(b"sigmoid") => Ok("Sigmoid"),
        Some(_) => Err("its activation is none of Tanh, Relu and Sigmoid".into()),
    }
}

/// The states [1, B, H] of all steps, in the order of the sequence.
fn unrolled(
    b: &mut Builder,
    projected: &Tensor,
    recurrence: &Tensor,
    initial: Option<Tensor>,
    steps: u64,
    activation: &str,
    is_backward: bool,
) -> Vec<Tensor> {
    let step_type = || {
        let mut ty = projected.ty.clone();
        if let Some(first) = ty.dims.as_mut().and_then(|d| d.first_mut()) {
            *first = Dim::Known(1);
        }
        ty
    };
    let types: Vec<TensorType> = (0..steps).map(|_| step_type()).collect();
    let inputs = if steps == 1 { vec![projected.clone()] } else { b.split(projected, 0, &types) };
    let order: Vec<usize> = if is_backward { (0..inputs.len()).rev().collect() } else { (0..inputs.len()).collect() };
    let mut states = inputs.clone();
    let mut state = initial;
    for t in order {
        let sum = match &state {
            Some(state) => {
                let carried = b.one("MatMul", &[state, recurrence], Vec::new(), step_type());
                b.binary("Add", &inputs[t], &carried)
            }
            None => inputs[t].clone(),
        };
        let next = b.unary(activation, &sum);
        states[t] = next.clone();
        state = Some(next);
    }
    states
}
