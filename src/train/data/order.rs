//! In which order the rows of an epoch come, and what is random in a row: all of it follows from seed, epoch and row.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What random numbers are for. Streams are counted from the end, two for each epoch; those from the beginning are free for other uses of the seed.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Order,
    Row,
}

/// The generator of an epoch, ChaCha with 8 rounds.
fn generator(seed: u64, epoch: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(u64::MAX - epoch.wrapping_mul(2).wrapping_add(purpose as u64));
    generator
}

/// Uniform among the integers below `n`, biased by less than n / 2⁶⁴.
fn below(generator: &mut ChaCha8Rng, n: u64) -> u64 {
    u64::try_from((u128::from(generator.next_u64()) * u128::from(n)) >> 64).unwrap_or_default()
}

/// All rows of an epoch, in the order in which they come; one `u32` for each row that is shuffled.
#[derive(Debug)]
pub(super) enum Order {
    AsStored(usize),
    Shuffled(Vec<u32>),
}

impl Order {
    /// Fisher and Yates' shuffle; `None` where there are more rows than `u32` counts.
    pub fn shuffled(rows: usize, seed: u64, epoch: u64) -> Option<Self> {
        let mut order: Vec<u32> = (0..u32::try_from(rows).ok()?).collect();
        let mut generator = generator(seed, epoch, Purpose::Order);
        for last in (1..order.len()).rev() {
            let other = below(&mut generator, last as u64 + 1);
            order.swap(last, usize::try_from(other).unwrap_or_default());
        }
        Some(Order::Shuffled(order))
    }

    /// Rows at the places from `start` up to `end`, as far as there are any.
    pub fn slice(&self, start: usize, end: usize) -> Vec<usize> {
        match self {
            Order::AsStored(rows) => (start..end.min(*rows)).collect(),
            Order::Shuffled(order) => {
                let rows = order.get(start..end.min(order.len())).unwrap_or_default();
                rows.iter().map(|row| usize::try_from(*row).unwrap_or(usize::MAX)).collect()
            }
        }
    }
}

/// Random numbers for one row of one epoch, whichever rows come before it.
#[derive(Debug)]
pub(super) struct RowRandom(ChaCha8Rng);

impl RowRandom {
    /// Those of an epoch.
    pub fn new(seed: u64, epoch: u64) -> Self {
        RowRandom(generator(seed, epoch, Purpose::Row))
    }

    /// Goes to a row. Each has 16 words, one block of ChaCha.
    pub fn row(&mut self, row: usize) {
        self.0.set_word_pos(row as u128 * 16);
    }

    /// Uniform among the integers below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(below(&mut self.0, n as u64)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_row_once_and_its_own_order() {
        let order = |seed, epoch| Order::shuffled(1000, seed, epoch).unwrap().slice(0, usize::MAX);
        let mut sorted = order(7, 3);
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        assert_eq!(order(7, 3), order(7, 3));
        assert_ne!(order(7, 3), order(7, 4));
        assert_ne!(order(7, 3), order(8, 3));
    }

    #[test]
    fn all_orders_of_four_rows_are_equally_frequent() {
        let mut counts = std::collections::HashMap::new();
        for epoch in 0..24_000 {
            *counts.entry(Order::shuffled(4, 1, epoch).unwrap().slice(0, 4)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        // χ² with 23 degrees of freedom exceeds 57.8 once in 20,000 trials.
        let chi2: f64 = counts.values().map(|n| (f64::from(*n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 57.8, "{chi2}");
    }

    #[test]
    fn the_numbers_of_a_row_do_not_depend_on_the_rows_before() {
        let mut random = RowRandom::new(5, 2);
        let mut of = |row| {
            random.row(row);
            [random.below(1 << 40), random.below(9), random.below(2)]
        };
        let (first, other) = (of(41), of(42));
        assert_ne!(first, other);
        assert_eq!((of(42), of(41)), (other, first));
    }
}
