//! The matching under construction: pairs of vertices, and how one pair leads to others.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::label::mix;
use super::side::{Side, Source, Use};

const NONE: u32 = u32::MAX;

/// Pairs of vertices of two sides.
pub struct Pairs<'s, 'm> {
    pub a: &'s Side<'m>,
    pub b: &'s Side<'m>,
    to_b: Vec<u32>,
    to_a: Vec<u32>,
    /// Nodes without a counterpart on each side.
    left: [usize; 2],
    /// Pairs whose neighbours were not looked at yet.
    queue: Vec<(u32, u32)>,
}

/// How vertices are told apart where more than one fits.
#[derive(Clone, Copy, PartialEq)]
pub enum Ties {
    /// They are left alone.
    Leave,
    /// By their names, then by their order.
    Break,
}

impl<'s, 'm> Pairs<'s, 'm> {
    pub fn new(a: &'s Side<'m>, b: &'s Side<'m>) -> Self {
        Pairs {
            a,
            b,
            to_b: vec![NONE; a.vertices()],
            to_a: vec![NONE; b.vertices()],
            left: [a.nodes(), b.nodes()],
            queue: Vec::new(),
        }
    }

    /// The same pairs the other way round.
    pub fn flipped(self) -> Self {
        let [left_a, left_b] = self.left;
        Pairs { a: self.b, b: self.a, to_b: self.to_a, to_a: self.to_b, left: [left_b, left_a], queue: Vec::new() }
    }

    /// The counterpart in `b`.
    pub fn in_b(&self, vertex: u32) -> Option<u32> {
        self.to_b.get(vertex as usize).copied().filter(|v| *v != NONE)
    }

    /// The counterpart in `a`.
    pub fn in_a(&self, vertex: u32) -> Option<u32> {
        self.to_a.get(vertex as usize).copied().filter(|v| *v != NONE)
    }

    /// Whether no node is left on one side.
    pub fn is_done(&self) -> bool {
        self.left.contains(&0)
    }

    /// Whether every vertex has a counterpart.
    pub fn is_complete(&self) -> bool {
        !self.to_b.contains(&NONE) && !self.to_a.contains(&NONE)
    }

    /// Makes a pair if both are free and of one kind. Values of the graphs around are paired there.
    pub fn join(&mut self, a: u32, b: u32) -> bool {
        self.a.source(a) != Some(Source::Outer) && self.a.kind(a) == self.b.kind(b) && self.join_any(a, b)
    }

    /// Makes a pair if both are free.
    pub fn join_any(&mut self, a: u32, b: u32) -> bool {
        if self.to_b[a as usize] != NONE || self.to_a[b as usize] != NONE {
            return false;
        }
        (self.to_b[a as usize], self.to_a[b as usize]) = (b, a);
        if self.a.is_node(a) {
            self.left.iter_mut().for_each(|n| *n -= 1);
        }
        self.queue.push((a, b));
        true
    }

    /// The partner of `from` becomes that of `to`, which has none; nothing follows from it.
    pub fn hand_over(&mut self, from: u32, to: u32) {
        let partner = std::mem::replace(&mut self.to_b[from as usize], NONE);
        self.to_b[to as usize] = partner;
        if let Some(back) = self.to_a.get_mut(partner as usize) {
            *back = to;
        }
    }

    /// Two vertices of `a` that have partners exchange them; nothing follows from it.
    pub fn exchange(&mut self, first: u32, second: u32) {
        self.to_b.swap(first as usize, second as usize);
        for vertex in [first, second] {
            let partner = self.to_b[vertex as usize];
            self.to_a[partner as usize] = vertex;
        }
    }

    /// Colours of the pairs, for both sides.
    pub fn fixed(&self) -> (Vec<u64>, Vec<u64>) {
        let colour = |a: u32| mix(0x9a, u64::from(a)) | 1;
        let of_a = self.to_b.iter().zip(0..).map(|(b, a)| if *b == NONE { 0 } else { colour(a) }).collect();
        let of_b = self.to_a.iter().map(|a| if *a == NONE { 0 } else { colour(*a) }).collect();
        (of_a, of_b)
    }

    /// Joins free vertices whose colour no other free one on their side has; how many.
    pub fn join_unique(
        &mut self,
        of_a: &[u64],
        of_b: &[u64],
        free: &[(Vec<u32>, Vec<u32>); 2],
        may: impl Fn(&Self, u32, u32) -> bool,
    ) -> usize {
        let [free_a, free_b] = free;
        let count = free_a.0.len() + free_a.1.len();
        if count == 0 || free_b.0.len() + free_b.1.len() == 0 {
            return 0;
        }
        let mut seen: HashMap<u64, (u32, u32, u32), FixedState> =
            HashMap::with_capacity_and_hasher(count, FixedState::with_seed(7));
        let all = |(nodes, sources): &'_ (Vec<u32>, Vec<u32>)| nodes.iter().chain(sources).copied().collect::<Vec<_>>();
        for vertex in all(free_a).into_iter().filter(|v| self.to_b[*v as usize] == NONE) {
            let entry = seen.entry(of_a[vertex as usize]).or_insert((vertex, NONE, 0));
            entry.2 += 1;
        }
        for vertex in all(free_b).into_iter().filter(|v| self.to_a[*v as usize] == NONE) {
            if let Some(entry) = seen.get_mut(&of_b[vertex as usize]) {
                // Two of one colour on this side are told from one by a count that no pair has.
                entry.2 += if entry.1 == NONE { 0 } else { 2 };
                entry.1 = vertex;
            }
        }
        let mut found: Vec<(u32, u32)> =
            seen.into_values().filter(|(_, b, count)| *count == 1 && *b != NONE).map(|(a, b, _)| (a, b)).collect();
        found.sort_unstable();
        found.into_iter().filter(|(a, b)| may(self, *a, *b) && self.join(*a, *b)).count()
    }

