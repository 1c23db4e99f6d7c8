//! Recurrent cells that an exporter spelt out, such as PyTorch's LSTMCell and GRUCell.
//!
//! What the gates read is not looked at: a cell is known by how its gates meet.

use super::algebra::{Atoms, Evidence};
use super::op::Op;
use super::{Match, View};
use crate::graph::{NodeId, ValueId};
use crate::select::Activation;

/// How many nodes behind a GRU's candidate are searched for its reset gate.
const SEARCHED: usize = 16;

impl View<'_, '_> {
    /// h = σ(o)·tanh(c′), where c′ = σ(f)·c + σ(i)·tanh(g), or σ(i)·tanh(g) where the state is zero.
    pub fn lstm_cell(&self, node: NodeId) -> Option<Match> {
        self.both_orders(node).find_map(|[gate, squashed]| {
            let (tanh, state) = self.made_by_activation(squashed, Activation::Tanh)?;
            let output_gate = self.gate(gate, Activation::Sigmoid)?;
            let mut members = vec![tanh, output_gate];
            let (inner, op) = self.maker(state)?;
            match op {
                Op::Add => {
                    members.push(inner);
                    let fits = self.both_orders(inner).any(|[kept, added]| {
                        let parts = self.gated_candidate(added).zip(self.gated_state(kept));
                        parts.map(|(a, b)| members.extend(a.into_iter().chain(b))).is_some()
                    });
                    fits.then_some(())?;
                }
                Op::Mul => members.extend(self.gated_candidate(state)?),
                _ => return None,
            }
            self.cell(node, Activation::Lstm, members)
        })
    }

    /// h′ = (1 − z)·n + z·h or z·n + (1 − z)·h or n + z·(h − n), where n = tanh(… r·… …).
    pub fn gru_cell(&self, node: NodeId) -> Option<Match> {
        self.both_orders(node).find_map(|[left, right]| {
            let (product, _) = self.maker(right).filter(|(_, op)| *op == Op::Mul)?;
            let (z, n, mut members) = if let Some(n) = self.gate(left, Activation::Tanh) {
                let (z, n) = self.correction(product, left).map(|z| (z, n))?;
                (z, n, vec![product])
            } else {
                let (first, _) = self.maker(left).filter(|(_, op)| *op == Op::Mul)?;
                let (z, n) = self.blend(first, product)?;
                (z, n, vec![first, product])
            };
            let reset = self.reset_gate(n)?;
            members.extend([z, n]);
            members.extend(reset);
            self.cell(node, Activation::Gru, members)
        })
    }

    /// The match of a cell, gates spelt out in several nodes included.
    fn cell(&self, node: NodeId, activation: Activation, members: Vec<NodeId>) -> Option<Match> {
        let mut evidence = Evidence::new();
        members.iter().for_each(|m| evidence.members.extend_from_slice(self.members_at(*m)));
        evidence.members.extend(members);
        self.settle(node, activation, None, evidence)
    }

    /// The activation that a value is, or of which a Split, Slice or change of shape takes a part.
    fn gate(&self, value: ValueId, wanted: Activation) -> Option<NodeId> {
        if let Some((node, _)) = self.made_by_activation(value, wanted) {
            return Some(node);
        }
        let (node, _) = self.graph.producer(value)?;
        let takes_part =
            matches!(self.ops[node.index()], Op::Split | Op::Slice | Op::Squeeze | Op::Unsqueeze | Op::Reshape);
        let whole = self.graph.input(node, 0).filter(|_| takes_part)?;
        self.made_by_activation(whole, wanted).map(|(node, _)| node)
    }

    /// σ(i)·tanh(g); its nodes.
    fn gated_candidate(&self, value: ValueId) -> Option<[NodeId; 3]> {
        let (node, _) = self.maker(value).filter(|(_, op)| *op == Op::Mul)?;
        let both = |[a, b]: [ValueId; 2]| self.gate(a, Activation::Sigmoid).zip(self.gate(b, Activation::Tanh));
        self.both_orders(node).find_map(both).map(|(sigmoid, tanh)| [node, sigmoid, tanh])
    }

    /// σ(f)·c; its nodes.
    fn gated_state(&self, value: ValueId) -> Option<[NodeId; 2]> {
        let (node, _) = self.maker(value).filter(|(_, op)| *op == Op::Mul)?;
        let gate = self.both_orders(node).find_map(|[a, _]| self.gate(a, Activation::Sigmoid));
        gate.map(|sigmoid| [node, sigmoid])
    }

    /// w·n and (1 − w)·h, where w or 1 − w is a gate; the gate and n.
    fn blend(&self, first: NodeId, second: NodeId) -> Option<(NodeId, NodeId)> {
        for [w, n] in self.both_orders(first) {
            let Some(candidate) = self.gate(n, Activation::Tanh) else { continue };
            for [v, _] in self.both_orders(second) {
                for (gate, rest) in [(w, v), (v, w)] {
                    if let Some(z) = self.gate(gate, Activation::Sigmoid).filter(|_| self.is_rest(rest, gate)) {
                        return Some((z, candidate));
                    }
                }
            }
        }
        None
    }

