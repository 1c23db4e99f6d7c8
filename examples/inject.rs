//! Using the library: inject PER into a model in memory, look at the plan, and take it out again.
//!
//! `cargo run --example inject`

use std::error::Error;

use per_inject::inject::{Estimator, Options, plan};
use per_inject::strip;
use per_inject::wire::{Model, splice};

fn main() -> Result<(), Box<dyn Error>> {
    let model = Model::open("models/cnn11_elu.ts17.onnx")?;

    // A plan is data: nothing has been written yet.
    let options =
        Options { layers: "elu,!#1".into(), coef: Some(3e-5), estimator: Estimator::Exact, ..Options::default() };
    let plan = plan(&model, &options)?;
    for layer in &plan.report.layers {
        println!("{:20} d = {:5}  +{} nodes", layer.name, layer.d.unwrap_or(0), layer.nodes);
    }

    // Applying the patch gives the bytes of the injected model.
    let injected = splice(&model, &plan.patch)?.to_vec(&model.file.bytes);
    println!("{} bytes became {}", model.file.bytes.len(), injected.len());

    // And strip gives back the original, bit for bit.
    let injected = Model::from_bytes(injected)?;
    let (undo, _record) = strip::plan(&injected)?;
    let restored = splice(&injected, &undo)?.to_vec(&injected.file.bytes);
    assert_eq!(restored, model.file.bytes);
    println!("stripped: {} bytes, the same as before", restored.len());
    Ok(())
}
