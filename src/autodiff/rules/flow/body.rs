//! A body as a graph of its own, and its way back.

use std::collections::{HashMap, HashSet};

use super::declared;
use crate::analysis::Analysis;
use crate::autodiff::adjoint::Cotangent;
use crate::autodiff::error::DifferentiateError;
use crate::autodiff::prepare;
use crate::autodiff::reverse::{Goal, reverse, with_saved};
use crate::autodiff::rule;
use crate::graph::types::TensorType;
use crate::graph::{ValueId, captures_of, rename_reads};
use crate::hoist::body_alone;
use crate::onnx::{GraphProto, NodeProto, TensorProto};
use crate::regularizer::emit::Tensor;
use crate::rewrite::path::Path;
use crate::rewrite::site::{Known, Refusal, Site};
use crate::wire::Model;

/// A body as a model whose inputs are the body's own, then what it reads of the graph around it.
pub struct Body<'a> {
    graph: &'a GraphProto,
    pub model: Model,
    captures: HashSet<String>,
}

/// What to differentiate a body for.
pub struct Request<'r> {
    /// Outputs of the body, by position, with their cotangents.
    pub seeds: &'r [(usize, Tensor)],
    /// Names of inputs, and of what it reads of the graph around it, whose gradients are asked for.
    pub wrt: &'r [String],
    /// Starts every new name; ends in `/`.
    pub root: &'r str,
    /// Whether it runs more than once.
    pub is_repeated: bool,
}

/// A value of the way there that the way back reads.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its name in the forward body.
    pub inner: String,
    /// What the way back calls it.
    pub tensor: Tensor,
}

/// The two ways through a body.
pub struct Back {
    /// The body of the way there; the outputs are those of before.
    pub forward: GraphProto,
    /// The way back, without inputs and outputs.
    pub graph: GraphProto,
    /// The gradients that were asked for, in that order; `None` where no cotangent gets there.
    pub gradients: Vec<Option<Tensor>>,
    /// What it reads, each once.
    pub kept: Vec<Kept>,
}

impl<'a> Body<'a> {
    /// The body of a node, with what is known of its own inputs where it says nothing itself.
    pub fn of(site: &Site, graph: &'a GraphProto, own: &[TensorType]) -> Known<Self> {
        let outer = site.analysis;
        let (model, captures) = body_alone(outer, graph, own).map_err(Refusal)?;
        Ok(Body { graph, model, captures })
    }

