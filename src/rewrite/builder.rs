//! What rules write with: the [`Emitter`], with names that number themselves and the operators that rewritings need.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{AttributeProto, NodeProto};
use crate::regularizer::emit::{Elem, Emission, Emitter, Tensor, int, ints};
use crate::rewrite::site::{Site, extent};

/// What stands in for one output of a node; `None` where that output is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Made(Option<Tensor>);

impl From<Tensor> for Made {
    fn from(tensor: Tensor) -> Self {
        Made(Some(tensor))
    }
}

impl Made {
    /// Nothing: the output is left out.
    pub fn nothing() -> Self {
        Made(None)
    }
}

/// One number of a shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Extent {
    /// A number; 0 and −1 mean to Reshape what they always do.
    Fixed(i64),
    /// A dimension of a tensor, whatever it will be.
    Of(Tensor, usize),
}

impl From<i64> for Extent {
    fn from(n: i64) -> Self {
        Extent::Fixed(n)
    }
}

impl From<(&Tensor, usize)> for Extent {
    fn from((x, axis): (&Tensor, usize)) -> Self {
        match x.ty.dims.as_ref().and_then(|d| d.get(axis)).and_then(Dim::known) {
            Some(n) => Extent::Fixed(extent(n)),
            None => Extent::Of(x.clone(), axis),
        }
    }
}

/// Writes the nodes that stand in for one.
pub struct Builder {
    emitter: Emitter,
    root: String,
    /// Initializers that only the node reads: as both operands of one node they would get two gradients of one name.
    parameters: Vec<String>,
    /// How often each operator was written.
    counts: HashMap<String, usize>,
}

impl Builder {
    /// `name` tells this node's names from others'.
    pub fn new(opset: i64, root: &str, name: &str, parameters: Vec<String>) -> Self {
        let emitter = Emitter::new(opset, root, name);
        Builder { emitter, root: root.to_owned(), parameters, counts: HashMap::new() }
    }

    /// The operator set of the result.
    pub fn opset(&self) -> i64 {
        self.emitter.opset()
    }

