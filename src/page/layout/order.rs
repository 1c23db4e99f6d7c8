//! The order of boxes within their layers: sweeps of the weighted median (Gansner et al. 1993), keeping the best order seen.

use super::layers::Layered;

/// Sweeps down and up; more of them change little.
const SWEEPS: usize = 12;

/// Swaps of neighbours are tried in graphs of at most this many vertices.
const MOST_FOR_SWAPS: usize = 4000;

pub fn reduce_crossings(graph: &mut Layered) {
    by_search(graph);
    let mut best = (crossings(graph), graph.layers.clone());
    for sweep in 0..SWEEPS {
        if best.0 == 0 {
            break;
        }
        let goes_down = sweep % 2 == 0;
        for i in 0..graph.layers.len() {
            let layer = if goes_down { i } else { graph.layers.len() - 1 - i };
            sort_by_median(graph, layer, goes_down);
        }
        if graph.vertices.len() <= MOST_FOR_SWAPS {
            swap_neighbours(graph);
        }
        let count = crossings(graph);
        if count < best.0 {
            best = (count, graph.layers.clone());
        }
    }
    graph.layers = best.1;
    graph.number();
}

/// The first order: that in which a search from the top meets the vertices, so that what belongs together stands together.
fn by_search(graph: &mut Layered) {
    let mut layers = vec![Vec::new(); graph.layers.len()];
    let mut is_seen = vec![false; graph.vertices.len()];
    let roots: Vec<usize> = graph.layers.iter().flatten().copied().collect();
    for root in roots {
        let mut stack = vec![root];
        while let Some(at) = stack.pop() {
            if std::mem::replace(&mut is_seen[at], true) {
                continue;
            }
            layers[graph.vertices[at].layer].push(at);
            stack.extend(graph.vertices[at].below.iter().rev());
        }
    }
    graph.layers = layers;
    graph.number();
}

fn sort_by_median(graph: &mut Layered, layer: usize, from_above: bool) {
    let vertices = &graph.vertices;
    let median = |v: usize| {
        let vertex = &vertices[v];
        let neighbours = if from_above { &vertex.above } else { &vertex.below };
        let mut at: Vec<usize> = neighbours.iter().map(|n| vertices[*n].position).collect();
        at.sort_unstable();
        weighted_median(&at)
    };
    let medians: Vec<Option<f64>> = graph.layers[layer].iter().map(|v| median(*v)).collect();
    // What has no neighbour there stays where it is; the others are sorted around it.
    let mut movable: Vec<(f64, usize)> =
        graph.layers[layer].iter().zip(&medians).filter_map(|(v, m)| Some(((*m)?, *v))).collect();
    movable.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut next = movable.into_iter();
    for (slot, median) in graph.layers[layer].iter_mut().zip(&medians) {
        if median.is_some()
            && let Some((_, v)) = next.next()
        {
            *slot = v;
        }
    }
    for (position, v) in graph.layers[layer].iter().enumerate() {
        graph.vertices[*v].position = position;
    }
}

/// Between two middle positions the one nearer to where the others crowd.
fn weighted_median(at: &[usize]) -> Option<f64> {
    let middle = at.len() / 2;
    let position = |i: usize| at.get(i).map_or(0.0, |p| *p as f64);
    match at.len() {
        0 => None,
        n if n % 2 == 1 => Some(position(middle)),
        2 => Some((position(0) + position(1)) / 2.0),
        n => {
            let left = position(middle - 1) - position(0);
            let right = position(n - 1) - position(middle);
            if left + right == 0.0 {
                return Some((position(middle - 1) + position(middle)) / 2.0);
            }
            Some((position(middle - 1) * right + position(middle) * left) / (left + right))
        }
    }
}

/// Swaps neighbours in a layer where that leaves fewer crossings.
fn swap_neighbours(graph: &mut Layered) {
    for layer in 0..graph.layers.len() {
        for i in 1..graph.layers[layer].len() {
            let (left, right) = (graph.layers[layer][i - 1], graph.layers[layer][i]);
            let (l, r) = (&graph.vertices[left], &graph.vertices[right]);
            let count = |a: &[usize], b: &[usize]| pair_crossings(graph, a, b);
            let now = count(&l.above, &r.above) + count(&l.below, &r.below);
            if now > 0 && now > count(&r.above, &l.above) + count(&r.below, &l.below) {
                graph.layers[layer].swap(i - 1, i);
                graph.vertices[left].position = i;
                graph.vertices[right].position = i - 1;
            }
        }
    }
}

/// Crossings between the edges of two neighbours, to the layer in which `left` and `right` are.
fn pair_crossings(graph: &Layered, left: &[usize], right: &[usize]) -> usize {
    let at = |v: &usize| graph.vertices[*v].position;
    // Boxes with very many edges are left to the median.
    if left.len() * right.len() > 400 {
        return 0;
    }
    left.iter().map(|l| right.iter().filter(|r| at(r) < at(l)).count()).sum()
}

/// Crossings of all edges: inversions, counted with a tree of sums (Barth, Jünger and Mutzel 2002).
fn crossings(graph: &Layered) -> usize {
    let mut total = 0;
    for (upper, lower) in graph.layers.iter().zip(graph.layers.iter().skip(1)) {
        let mut sums = vec![0usize; lower.len() + 1];
        let mut before = 0;
        for v in upper {
            let mut ends: Vec<usize> = graph.vertices[*v].below.iter().map(|b| graph.vertices[*b].position).collect();
            ends.sort_unstable();
            for end in &ends {
                // How many of the edges so far end at or left of this one; the rest cross it.
                let (mut i, mut left) = (end + 1, 0);
                while i > 0 {
                    left += sums[i];
                    i &= i - 1;
                }
                total += before - left;
            }
            for end in &ends {
                let mut i = end + 1;
                while i < sums.len() {
                    sums[i] += 1;
                    i += i & i.wrapping_neg();
                }
            }
            before += ends.len();
        }
    }
    total
}
