//! What the term is joined to, as far as the graph has it.

use super::{Form, InjectError, Options};
use crate::analysis::Analysis;
use crate::graph::kind::Kind;

/// What the term is joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The loss.
    Loss,
    /// Nothing: it is an output.
    Output,
    /// The gradients of the layers.
    Gradients,
}

impl Destination {
    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Destination::Loss => "loss",
            Destination::Output => "output",
            Destination::Gradients => "gradient",
        }
    }

    /// What is asked for, as far as the graph has it.
    pub fn of(analysis: &Analysis, options: &Options) -> Result<Self, InjectError> {
        let destination = match (&analysis.kind, options.form) {
            (_, Form::Gradient) if options.as_output => return Err(InjectError::GradientAsOutput),
            (_, Form::Auto | Form::Loss) if options.as_output => Destination::Output,
            (Kind::ForwardBackward { evidence }, Form::Loss) => {
                return Err(InjectError::HoldsBackward { evidence: evidence.clone() });
            }
            (Kind::ForwardBackward { .. }, _) => Destination::Gradients,
            (_, Form::Auto | Form::Loss) => Destination::Loss,
            (kind, Form::Gradient) => return Err(InjectError::NoBackward { found: kind.name() }),
        };
        let touches_loss =
            destination == Destination::Loss || (destination == Destination::Gradients && options.loss_term);
        match (&options.loss, destination) {
            _ if options.loss_term && destination != Destination::Gradients => Err(InjectError::LossTermAnyway),
            (Some(name), Destination::Gradients) if !touches_loss => {
                Err(InjectError::LossUntouched { name: name.clone() })
            }
            _ if options.outputs.task && !touches_loss => Err(InjectError::NoTaskLoss),
            _ => Ok(destination),
        }
    }
}
