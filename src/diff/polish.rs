//! The last stage: where one of two twins in a row is gone, which one it was.
//!
//! In `p → E → E → {c, d}` against `p → E → {c, d}` both nodes `E` fit. Taking the first one for the one that stayed leaves two readers with
//! another input, taking the second one leaves `E` itself. So for each node without a counterpart its twins next to it are asked whether
//! fewer nodes would differ if they changed places. And where a node reads something else than its counterpart does, the two nodes that
//! make these values are asked whether they belong to each other, and so is the node itself and who else reads what it does.

use super::nodes::corresponds;
use super::pairing::Pairs;
use super::side::{Side, Source};

/// Values with more readers than this are left alone, as looking at all of them again and again could take long.
const MOST_READERS: usize = 64;

/// How often one node may change places.
const MOST_STEPS: usize = 64;

/// How many others a node is compared with.
const MOST_RIVALS: usize = 8;

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

/// Two nodes become partners of each other's counterparts where fewer nodes differ for it: the makers of an input that are no pair but
/// alike, and a node that differs with another reader of what it reads. Whether any did.
fn exchange(pairs: &mut Pairs) -> bool {
    let (a, b) = (pairs.a, pairs.b);
    let mut did = false;
    for node in (0..a.nodes() as u32).filter(|v| differs(pairs, *v)).collect::<Vec<_>>() {
        let Some(other) = pairs.in_b(node) else { continue };
        for (x, y) in a.ins.get(node as usize).iter().zip(b.ins.get(other as usize)) {
            let (Some(x), Some(y)) = (x, y) else { continue };
            let (first, Some(second)) = (x.vertex, pairs.in_a(y.vertex)) else { continue };
            did |= x.out == y.out && exchange_if_better(pairs, first, second);
        }
        if differs(pairs, node) {
            did |= rivals(pairs, node).into_iter().any(|rival| exchange_if_better(pairs, node, rival));
        }
    }
    did
}

/// Nodes whose counterparts read the counterpart of what a node reads.
fn rivals(pairs: &Pairs, node: u32) -> Vec<u32> {
    let inputs = pairs.a.ins.get(node as usize).iter().flatten().filter(|x| pairs.a.is_node(x.vertex));
    let counterparts = inputs.filter_map(|x| Some((pairs.in_b(x.vertex)?, x.out)));
    let readers = counterparts.flat_map(|(y, out)| {
        pairs.b.uses.get(y as usize).iter().take(MOST_READERS).filter(move |u| u.out == out).map(|u| u.node)
    });
    let mut rivals: Vec<u32> = readers.filter_map(|v| pairs.in_a(v)).collect();
    rivals.sort_unstable();
    rivals.dedup();
    rivals.truncate(MOST_RIVALS);
    rivals
}

/// Exchanges the partners of two nodes that are alike, alone or with those of the weights they read, if fewer nodes differ then. Whether
/// it did.
fn exchange_if_better(pairs: &mut Pairs, first: u32, second: u32) -> bool {
    let a = pairs.a;
    let is_free_to = first != second
        && a.is_node(first)
        && a.is_node(second)
        && a.labels.full[first as usize] == a.labels.full[second as usize]
        && pairs.in_b(first).is_some()
        && pairs.in_b(second).is_some();
    if !is_free_to {
        return false;
    }
    let mut moves = vec![(first, second)];
    if exchanged_for_better(pairs, &moves) {
        return true;
    }
    let inputs = a.ins.get(first as usize).iter().zip(a.ins.get(second as usize));
    let is_twin = |x: u32, y: u32| {
        x != y
            && matches!((a.source(x), a.source(y)), (Some(Source::Tensor(_)), Some(Source::Tensor(_))))
            && a.labels.content[x as usize] == a.labels.content[y as usize]
    };
    for (x, y) in inputs.filter_map(|(x, y)| Some((x.as_ref()?.vertex, y.as_ref()?.vertex))) {
        let is_new = moves.iter().all(|(p, q)| ![p, q].contains(&&x) && ![p, q].contains(&&y));
        if is_new && is_twin(x, y) && pairs.in_b(x).is_some() && pairs.in_b(y).is_some() {
            moves.push((x, y));
        }
    }
    moves.len() > 1 && exchanged_for_better(pairs, &moves)
}

/// Exchanges the partners of each two vertices if fewer nodes differ then. Whether it did.
fn exchanged_for_better(pairs: &mut Pairs, moves: &[(u32, u32)]) -> bool {
    let moved: Vec<u32> = moves.iter().flat_map(|(x, y)| [*x, *y]).collect();
    let Some(around) = around(pairs, &moved) else { return false };
    let cost = |pairs: &Pairs| around.iter().filter(|v| differs(pairs, **v)).count();
    let before = cost(pairs);
    moves.iter().for_each(|(x, y)| pairs.exchange(*x, *y));
    if cost(pairs) < before {
        return true;
    }
    moves.iter().for_each(|(x, y)| pairs.exchange(*x, *y));
    false
}

/// Nodes of the first side that could differ or not by who the partners of these vertices are, themselves among them. `None` where there
/// are too many.
fn around(pairs: &Pairs, vertices: &[u32]) -> Option<Vec<u32>> {
    let (a, b) = (pairs.a, pairs.b);
    let mut around: Vec<u32> = vertices.iter().copied().filter(|v| a.is_node(*v)).collect();
    for vertex in vertices {
        let own = a.uses.get(*vertex as usize);
        let partners = pairs.in_b(*vertex).map(|p| b.uses.get(p as usize)).unwrap_or_default();
        if own.len().max(partners.len()) > MOST_READERS {
            return None;
        }
        around.extend(own.iter().map(|u| u.node));
        around.extend(partners.iter().filter_map(|u| pairs.in_a(u.node)));
    }
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
    let Some(around) = around(pairs, &[from, to]) else { return false };
    let outputs = |pairs: &Pairs, v: u32| {
        let made =
            a.outputs.iter().zip(&b.outputs).take(MOST_READERS).filter(|(x, _)| x.is_some_and(|x| x.vertex == v));
        made.filter(|(x, y)| !matches!((x, y), (Some(x), Some(y)) if corresponds(pairs, *x, *y))).count()
    };
    let cost = |pairs: &Pairs| {
        let nodes = around.iter().filter(|v| differs(pairs, **v)).count();
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
