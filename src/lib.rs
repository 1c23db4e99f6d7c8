//! Puts PER, the projected error function regulariser, into ONNX training graphs that already exist.
//!
//! PER (Joo, Kang and Kim, ICLR 2020) pulls a network's activations towards the standard normal distribution, without parameters
//! and without dependence between samples. Three lines inject it:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use per_inject::{inject, wire};
//!
//! let model = wire::Model::open("models/mlp_relu.ts17.onnx")?;
//! let plan = inject::plan(&model, &inject::Options { layers: "relu".into(), coef: Some(3e-5), ..Default::default() })?;
//! let injected: Vec<u8> = wire::splice(&model, &plan.patch)?.to_vec(&model.file.bytes);
//! # assert!(injected.len() > model.file.bytes.len());
//! # Ok(())
//! # }
//! ```
//!
//! An edit is data ([`patch::Patch`]); what it does not name stays byte for byte as it was ([`wire`]). Dependencies run downward:
//! `inject`, `strip`, `inspect` and `diff` use `lower`, `regularizer` and `select`; `lower` and `autodiff` write with `rewrite`; all of them
//! read a `graph`, and that uses `wire`.
//! `compare` runs models on an `engine`.
//! `train` drives an `engine` too, step by step; `weights` takes weights out of a model and puts others in.
#![deny(unsafe_code)]
// Both panic where their stream is closed or full.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]
#![warn(missing_docs)]

// The command line is a user of the library, and names it as any other.
extern crate self as per_inject;

use per_inject_core::naming;
pub use per_inject_core::{graph, onnx, patch, regularizer, select, step, wire};

pub mod analysis;
pub mod autodiff;
#[doc(hidden)]
pub mod cli;
pub mod compare;
pub mod diff;
pub mod engine;
mod hoist;
pub mod inject;
pub mod inspect;
pub mod lower;
pub mod page;
pub mod record;
mod rewrite;
pub mod strip;
pub mod train;
pub mod weights;
