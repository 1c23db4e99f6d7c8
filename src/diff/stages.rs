//! From two sides to pairs of vertices: which stage comes when.
//!
//! A matching of least cost is NP-hard to find, so this is a sequence of stages, each linear (or n log n) in the size of the graphs, that
//! take what is certain first:
//!
//! 1. *Interface.* Inputs and outputs of the main graph by name, then by type and order; those of bodies and functions by position.
//! 2. *Colours.* One sweep from producers to consumers gives every vertex a hash of all that it is computed from (as a Merkle tree does),
//!    one sweep back a hash of all that is computed from it. Vertices with a colour that nothing else has are pairs. An edit spoils the
//!    first colour of all that lies behind it and the second of all that lies before it, so one of them must be enough where the other
//!    fails: first together with what is two edges away on the other side, then one, then alone. Pairs let nothing through, so sweeping
//!    again reaches what lies between two edits, and colours of what is at most a few edges away find beginnings there.
//! 3. *Ties.* Of vertices with one colour, as many on both sides, the first in order is paired with that of its name, else with the first;
//!    what follows from that along edges is paired before the next. This is where parallel twins get their partners, and names count.
//! 4. Both once more without the elements of initializers, so that training changes no structure.
//! 5. *Spreading* along edges from pairs to what stands at the same place and is alike around.
//! 6. *Alignment.* What is still left between two pairs, in topological order, is aligned as lines of text are, by Myers's algorithm with
//!    a bounded number of edits; alone it would pair what has nothing in common but its operator, so a pair must have a neighbour in
//!    another pair or fill its gap.
//! 7. Spreading with ever less in common: the same attributes, then the same operator. These pairs are the changed nodes.
//!
//! 8. A last look at what is left: a pair that would rather be with a neighbour that is alike changes its partner.
//!
//! What is left then is added or removed. All nodes alike, long chains of one operator and models with nothing in common pass each stage
//! once or twice and stay near-linear: nothing ever compares all with all.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::align::common;
use super::colour::{Palette, Way, around, sweep};
use super::gaps::align;
use super::label::mix;
use super::pairing::{Pairs, Ties};
use super::polish::polish;
use super::side::{Side, Source};

/// Sweeps of one strictness.
const MOST_SWEEPS: usize = 24;

/// Edges around a vertex that its local colour sees.
const RADIUS: usize = 3;

/// Where two graphs stand: what their names refer to outside.
pub struct Surroundings<'x> {
    /// From a name around `a` to the corresponding one around `b`.
    pub outer: &'x (dyn Fn(&str) -> Option<String> + 'x),
}

/// Colours of graph outputs, by which of them correspond; and those pairs.
pub struct Outputs {
    of_a: Vec<u64>,
    of_b: Vec<u64>,
}

impl Outputs {
    /// What makes corresponding outputs with one operator corresponds, where nothing else has been found for it.
    fn spread(&self, pairs: &mut Pairs) {
        let (a, b) = (pairs.a, pairs.b);
        let other: HashMap<u64, usize> =
            self.of_b.iter().enumerate().filter(|(_, c)| **c != UNKNOWN).map(|(j, c)| (*c, j)).collect();
        for (i, colour) in self.of_a.iter().enumerate() {
            let Some(j) = other.get(colour) else { continue };
            let (Some(x), Some(y)) = (a.outputs[i], b.outputs[*j]) else { continue };
            if x.out == y.out && a.labels.operator[x.vertex as usize] == b.labels.operator[y.vertex as usize] {
                pairs.join(x.vertex, y.vertex);
            }
        }
        pairs.spread(&a.labels.operator, &b.labels.operator, Ties::Break);
    }
}

/// The colour of an output without a counterpart.
const UNKNOWN: u64 = 0x0a;