    /// What was written, with the values that stand for the node's outputs under their names.
    pub fn finish(mut self, outputs: &[String], made: &[Made]) -> Emission {
        let mut renames: HashMap<String, String> = HashMap::new();
        let mut copies = Vec::new();
        for (output, tensor) in outputs.iter().zip(made).filter(|(name, _)| !name.is_empty()) {
            let Made(Some(tensor)) = tensor else { continue };
            // What is an input, or stands for two outputs, is copied.
            let is_own =
                tensor.name.starts_with(&self.root) && !tensor.name.starts_with(&format!("{}const/", self.root));
            if is_own && !renames.contains_key(&tensor.name) {
                renames.insert(tensor.name.clone(), output.clone());
            } else {
                copies.push((tensor.clone(), output.clone()));
            }
        }
        for (tensor, output) in copies {
            let node = self.label("Identity");
            let copy = self.emitter.node(&node, "Identity", &[&tensor], Vec::new(), tensor.ty.clone());
            renames.insert(copy.name, output);
        }
        let mut emission = self.emitter.finish();
        for name in emission.nodes.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
            if let Some(output) = renames.get(name) {
                name.clone_from(output);
            }
        }
        emission.value_info.retain(|v| !renames.contains_key(v.name()));
        emission
    }

    fn label(&mut self, op: &str) -> String {
        let base = op.to_ascii_lowercase();
        let n = self.counts.entry(base.clone()).or_insert(0);
        *n += 1;
        if *n == 1 { base } else { format!("{base}_{n}") }
    }

    /// Any node. Returns a value for each of `outputs`.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[Option<Tensor>],
        attributes: Vec<AttributeProto>,
        outputs: &[TensorType],
    ) -> Vec<Tensor> {
        let label = self.label(op);
        self.emitter.node_with_outputs(&label, op, inputs, attributes, outputs)
    }

    /// A node that is made already, with what it makes.
    pub fn push(&mut self, node: NodeProto, made: &[Tensor]) {
        self.emitter.push(node, made);
    }

    /// A node of one output.
    pub fn one(&mut self, op: &str, inputs: &[&Tensor], attributes: Vec<AttributeProto>, ty: TensorType) -> Tensor {
        let label = self.label(op);
        self.emitter.node(&label, op, inputs, attributes, ty)
    }

    /// The node itself, with other outputs.
    pub fn again(&mut self, site: &Site, outputs: &[TensorType]) -> Vec<Tensor> {
        let inputs: Vec<Option<Tensor>> = (0..site.node.input.len()).map(|slot| site.input(slot)).collect();
        self.node(site.node.op_type(), &inputs, site.node.attribute.clone(), outputs)
    }

    /// An operator that keeps type and shape.
    pub fn unary(&mut self, op: &str, x: &Tensor) -> Tensor {
        self.one(op, &[x], Vec::new(), x.ty.clone())
    }

    /// An operator of two operands that broadcast.
    pub fn binary(&mut self, op: &str, a: &Tensor, b: &Tensor) -> Tensor {
        let is_parameter_twice = a.name == b.name && self.parameters.contains(&a.name);
        let copy = is_parameter_twice.then(|| self.unary("Identity", b));
        let label = self.label(op);
        self.emitter.binary(&label, op, a, copy.as_ref().unwrap_or(b))
    }

    /// A comparison of two operands that broadcast.
    pub fn compare(&mut self, op: &str, a: &Tensor, b: &Tensor) -> Tensor {
        let label = self.label(op);
        self.emitter.compare(&label, op, a, b)
    }

    /// A rank-0 constant of the type of another tensor.
    pub fn number(&mut self, value: f64, like: &Tensor) -> Tensor {
        let elem = like.ty.elem;
        let label = format!("{value:?}");
        if elem == Elem::F64.onnx() {
            return self.emitter.scalar(&label, Elem::F64, value);
        }
        if elem == Elem::I64.onnx() {
            return self.emitter.scalar(&format!("{label}_int"), Elem::I64, value);
        }
        let single = self.emitter.scalar(&label, Elem::F32, value);
        if elem == 0 { single } else { self.cast(&single, elem) }
    }

    /// A constant for an operation with all of x: of rank 0, or of x's rank where x's last axis has extent 1, along which ONNX Runtime's CPU
    /// would stretch a number of lower rank element by element, sixty times slower.
    fn operand(&mut self, c: f64, x: &Tensor) -> Tensor {
        match ends_in_one(x) {
            Some(rank) if is_floating(x.ty.elem) && self.opset() >= 7 => {
                self.constant(&format!("{c:?}_of_rank_{rank}"), x, &vec![1; rank], &[c])
            }
            _ => self.number(c, x),
        }
    }

    /// x + c; x itself for 0.
    pub fn plus(&mut self, x: &Tensor, c: f64) -> Tensor {
        if c == 0.0 {
            return x.clone();
        }
        let c = self.operand(c, x);
        self.binary("Add", x, &c)
    }

    /// x·c; x itself for 1.
    pub fn times(&mut self, x: &Tensor, c: f64) -> Tensor {
        if c == 1.0 {
            return x.clone();
        }
        let c = self.operand(c, x);
        self.binary("Mul", x, &c)
    }

    /// x/c; x itself for 1.
    pub fn divided(&mut self, x: &Tensor, c: f64) -> Tensor {
        if c == 1.0 {
            return x.clone();
        }
        let c = self.operand(c, x);
        self.binary("Div", x, &c)
    }

    /// Cast, unless the value has that type already.
    pub fn cast(&mut self, x: &Tensor, elem: i32) -> Tensor {
        if x.ty.elem == elem {
            return x.clone();
        }
        let label = self.label("Cast");
        self.emitter.cast(&label, x, elem)
    }

    /// In float32 where it is float16 or bfloat16: sums of many terms are made in that.
    pub fn widened(&mut self, x: &Tensor) -> Tensor {
        if is_half(x.ty.elem) { self.cast(x, DataType::Float as i32) } else { x.clone() }
    }

    /// A constant of float32 or float64, as another tensor has it.
    pub fn constant(&mut self, what: &str, like: &Tensor, dims: &[u64], values: &[f64]) -> Tensor {
        let elem = if like.ty.elem == Elem::F64.onnx() { Elem::F64 } else { Elem::F32 };
        let made = self.emitter.constant(what, elem, dims, values);
        if like.ty.elem == 0 { made } else { self.cast(&made, like.ty.elem) }
    }

    /// A one-dimensional constant of integers.
    pub fn integers(&mut self, values: &[i64]) -> Tensor {
        self.emitter.shape_constant("shape", values)
    }

    /// A constant of zeros.
    pub fn zeros(&mut self, like: &Tensor, dims: &[u64]) -> Tensor {
        self.filled("zeros", 0.0, like, dims)
    }

    /// A constant of ones.
    pub fn ones(&mut self, like: &Tensor, dims: &[u64]) -> Tensor {
        self.filled("ones", 1.0, like, dims)
    }

    fn filled(&mut self, what: &str, value: f64, like: &Tensor, dims: &[u64]) -> Tensor {
        let text: Vec<String> = dims.iter().map(ToString::to_string).collect();
        let values = vec![value; usize::try_from(dims.iter().product::<u64>()).unwrap_or_default()];
        self.constant(&format!("{what}_{}", text.join("_")), like, dims, &values)
    }

    /// Zeros of a shape that the running graph knows.
    pub fn zeros_of(&mut self, shape: &Tensor, ty: TensorType) -> Tensor {
        let elem = if ty.elem == 0 { DataType::Float as i32 } else { ty.elem };
        let single = TensorType { elem: DataType::Float as i32, dims: ty.dims };
        let zeros = self.one("ConstantOfShape", &[shape], Vec::new(), single);
        self.cast(&zeros, elem)
    }

    /// A shape as an int64 tensor: a constant where everything is known.
    pub fn shape(&mut self, extents: &[Extent]) -> Tensor {
        let fixed: Option<Vec<i64>> =
            extents.iter().map(|e| if let Extent::Fixed(n) = e { Some(*n) } else { None }).collect();
        if let Some(fixed) = fixed {
            return self.integers(&fixed);
        }
        let mut parts: Vec<Tensor> = Vec::new();
        let mut run: Vec<i64> = Vec::new();
        for each in extents {
            match each {
                Extent::Fixed(n) => run.push(*n),
                Extent::Of(x, axis) => {
                    if !run.is_empty() {
                        parts.push(self.integers(&std::mem::take(&mut run)));
                    }
                    let label = self.label("dim");
                    parts.push(self.emitter.dimension(&label, x, *axis as i64));
                }
            }
        }
        if !run.is_empty() {
            parts.push(self.integers(&run));
        }
        let ty = TensorType { elem: Elem::I64.onnx(), dims: Some(vec![Dim::Known(extents.len() as u64)]) };
        let parts: Vec<&Tensor> = parts.iter().collect();
        self.one("Concat", &parts, vec![int("axis", 0)], ty)
    }

    /// Reshape; dims of the result follow from what is known.
    pub fn reshape(&mut self, x: &Tensor, extents: &[Extent]) -> Tensor {
        let dims = reshaped(x, extents);
        let shape = self.shape(extents);
        self.one("Reshape", &[x, &shape], Vec::new(), TensorType { elem: x.ty.elem, dims: Some(dims) })
    }

    /// Transpose with `perm`.
    pub fn transpose(&mut self, x: &Tensor, perm: &[usize]) -> Tensor {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            return x.clone();
        }
        let label = self.label("Transpose");
        self.emitter.transpose(&label, x, perm)
    }

    /// A reduction over axes, or over all of them.
    pub fn reduce(&mut self, op: &str, x: &Tensor, axes: Option<&[i64]>, keep: bool) -> Tensor {
        let label = self.label(op);
        self.emitter.reduce(&label, op, x, axes, keep)
    }

    /// New axes of extent 1, counted in the result.
    pub fn unsqueeze(&mut self, x: &Tensor, axes: &[usize]) -> Tensor {
        if axes.is_empty() {
            return x.clone();
        }
        let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
        let label = self.label("Unsqueeze");
        self.emitter.unsqueeze(&label, x, &axes)
    }

    /// Without these axes, which have extent 1.
    pub fn squeeze(&mut self, x: &Tensor, axes: &[usize]) -> Tensor {
        if axes.is_empty() {
            return x.clone();
        }
        let keep = |(i, d): (usize, &Dim)| (!axes.contains(&i)).then(|| d.clone());
        let dims = x.ty.dims.as_ref().map(|dims| dims.iter().enumerate().filter_map(keep).collect());
        let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
        let ty = TensorType { elem: x.ty.elem, dims };
        // Axes became an input with operator set 13.
        if self.opset() < 13 {
            return self.one("Squeeze", &[x], vec![ints("axes", &axes)], ty);
        }
        let axes = self.integers(&axes);
        self.one("Squeeze", &[x, &axes], Vec::new(), ty)
    }

    /// Where, of operands that broadcast to the result's shape without needing one another for it: along each axis, one has its extent.
    pub fn choose(&mut self, condition: &Tensor, yes: &Tensor, no: &Tensor) -> Tensor {
        let operands = [condition, no, yes].map(|t| t.ty.dims.as_deref());
        let rank = operands.iter().flatten().map(|d| d.len()).max();
        let dims = rank.filter(|_| operands.iter().all(Option::is_some)).map(|rank| {
            let along = |axis: usize| {
                let mut each = operands.iter().flatten().filter_map(|d| d.get((axis + d.len()).checked_sub(rank)?));
                each.rfind(|d| **d != Dim::Known(1)).cloned().unwrap_or(Dim::Known(1))
            };
            (0..rank).map(along).collect()
        });
        self.one("Where", &[condition, yes, no], Vec::new(), TensorType { elem: yes.ty.elem, dims })
    }

    /// 1 where a condition holds, else 0.
    pub fn indicator(&mut self, condition: &Tensor, like: &Tensor) -> Tensor {
        self.cast(condition, if like.ty.elem == 0 { DataType::Float as i32 } else { like.ty.elem })
    }

    /// Gather by constant positions along an axis.
    pub fn pick(&mut self, x: &Tensor, axis: usize, positions: &[i64]) -> Tensor {
        let index = self.positions(positions);
        let label = self.label("Gather");
        self.emitter.gather(&label, x, &index, axis)
    }

    /// A constant of positions, named by its elements where they are few, else by their digest.
    pub fn positions(&mut self, positions: &[i64]) -> Tensor {
        if positions.len() <= 8 {
            return self.integers(positions);
        }
        let values: Vec<f64> = positions.iter().map(|p| *p as f64).collect();
        let label = format!("positions_{}", fingerprint(&values));
        self.emitter.constant(&label, Elem::I64, &[positions.len() as u64], &values)
    }

    /// A constant matrix, named by its content.
    pub fn matrix(&mut self, like: &Tensor, rows: u64, columns: u64, values: &[f64]) -> Tensor {
        let label = format!("matrix_{rows}x{columns}_{}", fingerprint(values));
        self.constant(&label, like, &[rows, columns], values)
    }

    /// x[start:end:step] along an axis, with step > 0.
    pub fn slice(&mut self, x: &Tensor, axis: usize, start: i64, end: i64, step: i64) -> Tensor {
        let mut dims = x.ty.dims.clone();
        if let Some(dim) = dims.as_mut().and_then(|d| d.get_mut(axis)) {
            *dim = dim.known().map_or(Dim::Unknown, |n| {
                let clamp = |i: i64| (if i < 0 { i + extent(n) } else { i }).clamp(0, extent(n));
                let length = (clamp(end) - clamp(start) + step - 1).max(0) / step;
                Dim::Known(u64::try_from(length).unwrap_or_default())
            });
        }
        // Bounds became inputs, and steps possible, with operator set 10.
        if self.opset() < 10 && step == 1 {
            let attributes = vec![ints("axes", &[axis as i64]), ints("starts", &[start]), ints("ends", &[end])];
            return self.one("Slice", &[x], attributes, TensorType { elem: x.ty.elem, dims });
        }
        let [start, end, axis, step] = [start, end, axis as i64, step].map(|n| self.integers(&[n]));
        self.one("Slice", &[x, &start, &end, &axis, &step], Vec::new(), TensorType { elem: x.ty.elem, dims })
    }

    /// MatMul.
    pub fn matmul(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        let dims = a.ty.dims.as_ref().zip(b.ty.dims.as_ref()).and_then(|(a, b)| {
            let (m, n) = (a.get(a.len().checked_sub(2)?)?, b.last()?);
            let longer = if a.len() >= b.len() { a } else { b };
            let batch = longer.len().checked_sub(2)?;
            // Where both have a batch, what is 1 in one of them may be more in the other.
            let batched = longer.iter().take(batch).map(|d| if *d == Dim::Known(1) { Dim::Unknown } else { d.clone() });
            Some(batched.chain([m.clone(), n.clone()]).collect())
        });
        let label = self.label("MatMul");
        self.emitter.matmul(&label, a, b, dims)
    }

    /// Gemm without a third operand, which became optional with operator set 11.
    pub fn gemm(&mut self, a: &Tensor, b: &Tensor, attributes: Vec<AttributeProto>, ty: TensorType) -> Tensor {
        if self.opset() < 11 {
            let zero = self.number(0.0, a);
            return self.one("Gemm", &[a, b, &zero], attributes, ty);
        }
        self.one("Gemm", &[a, b], attributes, ty)
    }

    /// Split into parts of extent 1 along an axis.
    pub fn split(&mut self, x: &Tensor, axis: usize, parts: &[TensorType]) -> Vec<Tensor> {
        let ones = vec![1; parts.len()];
        let mut attributes = vec![int("axis", axis as i64)];
        let mut inputs = vec![Some(x.clone())];
        // The lengths became an input with operator set 13.
        if self.opset() < 13 {
            attributes.push(ints("split", &ones));
        } else {
            inputs.push(Some(self.positions(&ones)));
        }
        self.node("Split", &inputs, attributes, parts)
    }

    /// Concat along an axis.
    pub fn concat(&mut self, parts: &[Tensor], axis: usize) -> Tensor {
        let dims = parts.first().and_then(|p| p.ty.dims.clone()).map(|mut dims| {
            let lengths = parts.iter().map(|p| p.ty.dims.as_ref()?.get(axis)?.known());
            if let Some(dim) = dims.get_mut(axis) {
                *dim = lengths.sum::<Option<u64>>().map_or(Dim::Unknown, Dim::Known);
            }
            dims
        });
        let elem = parts.first().map_or(0, |p| p.ty.elem);
        let parts: Vec<&Tensor> = parts.iter().collect();
        self.one("Concat", &parts, vec![int("axis", axis as i64)], TensorType { elem, dims })
    }

    /// Zeros (or another constant) around x; `pads` are the beginnings of all axes, then their ends.
    pub fn pad(&mut self, x: &Tensor, pads: &[i64], value: Option<&Tensor>) -> Tensor {
        let rank = pads.len() / 2;
        let dims = x.ty.dims.as_ref().map(|dims| {
            let grown = |(i, d): (usize, &Dim)| {
                let added = pads.get(i).copied().unwrap_or(0) + pads.get(rank + i).copied().unwrap_or(0);
                match d {
                    Dim::Known(n) => n.checked_add_signed(added).map_or(Dim::Unknown, Dim::Known),
                    open if added == 0 => open.clone(),
                    _ => Dim::Unknown,
                }
            };
            dims.iter().enumerate().map(grown).collect()
        });
        // Pads became an input with operator set 11.
        if self.opset() < 11 && value.is_none() {
            return self.one("Pad", &[x], vec![ints("pads", pads)], TensorType { elem: x.ty.elem, dims });
        }
        let pads = self.integers(pads);
        let mut inputs = vec![x, &pads];
        inputs.extend(value);
        self.one("Pad", &inputs, Vec::new(), TensorType { elem: x.ty.elem, dims })
    }

    /// x with the shape of another tensor, repeated where it has extent 1.
    pub fn expand_like(&mut self, x: &Tensor, like: &Tensor) -> Tensor {
        let rank = like.ty.rank().map_or(Dim::Unknown, |r| Dim::Known(r as u64));
        let shape =
            self.one("Shape", &[like], Vec::new(), TensorType { elem: Elem::I64.onnx(), dims: Some(vec![rank]) });
        self.one("Expand", &[x, &shape], Vec::new(), TensorType { elem: x.ty.elem, dims: like.ty.dims.clone() })
    }
}

