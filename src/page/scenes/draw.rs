//! Pictures with coordinates, in the compact form that a page reads: whole pixels, and numbers for kinds.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::Serialize;

use super::edges::{Joined, Link, join};
use super::sizes::{STUB, size};
use super::{Item, Part, Scenes};
use crate::page::layout::{Edge, Placed, Size, lay_out};
use crate::page::network::{Mark, Network};
use crate::page::packed;

/// What a box stands for, and for which one: `(kind, number, x, y, width, height)`, where x and y are its centre.
pub type Shape = (u8, i64, i32, i32, i32, i32);

/// An edge: from, to, its first value less the picture's least one, then the points as [`packed::push_line`] has them.
pub type Line = Vec<i64>;

/// What more there is about an edge: its other values, how many more there are, and its mark.
pub type More = (Vec<u32>, usize, u8);

/// Kinds of boxes, as pages number them. The number beside each: a node; a picture; a node that stands for others; a value; a value; a row of
/// the list; a node outside, or −1 for several.
mod kind {
    pub const NODE: u8 = 0;
    pub const SCENE: u8 = 1;
    pub const QUIET: u8 = 2;
    pub const INPUT: u8 = 3;
    pub const OUTPUT: u8 = 4;
    pub const GHOST: u8 = 5;
    pub const EARLIER: u8 = 6;
    pub const LATER: u8 = 7;
}

/// A picture.
#[derive(Debug, Clone, Serialize)]
pub struct Drawing {
    /// The picture that shows this one as a box.
    pub parent: Option<usize>,
    pub title: String,
    pub mark: u8,
    /// Whether it shows what belongs together, and not just neighbours.
    pub is_group: bool,
    /// Width and height.
    pub size: (i32, i32),
    pub boxes: Vec<Shape>,
    pub lines: Vec<Line>,
    /// By edge, where there is more about it.
    pub more: BTreeMap<usize, More>,
    /// The least number of a value.
    pub base: u32,
    /// How many nodes it stands for.
    pub count: usize,
    /// The most frequent operators among them, with their numbers.
    pub ops: Vec<(String, usize)>,
    /// How many of them have each mark.
    pub marks: Vec<(u8, usize)>,
}

/// Draws all pictures.
pub fn draw(network: &Network, all: &Scenes) -> Vec<Drawing> {
    join(network, all).par_iter().enumerate().map(|(i, joined)| one(network, all, i, joined)).collect()
}

fn one(network: &Network, all: &Scenes, scene: usize, joined: &Joined) -> Drawing {
    let this = &all.scenes[scene];
    let parts = this.parts.iter().map(|p| size(network, all, *p));
    let sizes: Vec<Size> = parts.chain(joined.stubs.iter().map(|_| STUB)).collect();
    // What leaves a node by different outputs leaves it at different places; other boxes have one exit.
    let is_node =
        |from: usize| matches!(this.parts.get(from), Some(Part::Item(i)) if matches!(all.items[*i], Item::Node(_)));
    let bundle = |from: usize, values: &[u32]| values.first().copied().filter(|_| is_node(from)).unwrap_or_default();
    let is_aside = |at: usize| match this.parts.get(at) {
        Some(Part::Item(i)) => match &all.items[*i] {
            Item::Ghost { .. } => true,
            Item::Node(n) => network.nodes.get(*n as usize).is_some_and(|n| n.is_aside),
            _ => false,
        },
        Some(Part::Scene(s)) => all.scenes[*s].is_aside,
        None => false,
    };
    let edge = |l: &Link| Edge {
        from: l.from,
        to: l.to,
        bundle: bundle(l.from, &l.values),
        is_aside: is_aside(l.to) && !is_aside(l.from),
    };
    let edges: Vec<Edge> = joined.links.iter().map(edge).collect();
    let placed = lay_out(&sizes, &edges);
    let summary = Summary::of(network, all, scene);
    let base = joined.links.iter().filter_map(|l| l.values.first().copied()).min().unwrap_or_default();
    Drawing {
        parent: this.parent,
        title: this.title.clone(),
        mark: this.mark as u8,
        is_group: this.is_group,
        size: (pixels(placed.width), pixels(placed.height)),
        boxes: shapes(network, all, scene, joined, &sizes, &placed),
        lines: joined.links.iter().zip(&placed.routes).map(|(l, route)| line(l, base, route)).collect(),
        more: joined.links.iter().enumerate().filter_map(|(i, l)| Some((i, more(l)?))).collect(),
        base,
        count: summary.count,
        ops: summary.ops,
        marks: summary.marks,
    }
}

