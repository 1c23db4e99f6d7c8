//! From a selector and a catalog to taps.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::activation::Activation;
use super::catalog::{Catalog, Hidden};
use super::error::{ParseError, SelectError};
use super::parse::{Item, What, parse_items};
use super::resolve::{Key, Universe};
use crate::graph::{Graph, NodeId, ValueId};

/// A choice of layers, such as `relu,!name:/head*`.
///
/// Its items, separated by commas, are read left to right. Each adds what it matches, or removes it behind a `!`:
///
/// | item | matches |
/// |---|---|
/// | `relu`, `gelu`, `swish` … | an activation, whatever the case, also where an exporter spelt it out |
/// | `all` | every activation |
/// | `none` | nothing; forgets what was chosen before |
/// | `op:Conv` | every node of an operator type; the tap is its first output |
/// | `name:/fc*` | nodes by name, `*` and `?` matching `/` too: the activations among them, or where there is none the nodes themselves |
/// | `re:fc[12]` | the same with a regular expression, which matches anywhere in the name |
/// | `tensor:x` | a tensor that a node makes, or a graph input |
/// | `#2..5` | keeps the second to fifth of what was chosen before, in topological order; also `#3`, `#2..`, `#..5` |
///
/// A composite's name is that of its last node. A comma inside an item is written `\,`; between the braces of a glob or regular
/// expression it may stand alone. Element types are not looked at: whoever taps must.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    items: Vec<Item>,
}

/// A value that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// The node that makes it; `None` for graph inputs.
    pub node: Option<NodeId>,
    /// The value.
    pub value: ValueId,
    /// The activation whose output it is.
    pub activation: Option<Activation>,
    /// That activation's input.
    pub input: Option<ValueId>,
    /// Index of the item that chose it last. `#…` chooses nothing, it keeps.
    pub item: usize,
}

impl FromStr for Selector {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(Selector { items: parse_items(text)? })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.items.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl Selector {
    /// The items, in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The values that it chooses, in topological order (graph inputs first), each once.
    ///
    /// # Errors
    /// An item that matches nothing (unless what it asks for is [out of reach](Self::out_of_reach) and others are chosen), a `!item` that removes nothing, positions beyond the last match, and a choice that ends empty
    /// without ending in `none` are errors: each is more likely a slip than a wish.
    pub fn select(&self, graph: &Graph<'_>, catalog: &Catalog) -> Result<Vec<Tap>, SelectError> {
        let universe = Universe::of(graph, catalog);
        let mut chosen: BTreeMap<Key, Tap> = BTreeMap::new();
        let mut out_of_reach = None;
        for (i, item) in self.items.iter().enumerate() {
            let nothing_before = chosen.is_empty() && (item.removes || matches!(item.what, What::Positions { .. }));
            if nothing_before {
                return Err(SelectError::NothingBefore { item: item.to_string() });
            }
            match item.what {
                What::None => chosen.clear(),
                What::Positions { first, last } => {
                    let count = chosen.len();
                    if first > count {
                        return Err(SelectError::BeyondLast { item: item.to_string(), count });
                    }
                    let last = last.unwrap_or(count);
                    let mut position = 0;
                    chosen.retain(|_, _| {
                        position += 1;
                        (first..=last).contains(&position) != item.removes
                    });
                }
                _ => {
                    let matches = match universe.matches(&item.what, i) {
                        Err(nothing) if catalog.hidden.iter().any(|h| asks_for(&item.what, h)) => {
                            out_of_reach = out_of_reach.or(Some(nothing).filter(|_| !item.removes));
                            continue;
                        }
                        found => found?,
                    };
                    let before = chosen.len();
                    let count = matches.len();
                    for tap in matches {
                        let key = universe.key(&tap);
                        if item.removes {
                            chosen.remove(&key)
                        } else {
                            chosen.insert(key, tap)
                        };
                    }
                    let hides = || catalog.hidden.iter().any(|h| asks_for(&item.what, h));
                    if item.removes && chosen.len() == before && !hides() {
                        return Err(SelectError::NothingRemoved { item: item.what.to_string(), matches: count });
                    }
                }
            }
        }
        let meant = self.items.last().is_some_and(|item| item.what == What::None);
        if chosen.is_empty() && !meant {
            return Err(out_of_reach.unwrap_or_else(|| SelectError::NothingLeft { selector: self.to_string() }));
        }
        Ok(chosen.into_values().collect())
    }