/// Whether an element type is float16 or bfloat16.
pub fn is_half(elem: i32) -> bool {
    elem == DataType::Float16 as i32 || elem == DataType::Bfloat16 as i32
}

fn is_floating(elem: i32) -> bool {
    is_half(elem) || elem == Elem::F32.onnx() || elem == Elem::F64.onnx()
}

/// The rank of a tensor of several axes whose last one has extent 1.
pub fn ends_in_one(x: &Tensor) -> Option<usize> {
    let dims = x.ty.dims.as_ref().filter(|dims| dims.len() > 1)?;
    (dims.last() == Some(&Dim::Known(1))).then_some(dims.len())
}

/// Tells constants apart by their content.
fn fingerprint(values: &[f64]) -> String {
    let digest = values.iter().fold(Sha256::new(), |digest, value| digest.chain_update(value.to_le_bytes()));
    digest.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect()
}

/// The dims after Reshape.
fn reshaped(x: &Tensor, extents: &[Extent]) -> Vec<Dim> {
    let source = |axis: usize| x.ty.dims.as_ref().and_then(|d| d.get(axis)).cloned().unwrap_or_default();
    let mut dims: Vec<Dim> = extents
        .iter()
        .enumerate()
        .map(|(i, e)| match e {
            Extent::Fixed(0) => source(i),
            Extent::Fixed(n) => u64::try_from(*n).map_or(Dim::Unknown, Dim::Known),
            Extent::Of(t, axis) => t.ty.dims.as_ref().and_then(|d| d.get(*axis)).cloned().unwrap_or_default(),
        })
        .collect();
    // What −1 stands for follows where everything else is known; equal symbols cancel.
    if let Some(at) = extents.iter().position(|e| *e == Extent::Fixed(-1))
        && let Some(all) = &x.ty.dims
    {
        let mut numerator = all.clone();
        let mut denominator: u64 = 1;
        let mut open = false;
        for (_, dim) in dims.iter().enumerate().filter(|(i, _)| *i != at) {
            match dim {
                Dim::Known(n) => denominator = denominator.saturating_mul(*n),
                Dim::Symbol(_) => match numerator.iter().position(|d| d == dim) {
                    Some(same) => {
                        numerator.remove(same);
                    }
                    None => open = true,
                },
                Dim::Unknown => open = true,
            }
        }
        let product = numerator.iter().try_fold(1u64, |n, d| n.checked_mul(d.known()?));
        if let (false, Some(product)) = (open, product)
            && denominator > 0
            && product % denominator == 0
        {
            dims[at] = Dim::Known(product / denominator);
        }
    }
    dims
}