/// Finds all pairs. Which side is called the first makes no difference: ties are broken in the order of the one that has the lesser key.
pub fn pair<'s, 'm>(a: &'s Side<'m>, b: &'s Side<'m>, surroundings: &Surroundings) -> Pairs<'s, 'm> {
    let outer = outer_pairs(a, b, surroundings);
    if a.key() <= b.key() {
        return pair_in_order(a, b, outer);
    }
    pair_in_order(b, a, outer.into_iter().map(|(x, y)| (y, x)).collect()).flipped()
}

/// Values of the graphs around that correspond.
fn outer_pairs(a: &Side, b: &Side, surroundings: &Surroundings) -> Vec<(u32, u32)> {
    let is_outer = |(_, (source, _)): &(usize, &(Source, &str))| *source == Source::Outer;
    let outer = a.sources.iter().enumerate().filter(is_outer).filter_map(|(i, (_, name))| {
        let other = (surroundings.outer)(name).and_then(|other| b.names.get(other.as_str()).copied())?;
        (b.source(other.vertex) == Some(Source::Outer)).then_some(((a.nodes() + i) as u32, other.vertex))
    });
    outer.collect()
}

fn pair_in_order<'s, 'm>(a: &'s Side<'m>, b: &'s Side<'m>, outer: Vec<(u32, u32)>) -> Pairs<'s, 'm> {
    let mut pairs = Pairs::new(a, b);
    outer.into_iter().for_each(|(x, y)| _ = pairs.join_any(x, y));
    let outputs = interface(&mut pairs);
    let (la, lb) = (&a.labels, &b.labels);
    settle(&mut pairs, &outputs, &la.content, &lb.content);
    named_initializers(&mut pairs, &la.content, &lb.content);
    settle(&mut pairs, &outputs, &la.full, &lb.full);
    if !pairs.is_done() {
        for radius in [2, 1] {
            let table = Table::of(&pairs);
            let (of_a, of_b) =
                table.on_both(&pairs, &outputs, &la.full, &lb.full, |s, p| around(s, p, Way::Both, radius));
            pairs.spread_from_all(&of_a, &of_b, Ties::Leave);
        }
        align(&mut pairs);
        pairs.spread_from_all(&la.full, &lb.full, Ties::Leave);
        settle(&mut pairs, &outputs, &la.full, &lb.full);
    }
    if !pairs.is_done() {
        pairs.spread_from_all(&la.full, &lb.full, Ties::Break);
        pairs.spread_from_all(&la.operator, &lb.operator, Ties::Leave);
        pairs.spread_from_all(&la.operator, &lb.operator, Ties::Break);
        outputs.spread(&mut pairs);
        // Constants that nothing else led to are known by their values.
        let table = Table::of(&pairs);
        let has_value = |side: &Side, v: u32| {
            side.is_node(v) && side.ins.get(v as usize).is_empty() && !side.view.nodes[v as usize].attribute.is_empty()
        };
        pairs.join_unique(&la.full, &lb.full, &table.free, |p, x, y| has_value(p.a, x) && has_value(p.b, y));
        pairs.spread(&la.operator, &lb.operator, Ties::Break);
    }
    polish(&mut pairs);
    left_sources(&mut pairs);
    pairs
}

