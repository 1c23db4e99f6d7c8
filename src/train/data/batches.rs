//! Batch after batch, read ahead on another thread.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::order::{Order, RowRandom};
use super::{Augment, DataError, DataResult, Dataset};
use crate::engine::Tensor;

/// Rows for one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Input of the graph, and its rows along the first axis.
    pub arrays: Vec<(String, Tensor)>,
    /// How many rows.
    pub samples: usize,
}

/// Batches, one after the other.
pub trait Batches {
    /// The next one; `None` at the end of the epoch.
    ///
    /// # Errors
    /// When a row cannot be had.
    fn next_batch(&mut self) -> DataResult<Option<Batch>>;
}

/// How an epoch goes through the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Rows of a full batch.
    pub batch: usize,
    /// What is random follows from it and from the epoch.
    pub seed: u64,
    /// Whether the rows come in another order each epoch, else as they are stored.
    pub shuffle: bool,
    /// Whether rows that fill no batch make a smaller one at the end, else they are left out.
    pub keep_rest: bool,
    /// The first batch, by which an epoch that was broken off goes on; the batches are those of the whole epoch.
    pub first: u64,
    /// What is done to images.
    pub augment: Augment,
    /// Batches that are read ahead; 0 reads each when it is asked for.
    pub ahead: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { batch: 32, seed: 0, shuffle: false, keep_rest: true, first: 0, augment: Augment::default(), ahead: 2 }
    }
}

impl Plan {
    /// How many batches an epoch of so many rows has.
    pub fn batches(&self, rows: usize) -> u64 {
        let size = self.batch.max(1);
        (if self.keep_rest { rows.div_ceil(size) } else { rows / size }) as u64
    }
}

impl Dataset {
    /// The batches of an epoch. The same plan, seed and epoch give the same ones, bit for bit, wherever they begin.
    ///
    /// # Errors
    /// When the plan does not suit the data or the graph, or no thread can be started.
    pub fn batches(&self, plan: &Plan, epoch: u64) -> DataResult<Box<dyn Batches + Send>> {
        self.suits(plan)?;
        let rows = self.rows();
        let order = match plan.shuffle {
            true => Order::shuffled(rows, plan.seed, epoch).ok_or_else(|| {
                DataError::Options(format!("{rows} rows are more than can be shuffled, 4,294,967,295"))
            })?,
            false => Order::AsStored(rows),
        };
        let mut reader = Reader {
            data: self.clone(),
            order,
            random: RowRandom::new(plan.seed, epoch),
            next: plan.first,
            end: plan.batches(rows),
            plan: plan.clone(),
        };
        if plan.ahead == 0 {
            return Ok(Box::new(reader));
        }
        let items = std::iter::from_fn(move || reader.next_batch().transpose());
        Ok(Box::new(Ahead::start(items, plan.ahead)?))
    }

    /// Refuses a plan that the data or the graph cannot follow, before the first batch.
    ///
    /// # Errors
    /// What does not suit.
    pub fn suits(&self, plan: &Plan) -> DataResult<()> {
        let refuse = |problem: String| Err(DataError::Options(problem));
        let rows = self.rows();
        if plan.batch == 0 {
            return refuse("a batch must have one row at least".into());
        }
        if plan.batches(rows) == 0 {
            return refuse(format!("the data has {rows} rows, fewer than a batch of {} takes", plan.batch));
        }
        if let Some((input, size)) = &self.fixed {
            let rest = rows % plan.batch;
            if u64::try_from(plan.batch) != Ok(*size) {
                return refuse(format!(
                    "the graph's input {input:?} takes batches of exactly {size}, not of {}",
                    plan.batch
                ));
            }
            if plan.keep_rest && rest != 0 {
                return refuse(format!(
                    "the graph's input {input:?} takes batches of exactly {size}, and {rows} rows leave a last one of {rest}; \
                     leave the rest out"
                ));
            }
        }
        if !plan.augment.is_none() && !self.columns.iter().any(|c| plan.augment.concerns(&c.conversion)) {
            return refuse("--augment is for images, and no array is one: floating point with three axes a row".into());
        }
        Ok(())
    }
}

/// Batches where they are asked for.
struct Reader {
    data: Dataset,
    order: Order,
    random: RowRandom,
    plan: Plan,
    next: u64,
    end: u64,
}

impl Batches for Reader {
    fn next_batch(&mut self) -> DataResult<Option<Batch>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let start = usize::try_from(self.next).unwrap_or(usize::MAX).saturating_mul(self.plan.batch);
        let rows = self.order.slice(start, start.saturating_add(self.plan.batch));
        let mut arrays = Vec::with_capacity(self.data.columns.len());
        for column in self.data.columns.iter() {
            self.data.maps.touched(rows.len(), column.array.row_bytes());
            let mut tensor = column.gather(&rows)?;
            if self.plan.augment.concerns(&column.conversion) {
                tensor = self.plan.augment.apply(&column.conversion, tensor, &rows, &mut self.random)?;
            }
            arrays.push((column.array.field.name.clone(), tensor));
        }
        self.next += 1;
        Ok(Some(Batch { arrays, samples: rows.len() }))
    }
}

/// What an iterator gives, made on another thread, which ends when this is dropped or after the first error.
pub struct Ahead<T, E> {
    items: Option<Receiver<Result<T, E>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static, E: From<DataError> + Send + 'static> Ahead<T, E> {
    /// Starts to make items, so many at most before they are wanted; of 0 as of 1.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(items: impl Iterator<Item = Result<T, E>> + Send + 'static, ahead: usize) -> DataResult<Self> {
        // One is in the making while the others wait.
        let (sender, receiver) = sync_channel(ahead.saturating_sub(1));
        let work = move || {
            for item in items {
                let failed = item.is_err();
                if sender.send(item).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("data".into()).spawn(work);
        let thread = thread.map_err(|e| DataError::Thread(format!("cannot be started: {e}")))?;
        Ok(Ahead { items: Some(receiver), thread: Some(thread) })
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// That of the iterator; when the thread broke down.
    pub fn next_item(&mut self) -> Result<Option<T>, E> {
        match self.items.as_ref().map(Receiver::recv) {
            Some(Ok(item)) => item.map(Some),
            // The thread is at its end, or broke down before.
            Some(Err(_)) | None => Ok(self.join().map(|()| None)?),
        }
    }
}

impl<T, E> Ahead<T, E> {
    /// Waits for the thread, and says whether it came to its end.
    fn join(&mut self) -> DataResult<()> {
        self.items = None;
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked { Err(DataError::Thread("broke down".into())) } else { Ok(()) }
    }
}

impl Batches for Ahead<Batch, DataError> {
    fn next_batch(&mut self) -> DataResult<Option<Batch>> {
        self.next_item()
    }
}

impl<T, E> Drop for Ahead<T, E> {
    fn drop(&mut self) {
        let _ = self.join();
    }
}
