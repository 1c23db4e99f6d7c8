//! The last stage: where one of two twins in a row is gone, which one it was.
//!
//! In `p → E → E → {c, d}` against `p → E → {c, d}` both nodes `E` fit. Taking the first one for the one that stayed leaves two readers with
//! another input, taking the second one leaves `E` itself. So for each node without a counterpart its twins next to it are asked whether
//! fewer nodes would differ if they changed places. And where a node reads something else than its counterpart does, the two nodes that
//! make these values are asked whether they belong to each other.

use super::nodes::corresponds;
use super::pairing::Pairs;
use super::side::Side;

/// Values with more readers than this are left alone, as looking at all of them again and again could take long.
const MOST_READERS: usize = 64;

/// How often one node may change places.
const MOST_STEPS: usize = 64;

/// Rounds of exchanges.
const MOST_ROUNDS: usize = 4;

/// Lets pairs change partners as long as fewer nodes differ for it.
pub fn polish(pairs: &mut Pairs) {
    for _ in 0..2 {
        slide(pairs);
        let flipped = std::mem::replace(pairs, Pairs::new(pairs.a, pairs.b)).flipped();
        *pairs = flipped;
    }
    for _ in 0..MOST_ROUNDS {
        if !exchange(pairs) {
            break;
        }
    }
}

/// Where a node's input is made by nodes that are no pair, but alike: they become one, and their partners another. Whether any did.
fn exchange(pairs: &mut Pairs) -> bool {
    let (a, b) = (pairs.a, pairs.b);
    let mut did = false;
    for node in (0..a.nodes() as u32).filter(|v| differs(pairs, *v)).collect::<Vec<_>>() {
        let Some(other) = pairs.in_b(node) else { continue };
        for (x, y) in a.ins.get(node as usize).iter().zip(b.ins.get(other as usize)) {
            let (Some(x), Some(y)) = (x, y) else { continue };
            let (first, Some(second)) = (x.vertex, pairs.in_a(y.vertex)) else { continue };
            let is_alike = first != second
                && x.out == y.out
                && a.is_node(first)
                && a.is_node(second)
                && pairs.in_b(first).is_some()
                && a.labels.full[first as usize] == a.labels.full[second as usize];
            if is_alike && is_better_exchanged(pairs, first, second) {
                pairs.exchange(first, second);
                did = true;
            }
        }
    }
    did
}

/// Whether fewer nodes differ when two nodes exchange their partners.
fn is_better_exchanged(pairs: &mut Pairs, first: u32, second: u32) -> bool {
    let Some(around) = around(pairs, first, second) else { return false };
    let cost = |pairs: &Pairs| around.iter().chain([&first, &second]).filter(|v| differs(pairs, **v)).count();
    let before = cost(pairs);
    pairs.exchange(first, second);
    let after = cost(pairs);
    pairs.exchange(first, second);
    after < before
}

/// Nodes of the first side, beside these two, that could differ or not by who their partners are. `None` where there are too many.
fn around(pairs: &Pairs, first: u32, second: u32) -> Option<Vec<u32>> {
    let (a, b) = (pairs.a, pairs.b);
    let mut around: Vec<u32> = Vec::new();
    for node in [first, second] {
        let own = a.uses.get(node as usize);
        let partners = pairs.in_b(node).map(|p| b.uses.get(p as usize)).unwrap_or_default();
        if own.len().max(partners.len()) > MOST_READERS {
            return None;
        }
        around.extend(own.iter().map(|u| u.node));
        around.extend(partners.iter().filter_map(|u| pairs.in_a(u.node)));
    }
    around.retain(|v| *v != first && *v != second);
    around.sort_unstable();
    around.dedup();
    Some(around)
}

/// For nodes of the first side that are left over.
fn slide(pairs: &mut Pairs) {
    let a = pairs.a;
    for left in (0..a.nodes() as u32).filter(|v| pairs.in_b(*v).is_none()).collect::<Vec<_>>() {
        let mut left = left;
        for _ in 0..MOST_STEPS {
            match twins(a, left).into_iter().find(|twin| is_better(pairs, *twin, left)) {
                Some(twin) => {
                    pairs.hand_over(twin, left);
                    left = twin;
                }
                None => break,
            }
        }
    }
}

/// Producers and readers of a node that are the same but for what they read.
fn twins(side: &Side, node: u32) -> Vec<u32> {
    let label = |v: u32| side.labels.full[v as usize];
    let uses = side.uses.get(node as usize);
    let producers = side.ins.get(node as usize).iter().flatten().map(|v| v.vertex).filter(|v| side.is_node(*v));
    let readers = uses.iter().take(MOST_READERS).map(|u| u.node);
    let mut found: Vec<u32> = producers.chain(readers).filter(|v| *v != node && label(*v) == label(node)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether fewer nodes differ when the partner of `from` belongs to `to`, which has none.
fn is_better(pairs: &mut Pairs, from: u32, to: u32) -> bool {
    let (a, b) = (pairs.a, pairs.b);
    let Some(around) = around(pairs, from, to) else { return false };
    let outputs = |pairs: &Pairs, v: u32| {
        let made =
            a.outputs.iter().zip(&b.outputs).take(MOST_READERS).filter(|(x, _)| x.is_some_and(|x| x.vertex == v));
        made.filter(|(x, y)| !matches!((x, y), (Some(x), Some(y)) if corresponds(pairs, *x, *y))).count()
    };
    let cost = |pairs: &Pairs| {
        let nodes = around.iter().chain([&from, &to]).filter(|v| differs(pairs, **v)).count();
        // Of two ways with as many changed nodes the one in which an output is made as before.
        2 * nodes + outputs(pairs, from).min(1) + outputs(pairs, to).min(1)
    };
    let before = cost(pairs);
    pairs.hand_over(from, to);
    let after = cost(pairs);
    pairs.hand_over(to, from);
    after < before
}

/// Whether a node has a counterpart that reads something else.
fn differs(pairs: &Pairs, node: u32) -> bool {
    let Some(other) = pairs.in_b(node) else { return false };
    let (x, y) = (pairs.a.ins.get(node as usize), pairs.b.ins.get(other as usize));
    x.len() != y.len()
        || x.iter().zip(y).any(|(x, y)| match (x, y) {
            (Some(x), Some(y)) => !corresponds(pairs, *x, *y),
            (x, y) => x.is_some() != y.is_some(),
        })
}
