//! Vertical coordinates, and the points that edges pass through.

use std::collections::HashMap;

use super::layers::Layered;
use super::{Edge, Placed, Size};

/// Space between layers: for a few edges, and for many that have to find their way.
const LEAST_GAP: f64 = 46.0;
const MOST_GAP: f64 = 110.0;

/// Around the picture.
const MARGIN: f64 = 24.0;

/// Between the ends of edges at a box.
const PORT_GAP: f64 = 12.0;

/// From the end of a side to the first place where an edge may end.
const CORNER: f64 = 8.0;

/// Reach of the loop that an edge from a box to itself is drawn as.
const LOOP: f64 = 18.0;

pub fn finish(graph: &Layered, xs: &[f64], sizes: &[Size], edges: &[Edge]) -> Placed {
    let bands = bands(graph, xs, sizes);
    let x = |v: usize| xs[v] + MARGIN;
    let centre = |i: usize| (x(i), f64::midpoint(bands[graph.vertices[i].layer].0, bands[graph.vertices[i].layer].1));
    let centres: Vec<(f64, f64)> = (0..sizes.len()).map(centre).collect();
    let mut placed = Placed { centres, ..Placed::default() };
    placed.width = (0..xs.len()).map(|v| x(v) + graph.vertices[v].width / 2.0).fold(0.0, f64::max) + MARGIN;
    placed.height = bands.last().map_or(0.0, |b| b.1) + MARGIN;
    let ports = Ports::of(graph, sizes, edges, &x);
    for (i, edge) in edges.iter().enumerate() {
        let path = &graph.paths[i];
        let (Some(top), Some(bottom)) = (path.first(), path.last()) else {
            placed.routes.push(self_loop(edge, &placed.centres, sizes));
            continue;
        };
        let mut route = Vec::with_capacity(2 * path.len());
        for v in path {
            let band = bands[graph.vertices[*v].layer];
            let half = sizes.get(*v).map_or(0.0, |s| s.height / 2.0);
            let middle = f64::midpoint(band.0, band.1);
            if v == top {
                let port = ports.lower[&(*v, edge.bundle, graph.turned[i])];
                route.extend([(port, middle + half), (port, band.1)]);
            } else if v == bottom {
                let port = ports.upper[&i];
                route.extend([(port, band.0), (port, middle - half)]);
            } else {
                route.extend([(x(*v), band.0), (x(*v), band.1)]);
            }
        }
        if graph.turned[i] {
            route.reverse();
        }
        route.dedup();
        placed.routes.push(route);
    }
    placed
}

/// The top and the bottom of every layer.
fn bands(graph: &Layered, xs: &[f64], sizes: &[Size]) -> Vec<(f64, f64)> {
    let mut top = MARGIN;
    let mut bands = Vec::with_capacity(graph.layers.len());
    for layer in &graph.layers {
        let height = layer.iter().filter_map(|v| sizes.get(*v)).map(|s| s.height).fold(0.0, f64::max);
        bands.push((top, top + height));
        // The further edges go sideways, and the more they are, the more room they get.
        let sideways = |v: &usize| graph.vertices[*v].below.iter().map(|b| (xs[*b] - xs[*v]).abs()).sum::<f64>();
        let gap = LEAST_GAP + layer.iter().map(sideways).sum::<f64>() / 60.0;
        top += height + gap.min(MOST_GAP);
    }
    bands
}

/// Where edges leave boxes and where they enter them.
struct Ports {
    lower: HashMap<(usize, u32, bool), f64>,
    upper: HashMap<usize, f64>,
}

impl Ports {
    fn of(graph: &Layered, sizes: &[Size], edges: &[Edge], x: &impl Fn(usize) -> f64) -> Self {
        // By box: where each edge, or each bundle of them, comes from or wants to go.
        let (mut leaving, mut entering) = (vec![Vec::new(); sizes.len()], vec![Vec::new(); sizes.len()]);
        for (i, path) in graph.paths.iter().enumerate() {
            if let [top, second, ..] = path[..] {
                let key = (top, edges[i].bundle, graph.turned[i]);
                if !leaving[top].iter().any(|(k, _)| *k == key) {
                    leaving[top].push((key, x(second)));
                }
            }
            if let [.., last, bottom] = path[..] {
                entering[bottom].push((i, x(last)));
            }
        }
        let mut ports = Ports { lower: HashMap::new(), upper: HashMap::new() };
        for (i, size) in sizes.iter().enumerate() {
            // One value leaves from the middle.
            let wanted =
                if leaving[i].len() == 1 { vec![(leaving[i][0].0, x(i))] } else { std::mem::take(&mut leaving[i]) };
            ports.lower.extend(spread(wanted, x(i), size.width));
            ports.upper.extend(spread(std::mem::take(&mut entering[i]), x(i), size.width));
        }
        ports
    }
}

/// Ends of edges along a side of a box: where they want to be if that is there, in order, and apart as far as there is room.
fn spread<K>(mut wanted: Vec<(K, f64)>, centre: f64, width: f64) -> impl Iterator<Item = (K, f64)> {
    let reach = (width / 2.0 - CORNER).max(0.0);
    wanted.sort_by(|a, b| a.1.total_cmp(&b.1));
    let gaps = wanted.len().saturating_sub(1).max(1) as f64;
    let gap = PORT_GAP.min(2.0 * reach / gaps);
    let (left, right) = (centre - reach, centre + reach);
    let mut at: Vec<f64> = wanted.iter().map(|w| w.1.clamp(left, right)).collect();
    for i in 1..at.len() {
        at[i] = at[i].max(at[i - 1] + gap);
    }
    let mut limit = right;
    for x in at.iter_mut().rev() {
        *x = x.min(limit);
        limit = *x - gap;
    }
    wanted.into_iter().map(|w| w.0).zip(at)
}

/// A loop at the right side; nothing where the box is not there.
fn self_loop(edge: &Edge, centres: &[(f64, f64)], sizes: &[Size]) -> Vec<(f64, f64)> {
    let (Some((x, y)), Some(size), true) = (centres.get(edge.from), sizes.get(edge.from), edge.from == edge.to) else {
        return Vec::new();
    };
    let (right, half) = (x + size.width / 2.0, size.height / 2.0);
    vec![
        (right, y + half / 2.0),
        (right + LOOP, y + half / 2.0),
        (right + LOOP, y - half / 2.0),
        (right, y - half / 2.0),
    ]
}
