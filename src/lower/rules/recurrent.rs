//! **What.** LSTM and GRU get the initial states, biases and outputs that they leave out.
//!
//! **Why.** The gradient builder counts inputs by position: without initial_h (and initial_c) it wires the next input there.
//!
//! **Equation.** The same operator with zeros, which is what leaving them out means.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::builder::{Builder, Made};
use crate::lower::registry::Rule;
use crate::lower::site::{Known, Refusal, Site, extent, size};
use crate::regularizer::emit::Tensor;

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["LSTM", "GRU"],
    because: "its gradient needs the initial states and the bias written out",
    applies: |site| {
        site.on_path() && (0..states(site)).any(|k| site.input(FIRST_STATE + k).is_none()) || lacks_bias(site)
    },
    rewrite,
}];

/// Input number of initial_h; initial_c follows.
const FIRST_STATE: usize = 5;

/// Input number of B.
const BIAS: usize = 3;

fn states(site: &Site) -> usize {
    if site.node.op_type() == "LSTM" { 2 } else { 1 }
}

fn lacks_bias(site: &Site) -> bool {
    site.on_path() && site.input(BIAS).is_none()
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    if site.node.int("layout").unwrap_or(0) != 0 {
        return Err("ONNX Runtime has no kernel of layout 1; export it with the time axis first".into());
    }
    let recurrence = site.required(2)?;
    let directions = size(&recurrence, 0)?;
    let hidden = size(&recurrence, 2)?;
    let mut inputs: Vec<Option<Tensor>> = (0..8).map(|slot| site.input(slot)).collect();
    if inputs[BIAS].is_none() {
        let gates = if site.node.op_type() == "LSTM" { 4 } else { 3 };
        inputs[BIAS] = Some(b.zeros(&x, &[directions, 2 * gates * hidden]));
    }
    for k in 0..states(site) {
        if inputs[FIRST_STATE + k].is_none() {
            inputs[FIRST_STATE + k] = Some(state(b, &x, directions, hidden)?);
        }
    }
    let kept = inputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
    inputs.truncate(kept);
    let outputs: Vec<TensorType> = (0..site.outputs()).map(|slot| site.output_type(slot)).collect();
    let made = b.node(site.node.op_type(), &inputs, site.node.attribute.clone(), &outputs);
    Ok(made.into_iter().map(Made::from).collect())
}

/// Zeros [directions, batch, hidden].
fn state(b: &mut Builder, x: &Tensor, directions: u64, hidden: u64) -> Known<Tensor> {
    let batch = x.ty.dims.as_ref().and_then(|d| d.get(1)).cloned().ok_or(Refusal("the rank of X is unknown".into()))?;
    match batch {
        Dim::Known(n) => Ok(b.zeros(x, &[directions, n, hidden])),
        open => {
            let shape = b.shape(&[extent(directions).into(), (x, 1).into(), extent(hidden).into()]);
            let ty = TensorType { elem: x.ty.elem, dims: Some(vec![Dim::Known(directions), open, Dim::Known(hidden)]) };
            Ok(b.zeros_of(&shape, ty))
        }
    }
}