    /// Everything that is known about it.
    pub fn analysis(&self) -> Known<Analysis<'_>> {
        analysis_of(&self.model)
    }

    /// Types of its outputs.
    pub fn outputs(&self) -> Known<Vec<TensorType>> {
        let analysis = self.analysis()?;
        Ok(analysis.graph.outputs.iter().map(|v| analysis.types.get(*v).clone()).collect())
    }

    /// Differentiates it.
    pub fn back(&self, request: &Request<'_>) -> Known<Back> {
        let analysis = self.analysis()?;
        let find = |analysis: &Analysis, names: &mut dyn Iterator<Item = &str>| -> Vec<ValueId> {
            names.filter_map(|n| analysis.graph.find(n)).collect()
        };
        let mut wanted = request.wrt.iter().map(String::as_str);
        let from = find(&analysis, &mut wanted);
        let to: Vec<ValueId> =
            request.seeds.iter().filter_map(|(slot, _)| analysis.graph.outputs.get(*slot).copied()).collect();
        let prepared = prepare::prepare(&analysis, &from, &to, request.root, prepare::Start::default())
            .map_err(|e| in_body(&e))?;
        let inner = prepared.as_ref().map(|p| analysis_of(&p.model)).transpose()?;
        let working = inner.as_ref().unwrap_or(&analysis);
        let same = |values: &[ValueId]| -> Vec<ValueId> {
            values.iter().map(|v| prepare::same_value(&analysis, *v, working)).collect()
        };
        let (from, to) = (same(&from), same(&to));
        let path = Path::between(working, &from, &to, rule::stops);
        let cotangent = |tensor: &Tensor| Cotangent { tensor: tensor.clone(), is_full: true };
        let seeds = to.iter().zip(request.seeds).filter(|(v, _)| path.needs_gradient(**v));
        let seeds = seeds.map(|(v, (_, tensor))| (*v, cotangent(tensor))).collect();
        let goal = Goal { from, seeds, is_repeated: request.is_repeated, tiles: false };
        let mut reversed = reverse(working, &path, goal, request.root)
            .map_err(|nodes| in_body(&DifferentiateError::Undifferentiable { nodes }))?;

        let mut forward = GraphProto { node: working.graph.nodes.to_vec(), ..self.graph.clone() };
        // From the last one, so that places are still those of the nodes before.
        for (id, nodes) in with_saved(working, &reversed.saved, &reversed.remade).into_iter().rev() {
            forward.node.splice(id.index()..=id.index(), nodes);
        }
        if let Some(prepared) = &prepared {
            forward.initializer.extend(prepared.constants.iter().cloned());
            forward.value_info.extend(prepared.value_info.iter().cloned());
        }
        // What is summed over steps is not rounded before.
        let gradient = |name: &String| {
            let found = reversed.gradients.get(&working.graph.find(name)?)?;
            let is_summed = request.is_repeated && self.captures.contains(name);
            Some(if is_summed { reversed.in_full(found) } else { found.clone() })
        };
        let gradients: Vec<Option<Tensor>> = request.wrt.iter().map(gradient).collect();
        reversed.without_unread(&gradients.iter().flatten().map(|t| t.name.as_str()).collect());
        let graph = GraphProto {
            name: Some(request.root.trim_end_matches('/').to_owned()),
            node: reversed.nodes,
            initializer: reversed.constants.into_values().collect(),
            value_info: reversed.value_info,
            ..GraphProto::default()
        };
        let mut back = Back { forward, graph, gradients, kept: Vec::new() };
        self.resolve(&mut back, working, &reversed.made, request);
        Ok(back)
    }

    /// Finds what the way back reads of the way there: constants are copied, other values kept.
    fn resolve(&self, back: &mut Back, working: &Analysis, made: &HashMap<String, TensorType>, request: &Request<'_>) {
        let mut known: HashSet<&str> = self.captures.iter().map(String::as_str).collect();
        known.extend(request.seeds.iter().map(|(_, t)| t.name.as_str()));
        known.extend(back.graph.initializer.iter().map(TensorProto::name));
        known.extend(back.graph.node.iter().flat_map(|n| &n.output).map(String::as_str));
        let mut renames: HashMap<String, String> = HashMap::new();
        let mut kept = Vec::new();
        let mut copied_nodes = Vec::new();
        let mut copied = Vec::new();
        let results = back.gradients.iter().flatten().map(|t| t.name.as_str());
        let inner = back.graph.node.iter().enumerate().flat_map(|(i, n)| captures_of(n, i)).map(|(name, _)| name);
        let read = back.graph.node.iter().flat_map(|n| &n.input).map(String::as_str).chain(inner).chain(results);
        for name in read.filter(|n| !n.is_empty() && !known.contains(n)) {
            if renames.contains_key(name) {
                continue;
            }
            let new = format!("{}kept_{}", request.root, renames.len());
            renames.insert(name.to_owned(), new.clone());
            let value = working.graph.find(name);
            if let Some(tensor) = back.forward.initializer.iter().find(|t| t.name() == name) {
                copied.push(TensorProto { name: Some(new), ..tensor.clone() });
            } else if let Some(node) = value.and_then(|v| working.graph.made_by(v)).map(|n| working.graph.node(n))
                && node.op_type() == "Constant"
            {
                copied_nodes.push(NodeProto { output: vec![new.clone()], name: Some(new), ..node.clone() });
            } else {
                let ty =
                    value.map(|v| working.types.get(v).clone()).or_else(|| made.get(name).cloned()).unwrap_or_default();
                kept.push(Kept { inner: name.to_owned(), tensor: Tensor { name: new, ty } });
            }
        }
        copied_nodes.append(&mut back.graph.node);
        back.graph.node = copied_nodes;
        back.graph.initializer.append(&mut copied);
        rename_reads(&mut back.graph.node, &renames);
        for gradient in back.gradients.iter_mut().flatten() {
            if let Some(new) = renames.get(&gradient.name) {
                gradient.name.clone_from(new);
            }
        }
        back.kept = kept;
    }
}

fn analysis_of(model: &Model) -> Known<Analysis<'_>> {
    Analysis::of(model).map_err(|e| Refusal(format!("in its body: {e}")))
}

fn in_body(error: &DifferentiateError) -> Refusal {
    Refusal(match error {
        DifferentiateError::Undifferentiable { nodes } => {
            let each: Vec<String> = nodes.iter().map(|n| format!("{}: {}", n.node, n.reason)).collect();
            format!("inside its body, {}", each.join("; "))
        }
        other => format!("inside its body, {other}"),
    })
}

impl Back {
    /// Makes a value of the forward body one more output of it, under a name that is no output's yet.
    pub fn hand_out(&mut self, inner: &str, name: &str, ty: &TensorType) {
        let copy = format!("{name}_out");
        self.forward.node.push(NodeProto {
            op_type: Some("Identity".into()),
            name: Some(copy.clone()),
            input: vec![inner.to_owned()],
            output: vec![copy.clone()],
            ..NodeProto::default()
        });
        self.forward.output.push(declared(&Tensor { name: copy, ty: ty.clone() }));
    }

    /// Makes a value one more output of the way back.
    pub fn output(&mut self, tensor: &Tensor, name: String) {
        self.graph.node.push(NodeProto {
            op_type: Some("Identity".into()),
            name: Some(name.clone()),
            input: vec![tensor.name.clone()],
            output: vec![name.clone()],
            ..NodeProto::default()
        });
        self.graph.output.push(declared(&Tensor { name, ty: tensor.ty.clone() }));
    }

    /// Adds nodes of a builder to the way back.
    pub fn add(&mut self, emission: crate::regularizer::emit::Emission) {
        self.graph.node.extend(emission.nodes);
        self.graph.value_info.extend(emission.value_info);
        for (name, tensor) in emission.constants {
            if !self.graph.initializer.iter().any(|t| t.name() == name) {
                self.graph.initializer.push(tensor);
            }
        }
    }

    /// The same, before everything else.
    pub fn add_first(&mut self, mut emission: crate::regularizer::emit::Emission) {
        let nodes = std::mem::take(&mut self.graph.node);
        self.graph.node = std::mem::take(&mut emission.nodes);
        self.graph.node.extend(nodes);
        self.add(emission);
    }
}
