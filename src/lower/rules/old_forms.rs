//! **What.** Slice, Clip, Pad, BatchNormalization and Dropout as operator sets 7 to 11 write them.
//!
//! **Why.** ONNX Runtime's gradients need operator set 12, where bounds and pads are inputs, and `spatial` is gone.
//!
//! **Equation.** The same operator, with its attributes as inputs. Dropout had no training mode of its own then, and a run of ONNX Runtime
//! is an inference: it does nothing.

use crate::graph::Attributes;
use crate::lower::registry::Rule;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Refusal, Site, extent};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["Slice"], because: SINCE, applies: |site| site.opset() < 10, rewrite: slice },
    Rule { ops: &["Clip"], because: SINCE, applies: |site| site.opset() < 11, rewrite: clip },
    Rule { ops: &["Pad"], because: SINCE, applies: |site| site.opset() < 11, rewrite: pad },
    Rule {
        ops: &["Dropout"],
        because: "before operator set 12 it has no training mode, and does nothing",
        applies: |site| site.opset() < 12 && site.outputs() < 2,
        rewrite: |site, _| Ok(vec![site.required(0)?.into()]),
    },
    Rule {
        ops: &["BatchNormalization"],
        because: "operator set 12 has no spatial",
        applies: |site| site.opset() < 9 && site.node.int("spatial").is_some() && !site.on_path(),
        rewrite: |site, b| {
            if site.int("spatial", 1) != 1 {
                return Err("it has statistics for every place (spatial = 0)".into());
            }
            let kept = site.node.attribute.iter().filter(|a| a.name() != "spatial").cloned().collect();
            let inputs: Vec<Option<Tensor>> = (0..site.node.input.len()).map(|slot| site.input(slot)).collect();
            let outputs: Vec<_> = (0..site.outputs()).map(|slot| site.output_type(slot)).collect();
            Ok(b.node("BatchNormalization", &inputs, kept, &outputs).into_iter().map(Made::from).collect())
        },
    },
];

const SINCE: &str = "its attributes are inputs in operator set 12";

fn slice(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let list = |name: &str| site.node.ints(name).map(<[i64]>::to_vec);
    let (starts, ends) = (list("starts").ok_or("it has no starts")?, list("ends").ok_or("it has no ends")?);
    let axes = list("axes").unwrap_or_else(|| (0..extent(starts.len() as u64)).collect());
    let [starts, ends, axes] = [starts, ends, axes].map(|values| b.integers(&values));
    Ok(vec![b.one("Slice", &[&x, &starts, &ends, &axes], Vec::new(), site.output_type(0)).into()])
}

fn clip(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let bound = |b: &mut Builder, name: &str| site.node.float(name).map(|v| b.number(f64::from(v), &x));
    let inputs = [Some(x.clone()), bound(b, "min"), bound(b, "max")];
    let kept = inputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
    let made = b.node("Clip", &inputs[..kept], Vec::new(), &[site.output_type(0)]);
    Ok(made.into_iter().map(Made::from).collect())
}

fn pad(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    if site.node.string("mode").is_some_and(|mode| mode != "constant") {
        return Err(Refusal("before operator set 11 it repeats elements; convert the model first".into()));
    }
    let pads = site.node.ints("pads").ok_or("it has no pads")?.to_vec();
    let value = b.number(site.float("value", 0.0), &x);
    Ok(vec![b.pad(&x, &pads, Some(&value)).into()])
}
