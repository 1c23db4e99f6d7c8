//! Alignment of what is left between pairs, in topological order, as lines of text are aligned.
//!
//! Alone it would pair what has nothing in common but its operator, so a pair must have a neighbour in another pair or fill its gap.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::align::{common, increasing};
use super::pairing::Pairs;
use super::side::Side;

/// Edits of an alignment; its time and memory grow with their square.
const MOST_EDITS: usize = 700;

/// A pair of gaps is aligned at most so long before only what is unique in it is.
const LONGEST_GAP: usize = 1 << 20;

/// Pairs what is left in gaps between pairs that stand in one order on both sides.
pub fn align(pairs: &mut Pairs) {
    if pairs.is_done() {
        return;
    }
    let (a, b) = (pairs.a, pairs.b);
    let rank = |side: &Side| {
        let mut rank = vec![0u32; side.nodes()];
        side.order.iter().zip(0..).for_each(|(node, r)| rank[*node as usize] = r);
        rank
    };
    let rank_b = rank(b);
    // Pairs in the order of both are walls; what lies between two of them is a gap.
    let joined: Vec<(u32, u32)> = a.order.iter().filter_map(|x| Some((*x, pairs.in_b(*x)?))).collect();
    let ranks: Vec<u32> = joined.iter().map(|(_, y)| rank_b[*y as usize]).collect();
    let walls: Vec<(u32, u32)> = increasing(&ranks).into_iter().map(|i| joined[i]).collect();
    let gaps = |side: &Side, walls: Vec<u32>, is_free: &dyn Fn(u32) -> bool| {
        let mut gaps: Vec<Vec<u32>> = vec![Vec::new()];
        let mut wall = walls.iter().peekable();
        for node in &side.order {
            if wall.next_if_eq(&node).is_some() {
                gaps.push(Vec::new());
            } else if let Some(gap) = gaps.last_mut().filter(|_| is_free(*node)) {
                gap.push(*node);
            }
        }
        gaps
    };
    let gaps_a = gaps(a, walls.iter().map(|w| w.0).collect(), &|v| pairs.in_b(v).is_none());
    let gaps_b = gaps(b, walls.iter().map(|w| w.1).collect(), &|v| pairs.in_a(v).is_none());
    let (la, lb) = (&a.labels.full, &b.labels.full);
    let mut wanted: Vec<(u32, u32)> = Vec::new();
    let mut fills: Vec<bool> = Vec::new();
    let mut edits = MOST_EDITS;
    for (i, (ga, gb)) in gaps_a.iter().zip(&gaps_b).enumerate() {
        if ga.is_empty() || gb.is_empty() {
            continue;
        }
        let key = |labels: &[u64], gap: &[u32]| gap.iter().map(|v| labels[*v as usize]).collect::<Vec<_>>();
        let (ka, kb) = (key(la, ga), key(lb, gb));
        let found = if ga.len().max(gb.len()) <= LONGEST_GAP { common(&ka, &kb, edits) } else { None };
        let found = found.unwrap_or_else(|| unique_in_order(&ka, &kb));
        edits = edits.saturating_sub((ga.len() + gb.len() - 2 * found.len()) / 16).max(64);
        let is_walled = i > 0 || i + 1 < gaps_a.len();
        let does_fill = is_walled && 2 * found.len() >= ga.len().min(gb.len());
        wanted.extend(found.iter().map(|(i, j)| (ga[*i], gb[*j])));
        fills.resize(wanted.len(), does_fill);
    }
    let partner: HashMap<u32, (u32, usize), FixedState> =
        wanted.iter().enumerate().map(|(i, (x, y))| (*x, (*y, i))).collect();
    let supported: Vec<bool> = wanted
        .iter()
        .map(|(x, y)| {
            let known = |x: u32, y: u32| pairs.in_b(x) == Some(y) || partner.get(&x).is_some_and(|(p, _)| *p == y);
            let ins = a.ins.get(*x as usize).iter().zip(b.ins.get(*y as usize));
            let mut ins = ins.filter_map(|(p, q)| Some((p.as_ref()?, q.as_ref()?)));
            ins.any(|(p, q)| p.out == q.out && a.is_node(p.vertex) && known(p.vertex, q.vertex))
                || a.uses
                    .get(*x as usize)
                    .iter()
                    .zip(b.uses.get(*y as usize))
                    .any(|(p, q)| p.slot == q.slot && known(p.node, q.node))
        })
        .collect();
    for (i, (x, y)) in wanted.iter().enumerate() {
        if supported[i] || fills[i] {
            pairs.join(*x, *y);
        }
    }
}

/// What is unique on both sides, as far as it stands in one order.
fn unique_in_order(a: &[u64], b: &[u64]) -> Vec<(usize, usize)> {
    let mut seen: HashMap<u64, (usize, usize, usize, usize), FixedState> =
        HashMap::with_hasher(FixedState::with_seed(7));
    for (i, key) in a.iter().enumerate() {
        let entry = seen.entry(*key).or_insert((i, 0, 0, 0));
        entry.2 += 1;
    }
    for (j, key) in b.iter().enumerate() {
        if let Some(entry) = seen.get_mut(key) {
            entry.1 = j;
            entry.3 += 1;
        }
    }
    let mut found: Vec<(usize, usize)> =
        seen.into_values().filter(|(_, _, x, y)| (*x, *y) == (1, 1)).map(|(i, j, ..)| (i, j)).collect();
    found.sort_unstable();
    let order: Vec<u32> = found.iter().map(|(_, j)| u32::try_from(*j).unwrap_or(u32::MAX)).collect();
    increasing(&order).into_iter().map(|k| found[k]).collect()
}
