//! **What.** BatchNormalization in inference mode.
//!
//! **Why.** ONNX Runtime training turns it into training mode, which is another function.
//!
//! **Equation.** In inference mode y = (x − mean)/√(var + ε)·scale + bias with the given mean and variance, which stay as they are.

use crate::lower::registry::Rule;
use crate::lower::rules::normalise::by_channel;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["BatchNormalization"],
    because: "in inference mode ONNX Runtime training would turn it into training mode",
    applies: |site| site.on_path() && !trains(site),
    rewrite: frozen,
}];

/// Before operator set 14 the number of outputs says it.
fn trains(site: &Site) -> bool {
    if site.opset() >= 14 { site.int("training_mode", 0) != 0 } else { site.outputs() > 1 }
}

fn frozen(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let (scale, bias, mean, variance) = (site.required(1)?, site.required(2)?, site.required(3)?, site.required(4)?);
    let rank = rank(&x)?;
    if rank < 2 {
        return Err("a vector has no channels".into());
    }
    let behind: Vec<usize> = (1..rank - 1).collect();
    let mean = b.unsqueeze(&mean, &behind);
    let centred = b.binary("Sub", &x, &mean);
    let sum = b.plus(&variance, site.float("epsilon", 1e-5));
    let deviation = b.unary("Sqrt", &sum);
    // One division a channel, and none a place.
    let gain = b.binary("Div", &scale, &deviation);
    Ok(vec![by_channel(b, &centred, rank, &gain, &bias).into()])
}
