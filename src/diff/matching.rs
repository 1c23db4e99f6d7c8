//! Which nodes and values of two graphs correspond.

use std::collections::HashMap;

use crate::graph::NodeId;

/// Corresponding nodes and values of two main graphs. One to one; what has no counterpart is in neither map.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// By node of `a`: its counterpart in `b`.
    pub a_to_b: Vec<Option<NodeId>>,
    /// By node of `b`: its counterpart in `a`.
    pub b_to_a: Vec<Option<NodeId>>,
    values: HashMap<String, String>,
}

impl Matching {
    /// From both directions and pairs of value names (in `a`, in `b`).
    pub(super) fn new(
        a_to_b: Vec<Option<NodeId>>,
        b_to_a: Vec<Option<NodeId>>,
        values: HashMap<String, String>,
    ) -> Self {
        Matching { a_to_b, b_to_a, values }
    }

    /// The name in `b` of the value that is called so in `a`: the same output of a corresponding node, a corresponding graph input,
    /// or a corresponding initializer.
    pub fn value(&self, name_in_a: &str) -> Option<&str> {
        self.values.get(name_in_a).map(String::as_str)
    }

    /// All pairs of corresponding values, by their names in `a` and `b`, in no order.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(a, b)| (a.as_str(), b.as_str()))
    }
}
