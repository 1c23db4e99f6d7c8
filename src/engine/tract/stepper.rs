//! tract as a [`Stepper`]: the differentiated step graph, and one that evaluates beside it, on one state.

use std::collections::HashMap;

use super::Loaded;
use super::resident::Resident;
use crate::engine::error::{EngineError, EngineResult};
use crate::engine::program::{LoadOptions, Port, Source};
use crate::engine::resident::Residence;
use crate::engine::stepper::{StepPlan, Stepper};
use crate::engine::tensor::Tensor;

/// A step graph and the graph that evaluates, which is read when it is wanted for the first time.
pub struct TractStepper<'a> {
    options: LoadOptions,
    step: Resident,
    source: Source<'a>,
    wanted: Vec<String>,
    evaluation: Option<Resident>,
}

impl<'a> TractStepper<'a> {
    pub fn new(plan: StepPlan<'a>, options: &LoadOptions) -> EngineResult<Self> {
        let residence = Residence { carried: plan.carried, wanted: plan.step_outputs };
        Ok(TractStepper {
            options: *options,
            step: Resident::new(Loaded::open(plan.step, options)?, &residence)?,
            source: plan.evaluation,
            wanted: plan.evaluation_outputs,
            evaluation: None,
        })
    }
}

impl Stepper for TractStepper<'_> {
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
                Resident::new(Loaded::open(self.source, &self.options)?, &residence)?
            }
        };
        self.step.lend(&mut evaluation);
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
}
