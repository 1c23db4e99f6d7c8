//! Trained initializers of the bodies of If, Loop and Scan, moved to the main graph: what is there a step can hand on, and a body reads it
//! from around it as before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use prost::Message;
use thiserror::Error;

use crate::analysis::Analysis;
use crate::graph::body::{Captured, standing_alone};
use crate::graph::role::Role;
use crate::graph::types::TensorType;
use crate::graph::{Inner, bodies, body_at, captures_of, inner_initializers, rename_reads};
use crate::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use crate::patch::{Change, Part, Place, Replacement, Substitute};
use crate::wire::fields::graph as graph_field;
use crate::wire::{Model, is_float};

/// An initializer of a body with its role.
pub struct Known<'m> {
    /// The initializer.
    pub inner: Inner<'m>,
    /// What it is for, in its body.
    pub role: Role,
    /// Why, for people.
    pub because: String,
    /// Whether it is trained.
    pub is_trained: bool,
}

/// Why trained initializers of bodies cannot be moved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HoistError {
    /// A name that means two things in a body, at least one of them trained.
    #[error(
        "the body {body} has an initializer {name:?}, and {around} has a value of this name as well, which ONNX Runtime reads instead \
         of it there; the standard forbids two, and as one of them would be trained, rename one in the model first"
    )]
    Shadows {
        /// The initializer.
        name: String,
        /// Its body.
        body: String,
        /// What has the other value.
        around: String,
    },
    /// A place that leads to no body: a slip of this program.
    #[error("the initializer {name:?} of the body {body} is not found again where it was; please report this")]
    Lost {
        /// The initializer.
        name: String,
        /// Its body.
        body: String,
    },
}

/// One that was moved.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Its name in the main graph.
    pub name: String,
    /// Its name in the body.
    pub own: String,
    /// The body, for people.
    pub body: String,
    /// Where it stood.
    pub place: Place,
    /// Whether it is trained.
    pub is_trained: bool,
}

impl Moved {
    /// That it is not where it was.
    pub fn lost(&self) -> HoistError {
        HoistError::Lost { name: self.own.clone(), body: self.body.clone() }
    }
}

/// The trained initializers of bodies in the main graph, as an edit.
pub struct Hoisting {
    /// What was moved.
    pub moved: Vec<Moved>,
    /// Nodes of the main graph whose bodies change.
    pub nodes: BTreeSet<usize>,
    /// The edit: those nodes without the initializers, which stand behind the graph's own.
    pub change: Change,
}

/// The initializers of bodies, with what is known of them.
pub fn known<'m>(analysis: &Analysis<'m>) -> Vec<Known<'m>> {
    let inner = inner_initializers(analysis.model);
    if inner.is_empty() {
        return Vec::new();
    }
    let mut roles = HashMap::new();
    visit(analysis, &Vec::new(), &mut roles);
    let known = |inner: Inner<'m>| {
        let (role, because) = roles.remove(&inner.place).unwrap_or((Role::Other, "its body is no graph".into()));
        let decided = analysis.decided_in_bodies.get(&inner.name).copied();
        let is_trained = is_float(inner.tensor.data_type()) && decided.unwrap_or_else(|| role.is_trainable());
        Known { inner, role, because, is_trained }
    };
    inner.into_iter().map(known).collect()
}

/// Moves those that are trained; `None` where there are none. Those that have a number because one of them has the same name go with it: one
/// that stayed could lose its number, and would have another name in the new graph.
///
/// # Errors
/// When one of them shadows a value, or hides one that is trained.
pub fn hoist(analysis: &Analysis) -> Result<Option<Hoisting>, HoistError> {
    let known = known(analysis);
    refuse_shadows(analysis, &known)?;
    let shared: HashSet<&str> = known.iter().filter(|k| k.is_trained).map(|k| k.inner.tensor.name()).collect();
    if shared.is_empty() {
        return Ok(None);
    }
    let goes = |k: &Known| k.is_trained || (k.inner.shadows.is_none() && shared.contains(k.inner.tensor.name()));
    let going = known.iter().filter(|k| goes(k));
    let mut nodes: BTreeMap<usize, NodeProto> = BTreeMap::new();
    let mut change = Change { reason: "trained initializers of bodies, in the main graph".into(), ..Change::default() };
    let mut moved = Vec::new();
    for Known { inner, is_trained, .. } in going {
        let (name, own) = (inner.name.clone(), inner.tensor.name().to_owned());
        let (body, place) = (inner.body.clone(), inner.place.clone());
        let one = Moved { name: name.clone(), own: own.clone(), body, place, is_trained: *is_trained };
        let body = body_of(&mut nodes, analysis, &one.place).ok_or_else(|| one.lost())?;
        body.initializer.retain(|t| t.name() != own);
        if name != own {
            rename_reads(&mut body.node, &HashMap::from([(own.clone(), name.clone())]));
        }
        if inner.is_output {
            body.node.push(identity(&name, &own));
        }
        change.initializers.push(TensorProto { name: Some(name.clone()), ..inner.tensor.clone() });
        moved.push(one);
    }
    let replacement = |(i, node): (&usize, &NodeProto)| Replacement {
        part: Part::Node(*i),
        with: Substitute::Nodes(vec![node.clone()].into()),
    };
    change.replacements = nodes.iter().map(replacement).collect();
    Ok(Some(Hoisting { moved, nodes: nodes.into_keys().collect(), change }))
}

