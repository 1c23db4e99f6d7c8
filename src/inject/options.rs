//! What a caller asks for.

use std::collections::BTreeSet;

use crate::lower::Target;
use crate::regularizer::{Reduction, View};

/// Everything that decides what is injected. `Options::default()` is what the command line does without options.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Selector of the layers, such as `relu` or `all,!#1`; see [`Selector`](crate::select::Selector).
    pub layers: String,
    /// Whether the activation or what goes into it is regularised.
    pub at: At,
    /// λ. `None` means 1 for an output of its own, and is refused for a loss.
    pub coef: Option<f64>,
    /// λ for the layers that a selector picks, the last match counting.
    pub coef_overrides: Vec<(String, f64)>,
    /// Make λ a graph input, with the value as its default; without one for ONNX Runtime's training, which feeds no defaults.
    pub coef_input: bool,
    /// How the expectation over slices is taken.
    pub estimator: Estimator,
    /// Slices of the sampled and structured estimators; 256 in the paper. A sample of many rows may have a quarter, its own.
    pub slices: u64,
    /// Layers whose rows are as long read the same slices, which saves drawing them again.
    pub share_slices: bool,
    /// What a row is; `None` decides by the kind of activation.
    pub view: Option<View>,
    /// How rows become one number.
    pub reduction: Reduction,
    /// Makes the sampled estimator's draws reproducible.
    pub seed: Option<u64>,
    /// The loss, where several outputs could be it or where it is not an output.
    pub loss: Option<String>,
    /// Leave every loss alone and add the term as an output `per_loss`.
    pub as_output: bool,
    /// Whether the term joins the loss or its gradient joins those of the graph.
    pub form: Form,
    /// In the gradient form: add the term to the loss as well, so that what is reported includes it.
    pub loss_term: bool,
    /// What to expose as further outputs.
    pub outputs: Outputs,
    /// Selector of the initializers to train; `None` decides by their roles.
    pub wrt: Option<String>,
    /// Selector of initializers that are not trained.
    pub freeze: Option<String>,
    /// The initializers that are trained, by name, all of the main graph: then neither roles nor selectors decide.
    pub trained: Option<BTreeSet<String>>,
    /// The training pipeline that the graph is rewritten for.
    pub target: Option<Target>,
    /// Refuse instead of skipping an activation that cannot be tapped.
    pub strict: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            layers: "all".into(),
            at: At::Post,
            coef: None,
            coef_overrides: Vec::new(),
            coef_input: false,
            estimator: Estimator::Sampled,
            slices: 256,
            share_slices: false,
            view: None,
            reduction: Reduction::Mean,
            seed: None,
            loss: None,
            as_output: false,
            form: Form::Auto,
            loss_term: false,
            outputs: Outputs::default(),
            wrt: None,
            freeze: None,
            trained: None,
            target: None,
            strict: false,
        }
    }
}

/// Where the regulariser goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Into the gradients where the graph holds its backward pass, else into the loss.
    Auto,
    /// The term is added to the loss, and whoever differentiates it gets its gradient.
    Loss,
    /// The term's gradient is added to the gradient of each layer: algorithm 1 of the paper.
    Gradient,
}

impl Form {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Form::Auto => "auto",
            Form::Loss => "loss",
            Form::Gradient => "gradient",
        }
    }
}

/// Which side of an activation is tapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Its output.
    Post,
    /// Its input.
    Pre,
}

/// How the expectation over slices is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimator {
    /// Monte Carlo, as in the paper.
    Sampled,
    /// Monte Carlo with slices that share normal vectors under different signs; see [`Sampled::structured`](crate::regularizer::Sampled).
    Structured,
    /// The closed form.
    Exact,
}

impl Estimator {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Estimator::Sampled => "sampled",
            Estimator::Structured => "structured",
            Estimator::Exact => "exact",
        }
    }

    /// Whether it draws random numbers.
    pub fn draws(self) -> bool {
        self != Estimator::Exact
    }
}

/// Further outputs of the injected graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outputs {
    /// The loss without the regulariser.
    pub task: bool,
    /// The sum of all layers' PER, without λ.
    pub per: bool,
    /// Each layer's PER, without λ.
    pub layers: bool,
}

impl Options {
    /// Whether nothing but the rewriting for a pipeline is asked for.
    pub fn is_lowering_alone(&self) -> bool {
        let weighs_nothing = self.coef == Some(0.0) && self.coef_overrides.is_empty();
        self.target.is_some() && (weighs_nothing || self.layers.trim() == "none")
    }

    /// The same as arguments of the command line, without those that have their defaults.
    pub fn arguments(&self) -> Vec<String> {
        let default = Options::default();
        let mut out = Vec::new();
        let mut option = |name: &str, value: String| out.extend([name.to_owned(), value]);
        // The rewriting alone may do without.
        if !self.layers.is_empty() {
            option("--layers", self.layers.clone());
        }
        if let Some(coef) = self.coef {
            option("--coef", format!("{coef:?}"));
        }
        for (item, value) in &self.coef_overrides {
            option("--coef", format!("{item}={value:?}"));
        }
        option("--estimator", self.estimator.name().into());
        if self.estimator.draws() && self.slices != default.slices {
            option("--slices", self.slices.to_string());
        }
        if self.at == At::Pre {
            option("--at", "pre".into());
        }
        if let Some(view) = self.view {
            option("--view", view.name().into());
        }
        if self.reduction == Reduction::Sum {
            option("--reduction", "sum".into());
        }
        for (name, value) in [("--loss", &self.loss), ("--wrt", &self.wrt), ("--freeze", &self.freeze)] {
            if let Some(value) = value {
                option(name, value.clone());
            }
        }
        if self.form != Form::Auto {
            option("--form", self.form.name().into());
        }
        if let Some(target) = self.target {
            option("--for", target.name().into());
        }
        if let Some(seed) = self.seed {
            option("--seed", seed.to_string());
        }
        let outputs = [(self.outputs.task, "task"), (self.outputs.per, "per"), (self.outputs.layers, "layers")];
        let exposed: Vec<&str> = outputs.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        if !exposed.is_empty() {
            option("--outputs", exposed.join(","));
        }
        let flags = [
            (self.estimator.draws() && self.share_slices, "--share-slices"),
            (self.coef_input, "--coef-input"),
            (self.as_output, "--as-output"),
            (self.loss_term, "--loss-term"),
            (self.strict, "--strict"),
        ];
        out.extend(flags.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
        out
    }
}
