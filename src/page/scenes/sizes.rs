//! How large a box is drawn. The page measures and shortens text itself; what is reserved here fits most of it.

use super::{Item, Part, Scenes};
use crate::page::layout::Size;
use crate::page::network::{Kind, Network};

/// Height of the coloured head, of a line below it, and of the space under the lines.
const HEAD: f64 = 26.0;
const LINE: f64 = 15.0;
const FOOT: f64 = 7.0;

/// Advance of a character of the head and of a line, in pixels, on average.
const HEAD_ADVANCE: f64 = 7.6;
const LINE_ADVANCE: f64 = 6.1;

const LEAST_WIDTH: f64 = 104.0;
const MOST_WIDTH: f64 = 236.0;

/// Lines for inputs that are initializers or constants.
pub const MOST_WEIGHTS: usize = 4;

/// Stubs for what lies outside.
pub const STUB: Size = Size { width: 150.0, height: 24.0 };

/// The size of a part of a picture.
pub fn size(network: &Network, all: &Scenes, part: Part) -> Size {
    match part {
        Part::Item(i) => item(network, &all.items[i]),
        Part::Scene(_) => Size { width: 244.0, height: HEAD + 3.0 * LINE + FOOT },
    }
}

fn item(network: &Network, item: &Item) -> Size {
    let value = |v: u32| network.values.get(v as usize).map_or(("", ""), |v| (v.name.as_str(), v.shape.as_str()));
    match item {
        Item::Node(n) => node(network, *n),
        Item::Input(v) | Item::Output(v) => {
            let (name, shape) = value(*v);
            Size { width: width(name, &[shape]), height: 40.0 }
        }
        Item::Ghost { .. } => Size { width: 118.0, height: 38.0 },
    }
}

fn node(network: &Network, n: u32) -> Size {
    let Some(node) = network.nodes.get(n as usize) else { return STUB };
    if node.stands_for > 0 {
        return Size { width: width(&node.name, &[]).max(168.0), height: 32.0 };
    }
    let is_weight = |v: &&u32| {
        network.values.get(**v as usize).is_some_and(|v| matches!(v.kind, Kind::Initializer | Kind::Constant))
    };
    let weights: Vec<&u32> = node.inputs.iter().flatten().filter(is_weight).collect();
    let shown = weights.iter().take(MOST_WEIGHTS).map(|v| &network.values[**v as usize]);
    let texts: Vec<String> = shown.map(|v| format!("{}  {}", last_word(&v.name), dims(&v.shape))).collect();
    let lines: Vec<&str> = std::iter::once(tail(&node.name)).chain(texts.iter().map(String::as_str)).collect();
    let count = usize::from(!node.name.is_empty())
        + weights.len().min(MOST_WEIGHTS)
        + usize::from(weights.len() > MOST_WEIGHTS);
    let height = if count == 0 { HEAD } else { HEAD + count as f64 * LINE + FOOT };
    Size { width: width(&node.op, &lines), height }
}

fn width(head: &str, lines: &[&str]) -> f64 {
    let length = |text: &str| text.chars().count().min(60) as f64;
    let head = 34.0 + HEAD_ADVANCE * length(head);
    let widest = lines.iter().map(|l| 22.0 + LINE_ADVANCE * length(l)).fold(head, f64::max);
    widest.clamp(LEAST_WIDTH, MOST_WIDTH).round()
}

/// The last 30 characters, which tell names of one block apart.
fn tail(name: &str) -> &str {
    name.char_indices().rev().nth(29).map_or(name, |(i, _)| &name[i..])
}

/// What stands behind the last separator.
fn last_word(name: &str) -> &str {
    name.rsplit(['/', '.', ':']).next().unwrap_or(name)
}

/// The shape without its type.
fn dims(shape: &str) -> &str {
    shape.find('[').map_or(shape, |i| &shape[i..])
}
