//! Weights of a model as named arrays: read out of its file, and put back into it without a change of any other byte.
//!
//! [`initializers`] reads and writes what the model's file holds; [`source`] reads what others save: training checkpoints of ONNX
//! Runtime, safetensors, NumPy archives, PyTorch's state dicts and other ONNX files. [`matching`] decides which array is for which
//! initializer; [`put`](mod@put) and [`get`](mod@get) are the two commands.

mod array;
mod dtype;
mod error;
pub mod get;
pub mod initializers;
pub mod matching;
pub mod put;
pub mod source;

pub use array::Array;
pub(crate) use dtype::{dtype, elem};
pub use error::{WeightsError, WeightsResult};
pub use source::Source;

use std::collections::HashMap;

use crate::analysis::{Analysis, AnalysisError};
use crate::graph::inner_initializers;
use crate::graph::role::Role;
use crate::hoist;
use crate::select::select_names;
use crate::wire::{Initializer, Model, tensor_at};

/// Version of the JSON layout of both commands, `schemas/weights.schema.json`.
pub const SCHEMA: &str = "per-inject.weights/1";

/// Which initializers of a model are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// What training moves: weights, biases and the like by their role, and running statistics.
    #[default]
    Trained,
    /// Every initializer.
    All,
    /// Those that a selector over names chooses, whatever their role.
    Selected(String),
}

/// The initializers of a model: those of the main graph, then those of the bodies of If, Loop and Scan, by names that nothing else in it has.
///
/// # Errors
/// When a body cannot be read in the file.
pub fn stored(model: &Model) -> WeightsResult<Vec<Initializer>> {
    let mut all = model.graph.initializers.clone();
    for inner in inner_initializers(model) {
        let mut initializer = tensor_at(model, &inner.place)?;
        initializer.name = inner.name;
        all.push(initializer);
    }
    Ok(all)
}

/// An initializer's role, and whether it is wanted; in the order of [`stored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What it is for.
    pub role: Role,
    /// Whether it is wanted.
    pub is_wanted: bool,
}

/// What is wanted of a model's initializers.
///
/// # Errors
/// When the graph cannot be understood, and for a selector that is none or chooses nothing.
pub fn candidates(model: &Model, wanted: &Wanted) -> WeightsResult<Vec<Candidate>> {
    let analysis = Analysis::of(model).map_err(AnalysisError::from)?;
    let known: HashMap<_, _> = analysis.roles.iter().map(|r| (r.value, r.role)).collect();
    let role = |name: &str| analysis.graph.find(name).and_then(|v| known.get(&v)).copied().unwrap_or(Role::Other);
    let inner = hoist::known(&analysis);
    let mut roles: Vec<Role> = model.graph.initializers.iter().map(|t| role(&t.name)).collect();
    let mut names: Vec<&str> = model.graph.initializers.iter().map(|t| t.name.as_str()).collect();
    roles.extend(inner.iter().map(|k| k.role));
    names.extend(inner.iter().map(|k| k.inner.name.as_str()));
    let chosen = match wanted {
        Wanted::Selected(spec) => {
            let refused = |source| AnalysisError::Initializers { option: "--wrt", source };
            Some(select_names(spec, &names).map_err(refused)?)
        }
        _ => None,
    };
    let candidate = |(i, role): (usize, Role)| {
        let is_wanted = match wanted {
            Wanted::Trained => role.is_trainable() || role == Role::State,
            Wanted::All => true,
            Wanted::Selected(_) => chosen.as_ref().and_then(|c| c.get(i)).copied().unwrap_or(false),
        };
        Candidate { role, is_wanted }
    };
    Ok(roles.into_iter().enumerate().map(candidate).collect())
}