/// Pairs inputs; says which outputs correspond.
fn interface(pairs: &mut Pairs) -> Outputs {
    let (a, b) = (pairs.a, pairs.b);
    // Initializers that are inputs too, as old files want it, are found by what reads them.
    let plain = |side: &Side| -> Vec<u32> {
        let is_input = |v: &&u32| matches!(side.source(**v), Some(Source::Input(_)));
        side.inputs.iter().filter(is_input).copied().collect()
    };
    let (mut of_a, mut of_b) = (plain(a), plain(b));
    if !a.view.by_name && of_a.len() == of_b.len() {
        of_a.iter().zip(&of_b).for_each(|(x, y)| _ = pairs.join(*x, *y));
    } else {
        let by_name: HashMap<&str, u32> = of_b.iter().map(|v| (b.name(*v), *v)).collect();
        for x in &of_a {
            if let Some(y) = by_name.get(a.name(*x)) {
                pairs.join(*x, *y);
            }
        }
        let rest = |pairs: &Pairs, of_a: &mut Vec<u32>, of_b: &mut Vec<u32>| {
            of_a.retain(|v| pairs.in_b(*v).is_none());
            of_b.retain(|v| pairs.in_a(*v).is_none());
        };
        rest(pairs, &mut of_a, &mut of_b);
        let label = |side: &Side, v: u32| side.labels.full[v as usize];
        if of_a.len() <= 1000 && of_b.len() <= 1000 {
            let types = |side: &Side, list: &[u32]| list.iter().map(|v| label(side, *v)).collect::<Vec<_>>();
            let aligned = common(&types(a, &of_a), &types(b, &of_b), 2000).unwrap_or_default();
            aligned.into_iter().for_each(|(i, j)| _ = pairs.join(of_a[i], of_b[j]));
        }
        rest(pairs, &mut of_a, &mut of_b);
        if of_a.len() == of_b.len() {
            of_a.iter().zip(&of_b).for_each(|(x, y)| _ = pairs.join(*x, *y));
        }
    }
    let found = outputs_by_interface(a, b);
    let mut outputs = Outputs { of_a: vec![UNKNOWN; a.outputs.len()], of_b: vec![UNKNOWN; b.outputs.len()] };
    for (i, j) in found {
        let colour = mix(0x07, i as u64);
        (outputs.of_a[i], outputs.of_b[j]) = (colour, colour);
    }
    outputs
}

/// Outputs that correspond before anything is known of values: by name in the main graph; by position where there are as many.
fn outputs_by_interface(a: &Side, b: &Side) -> Vec<(usize, usize)> {
    let (of_a, of_b) = (&a.view.outputs, &b.view.outputs);
    if !a.view.by_name && of_a.len() == of_b.len() {
        return (0..of_a.len()).map(|i| (i, i)).collect();
    }
    let by_name: HashMap<&str, usize> = of_b.iter().enumerate().map(|(j, o)| (o.name, j)).collect();
    let named: Vec<_> = of_a.iter().enumerate().filter_map(|(i, o)| Some((i, *by_name.get(o.name)?))).collect();
    if named.is_empty() && of_a.len() == of_b.len() {
        return (0..of_a.len()).map(|i| (i, i)).collect();
    }
    named
}

/// Stages 2 and 3 with one strictness, until nothing more is found.
fn settle(pairs: &mut Pairs, outputs: &Outputs, la: &[u64], lb: &[u64]) {
    for turn in 0..MOST_SWEEPS {
        if pairs.is_complete() || (pairs.is_done() && turn > 1) {
            return;
        }
        let table = Table::of(pairs);
        let (ca, cb) = table.on_both(pairs, outputs, la, lb, sweep);
        let (both_a, both_b) = (both(&ca.up, &ca.down), both(&cb.up, &cb.down));
        let mut found = pairs.join_unique(&both_a, &both_b, &table.free, |_, _, _| true);
        // One colour and a like surrounding on the other side: near an edit of a chain of twins, one colour alone is that of a neighbour.
        // What one of these finds can forbid what the next one would, so they take turns.
        for radius in [2, 1] {
            if found == 0 {
                let (da, db) = table.on_both(pairs, outputs, la, lb, |s, p| around(s, p, Way::Down, radius));
                found += pairs.join_unique(&both(&ca.up, &da), &both(&cb.up, &db), &table.free, |_, _, _| true);
            }
            if found == 0 {
                let (ua, ub) = table.on_both(pairs, outputs, la, lb, |s, p| around(s, p, Way::Up, radius));
                found += pairs.join_unique(&both(&ca.down, &ua), &both(&cb.down, &ub), &table.free, |_, _, _| true);
            }
        }
        if found == 0 {
            found += pairs.join_unique(&ca.up, &cb.up, &table.free, |p, x, y| {
                p.a.is_node(x) && ca.up_grounded[x as usize] && cb.up_grounded[y as usize]
            });
        }
        if found == 0 {
            found += pairs.join_unique(&ca.down, &cb.down, &table.free, |_, x, y| {
                ca.down_grounded[x as usize] && cb.down_grounded[y as usize]
            });
        }
        if found > 0 {
            pairs.spread(&both_a, &both_b, Ties::Leave);
            continue;
        }
        // Once more around with both colours as labels: this sees whether two nodes share an initializer.
        let (sa, sb) = table.on_both(pairs, outputs, &both_a, &both_b, sweep);
        let (both_a, both_b) = (both(&sa.up, &sa.down), both(&sb.up, &sb.down));
        found += pairs.join_unique(&both_a, &both_b, &table.free, |_, _, _| true);
        if found == 0 {
            let (of_a, of_b) = table.on_both(pairs, outputs, la, lb, |s, p| around(s, p, Way::Both, RADIUS));
            found += pairs.join_unique(&of_a, &of_b, &table.free, |_, _, _| true);
            pairs.spread(&of_a, &of_b, Ties::Leave);
        }
        if found == 0 {
            found += ties(pairs, &both_a, &both_b, |_, _, _| true, true);
            found += ties(
                pairs,
                &ca.up,
                &cb.up,
                |p, x, y| p.a.is_node(x) && ca.up_grounded[x as usize] && cb.up_grounded[y as usize],
                false,
            );
            found += ties(
                pairs,
                &ca.down,
                &cb.down,
                |_, x, y| ca.down_grounded[x as usize] && cb.down_grounded[y as usize],
                false,
            );
        }
        if found == 0 {
            return;
        }
    }
}

