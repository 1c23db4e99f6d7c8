//! Colours: hashes of what lies around a vertex.
//!
//! A vertex that has its counterpart already is coloured by the pair and lets nothing through, so that a difference is felt only as far as
//! the next pair.

use super::label::mix;
use super::side::Side;

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

/// By vertex: the pair that it belongs to, or 0.
pub type Fixed = Vec<u64>;

const LEFT_OUT: u64 = 0x51;

/// One sweep in each direction, each linear in the size of the graph. `outputs` are colours of graph outputs.
pub fn sweep(side: &Side, labels: &[u64], fixed: &Fixed, outputs: &[u64]) -> Colours {
    let count = side.vertices();
    let mut up = vec![0; count];
    let mut up_grounded = vec![false; count];
    for vertex in side.nodes()..count {
        (up[vertex], up_grounded[vertex]) =
            if fixed[vertex] == 0 { (labels[vertex], false) } else { (fixed[vertex], true) };
    }
    for node in side.order.iter().map(|n| *n as usize) {
        if fixed[node] != 0 {
            (up[node], up_grounded[node]) = (fixed[node], true);
            continue;
        }
        let mut h = labels[node];
        let mut grounded = false;
        for value in side.ins.get(node) {
            h = match value {
                None => mix(h, LEFT_OUT),
                Some(v) => {
                    grounded |= up_grounded[v.vertex as usize];
                    mix(h, up[v.vertex as usize].wrapping_add(u64::from(v.out)))
                }
            };
        }
        (up[node], up_grounded[node]) = (h, grounded);
    }
    let mut down = vec![0; count];
    let mut down_grounded = vec![false; count];
    let mut from_outputs = vec![0u64; count];
    for (value, colour) in side.outputs.iter().zip(outputs) {
        if let Some(v) = value {
            let sum = &mut from_outputs[v.vertex as usize];
            *sum = sum.wrapping_add(mix(*colour, u64::from(v.out)));
            down_grounded[v.vertex as usize] = true;
        }
    }
    let backwards = side.order.iter().rev().map(|n| *n as usize);
    for vertex in backwards.chain(side.nodes()..count) {
        if fixed[vertex] != 0 {
            (down[vertex], down_grounded[vertex]) = (fixed[vertex], true);
            continue;
        }
        let mut sum = from_outputs[vertex];
        let mut grounded = down_grounded[vertex];
        for used in side.uses.get(vertex) {
            grounded |= down_grounded[used.node as usize];
            let place = (u64::from(used.slot) << 32) | u64::from(used.out);
            sum = sum.wrapping_add(mix(down[used.node as usize], place));
        }
        (down[vertex], down_grounded[vertex]) = (mix(labels[vertex], sum), grounded);
    }
    Colours { up, up_grounded, down, down_grounded }
}

/// Colours of what lies at most `rounds` edges away, in both directions.
pub fn around(side: &Side, labels: &[u64], fixed: &Fixed, outputs: &[u64], rounds: usize) -> Vec<u64> {
    let count = side.vertices();
    let mut now: Vec<u64> = (0..count).map(|v| if fixed[v] == 0 { labels[v] } else { fixed[v] }).collect();
    let mut from_outputs = vec![0u64; count];
    for (value, colour) in side.outputs.iter().zip(outputs) {
        if let Some(v) = value {
            let sum = &mut from_outputs[v.vertex as usize];
            *sum = sum.wrapping_add(mix(*colour, u64::from(v.out)));
        }
    }
    for _ in 0..rounds {
        let next = (0..count).map(|vertex| {
            if fixed[vertex] != 0 {
                return fixed[vertex];
            }
            let mut h = now[vertex];
            if vertex < side.nodes() {
                for value in side.ins.get(vertex) {
                    let colour = value.map_or(LEFT_OUT, |v| now[v.vertex as usize].wrapping_add(u64::from(v.out)));
                    h = mix(h, colour);
                }
            }
            let mut sum = from_outputs[vertex];
            for used in side.uses.get(vertex) {
                let place = (u64::from(used.slot) << 32) | u64::from(used.out);
                sum = sum.wrapping_add(mix(now[used.node as usize], place));
            }
            mix(h, sum)
        });
        now = next.collect();
    }
    now
}
