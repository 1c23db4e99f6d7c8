//! The last stage: where one of two twins in a row is gone, which one it was.
//!
//! In `p → E → E → {c, d}` against `p → E → {c, d}` both nodes `E` fit. Taking the first one for the one that stayed leaves two readers with
//! another input, taking the second one leaves `E` itself. So for each node without a counterpart its twins next to it are asked whether
//! fewer nodes would differ if they changed places.

use super::nodes::corresponds;
use super::pairing::Pairs;
use super::side::Side;

/// Values with more readers than this are left alone, as looking at all of them again and again could take long.
const MOST_READERS: usize = 64;

/// How often one node may change places.
const MOST_STEPS: usize = 64;

/// Lets pairs change partners as long as fewer nodes differ for it.
pub fn polish(pairs: &mut Pairs) {
    slide(pairs);
    let flipped = std::mem::replace(pairs, Pairs::new(pairs.a, pairs.b)).flipped();
    *pairs = flipped;
    slide(pairs);
    let flipped = std::mem::replace(pairs, Pairs::new(pairs.a, pairs.b)).flipped();
    *pairs = flipped;
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
    let Some(partner) = pairs.in_b(from) else { return false };
    let (a, b) = (pairs.a, pairs.b);
    let (of_from, of_to, of_partner) =
        (a.uses.get(from as usize), a.uses.get(to as usize), b.uses.get(partner as usize));
    if of_from.len().max(of_to.len()).max(of_partner.len()) > MOST_READERS {
        return false;
    }
    let mut around: Vec<u32> = of_from.iter().chain(of_to).map(|u| u.node).collect();
    around.extend(of_partner.iter().filter_map(|u| pairs.in_a(u.node)));
    around.retain(|v| *v != from && *v != to);
    around.sort_unstable();
    around.dedup();
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