    /// The activations that it asks for by kind, as `all` or by name, and that cannot be tapped; see [`Catalog::hidden`].
    ///
    /// The last item that speaks of one counts. Positions speak of what can be tapped only, and leave the others out.
    pub fn out_of_reach<'c>(&self, catalog: &'c Catalog) -> impl Iterator<Item = &'c Hidden> {
        let verdict = |hidden: &Hidden, item: &Item| match item.what {
            What::None => Some(false),
            What::Positions { .. } => (!item.removes).then_some(false),
            ref what => asks_for(what, hidden).then_some(!item.removes),
        };
        let is_asked = move |h: &&Hidden| self.items.iter().rev().find_map(|item| verdict(h, item)) == Some(true);
        catalog.hidden.iter().filter(is_asked)
    }

    /// Which of the given taps it picks, for options that apply to some of them (`--coef 'relu=1e-4'`).
    ///
    /// `taps` are in topological order. A selector that starts with `#…` or `!…` starts from all of them. Nothing is an error here:
    /// an item that matches none of the taps picks none.
    pub fn matches(&self, graph: &Graph<'_>, taps: &[Tap]) -> Vec<bool> {
        let starts_from_all =
            self.items.first().is_some_and(|item| item.removes || matches!(item.what, What::Positions { .. }));
        let mut picked = vec![starts_from_all; taps.len()];
        for item in &self.items {
            let mut position = 0;
            for (tap, picked) in taps.iter().zip(&mut picked) {
                position += usize::from(*picked);
                match &item.what {
                    What::None => *picked = false,
                    What::Positions { first, last } => {
                        let inside = position >= *first && last.is_none_or(|last| position <= last);
                        *picked &= inside != item.removes;
                    }
                    what if picks(what, graph, tap) => *picked = !item.removes,
                    _ => {}
                }
            }
        }
        picked
    }
}

/// Whether an item alone picks a tap.
fn picks(what: &What, graph: &Graph<'_>, tap: &Tap) -> bool {
    let node = tap.node.map(|node| graph.node(node));
    match what {
        What::Activation(activation) => tap.activation == Some(*activation),
        What::All => tap.activation.is_some(),
        What::Operator(op) => node.is_some_and(|n| n.op_type() == op),
        What::Node(pattern) => node.is_some_and(|n| pattern.matches(n.name())),
        What::Tensor(name) => graph.name(tap.value) == name,
        What::None | What::Positions { .. } => false,
    }
}

