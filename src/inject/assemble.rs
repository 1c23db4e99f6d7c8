//! From what was written to one patch: where the nodes go, the constants, the sum with the loss.

use super::term::{self, Term};
use super::{Constants, Destination, InjectError, Injection, Written, gradient};
use crate::lower::Lowering;
use crate::patch::{Anchor, Change, Patch, Rename};
use crate::regularizer::template::Draws;
use crate::wire::fields::{graph as graph_field, node as node_field};

impl Injection<'_> {
    /// Behind all nodes; but where a node must read the sum, right behind the last tapped value.
    pub(super) fn anchor(&self) -> Result<Anchor, InjectError> {
        let Some(loss) = self.loss.as_ref().filter(|l| !l.total_readers.is_empty()) else { return Ok(Anchor::End) };
        let graph = &self.analysis.graph;
        let first_reader = loss.total_readers.iter().min().copied();
        let mut last = loss.producer.0;
        for chosen in &self.chosen {
            let Some((producer, _)) = graph.producer(chosen.value) else { continue };
            if let Some(reader) = first_reader.filter(|r| *r <= producer) {
                return Err(InjectError::LossTooEarly {
                    loss: graph.name(loss.value).into(),
                    consumer: graph.describe(reader),
                    tensor: graph.name(chosen.value).into(),
                });
            }
            last = last.max(producer);
        }
        Ok(Anchor::After(last.index()))
    }

    pub(super) fn assemble(
        &self,
        root: &str,
        written: Vec<Written>,
        (mut constants, draws): (Constants, Draws),
        mut term: Term,
        anchor: Anchor,
        mut lowering: Lowering,
    ) -> Patch {
        constants.append(&mut term.emission.constants);
        // What is a node has to come before the first layer that reads it.
        let first = self.places.iter().map(gradient::Place::anchor).min().unwrap_or(anchor);
        let constants = self.constants(root, constants, &term, first, lowering.ir_version);
        let closing = (!written.is_empty()).then(|| {
            let closing = self.closing(term, anchor);
            // Of nodes that the lowering writes anew, the new ones read other names.
            Change { renames: lowering.rename(closing.renames), ..closing }
        });
        let mut changes = lowering.changes;
        // With the constants, the shared slices, the sum and the record.
        changes.reserve(written.len() + 4);
        changes.push(constants);
        if !draws.is_empty() {
            let (nodes, value_info): (Vec<_>, Vec<_>) = draws.into_values().unzip();
            changes.push(Change {
                reason: format!("slices that layers share, under {root}slices/"),
                at: first,
                nodes: nodes.into(),
                value_info: value_info.into_iter().flatten().collect::<Vec<_>>().into(),
                ..Change::default()
            });
        }
        for (i, (layer, chosen)) in written.into_iter().zip(&self.chosen).enumerate() {
            let change = Change {
                reason: format!("PER of {:?}, layer {}", chosen.layer.h.name, layer.name),
                nodes: layer.nodes,
                value_info: layer.value_info,
                at: anchor,
                ..Change::default()
            };
            changes.push(match self.places.get(i) {
                None => change,
                Some(place) => Change {
                    reason: format!(
                        "gradient of PER of {:?}, layer {}, added to {:?}",
                        chosen.layer.h.name,
                        layer.name,
                        place.name()
                    ),
                    at: place.anchor(),
                    renames: place.renames(self.analysis, layer.sum.as_deref().unwrap_or_default()),
                    ..change
                },
            });
        }
        changes.extend(closing);
        Patch { changes, ..Patch::default() }
    }

    /// Shared constants and the coefficients.
    fn constants(&self, root: &str, constants: Constants, term: &Term, anchor: Anchor, ir_version: i64) -> Change {
        let mut change = Change {
            reason: format!("constants, under {root}const/, and the coefficients"),
            at: anchor,
            initializers: term.coefficients.clone(),
            inputs: term.inputs.clone(),
            ..Change::default()
        };
        if ir_version >= 4 {
            change.initializers.extend(constants.into_values());
        } else {
            // Before IR version 4 an initializer has to be a graph input as well; a Constant node does not.
            let opset = self.analysis.model.opset();
            let made: Vec<_> = constants.into_values().flat_map(|tensor| term::constant_nodes(tensor, opset)).collect();
            change.value_info = made.iter().map(|(_, declared)| declared.clone()).collect();
            change.nodes = made.into_iter().map(|(node, _)| node).collect();
        }
        change
    }

    /// The term, the sum with the task loss, and the outputs.
    fn closing(&self, term: Term, anchor: Anchor) -> Change {
        let graph = &self.analysis.graph;
        let mut change = Change {
            reason: match (&self.loss, self.destination) {
                (Some(loss), _) => format!("λ·ΣPER, added to the loss {:?}", graph.name(loss.value)),
                (None, Destination::Gradients) => "values of PER".into(),
                (None, _) => format!("λ·ΣPER, as the output {:?}", term.result),
            },
            nodes: term.emission.nodes.into(),
            value_info: term.emission.value_info.into(),
            outputs: term.outputs,
            at: anchor,
            ..Change::default()
        };
        if let (Some(loss), Some(task)) = (&self.loss, &term.task) {
            let from = graph.name(loss.value).to_owned();
            let rename = |place| Rename { place, from: from.clone(), to: task.clone() };
            let (producer, slot) = loss.producer;
            let output = vec![(graph_field::NODE, producer.index()), (node_field::OUTPUT, slot as usize)];
            change.renames.push(rename(output));
            change.renames.extend(loss.task_readers.iter().map(|u| rename(graph.place_of_use(*u))));
        }
        change
    }
}
