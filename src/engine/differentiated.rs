//! The differentiated step graph as a [`Stepper`], and a graph that evaluates beside it, on one state, whatever engine runs them.

use std::collections::HashMap;

use super::error::{EngineError, EngineResult};
use super::placement::Placed;
use super::program::{Port, Source};
use super::resident::{Carried, Residence};
use super::stepper::{StepPlan, Stepper};
use super::tensor::Tensor;

/// A loaded graph whose state stays with it from run to run: what an engine has to have for [`Differentiated`].
pub(super) trait Stateful: Sized {
    /// What it takes, carried values included.
    fn inputs(&self) -> &[Port];
    /// What is carried.
    fn carried(&self) -> &[Carried];
    /// Gives a carried value, by its input.
    fn set(&mut self, input: &str, value: &Tensor) -> EngineResult<()>;
    /// A copy of what a carried value is now.
    fn get(&self, input: &str) -> EngineResult<Tensor>;
    /// Copies of what was fed to the last run.
    fn fed(&self) -> EngineResult<Vec<(String, Tensor)>>;
    /// Lends the carried values as they are now to another graph, for inputs of the same names.
    fn lend(&self, to: &mut Self) -> EngineResult<()>;
    /// Runs it on the state as it is, which stays so until [`Stateful::advance`]. An input that is not fed keeps its last value.
    fn run(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>>;
    /// Makes what the last run gave the state of the next.
    fn advance(&mut self);
    /// Which provider took which nodes.
    fn placed(&self) -> &[Placed] {
        &[]
    }
}

/// A step graph and the graph that evaluates, which is loaded when it is wanted for the first time.
pub(super) struct Differentiated<'a, R, L> {
    /// Loads a graph; told whether it is the step's.
    load: L,
    step: R,
    source: Source<'a>,
    wanted: Vec<String>,
    evaluation: Option<R>,
}

impl<'a, R, L: Fn(Source<'_>, &Residence, bool) -> EngineResult<R>> Differentiated<'a, R, L> {
    pub fn new(plan: StepPlan<'a>, load: L) -> EngineResult<Self> {
        let residence = Residence { carried: plan.carried, wanted: plan.step_outputs };
        let step = load(plan.step, &residence, true)?;
        Ok(Differentiated { load, step, source: plan.evaluation, wanted: plan.evaluation_outputs, evaluation: None })
    }
}

impl<R: Stateful, L: Fn(Source<'_>, &Residence, bool) -> EngineResult<R>> Stepper for Differentiated<'_, R, L> {
    fn inputs(&self) -> &[Port] {
        self.step.inputs()
    }

    fn step(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>> {
        self.step.run(feeds)
    }

    fn advance(&mut self) -> EngineResult<()> {
        self.step.advance();
        Ok(())
    }

    fn prepare_evaluation(&mut self) -> EngineResult<()> {
        let mut evaluation = match self.evaluation.take() {
            Some(evaluation) => evaluation,
            None => {
                let residence = Residence { carried: Vec::new(), wanted: self.wanted.clone() };
                (self.load)(self.source, &residence, false)?
            }
        };
        self.step.lend(&mut evaluation)?;
        self.evaluation = Some(evaluation);
        Ok(())
    }

    fn evaluate(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>> {
        match &mut self.evaluation {
            Some(evaluation) => evaluation.run(feeds),
            None => Err(EngineError::Run {
                model: self.source.name(),
                message: "no state was prepared to be evaluated".into(),
            }),
        }
    }

    fn state(&self) -> EngineResult<Vec<(String, Tensor)>> {
        self.step.carried().iter().map(|c| Ok((c.input.clone(), self.step.get(&c.input)?))).collect()
    }

    fn set_state(&mut self, values: &HashMap<String, Tensor>) -> EngineResult<()> {
        for carried in self.step.carried().to_vec() {
            let value =
                values.get(&carried.input).ok_or_else(|| EngineError::NoState { name: carried.input.clone() })?;
            self.step.set(&carried.input, value)?;
        }
        Ok(())
    }

    fn fed(&self) -> EngineResult<Vec<(String, Tensor)>> {
        self.step.fed()
    }

    fn placed(&self) -> &[Placed] {
        self.step.placed()
    }
}
