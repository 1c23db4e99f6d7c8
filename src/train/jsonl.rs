//! The log of a run as one JSON object a line.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::error::{TrainError, TrainResult};
use super::event::{Event, Sink};

/// Writes every event as a line.
#[derive(Debug)]
pub struct JsonLines(BufWriter<File>);

impl JsonLines {
    /// Opens a log. Of one that is there, what happened up to `keep` steps stays, and what a run did after its last checkpoint goes.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, keep: Option<u64>) -> TrainResult<Self> {
        let failed = |source| TrainError::Io { path: path.to_owned(), source };
        let old = match keep {
            Some(_) if path.exists() => fs::read_to_string(path).map_err(failed)?,
            _ => String::new(),
        };
        let is_kept = |line: &&str| {
            let step = serde_json::from_str::<serde_json::Value>(line).ok().and_then(|v| v.get("step")?.as_u64());
            step.is_some_and(|step| keep.is_some_and(|keep| step <= keep))
        };
        let mut out = BufWriter::new(File::create(path).map_err(failed)?);
        for line in old.lines().take_while(is_kept) {
            writeln!(out, "{line}").map_err(failed)?;
        }
        Ok(JsonLines(out))
    }
}

impl Sink for JsonLines {
    fn record(&mut self, event: &Event) {
        // A log that cannot be written is no reason to lose a training run.
        if let Ok(line) = serde_json::to_string(event) {
            let _ = writeln!(self.0, "{line}");
        }
    }

    fn flush(&mut self) {
        let _ = self.0.flush();
    }
}
