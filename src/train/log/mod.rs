//! What happened in a run, in files: [`JsonLines`] for programs, [`TensorBoard`] for curves.

mod crc32c;
mod json_lines;
mod tensor_board;

use std::io;

pub use json_lines::JsonLines;
use serde::{Deserialize, Serialize};
pub use tensor_board::TensorBoard;

/// Numbers that a run has to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What they are of.
    pub kind: Kind,
    /// Seconds since 1970 in UTC.
    pub time: f64,
    /// Steps that were made.
    pub step: u64,
    /// Epochs that were begun.
    pub epoch: u64,
    /// Name and number, such as `loss` or `per/relu1`.
    pub values: Vec<(String, f64)>,
}

/// What an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A step or several in training.
    Train,
    /// An evaluation on other data.
    Eval,
}

impl Kind {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Train => "train",
            Kind::Eval => "eval",
        }
    }
}

/// What takes events.
pub trait Sink {
    /// Takes one.
    ///
    /// # Errors
    /// When it cannot be written.
    fn record(&mut self, event: &Event) -> io::Result<()>;

    /// Makes sure that what was taken is in the file, for readers and for the case that this process ends.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}