    /// From every pair along edges: what stands at the same place of both and has the same key corresponds too. Returns how many.
    pub fn spread_from_all(&mut self, of_a: &[u64], of_b: &[u64], ties: Ties) -> usize {
        self.queue = (0..self.a.vertices() as u32).filter_map(|a| Some((a, self.in_b(a)?))).collect();
        self.spread(of_a, of_b, ties)
    }

    /// The same from the pairs made since the last time.
    pub fn spread(&mut self, of_a: &[u64], of_b: &[u64], ties: Ties) -> usize {
        let mut found = 0;
        let mut at = 0;
        while let Some((a, b)) = self.queue.get(at).copied() {
            at += 1;
            found += self.spread_up(a, b, of_a, of_b) + self.spread_down(a, b, of_a, of_b, ties);
        }
        self.queue.clear();
        found
    }

    fn spread_up(&mut self, a: u32, b: u32, of_a: &[u64], of_b: &[u64]) -> usize {
        if !self.a.is_node(a) {
            return 0;
        }
        let mut found = 0;
        let (left, right) = (self.a, self.b);
        for (x, y) in left.ins.get(a as usize).iter().zip(right.ins.get(b as usize)) {
            let (Some(x), Some(y)) = (x, y) else { continue };
            if x.out == y.out && of_a[x.vertex as usize] == of_b[y.vertex as usize] {
                found += usize::from(self.join(x.vertex, y.vertex));
            }
        }
        found
    }

    fn spread_down(&mut self, a: u32, b: u32, of_a: &[u64], of_b: &[u64], ties: Ties) -> usize {
        let free = |uses: &[Use], to: &[u32], colours: &[u64]| -> Vec<(u32, u32, u64, u32)> {
            let free = uses.iter().filter(|u| to[u.node as usize] == NONE);
            let mut free: Vec<_> = free.map(|u| (u.out, u.slot, colours[u.node as usize], u.node)).collect();
            free.sort_unstable();
            free
        };
        let of_b_free = free(self.b.uses.get(b as usize), &self.to_a, of_b);
        if of_b_free.is_empty() {
            return 0;
        }
        let of_a_free = free(self.a.uses.get(a as usize), &self.to_b, of_a);
        let key = |e: &(u32, u32, u64, u32)| (e.0, e.1, e.2);
        let mut found = 0;
        let mut others = of_b_free.as_slice();
        for group in of_a_free.chunk_by(|x, y| key(x) == key(y)) {
            let skipped = others.partition_point(|o| key(o) < key(&group[0]));
            let same = others[skipped..].partition_point(|o| key(o) == key(&group[0]));
            let partners = &others[skipped..skipped + same];
            others = &others[skipped + same..];
            if let ([one], [other]) = (group, partners) {
                found += usize::from(self.join(one.3, other.3));
            } else if ties == Ties::Break {
                let nodes = |list: &[(u32, u32, u64, u32)]| list.iter().map(|e| e.3).collect::<Vec<_>>();
                found += self.join_by_name_then_order(&nodes(group), &nodes(partners));
            }
        }
        found
    }

    /// Joins members of two lists: those of one name, then the rest in order.
    pub fn join_by_name_then_order(&mut self, of_a: &[u32], of_b: &[u32]) -> usize {
        let mut found = 0;
        if !of_a.is_empty() && !of_b.is_empty() {
            let mut by_name: HashMap<&str, u32, FixedState> = HashMap::with_hasher(FixedState::with_seed(7));
            let (left, right) = (self.a, self.b);
            for vertex in of_b.iter().rev().filter(|v| !self.label_name(right, **v).is_empty()) {
                by_name.insert(self.label_name(right, *vertex), *vertex);
            }
            for vertex in of_a {
                if let Some(other) = by_name.remove(self.label_name(left, *vertex)) {
                    found += usize::from(self.join(*vertex, other));
                }
            }
        }
        let mut rest = of_b.iter().filter(|v| self.to_a[**v as usize] == NONE).copied().collect::<Vec<_>>().into_iter();
        for vertex in of_a {
            if self.to_b[*vertex as usize] == NONE {
                let Some(other) = rest.next() else { break };
                found += usize::from(self.join(*vertex, other));
            }
        }
        found
    }

    /// What a tie is broken by: the name of a node, of its first output where it has none, or of a source.
    pub fn label_name<'x>(&self, side: &'x Side, vertex: u32) -> &'x str {
        let name = side.name(vertex);
        match side.view.nodes.get(vertex as usize) {
            Some(node) if name.is_empty() => node.output.first().map_or("", |o| o),
            _ => name,
        }
    }
}
