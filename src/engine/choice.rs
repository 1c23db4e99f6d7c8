//! Which engine trains, where that is left open, and why it is the one.

use super::adopted::ask_host;
use super::error::{EngineError, EngineResult};
use super::find::Search;
use super::onnx_runtime::Runtime;
use super::program::Engine;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// ONNX Runtime where it is found, else what is part of this program.
    #[default]
    Auto,
    /// ONNX Runtime with a graph that is differentiated here.
    Ort,
    /// ONNX Runtime's training API.
    OrtTraining,
    /// tract, which is part of the program where it was built so.
    Tract,
}

/// An engine that is there.
pub enum Chosen {
    /// It makes steps of graphs that are differentiated here.
    OfGraphs(Box<dyn Engine>),
    /// It differentiates itself.
    OrtTraining(Runtime),
}

impl Chosen {
    /// What runs graphs.
    pub fn engine(&self) -> &dyn Engine {
        match self {
            Chosen::OfGraphs(engine) => &**engine,
            Chosen::OrtTraining(runtime) => runtime,
        }
    }
}

/// Finds the engine, and says in words which one it is and why.
///
/// # Errors
/// When it is not there; the sentence says what to install.
pub fn choose(wish: Wish, search: &Search) -> EngineResult<(Chosen, String)> {
    let ort = |runtime: Runtime, why: &str| {
        let text = format!("ort{why}, {}", runtime.description());
        (Chosen::OfGraphs(Box::new(runtime)), text)
    };
    match wish {
        Wish::Ort => Ok(ort(Runtime::open(search)?, "")),
        Wish::OrtTraining => {
            if search.option.is_none() && search.variable.is_none() {
                ask_host().map_err(|problem| EngineError::NotHandedOver { problem })?;
            }
            let runtime = Runtime::open(search).map_err(|error| match error {
                EngineError::NoRuntime { .. } | EngineError::BadLibrary { .. } => {
                    EngineError::TrainingRuntime { problem: error.to_string() }
                }
                other => other,
            })?;
            runtime.require_training()?;
            let text = format!("ort-training, the training API of {}", runtime.description());
            Ok((Chosen::OrtTraining(runtime), text))
        }
        Wish::Tract => {
            let engine = built_in().ok_or(EngineError::NotBuiltIn { engine: "tract" })?;
            let text = engine.description();
            Ok((Chosen::OfGraphs(engine), text))
        }
        Wish::Auto => match (Runtime::open(search), built_in()) {
            (Ok(runtime), _) => Ok(ort(runtime, " (auto: it was found)")),
            // One that was named and is none is no reason to take another one.
            (Err(EngineError::NoRuntime { tried }), Some(engine)) => {
                let text = format!(
                    "{} (auto: there is no ONNX Runtime, which would be faster: {})",
                    engine.description(),
                    tried.join("; ")
                );
                Ok((Chosen::OfGraphs(engine), text))
            }
            (Err(error), _) => Err(error),
        },
    }
}

/// The engine that is part of this program.
#[allow(unexpected_cfgs)]
fn built_in() -> Option<Box<dyn Engine>> {
    #[cfg(feature = "tract")]
    return Some(Box::new(super::tract::Tract));
    #[cfg(not(feature = "tract"))]
    None
}
