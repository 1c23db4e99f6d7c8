//! The outputs of two models on the same inputs.

use serde::Serialize;

use super::elements::{Outcome, compare};
use super::expose;
use super::pairs::Pairs;
use super::random_nodes::unseeded;
use super::{FirstDifference, Options};
use crate::engine::{
    Arrays, Engine, EngineResult, Feeds, Fill, Optimisation, Origin, Program, Tensor, element_size, graph_of,
};
use crate::graph::types::{Dim, TensorType, elem_name};
use crate::wire::Model;

/// What comes of running two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunComparison {
    /// What ran them: [`Engine::description`].
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads, where a number was asked for.
    pub threads: Option<usize>,
    /// How much the engine could rewrite the graphs.
    pub optimisation: Optimisation,
    /// See [`Options::tolerance`].
    pub tolerance: f64,
    /// The seed of the inputs that were made up; `None` where all were given.
    pub seed: Option<u64>,
    /// What went in.
    pub inputs: Vec<InputUsed>,
    /// Arrays that neither model has an input for.
    pub unused: Vec<String>,
    /// Outputs that both have, in the order of the first.
    pub outputs: Vec<OutputComparison>,
    /// Outputs of the first model alone.
    pub only_a: Vec<String>,
    /// Outputs of the second model alone.
    pub only_b: Vec<String>,
    /// Whether there are outputs that both have, and all of them agree within the tolerance.
    pub agree: bool,
    /// The first value that differs, where it was looked for.
    pub first: Option<FirstDifference>,
    /// What else there is to know, as sentences.
    pub notes: Vec<String>,
}

impl RunComparison {
    /// Whether the outputs agree, as a sentence.
    pub fn verdict(&self) -> String {
        match (self.outputs.len(), self.tolerance) {
            (0, _) => "No output is in both.".to_owned(),
            (_, 0.0) if self.agree => "All outputs that both have are equal.".into(),
            (_, t) if self.agree => format!("All outputs that both have agree within {t}."),
            (_, 0.0) => "Outputs differ.".into(),
            (_, t) => format!("Outputs differ by more than {t}."),
        }
    }
}

/// A value that went in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InputUsed {
    /// The input of the first model; `None` where it has none like it.
    pub a: Option<String>,
    /// The input of the second model.
    pub b: Option<String>,
    /// Type and shape, such as `float[2, 64]`.
    pub tensor: String,
    /// Where it came from.
    pub origin: Origin,
}

/// An output of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputComparison {
    /// Its name in the first model.
    pub a: String,
    /// Its name in the second.
    pub b: String,
    /// What comes of comparing it.
    pub outcome: Outcome,
}

/// The same values for two models.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// For the first.
    pub a: Feeds,
    /// For the second, by its names.
    pub b: Feeds,
    /// The seed that values were made up with.
    pub seed: u64,
}

impl Inputs {
    /// Values for both: arrays go by the names in the first model, else by those in the second; what is missing is made up.
    pub fn of(a: &Model, b: &Model, pairs: &Pairs, fill: &Fill, arrays: &Arrays) -> EngineResult<Self> {
        let fill = &with_sizes_of(b, a, pairs, fill)?;
        let for_a = fill.complete(a, arrays)?;
        let mut named = Vec::new();
        for (in_a, in_b) in &pairs.inputs {
            if let Some(feed) = for_a.feeds.iter().find(|f| f.name == *in_a) {
                named.push((in_b.clone(), feed.tensor.clone()));
            }
        }
        named.extend(arrays.named.iter().filter(|(n, _)| !pairs.inputs.iter().any(|(_, b)| b == n)).cloned());
        let arrays_for_b = Arrays { named, nameless: arrays.nameless.clone(), path: arrays.path.clone() };
        let mut for_b = fill.complete(b, &arrays_for_b)?;
        for feed in &mut for_b.feeds {
            let pair = pairs.inputs.iter().find(|(_, in_b)| *in_b == feed.name);
            if let Some(same) = pair.and_then(|(in_a, _)| for_a.feeds.iter().find(|f| f.name == *in_a)) {
                feed.origin = same.origin;
            }
        }
        Ok(Inputs { a: for_a, b: for_b, seed: fill.seed })
    }

    fn used(&self, pairs: &Pairs) -> Vec<InputUsed> {
        let shown = |t: &Tensor| t.tensor_type().to_string();
        let mut used: Vec<InputUsed> = Vec::new();
        for feed in &self.a.feeds {
            let b = pairs.inputs.iter().find(|(a, _)| *a == feed.name).map(|(_, b)| b.clone());
            used.push(InputUsed { a: Some(feed.name.clone()), b, tensor: shown(&feed.tensor), origin: feed.origin });
        }
        for feed in &self.b.feeds {
            if !used.iter().any(|u| u.b.as_ref() == Some(&feed.name)) {
                let b = Some(feed.name.clone());
                used.push(InputUsed { a: None, b, tensor: shown(&feed.tensor), origin: feed.origin });
            }
        }
        used
    }
}