/// The body that an initializer lies in, in the copy of its node that is changed.
fn body_of<'n>(
    nodes: &'n mut BTreeMap<usize, NodeProto>,
    analysis: &Analysis,
    place: &Place,
) -> Option<&'n mut GraphProto> {
    let ((_, first), rest) = place.split_first()?;
    let original = analysis.graph.nodes.get(*first)?;
    body_at(nodes.entry(*first).or_insert_with(|| original.clone()), rest)
}

/// Which of two values of one name a body reads is the runtime's choice, and what is trained has to be certain.
fn refuse_shadows(analysis: &Analysis, known: &[Known]) -> Result<(), HoistError> {
    let main: HashSet<&str> = analysis.trained_values().into_iter().map(|v| analysis.graph.name(v)).collect();
    for Known { inner, is_trained, .. } in known {
        let Some(around) = &inner.shadows else { continue };
        let name = inner.tensor.name();
        let is_it = |k: &Known| k.is_trained && k.inner.body == *around && k.inner.tensor.name() == name;
        let hides_trained = if around.is_empty() { main.contains(name) } else { known.iter().any(is_it) };
        if *is_trained || hides_trained {
            return Err(HoistError::Shadows {
                name: name.to_owned(),
                body: inner.body.clone(),
                around: if around.is_empty() {
                    "the main graph".into()
                } else {
                    format!("the body {around} around it")
                },
            });
        }
    }
    Ok(())
}

fn identity(from: &str, to: &str) -> NodeProto {
    NodeProto {
        op_type: Some("Identity".into()),
        name: Some(from.to_owned()),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        ..NodeProto::default()
    }
}

/// Roles by place. A body that is no graph has none.
fn visit(outer: &Analysis, around: &Place, roles: &mut HashMap<Place, (Role, String)>) {
    for (i, node) in outer.graph.nodes.iter().enumerate() {
        for (body, steps) in bodies(node).filter(|(body, _)| holds_any(body)) {
            let here: Place = around.iter().copied().chain([(graph_field::NODE, i)]).chain(steps).collect();
            let Ok((model, _)) = body_alone(outer, body, &[]) else { continue };
            let Ok(analysis) = Analysis::without_bodies(&model) else { continue };
            for role in &analysis.roles {
                let name = analysis.graph.name(role.value);
                if let Some(k) = body.initializer.iter().position(|t| t.name() == name) {
                    let place = here.iter().copied().chain([(graph_field::INITIALIZER, k)]).collect();
                    roles.insert(place, (role.role, role.because.explain(&analysis.graph)));
                }
            }
            visit(&analysis, &here, roles);
        }
    }
}

/// Whether a body, or one inside it, holds initializers.
fn holds_any(body: &GraphProto) -> bool {
    !body.initializer.is_empty() || body.node.iter().flat_map(bodies).any(|(inner, _)| holds_any(inner))
}

/// A body as a model whose inputs are its own, then what it reads of the graph around it, and the names of the latter. `own` are types of
/// its own inputs, where it says nothing itself.
///
/// # Errors
/// Why it is no graph, as the end of a sentence about its node.
pub fn body_alone(outer: &Analysis, body: &GraphProto, own: &[TensorType]) -> Result<(Model, HashSet<String>), String> {
    let attribute = AttributeProto { g: Some(Box::new(body.clone())), ..AttributeProto::default() };
    let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
    let (mut captures, mut captured) = (HashSet::new(), Vec::new());
    for (name, _) in captures_of(&node, 0) {
        if captures.insert(name.to_owned()) {
            let value = outer.graph.find(name);
            let value = value.ok_or_else(|| format!("its body reads {name:?}, which nothing makes"))?;
            let (ty, integers) = (outer.types.get(value).clone(), outer.graph.integers(value));
            captured.push(Captured { name: name.to_owned(), ty, integers });
        }
    }
    let proto = ModelProto {
        ir_version: Some(outer.model.ir_version),
        opset_import: outer.model.opset_imports.clone(),
        functions: outer.model.functions.clone(),
        graph: Some(standing_alone(body, own, &captured)),
        ..ModelProto::default()
    };
    let model = Model::from_bytes(proto.encode_to_vec()).map_err(|e| format!("its body is no graph: {e}"))?;
    Ok((model, captures))
}
