//! The model file: read without decoding weights, edited by splicing, written atomically.
//!
//! Nothing here knows what an operator is. [`Model`] is the decoded structure over the mapped bytes; [`splice`] applies a
//! [`Patch`](crate::patch::Patch) to those bytes.

mod copy;
mod error;
pub mod fields;
mod file;
mod model;
mod record;
mod splice;
mod staged;
mod target;
mod tensor;
mod write;

pub use error::{WireError, WireResult};
pub use file::ModelFile;
pub use model::{MainGraph, Model};
pub use record::{Record, records};
pub use splice::{Piece, Rope, splice};
pub use tensor::{Initializer, decode_elements, is_float};
pub use write::{Sync, Written, write};
