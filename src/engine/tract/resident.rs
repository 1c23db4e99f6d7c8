//! A model whose state stays in memory from run to run, shared and never copied.

use std::collections::HashMap;

use super::Loaded;
use super::plan::{Value, tensor_of, value_of};
use crate::engine::differentiated::Stateful;
use crate::engine::error::{EngineError, EngineResult};
use crate::engine::program::{Port, check_named, require_output};
use crate::engine::resident::{Carried, Residence, position_of};
use crate::engine::tensor::Tensor;
use crate::graph::types::{Dim, TensorType};

/// A loaded model with its state.
pub(super) struct Resident {
    loaded: Loaded,
    carried: Vec<Carried>,
    /// By carried value: its position.
    positions: HashMap<String, usize>,
    wanted: Vec<String>,
    /// Everything that a run computes: what is carried, then what is wanted and not among it.
    computed: Vec<String>,
    /// What the next run starts from, and what the last one gave.
    state: Vec<Value>,
    next: Vec<Value>,
    /// What other models lent, by input.
    lent: HashMap<String, Value>,
    /// What was fed last, by input, with its type.
    fed: HashMap<String, (TensorType, Value)>,
}

impl Resident {
    pub fn new(loaded: Loaded, plan: &Residence) -> EngineResult<Self> {
        let carried: Vec<Carried> = plan.carried.iter().map(|(c, _)| c.clone()).collect();
        let mut computed: Vec<String> = Vec::new();
        for name in carried.iter().map(|c| &c.output).chain(&plan.wanted) {
            require_output(&loaded.name, &loaded.outputs, name)?;
            if !computed.contains(name) {
                computed.push(name.clone());
            }
        }
        let mut resident = Resident {
            positions: carried.iter().enumerate().map(|(i, c)| (c.input.clone(), i)).collect(),
            carried,
            wanted: plan.wanted.clone(),
            computed,
            state: Vec::with_capacity(plan.carried.len()),
            next: Vec::new(),
            lent: HashMap::new(),
            fed: HashMap::new(),
            loaded,
        };
        for (carried, initial) in &plan.carried {
            resident.check(&carried.input, initial)?;
            let value = value_of(initial).map_err(|problem| resident.loaded.refused(problem))?;
            resident.state.push(value);
        }
        Ok(resident)
    }

    fn copied(&self, name: &str, value: &Value) -> EngineResult<Tensor> {
        let no_tensor = |what| EngineError::NoTensor { model: self.loaded.name.clone(), name: name.to_owned(), what };
        tensor_of(value).map_err(no_tensor)
    }

    fn position(&self, input: &str) -> EngineResult<usize> {
        position_of(&self.loaded.name, &self.carried, &self.positions, input)
    }

    fn check(&self, name: &str, tensor: &Tensor) -> EngineResult<()> {
        check_named(&self.loaded.name, &self.loaded.inputs, name, tensor)
    }
}

impl Stateful for Resident {
    fn inputs(&self) -> &[Port] {
        &self.loaded.inputs
    }

    fn carried(&self) -> &[Carried] {
        &self.carried
    }

    fn set(&mut self, input: &str, value: &Tensor) -> EngineResult<()> {
        let i = self.position(input)?;
        self.check(input, value)?;
        self.state[i] = value_of(value).map_err(|problem| self.loaded.refused(problem))?;
        Ok(())
    }

    fn get(&self, input: &str) -> EngineResult<Tensor> {
        self.copied(input, &self.state[self.position(input)?])
    }

    fn fed(&self) -> EngineResult<Vec<(String, Tensor)>> {
        self.fed.iter().map(|(name, (_, value))| Ok((name.clone(), self.copied(name, value)?))).collect()
    }

    fn lend(&self, to: &mut Resident) -> EngineResult<()> {
        for (carried, value) in self.carried.iter().zip(&self.state) {
            if to.loaded.inputs.iter().any(|p| p.name == carried.input) {
                to.lent.insert(carried.input.clone(), value.clone());
            }
        }
        Ok(())
    }

    fn run(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>> {
        for (name, tensor) in feeds {
            self.check(&name, &tensor)?;
            let value = value_of(&tensor).map_err(|problem| self.loaded.refused(problem))?;
            self.fed.insert(name, (tensor.tensor_type(), value));
        }
        let mut types: Vec<(String, TensorType)> =
            self.fed.iter().map(|(name, (ty, _))| (name.clone(), ty.clone())).collect();
        let elem = |name: &str| {
            let port = self.loaded.inputs.iter().find(|p| p.name == name);
            port.and_then(|p| p.tensor.as_ref()).map_or(0, |t| t.elem)
        };
        let kept = self.carried.iter().map(|c| &c.input).zip(&self.state).chain(&self.lent);
        types.extend(kept.map(|(name, value)| {
            let dims = value.shape().iter().map(|d| Dim::Known(*d as u64)).collect();
            (name.clone(), TensorType { elem: elem(name), dims: Some(dims) })
        }));
        if let Some(port) = self.loaded.inputs.iter().find(|p| !p.has_default && !types.iter().any(|t| t.0 == p.name)) {
            let all = self.loaded.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
            let (model, name, wanted) = (self.loaded.name.clone(), port.name.clone(), port.shown());
            return Err(EngineError::MissingInput { model, name, wanted, all });
        }
        let (state, positions, lent, fed) = (&self.state, &self.positions, &self.lent, &self.fed);
        let value = |name: &str| {
            let fed = fed.get(name).map(|(_, value)| value);
            let carried = || positions.get(name).and_then(|i| state.get(*i));
            fed.or_else(carried).or_else(|| lent.get(name)).cloned()
        };
        let made = self.loaded.plan(types, &self.computed)?.run(value);
        let made = made.map_err(|message| self.loaded.failed(message))?;
        let of = |name: &String| {
            let place = self.computed.iter().position(|n| n == name).and_then(|i| made.get(i));
            place.ok_or_else(|| self.loaded.failed(format!("it gives no {name:?}")))
        };
        let down = self.wanted.iter().map(|name| self.copied(name, of(name)?)).collect::<EngineResult<_>>()?;
        self.next = self.carried.iter().map(|c| Ok(of(&c.output)?.clone())).collect::<EngineResult<_>>()?;
        Ok(down)
    }

    fn advance(&mut self) {
        if self.next.len() == self.state.len() {
            std::mem::swap(&mut self.state, &mut self.next);
        }
    }
}