fn both(x: &[u64], y: &[u64]) -> Vec<u64> {
    x.iter().zip(y).map(|(x, y)| mix(*x, *y)).collect()
}

/// What is free at one time, and the colours of what is not.
struct Table {
    fixed: [Vec<u64>; 2],
    /// By side: free nodes in topological order, and free sources.
    free: [(Vec<u32>, Vec<u32>); 2],
}

impl Table {
    fn of(pairs: &Pairs) -> Self {
        let (fixed_a, fixed_b) = pairs.fixed();
        let free = |side: &Side, fixed: &[u64]| {
            let is_free = |v: &u32| fixed[*v as usize] == 0;
            let nodes = side.order.iter().copied().filter(is_free).collect();
            (nodes, (side.nodes() as u32..side.vertices() as u32).filter(is_free).collect())
        };
        Table { free: [free(pairs.a, &fixed_a), free(pairs.b, &fixed_b)], fixed: [fixed_a, fixed_b] }
    }

    /// The same on both sides, side by side.
    fn on_both<T: Send>(
        &self,
        pairs: &Pairs,
        outputs: &Outputs,
        la: &[u64],
        lb: &[u64],
        colour: impl Fn(&Side, &Palette) -> T + Sync,
    ) -> (T, T) {
        let palette = |i: usize, labels, outputs| {
            let (nodes, sources) = &self.free[i];
            Palette { labels, fixed: &self.fixed[i], outputs, nodes, sources }
        };
        let (a, b) = (pairs.a, pairs.b);
        rayon::join(|| colour(a, &palette(0, la, &outputs.of_a)), || colour(b, &palette(1, lb, &outputs.of_b)))
    }
}

