//! Every node is drawn once, every edge is somewhere, and pictures stay small.

use std::collections::HashMap;

use super::{Entry, Item, Scenes, draw};
use crate::page::entries::entries;
use crate::page::focus::focus;
use crate::page::network::{Kind, Mark, Network, Node, Value};
use crate::page::reduce::{Kept, reduce};

/// Node `i` reads what `reads(i)` make; the first reads the only input.
fn network(count: u32, reads: impl Fn(u32) -> Vec<u32>) -> Network {
    let value = |i: u32| Value { name: format!("v{i}"), is_output: i + 1 == count, ..Value::default() };
    let mut network = Network { nodes: Vec::new(), values: (0..count).map(value).collect() };
    network.values.push(Value { name: "x".into(), kind: Kind::Input, ..Value::default() });
    for i in 0..count {
        let inputs = if i == 0 { vec![Some(count)] } else { reads(i).into_iter().map(Some).collect() };
        network.nodes.push(Node {
            op: "Op".into(),
            name: format!("n{i}"),
            inputs,
            outputs: vec![Some(i)],
            ..Node::default()
        });
    }
    network
}

fn chain(count: u32) -> Network {
    network(count, |i| if i % 7 == 6 { vec![i - 1, i - 4] } else { vec![i - 1] })
}

fn check(network: &Network, entries: Vec<Entry>) -> Scenes {
    let all = Scenes::of(network, entries);
    let drawings = draw(network, &all);
    let mut homes = HashMap::new();
    for (s, drawing) in drawings.iter().enumerate() {
        assert!(drawing.boxes.len() < 300, "picture {s} has {} boxes", drawing.boxes.len());
        for (kind, number, ..) in &drawing.boxes {
            if matches!(kind, 0 | 2) {
                assert_eq!(homes.insert(*number, s), None, "node {number} is drawn twice");
            }
        }
        // From every picture a way leads to the first.
        let mut at = s;
        for _ in 0..20 {
            at = drawings[at].parent.unwrap_or(0);
        }
        assert_eq!(at, 0);
    }
    assert_eq!(homes.len(), network.nodes.len());
    // An edge between nodes of one picture is a line there.
    for (n, node) in network.nodes.iter().enumerate() {
        for (v, _) in node.reads().filter(|(v, _)| network.values[*v as usize].kind != Kind::Input) {
            let maker = network.nodes.iter().position(|m| m.outputs.contains(&Some(v))).unwrap();
            let (from, to) = (homes[&(maker as i64)], homes[&(n as i64)]);
            let box_of = |s: usize, n: usize| {
                drawings[s].boxes.iter().position(|b| matches!(b.0, 0 | 2) && b.1 == n as i64).unwrap()
            };
            if from == to {
                let (a, b) = (box_of(from, maker) as i64, box_of(to, n) as i64);
                assert!(drawings[from].lines.iter().any(|l| l[0] == a && l[1] == b), "{maker} → {n}");
            } else {
                let b = box_of(to, n) as i64;
                assert!(drawings[to].lines.iter().any(|l| l[1] == b), "{n} has nothing above it");
            }
        }
    }
    all
}

#[test]
fn a_small_graph_is_one_picture() {
    let network = chain(150);
    let all = check(&network, entries(&network, &HashMap::new(), &[], &[]));
    assert_eq!(all.scenes.len(), 1);
}

#[test]
fn a_large_graph_is_an_outline_of_pictures() {
    let network = chain(6000);
    let all = check(&network, entries(&network, &HashMap::new(), &[], &[]));
    assert!(all.scenes.len() > 70 && all.scenes.len() < 400, "{}", all.scenes.len());
}

#[test]
fn crowds_and_loose_nodes_are_cut_too() {
    let star = network(2000, |_| vec![0]);
    check(&star, entries(&star, &HashMap::new(), &[], &[]));
    let loose = network(1000, |_| vec![]);
    check(&loose, entries(&loose, &HashMap::new(), &[], &[]));
    let woven = network(400, |i| (0..i).rev().take(9).collect());
    check(&woven, entries(&woven, &HashMap::new(), &[], &[]));
}

#[test]
fn cuts_are_where_few_values_cross() {
    // Ladders of 50: inside each, two values are alive; between them, one.
    let network = network(1000, |i| if i % 50 == 0 { vec![i - 1] } else { vec![i - 1, i - i % 50] });
    let all = Scenes::of(&network, entries(&network, &HashMap::new(), &[], &[]));
    let ends: Vec<usize> = all.scenes[1..].iter().map(|s| s.items.end).filter(|e| *e < 1001).collect();
    // The input stands in front of the nodes. Behind the last node of a ladder and behind the first of the next one value is alive.
    assert!(!ends.is_empty() && ends.iter().all(|e| (e - 1) % 50 <= 1), "{ends:?}");
}

#[test]
fn nodes_that_belong_together_are_one_box_until_opened() {
    let network = chain(40);
    let bundle = crate::page::entries::Bundle { title: "PER at x".into(), mark: Mark::Added, is_aside: false };
    let of: Vec<Option<usize>> = (0..40).map(|i| (10..16).contains(&i).then_some(0)).collect();
    let entries = entries(&network, &HashMap::new(), &of, &[bundle]);
    let all = check(&network, entries);
    assert_eq!(all.scenes.len(), 2);
    assert_eq!(
        (all.scenes[1].title.as_str(), all.scenes[1].parts.len(), all.scenes[1].parent),
        ("PER at x", 6, Some(0))
    );
}

#[test]
fn around_a_change_the_rest_stands_in_runs() {
    let mut network = chain(10_000);
    network.nodes[5000].mark = Mark::Changed;
    let kept = focus(&network, &[], &[]);
    let whole = kept.iter().filter(|k| matches!(k, Kept::Whole(_))).count();
    assert!(whole > 4 && whole < 20, "{whole}");
    let total: usize = kept.iter().map(|k| if let Kept::Run { nodes, .. } = k { nodes.len() } else { 1 }).sum();
    assert_eq!(total, 10_000);
    let (small, places, _) = reduce(&network, kept, |_| false);
    assert_eq!(small.nodes[places[5000].unwrap() as usize].mark, Mark::Changed);
    let all = check(&small, entries(&small, &HashMap::new(), &[], &[]));
    assert_eq!(all.scenes.len(), 1);
    assert!(all.items.iter().any(|i| matches!(i, Item::Output(_))));
}

#[test]
fn so_many_changes_that_none_has_neighbours_stay_within_bounds() {
    let mut network = chain(100_000);
    network.nodes.iter_mut().for_each(|n| n.mark = Mark::Added);
    let kept = focus(&network, &[], &[]);
    assert!(kept.len() <= 40_001, "{}", kept.len());
}
