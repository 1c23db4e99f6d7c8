//! Which boxes of a picture are joined, and what lies outside it.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Item, Makers, Scenes};
use crate::page::network::{Mark, Network};

/// Values that an edge names; of more it tells the number.
const MOST_NAMED: usize = 6;

/// Stubs at either end of a picture; more become one.
const MOST_STUBS: usize = 8;

/// An edge of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Boxes: the picture's parts, then its stubs.
    pub from: usize,
    pub to: usize,
    /// Some of the values.
    pub values: Vec<u32>,
    /// How many more there are.
    pub more: usize,
    pub mark: Mark,
}

/// What lies outside a picture and is joined with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stub {
    /// Whether it reads from the picture.
    pub is_later: bool,
    /// The item there; `None` for several.
    pub item: Option<usize>,
}

/// A picture's edges and stubs.
#[derive(Debug, Default)]
pub struct Joined {
    pub links: Vec<Link>,
    pub stubs: Vec<Stub>,
    index: HashMap<(usize, usize), usize, RandomState>,
    /// By direction and the item there.
    stub_index: HashMap<(bool, Option<usize>), usize, RandomState>,
}

/// The edges of all pictures. Time is linear in the number of edges of the graph times the depth of the pictures, which is 4 at most
/// for a million nodes.
pub fn join(network: &Network, all: &Scenes) -> Vec<Joined> {
    let mut joined: Vec<Joined> = all.scenes.iter().map(|_| Joined::default()).collect();
    let makers = Makers::of(network, &all.items);
    let mut join = |value: u32, to: usize, mark: Mark| {
        if let Some(from) = all.maker(network, &makers, value).filter(|from| *from != to) {
            let mark = if mark == Mark::None { network.values[value as usize].mark } else { mark };
            all.join(&mut joined, from, to, value, mark);
        }
    };
    for (i, item) in all.items.iter().enumerate() {
        match item {
            Item::Node(n) => network.nodes[*n as usize].reads().for_each(|(v, mark)| join(v, i, mark)),
            Item::Output(v) | Item::Ghost { value: v, .. } => join(*v, i, Mark::None),
            Item::Input(_) => {}
        }
    }
    joined
}

impl Scenes {
    fn join(&self, joined: &mut [Joined], from: usize, to: usize, value: u32, mark: Mark) {
        let (mut above_from, mut above_to) = (self.places(from), self.places(to));
        // The innermost picture that shows both.
        while let ([.., (a, _)], [.., (b, _)]) = (&above_from[..], &above_to[..]) {
            let (Some((_, box_a)), true) = (above_from.last(), a == b) else { break };
            let (scene, box_a) = (*a, *box_a);
            let Some((_, box_b)) = above_to.last().copied() else { break };
            above_from.pop();
            above_to.pop();
            if box_a != box_b {
                joined[scene].add(box_a, box_b, value, mark);
                break;
            }
        }
        // Inside their own pictures the other one is outside.
        for (scene, at) in above_from {
            let stub = joined[scene].stub(true, to);
            joined[scene].add(at, self.scenes[scene].parts.len() + stub, value, mark);
        }
        for (scene, at) in above_to {
            let stub = joined[scene].stub(false, from);
            joined[scene].add(self.scenes[scene].parts.len() + stub, at, value, mark);
        }
    }

    /// The pictures that show an item, and as which box: its own first.
    fn places(&self, item: usize) -> Vec<(usize, usize)> {
        let mut place = self.homes[item];
        let mut places = vec![place];
        while let Some(parent) = self.scenes[place.0].parent {
            place = (parent, self.scenes[place.0].at);
            places.push(place);
        }
        places
    }
}

impl Joined {
    fn stub(&mut self, is_later: bool, item: usize) -> usize {
        if let Some(stub) = self.stub_index.get(&(is_later, Some(item))) {
            return *stub;
        }
        let so_far = self.stubs.iter().filter(|s| s.is_later == is_later).count();
        let item = (so_far + 1 < MOST_STUBS).then_some(item);
        *self.stub_index.entry((is_later, item)).or_insert_with(|| {
            self.stubs.push(Stub { is_later, item });
            self.stubs.len() - 1
        })
    }

    fn add(&mut self, from: usize, to: usize, value: u32, mark: Mark) {
        let link = *self.index.entry((from, to)).or_insert_with(|| {
            self.links.push(Link { from, to, values: Vec::new(), more: 0, mark });
            self.links.len() - 1
        });
        let link = &mut self.links[link];
        // An edge that stands for several is marked where all of them are alike.
        if link.mark != mark {
            link.mark = Mark::None;
        }
        if link.values.contains(&value) {
            return;
        }
        if link.values.len() < MOST_NAMED {
            link.values.push(value);
        } else {
            link.more += 1;
        }
    }
}
