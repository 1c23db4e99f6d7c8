//! Where a long list of boxes is cut: where few values cross the cut.

use std::ops::Range;

use super::{Item, Makers, Part, Scenes};
use crate::page::network::Network;

/// Boxes of one picture that is part of a larger one.
const LEAST: usize = 40;
const MOST: usize = 80;

/// Behind each item, the number of values made before that are read later.
pub fn live_values(network: &Network, all: &Scenes) -> Vec<u32> {
    let makers = Makers::of(network, &all.items);
    let mut last_read = vec![0; network.values.len()];
    for (i, item) in all.items.iter().enumerate() {
        let mut read = |v: u32| {
            if let Some(slot) = last_read.get_mut(v as usize) {
                *slot = i.max(*slot);
            }
        };
        match item {
            Item::Node(n) => network.nodes[*n as usize].reads().for_each(|(v, _)| read(v)),
            Item::Output(v) | Item::Ghost { value: v, .. } => read(*v),
            Item::Input(_) => {}
        }
    }
    let mut change = vec![0i64; all.items.len() + 1];
    for (value, last) in (0..).zip(&last_read) {
        if let Some(maker) = all.maker(network, &makers, value).filter(|m| m < last) {
            change[maker] += 1;
            change[*last] -= 1;
        }
    }
    let mut live = 0;
    let mut after = |change: &i64| {
        live += change;
        u32::try_from(live).unwrap_or_default()
    };
    change.iter().map(&mut after).collect()
}

/// Cuts a list into runs; `cost` says how many values cross a cut behind a part.
pub fn runs(parts: &[Part], cost: impl Fn(Part) -> u32) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    while parts.len() - start > MOST {
        // The last of the cheapest places.
        let end = (start + LEAST..=start + MOST).rev().min_by_key(|end| cost(parts[end - 1])).unwrap_or(start + MOST);
        runs.push(start..end);
        start = end;
    }
    runs.push(start..parts.len());
    runs
}
