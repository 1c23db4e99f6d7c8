//! The samples of a run, and their batches, made ready where they are wanted or ahead on another thread.

use std::time::{Duration, Instant};

use super::data::{Ahead, DataError, Dataset, Plan};
use super::error::{TrainError, TrainResult};
use super::feeds::{Preparation, Prepared};

/// What a thread that reads ahead costs a step whose own threads fill all cores: it takes one of them away for a moment, and the others wait.
/// Measured on two cores by benches/train.py.
pub const HANDOFF: Duration = Duration::from_micros(200);

/// Batches after which it shows how long one takes.
const ENOUGH: u32 = 8;

/// Samples, and how they are gone through.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The samples.
    pub data: Dataset,
    /// How an epoch goes through them.
    pub plan: Plan,
    /// Batches that take no longer than this, on average, are made ready when each is wanted, whatever [`Plan::ahead`] says: [`HANDOFF`] where
    /// the steps fill all cores, zero where one is left for another thread.
    pub handoff: Duration,
}

impl Rows {
    /// The batches of an epoch from number `first` on, made ready where they are read. `counter` is that of the first.
    pub(super) fn prepared(
        &self,
        epoch: u64,
        first: u64,
        preparation: Preparation,
        counter: u64,
    ) -> TrainResult<Ready<Prepared, TrainError>> {
        let mut batches = self.data.batches(&Plan { first, ahead: 0, ..self.plan.clone() }, epoch)?;
        let mut counters = counter..;
        let items = std::iter::from_fn(move || {
            let batch = batches.next_batch().transpose()?;
            let counter = counters.next()?;
            Some(batch.map_err(TrainError::from).and_then(|batch| preparation.prepare(batch, counter)))
        });
        Ready::start(Box::new(items), self.plan.ahead, self.handoff)
    }
}

type Items<T, E> = Box<dyn Iterator<Item = Result<T, E>> + Send>;

/// Items that come one after the other: the same ones, whichever thread makes them.
pub(super) struct Ready<T, E> {
    source: Source<T, E>,
    /// How many another thread makes ahead.
    ahead: usize,
    handoff: Duration,
    /// How long those took that were made on this thread, and how many they are.
    spent: Duration,
    made: u32,
}

enum Source<T, E> {
    Here(Items<T, E>),
    Ahead(Ahead<T, E>),
    /// Where no thread could be started.
    Lost,
}

impl<T: Send + 'static, E: From<DataError> + Send + 'static> Ready<T, E> {
    fn start(items: Items<T, E>, ahead: usize, handoff: Duration) -> Result<Self, E> {
        let mut ready = Ready { source: Source::Here(items), ahead, handoff, spent: Duration::ZERO, made: 0 };
        if handoff.is_zero() {
            ready.hand_over()?;
        }
        Ok(ready)
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// That of the item; when a thread cannot be started or broke down.
    pub fn next_item(&mut self) -> Result<Option<T>, E> {
        let items = match &mut self.source {
            Source::Here(items) => items,
            Source::Ahead(items) => return items.next_item(),
            Source::Lost => return Ok(None),
        };
        let started = Instant::now();
        let item = items.next().transpose()?;
        self.spent += started.elapsed();
        self.made = self.made.saturating_add(1);
        if self.made >= ENOUGH && self.spent > self.handoff.saturating_mul(self.made) {
            self.hand_over()?;
        }
        Ok(item)
    }

    /// Lets another thread make the rest ahead, where any shall be.
    fn hand_over(&mut self) -> Result<(), E> {
        if self.ahead == 0 {
            return Ok(());
        }
        self.source = match std::mem::replace(&mut self.source, Source::Lost) {
            Source::Here(items) => Source::Ahead(Ahead::start(items, self.ahead)?),
            other => other,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Numbers up to `end`, each with the thread that made it, which takes `pause` over it.
    fn made(ahead: usize, handoff: Duration, pause: Duration, end: u32) -> Vec<bool> {
        let here = thread::current().id();
        let items = (0..end).map(move |i| {
            thread::sleep(pause);
            Ok::<_, DataError>((i, thread::current().id()))
        });
        let mut ready = Ready::start(Box::new(items), ahead, handoff).unwrap();
        let all: Vec<_> = std::iter::from_fn(|| ready.next_item().unwrap()).collect();
        assert!(all.iter().map(|(i, _)| *i).eq(0..end), "{all:?}");
        all.iter().map(|(_, thread)| *thread == here).collect()
    }

    #[test]
    fn another_thread_makes_what_takes_longer_than_handing_it_over() {
        let (none, short, long) = (Duration::ZERO, Duration::from_millis(2), Duration::from_secs(60));
        assert_eq!(made(2, none, none, 20), [false; 20]);
        assert_eq!(made(0, none, none, 20), [true; 20]);
        assert_eq!(made(2, long, none, 20), [true; 20]);
        let first = ENOUGH as usize;
        let slow = made(2, short / 2, short, 20);
        assert_eq!((&slow[..first], &slow[first..]), (&[true; ENOUGH as usize][..], &[false; 12][..]));
        assert_eq!(made(0, short / 2, short, 20), [true; 20]);
    }

    #[test]
    fn an_error_is_told_by_either_thread() {
        for handoff in [Duration::ZERO, HANDOFF] {
            let fail = || DataError::Options("it went wrong".into());
            let mut ready = Ready::start(Box::new([Ok(1), Err(fail())].into_iter()), 2, handoff).unwrap();
            assert_eq!(ready.next_item().unwrap(), Some(1));
            assert_eq!(ready.next_item().unwrap_err().to_string(), "it went wrong");
        }
    }
}
