//! Everything that is known about a model's main graph, found once and shared by inspection and injection.

use std::collections::{BTreeSet, HashMap, HashSet};

use thiserror::Error;

use crate::graph::backward::{Backward, gradient_name, requests};
use crate::graph::infer::Types;
use crate::graph::kind::{Kind, backward_evidence, kind, scalar_outputs};
use crate::graph::reach::Reach;
use crate::graph::role::{Because, InitializerRole, Role, apply_overrides, roles};
use crate::graph::{Graph, GraphError, ValueId, inner_initializers};
use crate::hoist;
use crate::record::{ROOT, Record};
use crate::select::{Catalog, Found, SelectError, select_names};
use crate::wire::Model;

/// Why a model could not be analysed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The graph's structure.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A selector of initializers.
    #[error("{option}: {source} (it chooses among the initializers, which 'per-inject inspect --initializers' lists)")]
    Initializers {
        /// `--wrt` or `--freeze`.
        option: &'static str,
        /// What is wrong with it.
        source: SelectError,
    },
}

/// A model's graph with its types, roles, reach and activations.
pub struct Analysis<'m> {
    /// The model.
    pub model: &'m Model,
    /// Its graph.
    pub graph: Graph<'m>,
    /// Types and shapes of all values.
    pub types: Types,
    /// What each initializer is for.
    pub roles: Vec<InitializerRole>,
    /// Which initializers are trained, in the same order.
    pub trained: Vec<bool>,
    /// Initializers of bodies that a selector decided about, by [their names](crate::graph::Inner::name): whether it wants them trained.
    pub decided_in_bodies: HashMap<String, bool>,
    /// What depends on trainable initializers.
    pub reach: Reach,
    /// What kind of training graph it is.
    pub kind: Kind,
    /// Which nodes compute gradients: none, unless the graph holds its backward pass.
    pub backward: Backward,
    /// Activations.
    pub catalog: Catalog,
}

impl<'m> Analysis<'m> {
    /// Analyses a model; roles decide what is trained.
    pub fn of(model: &'m Model) -> Result<Self, GraphError> {
        Ok(Self::build(model, None, None)?.with_bodies())
    }

    /// As [`Analysis::of`], but what the bodies of its nodes train counts as constant: for a body, whose own bodies are looked into by who asks.
    pub fn without_bodies(model: &'m Model) -> Result<Self, GraphError> {
        Self::build(model, None, None)
    }

    /// As [`Analysis::of`], with selectors over initializers that override their roles.
    pub fn with_overrides(model: &'m Model, wrt: Option<&str>, freeze: Option<&str>) -> Result<Self, AnalysisError> {
        let inner = if wrt.is_some() || freeze.is_some() { inner_initializers(model) } else { Vec::new() };
        let mut names: Vec<&str> = model.graph.initializers.iter().map(|t| t.name.as_str()).collect();
        let own = names.len();
        names.extend(inner.iter().map(|i| i.name.as_str()));
        let chosen = |option, spec: Option<&str>| {
            spec.map(|spec| select_names(spec, &names))
                .transpose()
                .map_err(|source| AnalysisError::Initializers { option, source })
        };
        let (wrt, freeze) = (chosen("--wrt", wrt)?, chosen("--freeze", freeze)?);
        let mut analysis = Self::build(model, wrt.as_deref(), freeze.as_deref())?;
        for (i, name) in names.iter().enumerate().skip(own) {
            let at = |list: &Option<Vec<bool>>| list.as_ref().and_then(|l| l.get(i)).copied();
            let decided = if at(&freeze) == Some(true) { Some(false) } else { at(&wrt) };
            analysis.decided_in_bodies.extend(decided.map(|d| ((*name).to_owned(), d)));
        }
        Ok(analysis.with_bodies())
    }

    /// Follows gradients from the trained initializers of bodies too. Where gradients are in the graph already, or asked for by Gradient nodes,
    /// these say what is trained.
    fn with_bodies(mut self) -> Self {
        if self.backward.is_there() || !requests(&self.graph).is_empty() {
            return self;
        }
        let trained = hoist::known(&self).into_iter().filter(|k| k.is_trained);
        let nodes: HashSet<usize> = trained.filter_map(|k| k.inner.place.first().map(|(_, node)| *node)).collect();
        if !nodes.is_empty() {
            self.reach = Reach::with_bodies(&self.graph, &self.types, &self.trained, &nodes);
            self.kind = without_ours(kind(&self.graph, &self.types, self.model, &self.reach), &self.graph, self.model);
        }
        self
    }

    /// As [`Analysis::of`], of a model whose trained initializers are known, in file order, and all in its main graph.
    pub fn with_trained(model: &'m Model, trained: &[bool]) -> Result<Self, GraphError> {
        Self::build(model, Some(trained), None)
    }

    /// As [`Analysis::with_overrides`], or where the trained initializers of the main graph are known by name, with these and no others.
    pub fn decided(
        model: &'m Model,
        trained: Option<&BTreeSet<String>>,
        wrt: Option<&str>,
        freeze: Option<&str>,
    ) -> Result<Self, AnalysisError> {
        let Some(names) = trained else { return Self::with_overrides(model, wrt, freeze) };
        let trained: Vec<bool> = model.graph.initializers.iter().map(|t| names.contains(&t.name)).collect();
        let mut analysis = Self::with_trained(model, &trained)?;
        analysis.decided_in_bodies = inner_initializers(model).into_iter().map(|inner| (inner.name, false)).collect();
        Ok(analysis)
    }

