//! Choosing layers: which values of a graph are activations, and the language that picks among them.
//!
//! [`Catalog::of`] finds every activation, as an operator or spelt out in several nodes; [`Selector`] parses `--layers` and chooses
//! from the catalog; [`select_names`] does the same for lists of names such as initializers.
//!
//! ```no_run
//! use per_inject_core::{graph::Graph, select::{Catalog, Selector}, wire::Model};
//! let model = Model::open("model.onnx")?;
//! let graph = Graph::of(&model)?;
//! let taps = "relu,!name:/head*".parse::<Selector>()?.select(&graph, &Catalog::of(&graph, &model))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod activation;
mod catalog;
mod error;
mod hidden;
mod name_pattern;
mod names;
mod parse;
mod pattern;
mod resolve;
mod selector;
mod suggest;

pub use activation::Activation;
pub use catalog::{Catalog, Found, Hidden, NearMiss};
pub use error::{ParseError, SelectError};
pub use name_pattern::NamePattern;
pub use names::select_names;
pub use parse::{Item, What};
pub use selector::{Selector, Tap};
pub use suggest::nearest;
