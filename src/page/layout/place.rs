//! Horizontal coordinates: four extreme placements, and of those the middle (Brandes and Köpf 2001, with the compaction of blocks
//! as a longest path, which also keeps boxes of different widths apart).

use std::collections::HashSet;

use super::layers::Layered;

/// Space between neighbours: between boxes, beside points.
const BOX_GAP: f64 = 30.0;
const POINT_GAP: f64 = 12.0;

/// The centre of every vertex; all of them right of 0 with their widths.
pub fn coordinates(graph: &Layered) -> Vec<f64> {
    if graph.vertices.is_empty() {
        return Vec::new();
    }
    let conflicts = conflicts(graph);
    let mut four = Vec::with_capacity(4);
    for from_below in [false, true] {
        for from_right in [false, true] {
            four.push(extreme(graph, &conflicts, from_below, from_right));
        }
    }
    align(graph, &mut four);
    let middle = |v: usize| {
        let mut at = [four[0][v], four[1][v], four[2][v], four[3][v]];
        at.sort_unstable_by(f64::total_cmp);
        f64::midpoint(at[1], at[2])
    };
    let mut xs: Vec<f64> = (0..graph.vertices.len()).map(middle).collect();
    draw_near(graph, &mut xs);
    let left = extent(graph, &xs).0;
    xs.iter_mut().for_each(|x| *x -= left);
    xs
}

/// Moves what stands aside as near to its box as its neighbours let it.
fn draw_near(graph: &Layered, xs: &mut [f64]) {
    for layer in &graph.layers {
        for (i, v) in layer.iter().enumerate() {
            let vertex = &graph.vertices[*v];
            let Some(parent) = vertex.above.first().filter(|_| vertex.is_aside) else { continue };
            let distance = |other: usize| {
                let other = &graph.vertices[other];
                (vertex.width + other.width) / 2.0 + if other.is_point { POINT_GAP } else { BOX_GAP }
            };
            let left = i.checked_sub(1).and_then(|i| layer.get(i)).map_or(f64::NEG_INFINITY, |u| xs[*u] + distance(*u));
            let right = layer.get(i + 1).map_or(f64::INFINITY, |u| xs[*u] - distance(*u));
            xs[*v] = (xs[*parent] + distance(*parent)).min(right).max(left);
        }
    }
}

/// Edges that cross a segment between two points: long edges shall be straight, so these give way.
fn conflicts(graph: &Layered) -> HashSet<(usize, usize)> {
    let mut found = HashSet::new();
    let inner = |v: usize| {
        let vertex = &graph.vertices[v];
        vertex.above.first().filter(|u| vertex.is_point && graph.vertices[**u].is_point)
    };
    for (upper, lower) in graph.layers.iter().zip(graph.layers.iter().skip(1)) {
        let (mut left, mut done) = (0, 0);
        for (i, v) in lower.iter().enumerate() {
            let segment = inner(*v).map(|u| graph.vertices[*u].position);
            if segment.is_none() && i + 1 < lower.len() {
                continue;
            }
            let right = segment.unwrap_or(upper.len());
            for w in &lower[done..=i] {
                for u in &graph.vertices[*w].above {
                    let at = graph.vertices[*u].position;
                    if (at < left || at > right) && inner(*w) != Some(u) {
                        found.insert((*u, *w));
                    }
                }
            }
            (left, done) = (right, i + 1);
        }
    }
    found
}

