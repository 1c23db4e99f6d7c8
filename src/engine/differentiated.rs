//! ONNX Runtime as a [`Stepper`]: the differentiated step graph, and one that evaluates beside it, on one state.

use std::collections::HashMap;

use super::error::{EngineError, EngineResult};
use super::onnx_runtime::Runtime;
use super::placement::Placed;
use super::program::{LoadOptions, Port, Source};
use super::resident::{Residence, Resident};
use super::stepper::{StepPlan, Stepper};
use super::tensor::Tensor;

/// A step graph and the graph that evaluates, which is loaded when it is wanted for the first time.
pub(super) struct Differentiated<'a> {
    runtime: Runtime,
    options: LoadOptions,
    step: Resident,
    source: Source<'a>,
    wanted: Vec<String>,
    evaluation: Option<Resident>,
}

impl<'a> Differentiated<'a> {
    pub fn new(runtime: &Runtime, plan: StepPlan<'a>, options: &LoadOptions) -> EngineResult<Self> {
        let residence = Residence { carried: plan.carried, wanted: plan.step_outputs };
        let step = runtime.resident(plan.step, options, &residence)?;
        // Recorded once it would read the state of that time for ever.
        let mut options = LoadOptions { placements: false, ..*options };
        options.cuda.graph = false;
        Ok(Differentiated {
            runtime: runtime.clone(),
            options,
            step,
            source: plan.evaluation,
            wanted: plan.evaluation_outputs,
            evaluation: None,
        })
    }
}

impl Stepper for Differentiated<'_> {
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
                self.runtime.resident(self.source, &self.options, &residence)?
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
