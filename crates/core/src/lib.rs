//! The part of `per-inject` that every command goes through: a model's bytes and their edits, its graph, selectors, regularisers.
//!
//! A crate of its own so that it can be compiled for speed while the rest is compiled for size; `per_inject` has it all under the
//! same names, and is what to depend on.
//!
//! Dependencies run downward: [`regularizer`] and [`select`] read a [`graph`], and that reads a file through [`wire`]. An edit is data
//! ([`patch::Patch`]).
#![deny(unsafe_code)]
// Both panic where their stream is closed or full.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]
#![warn(missing_docs)]

pub mod graph;
pub mod naming;
pub mod onnx;
pub mod patch;
pub mod regularizer;
pub mod select;
pub mod step;
pub mod wire;