/// Whether an item alone asks for an activation that is out of reach.
fn asks_for(what: &What, hidden: &Hidden) -> bool {
    match what {
        What::All => true,
        What::Activation(activation) => *activation == hidden.activation,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::pattern::testing::model;
    use crate::wire::Model;

    const NET: &str = "c1=Conv(x,w); r1=Relu(c1); c2=Conv(r1,w); r2=Relu(c2); s=Sigmoid(r2); f1=Gemm(s,w); e=Elu(f1); \
                       h|l=Split(e); y=Add(h,l)";

    fn with<T>(text: &str, run: impl FnOnce(&Graph<'_>, &Catalog) -> T) -> T {
        let model: Model = model(text);
        let graph = Graph::of(&model).unwrap();
        run(&graph, &Catalog::of(&graph, &model))
    }

    fn names(spec: &str) -> Vec<String> {
        with(NET, |graph, catalog| {
            let taps = spec.parse::<Selector>().unwrap().select(graph, catalog).unwrap();
            taps.iter().map(|t| format!("{}/{}", graph.name(t.value), t.item)).collect()
        })
    }

    fn refusal_on(net: &str, spec: &str) -> String {
        with(net, |graph, catalog| spec.parse::<Selector>().unwrap().select(graph, catalog).unwrap_err().to_string())
    }

    fn refusal(spec: &str) -> String {
        refusal_on(NET, spec)
    }

    #[test]
    fn items_add_remove_and_keep_from_left_to_right_in_topological_order() {
        assert_eq!(names("elu,relu"), ["r1/1", "r2/1", "e/0"]);
        assert_eq!(names("relu,all"), ["r1/1", "r2/1", "s/1", "e/1"]);
        assert_eq!(names("all,!sigmoid"), ["r1/0", "r2/0", "e/0"]);
        assert_eq!(names("all,#2..3"), ["r2/0", "s/0"]);
        assert_eq!(names("all,!#1,#..2"), ["r2/0", "s/0"]);
        assert_eq!(names("all,none"), [""; 0]);
        assert_eq!(names("all,none,elu"), ["e/2"]);
    }

    #[test]
    fn nodes_and_tensors_are_chosen_by_name() {
        assert_eq!(names("op:Conv"), ["c1/0", "c2/0"]);
        assert_eq!(names("name:r*"), ["r1/0", "r2/0"]);
        assert_eq!(names("name:c*"), ["c1/0", "c2/0"]);
        assert_eq!(names("name:?1"), ["r1/0"], "activations go before other nodes");
        assert_eq!(names("re:^f,op:Split"), ["f1/0", "h/1"]);
        assert_eq!(names("tensor:l,tensor:x,tensor:r1"), ["x/1", "r1/2", "l/0"]);
    }

    #[test]
    fn a_tap_knows_its_activation_however_it_was_chosen() {
        with("s=Sigmoid(x); y=Mul(s,x)", |graph, catalog| {
            for spec in ["silu", "op:Mul", "name:y", "tensor:y"] {
                let taps = spec.parse::<Selector>().unwrap().select(graph, catalog).unwrap();
                assert_eq!((taps[0].activation, taps[0].input), (Some(Activation::Silu), graph.find("x")), "{spec}");
            }
        });
    }

    #[test]
    fn slips_are_refused_with_what_is_there() {
        for (spec, words) in [
            ("gelu", "`gelu` matches nothing: the graph has relu ×2, elu ×1, sigmoid ×1"),
            ("op:conv", "did you mean `op:Conv`?"),
            ("name:r1x", "did you mean `name:r1`?"),
            ("name:zzz", "none of the graph's 9 nodes is so named; there are `c1`, `r1`, `c2`, `r2` and 5 more"),
            ("tensor:c11", "did you mean `tensor:c1`?"),
            ("tensor:nowhere", "has no tensor of this name"),
            ("relu,!elu", "`!elu` removes nothing: it matches 1 in all"),
            ("relu,!gelu", "`gelu` matches nothing"),
            ("!relu", "write for example `all,!relu`"),
            ("#2", "they chose nothing"),
            ("relu,#3", "the items before it chose 2"),
            ("relu,!relu", "chooses nothing in the end"),
        ] {
            let message = refusal(spec);
            assert!(message.contains(words), "{spec}: {message}");
        }
        let empty = refusal_on("a=Conv(x,w); y=Neg(a)", "all");
        assert!(empty.contains("no activation; the operators are Conv ×1, Neg ×1"), "{empty}");
        assert!(refusal_on("y=Add(x,1)", "tensor:1").contains("it is an initializer"));
    }

    #[test]
    fn what_is_out_of_reach_is_asked_for_by_kind_and_can_be_left_out() {
        let hidden = |activation, name: &str| Hidden { activation, description: name.into(), reason: String::new() };
        with(NET, |graph, catalog| {
            let mut catalog = catalog.clone();
            catalog.hidden = vec![hidden(Activation::Tanh, "t"), hidden(Activation::Relu, "r")];
            let asked = |spec: &str| {
                let selector = spec.parse::<Selector>().unwrap();
                let chosen = selector.select(graph, &catalog).map_err(|e| e.to_string());
                let names: Vec<&str> = selector.out_of_reach(&catalog).map(|h| h.description.as_str()).collect();
                (chosen.map(|taps| taps.len()), names.join(" "))
            };
            assert_eq!(asked("all"), (Ok(4), "t r".into()));
            assert_eq!(asked("elu,tanh"), (Ok(1), "t".into()));
            assert_eq!(asked("all,!tanh"), (Ok(4), "r".into()));
            assert_eq!(asked("all,!relu"), (Ok(2), "t".into()));
            assert_eq!(asked("all,#1..2"), (Ok(2), String::new()));
            assert_eq!(asked("op:Relu"), (Ok(2), String::new()));
            assert!(asked("tanh").0.unwrap_err().contains("1 cannot be tapped, such as t"));
        });
    }

    #[test]
    fn which_taps_a_selector_picks() {
        with(NET, |graph, catalog| {
            let taps = "all,op:Conv".parse::<Selector>().unwrap().select(graph, catalog).unwrap();
            let picked = |spec: &str| {
                let picked = spec.parse::<Selector>().unwrap().matches(graph, &taps);
                let names = taps.iter().zip(picked).filter(|(_, p)| *p).map(|(t, _)| graph.name(t.value).to_owned());
                names.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(picked("relu"), "r1 r2");
            assert_eq!(picked("#1..2"), "c1 r1");
            assert_eq!(picked("!name:r*"), "c1 c2 s e");
            assert_eq!(picked("all,#2"), "r2");
            assert_eq!(picked("op:Conv,tensor:e"), "c1 c2 e");
            assert_eq!(picked("gelu"), "");
        });
    }
}
