//! Pictures of a graph, each small enough to be looked at.
//!
//! A small graph is one picture. A large one is cut into runs of neighbouring nodes, each drawn on its own; an outline shows the
//! runs as boxes that open, and where there are too many of these it is cut in turn. So every node is drawn in exactly one picture,
//! and all pictures together take room and time linear in the size of the graph. What lies outside a picture is hinted at by
//! stubs at its upper and lower end.

mod cut;
mod draw;
mod edges;
mod sizes;
#[cfg(test)]
mod tests;

pub use draw::{Drawing, draw};

use super::entries::Bundle;
use super::network::{Kind, Mark, Network};

/// Boxes of the uncut graph, and of the outline.
const MOST_AT_THE_TOP: usize = 240;

/// Something that is drawn as one box and cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A node.
    Node(u32),
    /// A graph input, by its value.
    Input(u32),
    /// A graph output, by its value.
    Output(u32),
    /// What would be added to a value; the row of the list that tells more.
    Ghost { value: u32, row: u32 },
}

/// What a picture is made of, in topological order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Item(Item),
    /// Items that are one box until it is opened.
    Group {
        bundle: Bundle,
        items: Vec<Item>,
    },
}

/// A picture before it is drawn.
#[derive(Debug, Default)]
pub struct Scene {
    /// The picture in which this one is a box.
    pub parent: Option<usize>,
    /// Which of its boxes.
    pub at: usize,
    pub title: String,
    pub mark: Mark,
    pub parts: Vec<Part>,
    /// Whether it is an [`Entry::Group`].
    pub is_group: bool,
    /// Whether it stands beside the graph.
    pub is_aside: bool,
    /// The items in it, from the first to behind the last.
    pub items: std::ops::Range<usize>,
}

/// A box of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Item(usize),
    Scene(usize),
}

/// All pictures of a graph.
#[derive(Debug, Default)]
pub struct Scenes {
    /// The first is the outermost.
    pub scenes: Vec<Scene>,
    pub items: Vec<Item>,
    /// For each item its picture, and which box it is there.
    pub homes: Vec<(usize, usize)>,
    /// For each node its item.
    pub item_of_node: Vec<Option<usize>>,
}

impl Scenes {
    /// Pictures of `entries`.
    pub fn of(network: &Network, entries: Vec<Entry>) -> Self {
        let mut all = Scenes { scenes: vec![Scene::default()], ..Scenes::default() };
        let mut groups = Vec::new();
        for entry in entries {
            let first = all.items.len();
            match entry {
                Entry::Item(item) => all.items.push(item),
                Entry::Group { bundle, items } => {
                    all.items.extend(items);
                    groups.push((first..all.items.len(), bundle));
                }
            }
        }
        all.item_of_node = vec![None; network.nodes.len()];
        for (i, item) in all.items.iter().enumerate() {
            if let Item::Node(n) = item
                && let Some(slot) = all.item_of_node.get_mut(*n as usize)
            {
                *slot = Some(i);
            }
        }
        let live = cut::live_values(network, &all);
        let mut parts = Vec::new();
        let mut next = 0;
        for (range, bundle) in groups {
            parts.extend((next..range.start).map(Part::Item));
            next = range.end;
            if range.is_empty() {
                continue;
            }
            let inner = all.cut(range.clone().map(Part::Item).collect(), &live);
            let Bundle { title, mark, is_aside } = bundle;
            all.scenes.push(Scene { title, mark, is_aside, is_group: true, ..Scene::default() });
            let scene = all.scenes.len() - 1;
            all.fill(scene, inner);
            parts.push(Part::Scene(scene));
        }
        parts.extend((next..all.items.len()).map(Part::Item));
        let top = all.cut(parts, &live);
        all.fill(0, top);
        all.settle(network);
        all
    }

