//! What the elements of an initializer give away: masks, padding, tables of sines. Read from the mapped file, and only as far as needed.

use crate::graph::{Graph, ValueId};
use crate::wire::{Initializer, decode_elements};

/// Tensors of more elements than this are not looked at: masks and tables that large are made at run time.
const LIMIT: u64 = 1 << 20;

/// Elements decoded at a time, so that the first one that is not a mask's ends the reading.
const CHUNK: usize = 256;

/// What an attention mask adds where it hides: −∞, or the −1e4 (or less) of half precision.
const HIDDEN: f64 = -1e4;

/// Whether every element is 0 or at most −1e4, and at least one is the latter.
pub(super) fn is_additive_mask(graph: &Graph<'_>, value: ValueId) -> bool {
    let mut hides = false;
    all(graph, value, |v| {
        hides |= v <= HIDDEN;
        v == 0.0 || v <= HIDDEN
    }) && hides
}

/// Whether the elements are zeros and ones, both of them.
pub(super) fn is_zero_one(graph: &Graph<'_>, value: ValueId) -> bool {
    let (mut zeros, mut ones) = (false, false);
    all(graph, value, |v| {
        zeros |= v == 0.0;
        ones |= v == 1.0;
        v == 0.0 || v == 1.0
    }) && zeros
        && ones
}

/// Whether all elements are the same number.
pub(super) fn is_uniform(graph: &Graph<'_>, value: ValueId) -> bool {
    let mut first = None;
    all(graph, value, |v| *first.get_or_insert(v) == v)
}

/// Whether the rows are sines and cosines of their number, as sinusoidal positions and rotary tables are: row 0 holds only sin 0 and
/// cos 0, row 1 begins with sin 1 or cos 1, and nothing exceeds 1.
pub(super) fn is_sinusoidal(graph: &Graph<'_>, value: ValueId) -> bool {
    let Some(initializer) = graph.initializer(value) else { return false };
    let Some(width) = initializer.dims.last().and_then(|d| usize::try_from(*d).ok()).filter(|w| *w >= 2) else {
        return false;
    };
    let mut i = 0;
    let mut begins = false;
    let fits = all(graph, value, |v| {
        let at_one = |w: f64| (v - w).abs() < 1e-3;
        let fits = match i {
            _ if i < width => v == 0.0 || v == 1.0,
            _ if i == width => at_one(1f64.sin()) || at_one(1f64.cos()),
            _ => v.abs() <= 1.0,
        };
        begins |= i == width;
        i += 1;
        fits
    });
    fits && begins
}

/// Whether a predicate holds for all elements of an initializer; false where they cannot be read.
fn all(graph: &Graph<'_>, value: ValueId, mut holds: impl FnMut(f64) -> bool) -> bool {
    let Some(initializer) = graph.initializer(value) else { return false };
    if initializer.element_count().is_none_or(|n| n == 0 || n > LIMIT) || !initializer.external.is_empty() {
        return false;
    }
    match raw(graph, initializer) {
        Some((width, bytes)) => bytes.chunks(width * CHUNK).all(|chunk| {
            let payload = [(crate::wire::fields::tensor::RAW_DATA, chunk)];
            decode_elements(initializer.data_type, &payload).is_some_and(|values| values.into_iter().all(&mut holds))
        }),
        None => graph.initial_values(value, 1 << 20).is_some_and(|values| values.into_iter().all(holds)),
    }
}

/// The bytes of an initializer that holds its elements as raw data, and the bytes an element.
fn raw<'m>(graph: &Graph<'m>, initializer: &Initializer) -> Option<(usize, &'m [u8])> {
    let [(crate::wire::fields::tensor::RAW_DATA, range)] = initializer.payload.as_slice() else { return None };
    let bytes = graph.bytes.get(range.clone())?;
    let count = usize::try_from(initializer.element_count()?).ok()?;
    let width = bytes.len().checked_div(count)?;
    (width > 0 && width * count == bytes.len()).then_some((width, bytes))
}
