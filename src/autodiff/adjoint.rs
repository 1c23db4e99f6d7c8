//! One node on the way back: the cotangents of its outputs, and what a rule writes those of its inputs with.

use std::collections::{BTreeMap, HashMap};

use super::shape::{same_dims, sum_to};
use crate::graph::types::TensorType;
use crate::graph::{NodeId, ValueId};
use crate::onnx::NodeProto;
use crate::regularizer::emit::{Elem, Tensor};
use crate::rewrite::builder::{Builder, Made, is_half};
use crate::rewrite::site::{Known, Refusal, Site};

/// The gradient of the loss with respect to a value.
#[derive(Debug, Clone)]
pub struct Cotangent {
    /// The gradient; of the value's shape, or of one that broadcasts to it.
    pub tensor: Tensor,
    /// Whether it has the value's shape already.
    pub is_full: bool,
}

/// Forward outputs that were left out and that a gradient reads, by node and position: their names.
pub type Saved = BTreeMap<(NodeId, usize), String>;

/// Forward nodes that others take the place of, with the same outputs and more.
pub type Remade = BTreeMap<NodeId, Vec<NodeProto>>;

/// What a rule sees of one node and writes with.
pub struct Adjoint<'s, 'a> {
    /// The node.
    pub site: Site<'a>,
    /// Writes nodes of the backward pass.
    pub b: &'s mut Builder,
    pub(super) cotangents: Vec<Option<Cotangent>>,
    pub(super) saved: &'s mut Saved,
    pub(super) remade: &'s mut Remade,
    /// Types of outputs that forward nodes have now and had not, by name.
    pub(super) made: &'s mut HashMap<String, TensorType>,
    /// Starts the names of saved outputs.
    pub(super) prefix: String,
    /// Whether the graph is a body that runs more than once, so that what is saved is stacked.
    pub(super) is_repeated: bool,
    /// Whether convolutions may be written by tiles.
    pub(super) tiles: bool,
    /// Writes forward nodes that take this one's place.
    pub(super) forward: &'s mut Builder,
    /// What they make, one for each output; `None` where the node stays.
    pub(super) stand_in: Option<Vec<Made>>,
    pub(super) given: Vec<(usize, Cotangent)>,
    /// Gradients of float16 and bfloat16 values that were made in float32, by what they became.
    pub(super) wide: &'s mut HashMap<String, Tensor>,
    pub(super) given_to_captures: Vec<(ValueId, Cotangent)>,
}

impl Adjoint<'_, '_> {
    /// Whether the gradient of an input is asked for.
    pub fn wants(&self, slot: usize) -> bool {
        self.site.needs_gradient(slot)
    }

    /// An input.
    pub fn x(&self, slot: usize) -> Known<Tensor> {
        self.site.required(slot)
    }

    /// An output. One that the node leaves out is made from now on.
    pub fn y(&mut self, slot: usize) -> Tensor {
        let graph = &self.site.analysis.graph;
        let ty = self.site.output_type(slot);
        let name = match graph.output(self.site.id, slot) {
            Some(value) => graph.name(value).to_owned(),
            None => {
                let name = || format!("{}saved_{slot}", self.prefix);
                self.saved.entry((self.site.id, slot)).or_insert_with(name).clone()
            }
        };
        Tensor { name, ty }
    }

    /// As [`Adjoint::y`], with a type for an output that was left out.
    pub fn y_of_type(&mut self, slot: usize, ty: TensorType) -> Tensor {
        let y = self.y(slot);
        let y = Tensor { ty: if y.ty.elem == 0 { ty } else { y.ty.clone() }, ..y };
        if self.site.analysis.graph.output(self.site.id, slot).is_none() {
            self.made.insert(y.name.clone(), y.ty.clone());
        }
        y
    }

    /// Whether an output has a cotangent.
    pub fn has_g(&self, slot: usize) -> bool {
        self.cotangents.get(slot).is_some_and(Option::is_some)
    }

    /// The cotangent of an output, of a shape that broadcasts to the output's.
    pub fn lazy(&self, slot: usize) -> Known<Cotangent> {
        let found = self.cotangents.get(slot).cloned().flatten();
        found.ok_or_else(|| Refusal(format!("nothing differentiable reads its output {slot}")))
    }

    /// The cotangent of an output, in the output's shape.
    pub fn g(&mut self, slot: usize) -> Known<Tensor> {
        let lazy = self.lazy(slot)?;
        if lazy.is_full {
            return Ok(lazy.tensor);
        }
        let y = self.y(slot);
        let full = self.b.expand_like(&lazy.tensor, &y);
        self.cotangents[slot] = Some(Cotangent { tensor: full.clone(), is_full: true });
        Ok(full)
    }

    /// Gives the gradient of an input, in the input's shape. What was summed in float32 takes the input's type here.
    pub fn give(&mut self, slot: usize, tensor: Tensor) {
        self.give_as_it_is(slot, Cotangent { tensor, is_full: true });
    }

    /// Gives the gradient of an input, in a shape that broadcasts to the input's.
    pub fn give_lazy(&mut self, slot: usize, tensor: Tensor) {
        self.give_as_it_is(slot, Cotangent { tensor, is_full: false });
    }

    /// Gives the gradient of an input.
    pub fn give_as_it_is(&mut self, slot: usize, g: Cotangent) {
        let elem = self.site.input(slot).map_or(0, |x| x.ty.elem);
        let tensor = self.narrowed(g.tensor, elem);
        self.given.push((slot, Cotangent { tensor, ..g }));
    }

    fn narrowed(&mut self, tensor: Tensor, elem: i32) -> Tensor {
        if !is_half(elem) || tensor.ty.elem != Elem::F32.onnx() {
            return tensor;
        }
        let narrow = self.b.cast(&tensor, elem);
        self.wide.insert(narrow.name.clone(), tensor);
        narrow
    }

    /// Gives the gradient of a value that the node's bodies read, in the value's shape.
    pub fn give_captured(&mut self, value: ValueId, tensor: Tensor) {
        let elem = self.site.tensor(value).ty.elem;
        let tensor = self.narrowed(tensor, elem);
        self.given_to_captures.push((value, Cotangent { tensor, is_full: true }));
    }

    /// Gives the gradient of an input that the node may have broadcast: `g` is for the broadcast one, and is summed.
    pub fn give_summed(&mut self, slot: usize, g: Cotangent) -> Known<()> {
        let x = self.x(slot)?;
        let y = self.y(0);
        if same_dims(&x, &y) {
            self.give_as_it_is(slot, g);
            return Ok(());
        }
        let full = if g.is_full { g.tensor } else { self.b.expand_like(&g.tensor, &y) };
        let full = Tensor { ty: TensorType { elem: full.ty.elem, dims: y.ty.dims }, ..full };
        let summed = sum_to(self.b, &full, &x)?;
        self.give(slot, summed);
        Ok(())
    }

    /// A function of one operand, elementwise: `f` gets the cotangent, which may be smaller than the operand, x and y, and multiplies
    /// by something of the operand's shape.
    pub fn pointwise(&mut self, f: impl FnOnce(&mut Builder, &Tensor, &Tensor, &Tensor) -> Tensor) -> Known<()> {
        let g = self.lazy(0)?.tensor;
        let (x, y) = (self.x(0)?, self.y(0));
        let dx = f(self.b, &g, &x, &y);
        self.give(0, Tensor { ty: x.ty, ..dx });
        Ok(())
    }
}