/// One placement: vertices are aligned with the median of their neighbours above (or below), leftmost first (or rightmost), and
/// the blocks of aligned vertices pushed together.
fn extreme(graph: &Layered, conflicts: &HashSet<(usize, usize)>, from_below: bool, from_right: bool) -> Vec<f64> {
    let sided = |layer: &[usize]| -> Vec<usize> {
        if from_right { layer.iter().rev().copied().collect() } else { layer.to_vec() }
    };
    let mut layers: Vec<Vec<usize>> = graph.layers.iter().map(|l| sided(l)).collect();
    if from_below {
        layers.reverse();
    }
    let position = |v: usize| {
        let vertex = &graph.vertices[v];
        if from_right { graph.layers[vertex.layer].len() - 1 - vertex.position } else { vertex.position }
    };
    let count = graph.vertices.len();
    let (mut root, mut next): (Vec<usize>, Vec<usize>) = ((0..count).collect(), (0..count).collect());
    for layer in &layers {
        // One past the position of the last vertex that something was aligned with.
        let mut taken = 0;
        for v in layer {
            let vertex = &graph.vertices[*v];
            if vertex.is_aside {
                continue;
            }
            let mut neighbours = if from_below { vertex.below.clone() } else { vertex.above.clone() };
            neighbours.retain(|n| !graph.vertices[*n].is_aside);
            neighbours.sort_by_key(|n| position(*n));
            let Some(last) = neighbours.len().checked_sub(1) else { continue };
            for m in [last / 2, last.div_ceil(2)] {
                let u = neighbours[m];
                let edge = if from_below { (*v, u) } else { (u, *v) };
                if next[*v] == *v && position(u) >= taken && !conflicts.contains(&edge) {
                    next[u] = *v;
                    root[*v] = root[u];
                    next[*v] = root[*v];
                    taken = position(u) + 1;
                }
            }
        }
    }
    let xs = compact(graph, &layers, &root);
    (0..count).map(|v| if from_right { -xs[root[v]] } else { xs[root[v]] }).collect()
}

/// Coordinates of blocks, by their roots: as far left as their neighbours let them, then right again up to the next neighbour.
fn compact(graph: &Layered, layers: &[Vec<usize>], root: &[usize]) -> Vec<f64> {
    let count = graph.vertices.len();
    let (mut out, mut waiting) = (vec![Vec::new(); count], vec![0usize; count]);
    for layer in layers {
        for pair in layer.windows(2) {
            let (a, b) = (&graph.vertices[pair[0]], &graph.vertices[pair[1]]);
            let gap = if a.is_point || b.is_point { POINT_GAP } else { BOX_GAP };
            out[root[pair[0]]].push((root[pair[1]], (a.width + b.width) / 2.0 + gap));
            waiting[root[pair[1]]] += 1;
        }
    }
    let mut order: Vec<usize> = (0..count).filter(|v| root[*v] == *v && waiting[*v] == 0).collect();
    let (mut xs, mut done) = (vec![0.0f64; count], 0);
    while let Some(block) = order.get(done).copied() {
        done += 1;
        for (to, gap) in &out[block] {
            xs[*to] = xs[*to].max(xs[block] + gap);
            waiting[*to] -= 1;
            if waiting[*to] == 0 {
                order.push(*to);
            }
        }
    }
    for block in order.iter().rev() {
        let room = out[*block].iter().map(|(to, gap)| xs[*to] - gap).fold(f64::INFINITY, f64::min);
        if room.is_finite() {
            xs[*block] = xs[*block].max(room);
        }
    }
    xs
}

/// Moves the placements to the narrowest of them: those that lean left to its left side, the others to its right.
fn align(graph: &Layered, four: &mut [Vec<f64>]) {
    let extents: Vec<(f64, f64)> = four.iter().map(|xs| extent(graph, xs)).collect();
    let narrowest = extents.iter().copied().min_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0))).unwrap_or_default();
    for (i, (xs, extent)) in four.iter_mut().zip(&extents).enumerate() {
        let shift = if i % 2 == 0 { narrowest.0 - extent.0 } else { narrowest.1 - extent.1 };
        xs.iter_mut().for_each(|x| *x += shift);
    }
}

/// The left and the right end of what is placed.
fn extent(graph: &Layered, xs: &[f64]) -> (f64, f64) {
    let half = |v: usize| graph.vertices[v].width / 2.0;
    xs.iter().enumerate().fold((f64::INFINITY, f64::NEG_INFINITY), |(left, right), (v, x)| {
        (left.min(x - half(v)), right.max(x + half(v)))
    })
}