    /// Cuts a list of boxes into pictures until few enough are left.
    fn cut(&mut self, mut parts: Vec<Part>, live: &[u32]) -> Vec<Part> {
        while parts.len() > MOST_AT_THE_TOP {
            let mut outer = Vec::new();
            for run in cut::runs(&parts, |part| live.get(self.items_of(part).end.wrapping_sub(1)).copied().unwrap_or(0))
            {
                self.scenes.push(Scene::default());
                let scene = self.scenes.len() - 1;
                self.fill(scene, parts[run].to_vec());
                outer.push(Part::Scene(scene));
            }
            parts = outer;
        }
        parts
    }

    fn items_of(&self, part: Part) -> std::ops::Range<usize> {
        match part {
            Part::Item(i) => i..i + 1,
            Part::Scene(s) => self.scenes[s].items.clone(),
        }
    }

    fn fill(&mut self, scene: usize, parts: Vec<Part>) {
        let first = parts.first().map_or(0, |p| self.items_of(*p).start);
        let last = parts.last().map_or(0, |p| self.items_of(*p).end);
        self.scenes[scene].items = first..last;
        self.scenes[scene].parts = parts;
    }

    /// Writes down where everything is, and what pictures are called.
    fn settle(&mut self, network: &Network) {
        self.homes = vec![(0, 0); self.items.len()];
        for scene in 0..self.scenes.len() {
            for at in 0..self.scenes[scene].parts.len() {
                match self.scenes[scene].parts[at] {
                    Part::Item(i) => self.homes[i] = (scene, at),
                    Part::Scene(s) => (self.scenes[s].parent, self.scenes[s].at) = (Some(scene), at),
                }
            }
            if self.scenes[scene].title.is_empty() && scene > 0 {
                self.scenes[scene].title = self.title(network, scene);
            }
        }
    }

    /// The first and the last node's name.
    fn title(&self, network: &Network, scene: usize) -> String {
        let range = self.scenes[scene].items.clone();
        let name = |item: &Item| {
            let Item::Node(n) = item else { return None };
            let node = network.nodes.get(*n as usize)?;
            let name = if node.name.is_empty() { &node.op } else { &node.name };
            // Of the title of a bundle what stands before the details.
            let name = if node.stands_for > 0 { name.split(": ").next()? } else { name };
            Some(name).filter(|n| !n.is_empty())
        };
        let first = self.items[range.clone()].iter().find_map(name).unwrap_or("nodes");
        let last = self.items[range].iter().rev().find_map(name).unwrap_or("nodes");
        if first == last {
            return first.to_owned();
        }
        // Up to the part in which they differ.
        let alike = first.split('/').zip(last.split('/')).take_while(|(a, b)| a == b).count();
        let start = |name: &str| name.split('/').take(alike + 1).collect::<Vec<_>>().join("/");
        format!("{} to {}", start(first), start(last))
    }

    /// The item that makes a value.
    pub fn maker(&self, network: &Network, makers: &Makers, value: u32) -> Option<usize> {
        match network.values.get(value as usize)?.kind {
            Kind::Input => makers.inputs.get(value as usize).copied().flatten(),
            Kind::Inner | Kind::Constant => {
                let node = makers.nodes.get(value as usize).copied().flatten()?;
                self.item_of_node.get(node as usize).copied().flatten()
            }
            Kind::Initializer => None,
        }
    }
}

/// By value: the node that makes it, and the item that shows it as an input.
#[derive(Debug, Default)]
pub struct Makers {
    pub nodes: Vec<Option<u32>>,
    pub inputs: Vec<Option<usize>>,
}

impl Makers {
    pub fn of(network: &Network, items: &[Item]) -> Self {
        let count = network.values.len();
        let mut makers = Makers { nodes: vec![None; count], inputs: vec![None; count] };
        for (n, node) in (0..).zip(&network.nodes) {
            for v in node.outputs.iter().flatten() {
                if let Some(slot) = makers.nodes.get_mut(*v as usize) {
                    *slot = Some(n);
                }
            }
        }
        for (i, item) in items.iter().enumerate() {
            if let Item::Input(v) = item
                && let Some(slot) = makers.inputs.get_mut(*v as usize)
            {
                *slot = Some(i);
            }
        }
        makers
    }
}