    /// z·(h − n); z.
    fn correction(&self, product: NodeId, n: ValueId) -> Option<NodeId> {
        self.both_orders(product).find_map(|[gate, difference]| {
            let (sub, _) = self.maker(difference).filter(|(_, op)| *op == Op::Sub)?;
            (self.pair(sub)?[1] == n).then_some(())?;
            self.gate(gate, Activation::Sigmoid)
        })
    }

    /// Whether a value is 1 − gate.
    fn is_rest(&self, value: ValueId, gate: ValueId) -> bool {
        let mut evidence = Evidence::new();
        let p = self.expand(value, Atoms::t(gate), &mut evidence);
        p.is_some_and(|p| p.is(&[(0, 0, 1.0), (0, 1, -1.0)], evidence.tolerance))
    }

    /// The product with a gate behind a candidate's argument; product and gate.
    fn reset_gate(&self, candidate: NodeId) -> Option<[NodeId; 2]> {
        let mut seen = vec![candidate];
        let mut next = 0;
        while let Some(node) = seen.get(next).copied() {
            next += 1;
            for input in self.graph.inputs_of(node).iter().flatten() {
                let Some((maker, op)) = self.maker(*input) else { continue };
                if op == Op::Mul
                    && let Some(gate) = self.both_orders(maker).find_map(|[a, _]| self.gate(a, Activation::Sigmoid))
                {
                    return Some([maker, gate]);
                }
                let passes = matches!(
                    op,
                    Op::Add | Op::MatMul | Op::Gemm | Op::Squeeze | Op::Unsqueeze | Op::Reshape | Op::Slice
                );
                if passes && seen.len() < SEARCHED && !seen.contains(&maker) {
                    seen.push(maker);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;

    const LSTM_GATES: &str = "i|f|g|o=Split(x); I=Sigmoid(i); F=Sigmoid(f); G=Tanh(g); O=Sigmoid(o);";

    #[test]
    fn an_lstm_cell_is_one_layer_and_its_gates_are_none() {
        for rest in [
            "a=Mul(F,v); b=Mul(I,G); c=Add(a,b); t=Tanh(c); y=Mul(O,t)",
            "a=Mul(v,F); b=Mul(G,I); c=Add(b,a); t=Tanh(c); y=Mul(t,O)",
        ] {
            assert_eq!(found(&format!("{LSTM_GATES} {rest}")), ["y: lstm"], "{rest}");
        }
        let joint =
            "s=Sigmoid(x); i|f|o=Split(s); G=Tanh(u); a=Mul(f,v); b=Mul(i,G); c=Add(a,b); t=Tanh(c); y=Mul(o,t)";
        assert_eq!(found(joint), ["y: lstm"]);
    }

    #[test]
    fn a_gru_cell_is_one_layer_in_each_of_its_forms() {
        let gates = "R=Sigmoid(x); z=Sigmoid(u); k=Mul(R,w); l=Add(k,x); n=Tanh(l);";
        for rest in [
            "q=Sub(1,z); a=Mul(q,n); b=Mul(z,v); y=Add(a,b)",
            "q=Sub(1,z); a=Mul(q,v); b=Mul(n,z); y=Add(a,b)",
            "d=Sub(v,n); a=Mul(d,z); y=Add(n,a)",
            "d=Sub(v,n); a=Mul(z,d); y=Add(a,n)",
        ] {
            assert_eq!(found(&format!("{gates} {rest}")), ["y: gru"], "{rest}");
        }
    }

    #[test]
    fn gated_units_that_are_no_cells_keep_their_parts() {
        assert_eq!(found("a=Tanh(x); b=Sigmoid(u); y=Mul(a,b)"), ["a: tanh of x", "b: sigmoid of u"]);
        let highway = "z=Sigmoid(x); n=Tanh(u); q=Sub(1,z); a=Mul(z,n); b=Mul(q,x); y=Add(a,b)";
        assert_eq!(found(highway), ["z: sigmoid of x", "n: tanh of u"]);
    }

    #[test]
    fn a_recurrent_operator_is_tapped_where_it_is_read() {
        assert_eq!(found("y|h=LSTM(x,u,v); z=Neg(y)"), ["y: lstm"]);
        assert_eq!(found("y|h|c=LSTM(x,u,v); z=Neg(h)"), ["h: lstm"]);
        assert_eq!(found("_|h=GRU(x,u,v); z=Neg(h)"), ["h: gru"]);
        assert_eq!(found("y|h=RNN(x,u,v); z=Add(h,y)"), ["y: rnn"]);
    }
}