fn line(link: &Link, base: u32, route: &[(f64, f64)]) -> Line {
    let first = link.values.first().copied().unwrap_or(base);
    let mut line = vec![link.from as i64, link.to as i64, i64::from(first) - i64::from(base)];
    let points: Vec<(i32, i32)> = route.iter().map(|(x, y)| (pixels(*x), pixels(*y))).collect();
    packed::push_line(&points, &mut line);
    line
}

fn more(link: &Link) -> Option<More> {
    let others = link.values.get(1..).unwrap_or_default();
    let is_plain = others.is_empty() && link.more == 0 && link.mark == Mark::None;
    (!is_plain).then(|| (others.to_vec(), link.more, link.mark as u8))
}

fn shapes(
    network: &Network,
    all: &Scenes,
    scene: usize,
    joined: &Joined,
    sizes: &[Size],
    placed: &Placed,
) -> Vec<Shape> {
    let is_quiet = |n: u32| network.nodes.get(n as usize).is_some_and(|n| n.stands_for > 0);
    let what = all.scenes[scene].parts.iter().map(|part| match *part {
        Part::Scene(s) => (kind::SCENE, s as i64),
        Part::Item(i) => match &all.items[i] {
            Item::Node(n) if is_quiet(*n) => (kind::QUIET, i64::from(*n)),
            Item::Node(n) => (kind::NODE, i64::from(*n)),
            Item::Input(v) => (kind::INPUT, i64::from(*v)),
            Item::Output(v) => (kind::OUTPUT, i64::from(*v)),
            Item::Ghost { row, .. } => (kind::GHOST, i64::from(*row)),
        },
    });
    let stubs = joined.stubs.iter().map(|stub| {
        let node = stub.item.map_or(-1, |i| match &all.items[i] {
            Item::Node(n) => i64::from(*n),
            _ => -1,
        });
        (if stub.is_later { kind::LATER } else { kind::EARLIER }, node)
    });
    let boxes = what.chain(stubs).zip(sizes).zip(&placed.centres);
    boxes
        .map(|(((kind, number), size), (x, y))| {
            (kind, number, pixels(*x), pixels(*y), pixels(size.width), pixels(size.height))
        })
        .collect()
}

/// What a closed box tells about its contents.
struct Summary {
    count: usize,
    ops: Vec<(String, usize)>,
    marks: Vec<(u8, usize)>,
}

impl Summary {
    fn of(network: &Network, all: &Scenes, scene: usize) -> Self {
        let (mut count, mut ops, mut marks) = (0, HashMap::new(), HashMap::new());
        for item in &all.items[all.scenes[scene].items.clone()] {
            let Item::Node(n) = item else { continue };
            let node = &network.nodes[*n as usize];
            count += (node.stands_for as usize).max(1);
            if node.stands_for == 0 {
                *ops.entry(node.op.as_str()).or_insert(0) += 1;
            }
            if node.mark != Mark::None {
                *marks.entry(node.mark as u8).or_insert(0) += 1;
            }
        }
        let mut ops: Vec<(String, usize)> = ops.into_iter().map(|(op, n)| (op.to_owned(), n)).collect();
        ops.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ops.truncate(4);
        let mut marks: Vec<(u8, usize)> = marks.into_iter().collect();
        marks.sort_unstable();
        Summary { count, ops, marks }
    }
}

/// Whole pixels; casts saturate.
fn pixels(x: f64) -> i32 {
    x.round() as i32
}
