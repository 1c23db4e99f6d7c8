//! Where batches come from.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::error::{TrainError, TrainResult};
use crate::engine::{Arrays, Element, Tensor, with_elements};

/// Rows of data for one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Input of the graph, and its rows, along the first axis.
    pub arrays: Vec<(String, Tensor)>,
    /// How many rows.
    pub samples: usize,
}

/// Batches, one after the other.
pub trait Batches {
    /// The next one; `None` at the end of the epoch.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn next_batch(&mut self) -> TrainResult<Option<Batch>>;
}

/// A set of rows that is gone through epoch by epoch.
pub trait Source {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// Rows of a full batch.
    fn batch_size(&self) -> usize;

    /// Whether the last batch of an epoch may have fewer rows. Else those rows are left out.
    fn keeps_the_rest(&self) -> bool;

    /// The batches of an epoch, from number `first` on. The same epoch gives the same ones, whatever was asked before.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn batches(&self, epoch: u64, first: u64) -> TrainResult<Box<dyn Batches + '_>>;

    /// How many batches an epoch has.
    fn batches_per_epoch(&self) -> u64 {
        let (rows, size) = (self.rows(), self.batch_size().max(1));
        (if self.keeps_the_rest() { rows.div_ceil(size) } else { rows / size }) as u64
    }
}

/// Arrays in memory.
#[derive(Debug)]
pub struct Memory {
    /// Input and rows.
    pub arrays: Vec<(String, Tensor)>,
    /// Rows of a full batch.
    pub batch: usize,
    /// The order of an epoch's rows follows from it; `None` leaves them as they are.
    pub shuffle: Option<u64>,
    /// Whether the last batch may have fewer rows.
    pub keep_rest: bool,
}

impl Memory {
    /// Reads an archive, a folder or an array.
    ///
    /// # Errors
    /// When it cannot be read, or its arrays have different numbers of rows.
    pub fn open(path: &Path, only: Option<&str>) -> TrainResult<Vec<(String, Tensor)>> {
        let read = Arrays::read(path)?;
        let mut arrays = read.named;
        if let (Some(array), Some(only)) = (read.nameless, only) {
            arrays.push((only.to_owned(), array));
        }
        let rows = |t: &Tensor| t.shape().first().copied();
        let Some((first, count)) = arrays.first().map(|(name, t)| (name.clone(), rows(t))) else {
            return Err(TrainError::Data(format!("{}: it holds no array", path.display())));
        };
        for (name, tensor) in &arrays {
            match rows(tensor) {
                Some(n) if Some(n) == count => {}
                Some(n) => {
                    let count = count.unwrap_or_default();
                    let problem =
                        format!("{first:?} has {count} rows and {name:?} has {n}; each row is a sample of both");
                    return Err(TrainError::Data(format!("{}: {problem}", path.display())));
                }
                None => {
                    let problem = format!("{name:?} is a single number, and the first axis of data counts samples");
                    return Err(TrainError::Data(format!("{}: {problem}", path.display())));
                }
            }
        }
        Ok(arrays)
    }
}

impl Source for Memory {
    fn rows(&self) -> usize {
        self.arrays.first().and_then(|(_, t)| t.shape().first().copied()).unwrap_or_default()
    }

    fn batch_size(&self) -> usize {
        self.batch
    }

    fn keeps_the_rest(&self) -> bool {
        self.keep_rest
    }

    fn batches(&self, epoch: u64, first: u64) -> TrainResult<Box<dyn Batches + '_>> {
        let mut order: Vec<usize> = (0..self.rows()).collect();
        if let Some(seed) = self.shuffle {
            let mut generator = ChaCha8Rng::seed_from_u64(seed);
            // The streams from the other end are those of noise.
            generator.set_stream(u64::MAX - epoch);
            for i in (1..order.len()).rev() {
                // Biased by less than 2⁻⁶⁴ times the number of rows.
                let j = (u128::from(generator.next_u64()) * (i as u128 + 1)) >> 64;
                order.swap(i, usize::try_from(j).unwrap_or_default());
            }
        }
        let next = usize::try_from(first).unwrap_or(usize::MAX).saturating_mul(self.batch.max(1));
        Ok(Box::new(InOrder { data: self, order, next }))
    }
}

/// The batches of an epoch in memory.
struct InOrder<'a> {
    data: &'a Memory,
    order: Vec<usize>,
    next: usize,
}

impl Batches for InOrder<'_> {
    fn next_batch(&mut self) -> TrainResult<Option<Batch>> {
        let end = self.next.saturating_add(self.data.batch.max(1)).min(self.order.len());
        let Some(rows) = self.order.get(self.next..end).filter(|rows| !rows.is_empty()) else { return Ok(None) };
        if rows.len() < self.data.batch && !self.data.keep_rest {
            return Ok(None);
        }
        self.next = end;
        let broken = || TrainError::Data("the arrays have not the rows that their shape says".into());
        let arrays = self
            .data
            .arrays
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), gather(tensor, rows).ok_or_else(broken)?)))
            .collect::<TrainResult<_>>()?;
        Ok(Some(Batch { arrays, samples: rows.len() }))
    }
}

/// Rows of a tensor.
fn gather(tensor: &Tensor, rows: &[usize]) -> Option<Tensor> {
    fn of<T: Element>(values: &[T], shape: Vec<usize>, size: usize, rows: &[usize]) -> Option<Tensor> {
        let mut out = Vec::with_capacity(size * rows.len());
        for row in rows {
            out.extend_from_slice(values.get(row * size..(row + 1) * size)?);
        }
        Tensor::new(shape, out)
    }
    let (_, inner) = tensor.shape().split_first()?;
    let size = inner.iter().product();
    let shape = std::iter::once(rows.len()).chain(inner.iter().copied()).collect();
    with_elements!(tensor.data(), values => of(values, shape, size, rows))
}