    fn build(model: &'m Model, wrt: Option<&[bool]>, freeze: Option<&[bool]>) -> Result<Self, GraphError> {
        let graph = Graph::of(model)?;
        let backward = match backward_evidence(&graph) {
            Some(_) => Backward::of(&graph),
            None => Backward::default(),
        };
        let (mut catalog, (types, roles, trained, reach, kind)) = rayon::join(
            || Catalog::of(&graph, model),
            || {
                let types = Types::of(&graph, model);
                let mut roles = roles(&graph, &types);
                // The tables and coefficients of an earlier injection stand where weights do.
                for role in roles.iter_mut().filter(|r| graph.name(r.value).starts_with(ROOT)) {
                    role.role = Role::Constant;
                    role.because = Because::Injected;
                }
                for role in roles.iter_mut().filter(|r| backward.alone_reads(&graph, r.value)) {
                    role.role = Role::Constant;
                    role.because = Because::Backward;
                }
                let mut trained = apply_overrides(&roles, wrt, freeze);
                let requests = requests(&graph);
                if wrt.is_none() && !requests.is_empty() {
                    let asked = |r: &InitializerRole| requests.iter().any(|q| q.by.contains(&graph.name(r.value)));
                    let frozen = |i: usize| freeze.is_some_and(|f| f.get(i).copied().unwrap_or(false));
                    trained = roles.iter().enumerate().map(|(i, r)| r.is_float && asked(r) && !frozen(i)).collect();
                }
                if backward.is_there() {
                    // What is trained has a gradient there; mostly that are graph inputs.
                    let has_gradient = |r: &InitializerRole| graph.find(&gradient_name(graph.name(r.value))).is_some();
                    trained.iter_mut().zip(&roles).for_each(|(trained, role)| *trained &= has_gradient(role));
                }
                let reach = Reach::of(&graph, &types, &trained);
                let kind = without_ours(kind(&graph, &types, model, &reach), &graph, model);
                (types, roles, trained, reach, kind)
            },
        );
        // Nor does what an earlier injection computes stand behind a layer, copies of layers included.
        let records: Vec<Record> = Record::all(model).unwrap_or_default().into_iter().map(|(_, r)| r).collect();
        let is_no_layer =
            |node| backward.has(node) || records.iter().any(|r| graph.node(node).name().starts_with(&r.root));
        if catalog.found.iter().any(|f| is_no_layer(f.node)) || backward.is_there() {
            catalog.leave_out(&graph, is_no_layer);
        }
        if records.iter().any(|r| !r.activations.is_empty()) {
            put_back_rewritten(&mut catalog, &graph, &records);
        }
        Ok(Analysis {
            model,
            graph,
            types,
            roles,
            trained,
            decided_in_bodies: HashMap::new(),
            reach,
            kind,
            backward,
            catalog,
        })
    }

    /// Outputs that can be the loss.
    pub fn loss_candidates(&self) -> Vec<ValueId> {
        match &self.kind {
            Kind::ForwardLoss { candidates } => candidates.clone(),
            Kind::ForwardBackward { .. } => {
                let mut outputs = scalar_outputs(&self.graph, &self.types, self.model);
                leave_out_ours(&mut outputs, &self.graph, self.model);
                outputs
            }
            Kind::ForwardOnly | Kind::TrainingInfo { .. } => Vec::new(),
        }
    }

    /// Graph inputs whose gradients the graph computes: the parameters of a graph that holds its backward pass.
    pub fn trained_inputs(&self) -> Vec<ValueId> {
        if !self.backward.is_there() {
            return Vec::new();
        }
        let has_gradient = |v: &ValueId| self.graph.find(&gradient_name(self.graph.name(*v))).is_some();
        self.graph.inputs.iter().copied().filter(has_gradient).collect()
    }

    /// The initializers that are trained, in file order.
    pub fn trained_values(&self) -> Vec<ValueId> {
        self.roles.iter().zip(&self.trained).filter(|(_, trained)| **trained).map(|(role, _)| role.value).collect()
    }

    /// Whether any initializer is trained, those of bodies included. Where none is, parameters are probably graph inputs.
    pub fn has_trainable(&self) -> bool {
        self.reach.trains()
    }
}

/// Activations that an earlier run spelt out for a pipeline are layers as before: their values kept their names.
fn put_back_rewritten(catalog: &mut Catalog, graph: &Graph, records: &[Record]) {
    let recorded = || records.iter().flat_map(|r| &r.activations);
    // A file may say the same twice.
    let mut seen = HashSet::new();
    let known = recorded().filter_map(|r| {
        let value = graph.find(&r.tensor).filter(|v| seen.insert(*v))?;
        let (node, _) = graph.producer(value)?;
        let input = r.input.as_ref().and_then(|name| graph.find(name));
        Some(Found { node, value, input, activation: r.activation.parse().ok()?, members: vec![node] })
    });
    let known = known.collect();
    let parts = recorded().flat_map(|r| &r.parts).filter_map(|name| graph.find(name)).collect();
    catalog.put_back(graph, known, &parts);
}

/// Outputs that an injection added are no losses of the model's own.
fn without_ours(kind: Kind, graph: &Graph, model: &Model) -> Kind {
    let Kind::ForwardLoss { mut candidates } = kind else { return kind };
    leave_out_ours(&mut candidates, graph, model);
    if candidates.is_empty() { Kind::ForwardOnly } else { Kind::ForwardLoss { candidates } }
}

fn leave_out_ours(candidates: &mut Vec<ValueId>, graph: &Graph, model: &Model) {
    let records = Record::all(model).unwrap_or_default();
    let added = |name: &str| records.iter().any(|(_, r)| r.outputs.iter().any(|o| o == name));
    candidates.retain(|v| !graph.name(*v).starts_with(ROOT) && !added(graph.name(*v)));
}