/// Runs both models, one after the other, and compares the outputs that both have.
///
/// # Errors
/// When one of the models does not load or does not run.
pub fn run(
    engine: &dyn Engine,
    a: &Model,
    b: &Model,
    pairs: &Pairs,
    inputs: &Inputs,
    options: &Options,
) -> EngineResult<RunComparison> {
    let of_a: Vec<&str> = pairs.outputs.iter().map(|(a, _)| a.as_str()).collect();
    let of_b: Vec<&str> = pairs.outputs.iter().map(|(_, b)| b.as_str()).collect();
    let compute = |model: &Model, names: &[&str], feeds: &Feeds| match names {
        // An empty model, as git hands over for a file that is new, would not even load.
        [] => Ok(Vec::new()),
        names => values(&mut *engine.load(expose::source(model)?, &options.load)?, names, feeds),
    };
    let values_of_a = compute(a, &of_a, &inputs.a)?;
    let values_of_b = compute(b, &of_b, &inputs.b)?;
    let outputs: Vec<OutputComparison> = pairs
        .outputs
        .iter()
        .zip(values_of_a.iter().zip(&values_of_b))
        .map(|((a, b), (x, y))| OutputComparison { a: a.clone(), b: b.clone(), outcome: outcome(x, y, options) })
        .collect();
    let left = |model: &Model, paired: &[&str]| {
        let names = model.graph.outputs.iter().map(|o| o.name().to_owned());
        names.filter(|name| !paired.contains(&name.as_str())).collect()
    };
    let is_unused = |name: &&String| inputs.b.unused.contains(name);
    Ok(RunComparison {
        engine: engine.description(),
        engine_version: engine.version().to_owned(),
        device: options.load.device.to_string(),
        threads: options.load.threads.map(std::num::NonZero::get),
        optimisation: options.load.optimisation,
        tolerance: options.tolerance,
        seed: (inputs.a.any_random() || inputs.b.any_random()).then_some(inputs.seed),
        inputs: inputs.used(pairs),
        unused: inputs.a.unused.iter().filter(is_unused).cloned().collect(),
        agree: !outputs.is_empty() && outputs.iter().all(|o| o.outcome.agrees()),
        outputs,
        only_a: left(a, &of_a),
        only_b: left(b, &of_b),
        first: None,
        notes: notes(a, b)?,
    })
}

/// The values of some outputs, in their order; those that are no tensors of numbers as what they are instead.
pub(super) fn values(
    program: &mut dyn Program,
    names: &[&str],
    feeds: &Feeds,
) -> EngineResult<Vec<Result<Tensor, String>>> {
    let kind = |name: &str| {
        program.outputs().iter().find(|o| o.name == name).map(|port| match &port.tensor {
            None => Some("no tensor".to_owned()),
            Some(tensor) if element_size(tensor.elem).is_none() => {
                Some(format!("a tensor of {}", elem_name(tensor.elem)))
            }
            Some(_) => None,
        })
    };
    // A name that is no output is left to the program to complain of.
    let strange: Vec<Option<String>> = names.iter().map(|name| kind(name).flatten()).collect();
    let wanted: Vec<&str> = names.iter().zip(&strange).filter(|(_, s)| s.is_none()).map(|(name, _)| *name).collect();
    let mut tensors = program.run(&feeds.tensors(), Some(&wanted))?.into_iter();
    let of = |(name, strange): (&&str, Option<String>)| match strange {
        Some(what) => Err(format!("{name} is {what}")),
        None => tensors.next().map(|(_, tensor)| tensor).ok_or_else(|| format!("{name} was not computed")),
    };
    Ok(names.iter().zip(strange).map(of).collect())
}

pub(super) fn outcome(a: &Result<Tensor, String>, b: &Result<Tensor, String>, options: &Options) -> Outcome {
    match (a, b) {
        (Ok(a), Ok(b)) => compare(a, b, options.tolerance),
        (Err(why), _) | (_, Err(why)) => Outcome::Skipped { why: why.clone() },
    }
}

/// Where the first model leaves a dimension of an input open and the second one declares its size, that is the size of both.
fn with_sizes_of(b: &Model, a: &Model, pairs: &Pairs, fill: &Fill) -> EngineResult<Fill> {
    let mut fill = fill.clone();
    let declared = |model: &Model, name: &str| {
        let found = model.graph.inputs.iter().find(|i| i.name() == name);
        found.and_then(TensorType::of_value).and_then(|t| t.dims).unwrap_or_default()
    };
    for (in_a, in_b) in &pairs.inputs {
        for (axis, (open, size)) in declared(a, in_a).iter().zip(declared(b, in_b)).enumerate() {
            let name = match open {
                Dim::Known(_) => continue,
                Dim::Symbol(symbol) => symbol.to_string(),
                Dim::Unknown => format!("{in_a}:{axis}"),
            };
            if let Some(size) = size.known() {
                fill.dims.entry(name).or_insert(size);
            }
        }
    }
    Ok(fill)
}

fn notes(a: &Model, b: &Model) -> EngineResult<Vec<String>> {
    let mut notes = Vec::new();
    for (which, model) in [("the first model", a), ("the second model", b)] {
        let drawing = unseeded(&graph_of(model)?);
        if !drawing.is_empty() {
            notes.push(format!(
                "{which} draws random numbers without a seed ({}), so that no two runs of it need be alike",
                drawing.join(", ")
            ));
        }
    }
    Ok(notes)
}
