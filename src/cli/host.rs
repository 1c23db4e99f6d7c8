//! A training run inside another program: what takes the place of files, of the terminal and of signals.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use per_inject::train::TrainResult;
use per_inject::train::data::{Dataset, Part};
use per_inject::train::event::{Event, Observer};
use per_inject::wire::{Model, WireResult};

use super::call::Data;

/// What that program hands over, and what it is told.
pub struct Host {
    /// The model, where it is in memory.
    pub model: Option<Bytes>,
    /// What is trained on.
    pub data: Data,
    /// What is evaluated on; asked for only where `--eval` says that there is something.
    pub evaluation: Option<Data>,
    /// Where messages say that the state is, in the place of the folder of the run, which goes away.
    pub kept: Option<String>,
    /// Asked after every event: whether the run goes on.
    pub goes_on: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether the run shall stop.
    pub stop: Arc<AtomicBool>,
    /// What a person should know.
    pub remarks: Mutex<Vec<String>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    /// The model that it hands over.
    pub fn model(&self) -> Option<WireResult<Model>> {
        self.model.clone().map(Model::from_bytes)
    }

    /// The data that it hands over.
    pub fn dataset(&self, map: &[(String, String)], part: Part) -> TrainResult<Dataset> {
        let data = match part {
            Part::Training => &self.data,
            Part::Evaluation => self.evaluation.as_ref().unwrap_or(&self.data),
        };
        Ok(match data {
            Data::Files(paths) => Dataset::open_part(paths, map, part)?,
            Data::Arrays(arrays) => Dataset::in_memory(arrays.clone(), map)?,
        })
    }

    /// Notes what a person should know.
    pub fn remark(&self, sentence: &str) {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).push(sentence.to_owned());
    }
}

/// Asks a host whether the run goes on.
pub struct Asking(pub Arc<Host>);

impl Observer for Asking {
    fn notice(&mut self, _event: &Event) -> io::Result<()> {
        if !(self.0.goes_on)() {
            self.0.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