/// Stage 3: classes of one colour. `uneven` takes classes that are larger on one side too.
fn ties(pairs: &mut Pairs, of_a: &[u64], of_b: &[u64], may: impl Fn(&Pairs, u32, u32) -> bool, uneven: bool) -> usize {
    /// Members on the second side in order, and where the free ones begin.
    #[derive(Default)]
    struct Class {
        of_a: usize,
        of_b: Vec<u32>,
        next: usize,
    }
    let (a, b) = (pairs.a, pairs.b);
    let mut classes: HashMap<u64, Class, FixedState> = HashMap::with_hasher(FixedState::with_seed(7));
    let sources = |side: &Side| side.nodes() as u32..side.vertices() as u32;
    let order_a: Vec<u32> = a.order.iter().copied().chain(sources(a)).filter(|v| pairs.in_b(*v).is_none()).collect();
    for vertex in &order_a {
        classes.entry(of_a[*vertex as usize]).or_default().of_a += 1;
    }
    let mut by_name: HashMap<(u64, &str), u32, FixedState> = HashMap::with_hasher(FixedState::with_seed(7));
    for vertex in b.order.iter().copied().chain(sources(b)).filter(|v| pairs.in_a(*v).is_none()) {
        let colour = of_b[vertex as usize];
        if let Some(class) = classes.get_mut(&colour) {
            class.of_b.push(vertex);
            by_name.entry((colour, pairs.label_name(b, vertex))).or_insert(vertex);
        }
    }
    let mut found = 0;
    // Names decide in one round, order in the next, so that order takes no node whose name fits another one.
    for by_order in [false, true] {
        for vertex in &order_a {
            if pairs.in_b(*vertex).is_some() {
                continue;
            }
            let colour = of_a[*vertex as usize];
            let Some(class) = classes.get_mut(&colour) else { continue };
            if class.of_b.is_empty() || (class.of_a != class.of_b.len() && !uneven) {
                continue;
            }
            let candidate = if by_order {
                while class.of_b.get(class.next).is_some_and(|v| pairs.in_a(*v).is_some()) {
                    class.next += 1;
                }
                class.of_b.get(class.next).copied()
            } else {
                by_name.get(&(colour, pairs.label_name(a, *vertex))).copied()
            };
            let Some(other) = candidate.filter(|other| may(pairs, *vertex, *other)) else { continue };
            if pairs.join(*vertex, other) {
                found += 1 + pairs.spread(of_a, of_b, Ties::Leave);
            }
        }
    }
    found
}

/// Initializers of one name and one content are the same, whatever reads them.
fn named_initializers(pairs: &mut Pairs, la: &[u64], lb: &[u64]) {
    let (a, b) = (pairs.a, pairs.b);
    for (i, (source, name)) in a.sources.iter().enumerate() {
        let x = (a.nodes() + i) as u32;
        if !matches!(source, Source::Tensor(_)) || pairs.in_b(x).is_some() {
            continue;
        }
        if let Some(y) = b.names.get(name)
            && matches!(b.source(y.vertex), Some(Source::Tensor(_)))
            && la[x as usize] == lb[y.vertex as usize]
        {
            pairs.join(x, y.vertex);
        }
    }
}

/// Sources that nothing led to: by name, and inputs of old files by their position.
fn left_sources(pairs: &mut Pairs) {
    let (a, b) = (pairs.a, pairs.b);
    for (i, (_, name)) in a.sources.iter().enumerate() {
        let x = (a.nodes() + i) as u32;
        if pairs.in_b(x).is_none()
            && let Some(y) = b.names.get(name).filter(|y| !b.is_node(y.vertex))
            && a.labels.full[x as usize] == b.labels.full[y.vertex as usize]
        {
            pairs.join(x, y.vertex);
        }
    }
    // What nothing reads has nothing but its content and its place.
    let free = |side: &Side, is_free: &dyn Fn(u32) -> bool| -> Vec<u32> {
        (side.nodes() as u32..side.vertices() as u32)
            .filter(|v| is_free(*v) && side.uses.get(*v as usize).is_empty())
            .filter(|v| matches!(side.source(*v), Some(Source::Tensor(_))))
            .collect()
    };
    let of_a = free(a, &|v| pairs.in_b(v).is_none());
    let of_b = free(b, &|v| pairs.in_a(v).is_none());
    let mut by_content: HashMap<u64, Vec<u32>, FixedState> = HashMap::with_hasher(FixedState::with_seed(7));
    of_b.iter().rev().for_each(|y| by_content.entry(b.labels.content[*y as usize]).or_default().push(*y));
    for x in of_a {
        if let Some(y) = by_content.get_mut(&a.labels.content[x as usize]).and_then(Vec::pop) {
            pairs.join(x, y);
        }
    }
}
