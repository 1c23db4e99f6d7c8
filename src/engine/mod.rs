//! What runs a model: one small interface, and ONNX Runtime behind it.
//!
//! An [`Engine`] makes [`Program`]s of models; a program takes named tensors and gives named tensors. It makes a [`Stepper`] of a step graph,
//! which is what training drives: the state stays with the engine from step to step. [`Runtime`] is ONNX Runtime from
//! 1.17 on, loaded at run time from wherever [`find`] finds it, on the CPU or through CUDA, never silently on another device than the
//! one that was asked for. [`Resident`] is a program whose state stays on the device from run to run, as training wants it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use per_inject::engine::{Device, Engine, Fill, LoadOptions, Runtime, Search, Source};
//!
//! let runtime = Runtime::open(&Search::of_process(None))?;
//! eprintln!("{}", runtime.description());
//! let model = per_inject::wire::Model::open("models/mlp_relu.ts17.onnx")?;
//! let feeds = Fill::default().random(&model)?;
//! let mut program = runtime.load(Source::of(&model), &LoadOptions::default())?;
//! for (name, tensor) in program.run(&feeds.tensors(), None)? {
//!     println!("{name}: {}", tensor.tensor_type());
//! }
//! # Ok(())
//! # }
//! ```

mod adopted;
pub mod arrays;
pub mod choice;
mod cuda;
mod device;
mod differentiated;
mod error;
pub mod find;
mod library;
pub mod npy;
mod onnx_runtime;
pub mod ort_training;
mod placement;
mod program;
pub mod random;
mod ranges;
mod resident;
mod stepper;
mod tensor;
#[cfg(feature = "tract")]
pub mod tract;

pub use adopted::{Host, adopt, set_host, tidy};
pub use arrays::Arrays;
pub use cuda::{Arena, ConvolutionSearch, CudaOptions};
pub use device::Device;
pub use error::{EngineError, EngineResult};
pub use find::{Found, FoundBy, Search, set_interpreter};
pub use onnx_runtime::{Runtime, gave_up, is_in_binding};
pub use ort_training::{Artifacts, OrtTraining};
pub use placement::Placed;
pub use program::check_feeds;
pub(crate) use program::graph_of;
pub use program::{Engine, LoadOptions, Optimisation, Port, Program, Source};
pub use random::{Feed, Feeds, Fill, Origin};
pub(crate) use ranges::bound as input_bound;
pub use resident::{Carried, Residence, Resident};
pub use stepper::{StepPlan, Stepper};
pub(crate) use tensor::with_elements;
pub use tensor::{Data, Element, Tensor, element_size};
