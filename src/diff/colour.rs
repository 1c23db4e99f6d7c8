//! Colours: hashes of what lies around a vertex.
//!
//! A vertex that has its counterpart already is coloured by the pair and lets nothing through, so that a difference is felt only as far as
//! the next pair. Only vertices that are still free cost anything but the copying of an array.

use super::label::mix;
use super::side::Side;

/// What colours are made from.
pub struct Palette<'x> {
    /// By vertex: what it is by itself.
    pub labels: &'x [u64],
    /// By vertex: the pair that it belongs to, or 0.
    pub fixed: &'x [u64],
    /// By graph output: which output of the other side it corresponds to.
    pub outputs: &'x [u64],
    /// Nodes without a counterpart, producers before consumers.
    pub nodes: &'x [u32],
    /// Sources without a counterpart.
    pub sources: &'x [u32],
}

/// Colours of every vertex.
pub struct Colours {
    /// Of all that a vertex is computed from.
    pub up: Vec<u64>,
    /// Whether that begins at a pair.
    pub up_grounded: Vec<bool>,
    /// Of all that is computed from a vertex.
    pub down: Vec<u64>,
    /// Whether that ends at a pair or an output.
    pub down_grounded: Vec<bool>,
}

const LEFT_OUT: u64 = 0x51;

/// One sweep in each direction, each linear in the size of the graph.
pub fn sweep(side: &Side, palette: &Palette) -> Colours {
    let grounded: Vec<bool> = palette.fixed.iter().map(|f| *f != 0).collect();
    let (mut up, mut up_grounded) = (palette.fixed.to_vec(), grounded.clone());
    for vertex in palette.sources {
        up[*vertex as usize] = palette.labels[*vertex as usize];
    }
    for node in palette.nodes.iter().map(|n| *n as usize) {
        up_grounded[node] = side.ins.get(node).iter().flatten().any(|v| up_grounded[v.vertex as usize]);
        up[node] = from_inputs(side, node, palette.labels[node], &up);
    }
    let (mut down, mut down_grounded) = (palette.fixed.to_vec(), grounded);
    let from_outputs = output_colours(side, palette.outputs);
    for vertex in palette.nodes.iter().rev().chain(palette.sources).map(|v| *v as usize) {
        down_grounded[vertex] =
            from_outputs[vertex] != 0 || side.uses.get(vertex).iter().any(|u| down_grounded[u.node as usize]);
        down[vertex] = from_readers(side, vertex, palette.labels[vertex], &down, &from_outputs);
    }
    Colours { up, up_grounded, down, down_grounded }
}

/// Which way a local colour looks.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Up,
    Down,
    Both,
}

/// Colours of what lies at most `rounds` edges away.
pub fn around(side: &Side, palette: &Palette, way: Way, rounds: usize) -> Vec<u64> {
    let free = || palette.nodes.iter().chain(palette.sources).map(|v| *v as usize);
    let mut now = palette.fixed.to_vec();
    free().for_each(|v| now[v] = palette.labels[v]);
    let from_outputs = output_colours(side, palette.outputs);
    for _ in 0..rounds {
        let mut next = now.clone();
        for vertex in free() {
            let mut h = now[vertex];
            if way != Way::Down && vertex < side.nodes() {
                h = from_inputs(side, vertex, h, &now);
            }
            if way != Way::Up {
                h = from_readers(side, vertex, h, &now, &from_outputs);
            }
            next[vertex] = h;
        }
        now = next;
    }
    now
}

/// A node's label with the colours of its inputs.
fn from_inputs(side: &Side, node: usize, label: u64, colours: &[u64]) -> u64 {
    side.ins.get(node).iter().fold(label, |h, value| match value {
        None => mix(h, LEFT_OUT),
        Some(v) => mix(h, colours[v.vertex as usize].wrapping_add(u64::from(v.out))),
    })
}

/// A vertex's label with the colours of its readers, whose order means nothing.
fn from_readers(side: &Side, vertex: usize, label: u64, colours: &[u64], from_outputs: &[u64]) -> u64 {
    let place = |u: &super::side::Use| (u64::from(u.slot) << 32) | u64::from(u.out);
    let readers = side.uses.get(vertex).iter();
    let sum = readers.fold(from_outputs[vertex], |sum, u| sum.wrapping_add(mix(colours[u.node as usize], place(u))));
    mix(label, sum)
}

/// By vertex: colours of the graph outputs that it makes.
fn output_colours(side: &Side, outputs: &[u64]) -> Vec<u64> {
    let mut colours = vec![0u64; side.vertices()];
    for (value, colour) in side.outputs.iter().zip(outputs) {
        if let Some(v) = value {
            let sum = &mut colours[v.vertex as usize];
            *sum = sum.wrapping_add(mix(*colour, u64::from(v.out)));
        }
    }
    colours
}
