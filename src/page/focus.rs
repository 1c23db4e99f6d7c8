//! What is shown of a large graph: changes and what is near them. The rest stands in runs, as one node each.

use super::entries::Bundle;
use super::network::{Kind, Mark, Network};
use super::reduce::Kept;

/// A graph of so many boxes is shown whole.
const WHOLE: usize = 240;

/// How many steps from a change are shown.
const STEPS: usize = 2;

/// Values with more readers lead to no neighbours: else one constant would make everything near.
const MOST_READERS: usize = 12;

/// Nodes that a page holds; beyond, bundles stay closed and changes have no neighbours.
const MOST: usize = 40_000;

/// Which nodes stay, in order. `bundle_of` says which of the bundles a node belongs to, which then counts as one.
pub fn focus(network: &Network, bundle_of: &[Option<usize>], bundles: &[Bundle]) -> Vec<Kept> {
    let drawn: Vec<u32> =
        (0..).zip(&network.nodes).map(|(n, _)| n).filter(|n| !network.is_folded_constant(*n as usize)).collect();
    let bundle = |n: u32| bundle_of.get(n as usize).copied().flatten();
    let boxes = drawn.iter().filter(|n| bundle(**n).is_none()).count() + bundles.len();
    if boxes <= WHOLE && network.nodes.len() <= MOST {
        // Constants that are not drawn are still to be read about.
        return (0..).zip(&network.nodes).map(|(n, _)| Kept::Whole(n)).collect();
    }
    let mut is_shown: Vec<bool> = (0..).zip(&network.nodes).map(|(n, _)| is_remarkable(network, n)).collect();
    let changes = is_shown.iter().filter(|s| **s).count();
    let are_closed = changes > MOST;
    if !are_closed {
        spread(network, &mut is_shown, MOST - changes);
    }
    keep(network, &drawn, &is_shown, are_closed, &bundle, bundles)
}

/// Whether a node is marked, or reads or makes something that is.
fn is_remarkable(network: &Network, n: u32) -> bool {
    let node = &network.nodes[n as usize];
    let is_marked = |v: u32| network.values[v as usize].mark != Mark::None;
    let reads = |(v, mark): (u32, Mark)| {
        mark != Mark::None || is_marked(v) && matches!(network.values[v as usize].kind, Kind::Initializer | Kind::Input)
    };
    let makes = |v: &Option<u32>| v.is_some_and(|v| is_marked(v) && network.values[v as usize].is_output);
    node.mark != Mark::None || node.reads().any(reads) || node.outputs.iter().any(makes)
}

/// Shows what is a few steps from what is shown, at most `most` further nodes.
fn spread(network: &Network, is_shown: &mut [bool], mut most: usize) {
    let mut maker = vec![None; network.values.len()];
    let mut readers = vec![Vec::new(); network.values.len()];
    for (n, node) in network.nodes.iter().enumerate() {
        node.outputs.iter().flatten().for_each(|v| maker[*v as usize] = Some(n));
        for (v, _) in node.reads() {
            if readers[v as usize].len() <= MOST_READERS {
                readers[v as usize].push(n);
            }
        }
    }
    let mut edge: Vec<usize> = (0..is_shown.len()).filter(|n| is_shown[*n]).collect();
    for _ in 0..STEPS {
        let mut next = Vec::new();
        for n in edge {
            let above = network.nodes[n].reads().filter_map(|(v, _)| maker[v as usize]);
            let made = network.nodes[n].outputs.iter().flatten().map(|v| &readers[*v as usize]);
            let below = made.filter(|r| r.len() <= MOST_READERS).flatten().copied();
            for near in above.chain(below) {
                if most > 0 && !is_shown[near] {
                    is_shown[near] = true;
                    most -= 1;
                    next.push(near);
                }
            }
        }
        edge = next;
    }
}

/// Runs between what is shown. A run of one node is shown itself, which takes no more room.
fn keep(
    network: &Network,
    drawn: &[u32],
    is_shown: &[bool],
    are_closed: bool,
    bundle: &impl Fn(u32) -> Option<usize>,
    bundles: &[Bundle],
) -> Vec<Kept> {
    let mut kept = Vec::new();
    let mut run = Vec::new();
    let mut left = MOST;
    let mut closed: Vec<Vec<u32>> = vec![Vec::new(); bundles.len()];
    if are_closed {
        drawn.iter().filter_map(|n| Some((bundle(*n)?, *n))).for_each(|(b, n)| {
            if let Some(members) = closed.get_mut(b) {
                members.push(n);
            }
        });
    }
    let end = |run: &mut Vec<u32>, kept: &mut Vec<Kept>| match run[..] {
        [] => {}
        [single] => {
            kept.push(Kept::Whole(single));
            run.clear();
        }
        _ => kept.push(Kept::Run { nodes: std::mem::take(run), bundle: Bundle::default() }),
    };
    for n in drawn {
        match bundle(*n).filter(|_| are_closed) {
            Some(b) => {
                // At its first node; the others find nothing left.
                let nodes = closed.get_mut(b).map(std::mem::take).unwrap_or_default();
                if let (false, Some(bundle)) = (nodes.is_empty(), bundles.get(b)) {
                    end(&mut run, &mut kept);
                    kept.push(Kept::Run { nodes, bundle: bundle.clone() });
                }
            }
            None if is_shown[*n as usize] && left > 0 => {
                left -= 1;
                end(&mut run, &mut kept);
                kept.push(Kept::Whole(*n));
            }
            None => run.push(*n),
        }
    }
    end(&mut run, &mut kept);
    // Constants that what is shown reads.
    let mut reads: Vec<bool> = vec![false; network.values.len()];
    let whole = |k: &Kept| if let Kept::Whole(n) = k { Some(*n) } else { None };
    for n in kept.iter().filter_map(whole) {
        network.nodes[n as usize].reads().for_each(|(v, _)| reads[v as usize] = true);
    }
    let is_read = |n: &u32| {
        network.is_folded_constant(*n as usize)
            && network.nodes[*n as usize].outputs.iter().flatten().any(|v| reads[*v as usize])
    };
    kept.extend((0..).zip(&network.nodes).map(|(n, _)| n).filter(is_read).map(Kept::Whole));
    kept
}
