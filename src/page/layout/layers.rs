//! Which layer each box is in, and the points at which long edges pass the layers between.

use std::collections::HashMap;

use super::{Edge, Size};

/// Width of the point at which an edge passes a layer.
const POINT_WIDTH: f64 = 8.0;

/// How many boxes that no edge touches stand in one layer.
const LOOSE_IN_A_ROW: usize = 8;

/// Something in a layer: a box, or a point at which an edge passes.
#[derive(Debug, Clone)]
pub struct Vertex {
    pub width: f64,
    pub layer: usize,
    /// Position within the layer.
    pub position: usize,
    pub is_point: bool,
    /// Neighbours in the layer above, and in the one below.
    pub above: Vec<usize>,
    pub below: Vec<usize>,
    /// Whether it stands beside the graph.
    pub is_aside: bool,
}

/// A graph in which every edge leads from one layer to the next.
#[derive(Debug, Default)]
pub struct Layered {
    /// Boxes first, in their order, then points.
    pub vertices: Vec<Vertex>,
    /// The vertices of each layer, from left to right.
    pub layers: Vec<Vec<usize>>,
    /// For each edge the vertices from top to bottom; empty where it cannot be drawn.
    pub paths: Vec<Vec<usize>>,
    /// Whether an edge points up, being part of a cycle.
    pub turned: Vec<bool>,
}

impl Layered {
    pub fn of(sizes: &[Size], edges: &[Edge]) -> Self {
        let turned = turned(sizes.len(), edges);
        let down: Vec<Option<(usize, usize)>> = edges
            .iter()
            .zip(&turned)
            .map(|(e, turned)| {
                let is_real = e.from != e.to && e.from < sizes.len() && e.to < sizes.len();
                is_real.then_some(if *turned { (e.to, e.from) } else { (e.from, e.to) })
            })
            .collect();
        let layer_of = layer_of(sizes.len(), &down);
        let mut aside = vec![false; sizes.len()];
        edges.iter().filter(|e| e.is_aside && e.to < sizes.len()).for_each(|e| aside[e.to] = true);
        let vertex = |(i, size): (usize, &Size)| Vertex {
            width: size.width,
            layer: layer_of[i],
            position: 0,
            is_point: false,
            above: Vec::new(),
            below: Vec::new(),
            is_aside: aside[i],
        };
        let vertices = sizes.iter().enumerate().map(vertex).collect();
        let mut layered = Layered { vertices, layers: Vec::new(), paths: vec![Vec::new(); edges.len()], turned };
        // By box, bundle and layer: the point there. Turned edges share nothing with the others.
        let mut points = HashMap::new();
        let mut linked = std::collections::HashSet::new();
        // What stands aside comes last, which is at the right.
        let mut sequence: Vec<usize> = (0..edges.len()).collect();
        sequence.sort_by_key(|i| edges[*i].is_aside);
        for i in sequence {
            let Some((top, bottom)) = down[i] else { continue };
            let mut path = vec![top];
            for layer in layered.vertices[top].layer + 1..layered.vertices[bottom].layer {
                let key = (top, edges[i].bundle, layered.turned[i].then_some(i), layer);
                let point = *points.entry(key).or_insert_with(|| layered.add_point(layer));
                path.push(point);
            }
            path.push(bottom);
            for pair in path.windows(2) {
                if linked.insert((pair[0], pair[1])) {
                    layered.vertices[pair[0]].below.push(pair[1]);
                    layered.vertices[pair[1]].above.push(pair[0]);
                }
            }
            layered.paths[i] = path;
        }
        let count = layered.vertices.iter().map(|v| v.layer + 1).max().unwrap_or(0);
        layered.layers = vec![Vec::new(); count];
        for (i, vertex) in layered.vertices.iter().enumerate() {
            layered.layers[vertex.layer].push(i);
        }
        layered.number();
        layered
    }

    /// Writes the positions down that the layers' order gives.
    pub fn number(&mut self) {
        for layer in &self.layers {
            for (position, v) in layer.iter().enumerate() {
                self.vertices[*v].position = position;
            }
        }
    }

    fn add_point(&mut self, layer: usize) -> usize {
        let (above, below) = (Vec::new(), Vec::new());
        let point = Vertex { width: POINT_WIDTH, layer, position: 0, is_point: true, above, below, is_aside: false };
        self.vertices.push(point);
        self.vertices.len() - 1
    }
}

/// Which edges have to be turned round for no cycle to be left: those that lead back to a box whose search is still open.
fn turned(boxes: usize, edges: &[Edge]) -> Vec<bool> {
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); boxes];
    for (i, e) in edges.iter().enumerate().filter(|(_, e)| e.from < boxes && e.to < boxes) {
        out[e.from].push(i);
    }
    let (mut turned, mut is_open, mut is_seen) = (vec![false; edges.len()], vec![false; boxes], vec![false; boxes]);
    for root in 0..boxes {
        let mut stack = vec![(root, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 {
                if is_seen[at] {
                    continue;
                }
                (is_seen[at], is_open[at]) = (true, true);
            }
            match out[at].get(next) {
                Some(edge) => {
                    stack.push((at, next + 1));
                    let to = edges[*edge].to;
                    if is_open[to] {
                        turned[*edge] = true;
                    } else if !is_seen[to] {
                        stack.push((to, 0));
                    }
                }
                None => is_open[at] = false,
            }
        }
    }
    turned
}

/// The longest way from above decides; what has more readers than inputs then moves down to them.
fn layer_of(boxes: usize, down: &[Option<(usize, usize)>]) -> Vec<usize> {
    let (mut out, mut into) = (vec![Vec::new(); boxes], vec![0usize; boxes]);
    for (from, to) in down.iter().flatten() {
        out[*from].push(*to);
        into[*to] += 1;
    }
    let mut layer = vec![0usize; boxes];
    let mut waiting = into.clone();
    let mut order: Vec<usize> = (0..boxes).filter(|i| into[*i] == 0).collect();
    let mut done = 0;
    while let Some(at) = order.get(done).copied() {
        done += 1;
        for to in &out[at] {
            layer[*to] = layer[*to].max(layer[at] + 1);
            waiting[*to] -= 1;
            if waiting[*to] == 0 {
                order.push(*to);
            }
        }
    }
    for at in order.iter().rev().filter(|at| out[**at].len() > into[**at]) {
        if let Some(first) = out[*at].iter().map(|to| layer[*to]).min() {
            layer[*at] = layer[*at].max(first.saturating_sub(1));
        }
    }
    // What no edge touches stands in rows of its own, not in one endless row.
    let below = layer.iter().max().map_or(0, |l| l + 1);
    let is_loose = |i: &usize| into[*i] == 0 && out[*i].is_empty();
    let loose: Vec<usize> = (0..boxes).filter(is_loose).collect();
    let first = if loose.len() == boxes { 0 } else { below };
    loose.iter().enumerate().for_each(|(n, i)| layer[*i] = first + n / LOOSE_IN_A_ROW);
    layer
}
