//! The model file: read without decoding weights, edited by splicing, written atomically.
//!
//! Nothing here knows what an operator is. [`Model`] is the decoded structure over the mapped bytes; [`splice`] applies a
//! [`Patch`](crate::patch::Patch) to those bytes.

mod carry;
mod content;
mod copy;
mod digest;
mod error;
mod external;
mod external_walk;
pub mod fields;
mod file;
mod model;
mod place;
mod record;
mod splice;
mod staged;
mod target;
mod tensor;
mod write;

pub use carry::{Carried, ExternalPolicy, How, carry};
pub use content::{Content, Make};
pub use digest::{structure_digest, structure_digest_of, structure_digest_without};
pub use error::{WireError, WireResult};
pub use external::{DataFile, ExternalFile, ExternalTensor, external_files, refuse_data_as_target};
pub use file::ModelFile;
pub use model::{MainGraph, Model};
pub use place::{tensor_at, tensor_in};
pub use record::{Record, records};
pub use record::{put_varint, read_varint, varint_width};
pub use splice::{Piece, Rope, narrowed, record_bytes, splice};
pub use tensor::{Initializer, decode_elements, is_float};
pub use write::{Sync, Written, write};
