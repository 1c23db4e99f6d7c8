//! Two models → what differs between them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use per_inject::{diff, wire};
//!
//! let before = wire::Model::open("models/mlp_relu.ts17.onnx")?;
//! let after = wire::Model::open("models/mlp_relu.ts13.onnx")?;
//! let found = diff::diff(&before, &after, &diff::Options::default())?;
//! println!("{} nodes added, {} removed", found.graph.nodes.added.len(), found.graph.nodes.removed.len());
//! # assert!(diff::diff(&before, &before, &diff::Options::default())?.equal);
//! # Ok(())
//! # }
//! ```

mod align;
mod change;
mod colour;
mod compare;
mod declared;
mod dot;
mod elements;
mod fold;
mod gaps;
mod label;
mod matching;
mod model;
mod nodes;
mod pairing;
mod polish;
mod side;
mod stages;
mod view;
mod weights;
mod words;

pub use change::{
    AttributeText, Change, Counts, Diff, DocChange, Fold, FoldKind, FoldSide, FunctionChange, FunctionsDiff, GraphDiff,
    InitializerChange, InitializerRef, InitializersDiff, MOST_NEIGHBOURS, Moved, Neighbour, NodeChange, NodeRef,
    NodesDiff, Property, Renamed, SCHEMA, SourceChange, Summary, TrainingDiff, ValueChange, ValueRef, ValuesChange,
    ValuesDiff,
};
pub use dot::{DotOptions, dot};
pub(crate) use fold::grouped;
pub use matching::Matching;

use thiserror::Error;

use crate::wire::{Model, WireError};

/// What to compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// What to leave out.
    pub ignore: Ignore,
}

/// What is left out of a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignore {
    /// Names of nodes, values, initializers and graphs.
    pub names: bool,
    /// Doc strings, metadata, and who wrote the model.
    pub docs: bool,
    /// Declared types and shapes of inputs, outputs and inner values.
    pub shapes: bool,
    /// Elements of initializers.
    pub weights: bool,
}

impl Ignore {
    /// The names of what is left out.
    pub fn names(self) -> Vec<&'static str> {
        let all = [("names", self.names), ("docs", self.docs), ("shapes", self.shapes), ("weights", self.weights)];
        all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect()
    }
}

/// Why two models were not compared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiffError {
    /// The bytes of one of them.
    #[error("{model}: {source}")]
    Wire {
        /// Which model.
        model: String,
        /// What is wrong.
        source: WireError,
    },
}

/// Compares two models.
///
/// # Errors
///
/// What cannot be decoded. A graph that ONNX would refuse (a name that nothing defines, a cycle) is compared all the same.
pub fn diff(a: &Model, b: &Model, options: &Options) -> Result<Diff, DiffError> {
    model::models(a, b, options)
}
