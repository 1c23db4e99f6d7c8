//! Writes ONNX nodes: one method per operator, hiding what differs between operator-set versions 1 to 26.
//!
//! Every value it makes has a name under the layer's prefix and, where its shape is known, a declared type.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::graph::types::{Dim, TensorType};
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{AttributeProto, NodeProto, TensorProto, ValueInfoProto};

/// Element types that the emitted arithmetic uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elem {
    /// float32.
    F32,
    /// float64.
    F64,
    /// int64, for shapes.
    I64,
    /// int8, for signs.
    I8,
}

impl Elem {
    /// Its number in `TensorProto.DataType`.
    pub fn onnx(self) -> i32 {
        match self {
            Elem::F32 => DataType::Float as i32,
            Elem::F64 => DataType::Double as i32,
            Elem::I64 => DataType::Int64 as i32,
            Elem::I8 => DataType::Int8 as i32,
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> f64 {
        match self {
            Elem::F32 => 4.0,
            Elem::F64 | Elem::I64 => 8.0,
            Elem::I8 => 1.0,
        }
    }
}

/// A value in the graph under construction.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name in the graph.
    pub name: String,
    /// Its type, as far as known.
    pub ty: TensorType,
}

impl Tensor {
    pub(super) fn dims(&self) -> Option<&Vec<Dim>> {
        self.ty.dims.as_ref()
    }
}

/// What was written: to become part of a [`Change`](crate::patch::Change).
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Emission {
    /// Nodes in topological order.
    pub nodes: Vec<NodeProto>,
    /// Constants by name. Emissions of several layers share them: equal names are equal tensors.
    pub constants: BTreeMap<String, TensorProto>,
    /// Draws by name, which read nothing. Emissions of several layers share them as they do constants.
    pub draws: BTreeMap<String, (NodeProto, Option<ValueInfoProto>)>,
    /// Declared types of the values made.
    pub value_info: Vec<ValueInfoProto>,
}

/// Collects nodes for one layer.
#[derive(Debug)]
pub struct Emitter {
    opset: i64,
    root: String,
    prefix: String,
    out: Emission,
}

impl Emitter {
    /// `root` ends in `/` and starts every name; `layer` tells this layer's names from others' and may be empty.
    pub fn new(opset: i64, root: &str, layer: &str) -> Self {
        let prefix = if layer.is_empty() { root.to_owned() } else { format!("{root}{layer}/") };
        Emitter { opset, root: root.to_owned(), prefix, out: Emission::default() }
    }

    /// The model's version of the default operator set.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// What was written so far.
    pub fn finish(self) -> Emission {
        self.out
    }

    /// One node with one output of a known type; the output and the node are both called `prefix/label`.
    pub fn node(
        &mut self,
        label: &str,
        op: &str,
        inputs: &[&Tensor],
        attributes: Vec<AttributeProto>,
        ty: TensorType,
    ) -> Tensor {
        let name = format!("{}{label}", self.prefix);
        self.named_node(&name.clone(), name, op, inputs, attributes, ty)
    }

    /// As [`Emitter::node`], with the output called `output`, which may be a name of the model's own.
    pub fn named_node(
        &mut self,
        node: &str,
        output: String,
        op: &str,
        inputs: &[&Tensor],
        attributes: Vec<AttributeProto>,
        ty: TensorType,
    ) -> Tensor {
        self.out.nodes.push(NodeProto {
            input: inputs.iter().map(|t| t.name.clone()).collect(),
            output: vec![output.clone()],
            name: Some(node.to_owned()),
            op_type: Some(op.to_owned()),
            attribute: attributes,
            ..NodeProto::default()
        });
        if ty.dims.is_some() && output.starts_with(&self.root) {
            self.out.value_info.extend(ty.declare(&output));
        }
        Tensor { name: output, ty }
    }

    /// One node with any number of outputs, called `prefix/label`, `prefix/label_1` and so on, and inputs that may be left out.
    pub fn node_with_outputs(
        &mut self,
        label: &str,
        op: &str,
        inputs: &[Option<Tensor>],
        attributes: Vec<AttributeProto>,
        outputs: &[TensorType],
    ) -> Vec<Tensor> {
        let name = format!("{}{label}", self.prefix);
        let output = |i: usize| if i == 0 { name.clone() } else { format!("{name}_out{i}") };
        let made: Vec<Tensor> =
            outputs.iter().enumerate().map(|(i, ty)| Tensor { name: output(i), ty: ty.clone() }).collect();
        let input = |t: &Option<Tensor>| t.as_ref().map_or_else(String::new, |t| t.name.clone());
        self.out.value_info.extend(made.iter().filter(|t| t.ty.dims.is_some()).filter_map(|t| t.ty.declare(&t.name)));
        self.out.nodes.push(NodeProto {
            input: inputs.iter().map(input).collect(),
            output: made.iter().map(|t| t.name.clone()).collect(),
            name: Some(name),
            op_type: Some(op.to_owned()),
            attribute: attributes,
            ..NodeProto::default()
        });
        made
    }

    /// A node that is made already.
    pub fn push(&mut self, node: NodeProto, made: &[Tensor]) {
        self.out.value_info.extend(made.iter().filter(|t| t.ty.dims.is_some()).filter_map(|t| t.ty.declare(&t.name)));
        self.out.nodes.push(node);
    }

    /// A comparison of two operands that broadcast: Equal, Less, Greater …
    pub fn compare(&mut self, label: &str, op: &str, a: &Tensor, b: &Tensor) -> Tensor {
        let dims = a.dims().zip(b.dims()).map(|(a, b)| broadcast(a, b));
        self.node(label, op, &[a, b], Vec::new(), TensorType { elem: DataType::Bool as i32, dims })
    }

    /// A constant shared by all layers: `root/const/label`.
    pub fn constant(&mut self, label: &str, elem: Elem, dims: &[u64], values: &[f64]) -> Tensor {
        let name = match elem {
            Elem::F64 => format!("{}const/{label}_double", self.root),
            Elem::F32 | Elem::I64 | Elem::I8 => format!("{}const/{label}", self.root),
        };
        let mut raw: Vec<u8> = Vec::with_capacity(values.len() * 8);
        for value in values {
            let bits = match elem {
                Elem::F32 => u64::from((*value as f32).to_bits()),
                Elem::F64 => value.to_bits(),
                Elem::I64 => (*value as i64).cast_unsigned(),
                Elem::I8 => u64::from((*value as i8).cast_unsigned()),
            };
            raw.extend_from_slice(&bits.to_le_bytes()[..elem.bytes() as usize]);
        }
        self.out.constants.entry(name.clone()).or_insert_with(|| TensorProto {
            dims: dims.iter().map(|d| d.cast_signed()).collect(),
            data_type: Some(elem.onnx()),
            name: Some(name.clone()),
            raw_data: Some(raw.into()),
            ..TensorProto::default()
        });
        let dims = Some(dims.iter().map(|d| Dim::Known(*d)).collect());
        Tensor { name, ty: TensorType { elem: elem.onnx(), dims } }
    }

    /// A rank-0 constant.
    pub fn scalar(&mut self, label: &str, elem: Elem, value: f64) -> Tensor {
        self.constant(label, elem, &[], &[value])
    }

    /// An operator that keeps type and shape: Sqrt, Exp, Neg, Erf …
    pub fn unary(&mut self, label: &str, op: &str, x: &Tensor) -> Tensor {
        self.node(label, op, &[x], Vec::new(), x.ty.clone())
    }

    /// An operator of two operands that broadcast: Add, Sub, Mul, Div, Min.
    pub fn binary(&mut self, label: &str, op: &str, a: &Tensor, b: &Tensor) -> Tensor {
        let dims = a.dims().zip(b.dims()).map(|(a, b)| broadcast(a, b));
        let ty = TensorType { elem: a.ty.elem, dims };
        if self.opset < 7 { self.stretched(label, op, a, b, ty) } else { self.node(label, op, &[a, b], Vec::new(), ty) }
    }

    /// Before operator set 7 only the second operand is ever stretched, here one of one element, and only when an attribute asks.
    fn stretched(&mut self, label: &str, op: &str, a: &Tensor, b: &Tensor, ty: TensorType) -> Tensor {
        let is_one = |t: &Tensor| t.ty.is_scalar() == Some(true);
        if is_one(a) && (!is_one(b) || b.ty.rank() > a.ty.rank()) {
            return match op {
                "Div" => {
                    let inverse = self.unary(&format!("{label}_inverse"), "Reciprocal", b);
                    self.binary(label, "Mul", &inverse, a)
                }
                "Sub" => {
                    let negative = self.unary(&format!("{label}_negative"), "Neg", b);
                    self.binary(label, "Add", &negative, a)
                }
                _ => self.binary(label, op, b, a),
            };
        }
        // Min has no such attribute, and gets operands of one shape.
        let stretches = is_one(b) && op != "Min";
        self.node(label, op, &[a, b], if stretches { vec![int("broadcast", 1)] } else { Vec::new() }, ty)
    }

    /// Cast, unless the value has that type already.
    pub fn cast(&mut self, label: &str, x: &Tensor, elem: i32) -> Tensor {
        if x.ty.elem == elem {
            return x.clone();
        }
        let ty = TensorType { elem, dims: x.ty.dims.clone() };
        // Before operator set 6 the type goes by its name.
        let name = DataType::try_from(elem).map_or("", |t| t.as_str_name());
        let to = if self.opset < 6 { string("to", name) } else { int("to", i64::from(elem)) };
        self.node(label, "Cast", &[x], vec![to], ty)
    }

    /// ReduceMean, ReduceSum or ReduceL2 over some axes, or over all of them (`None`) to a scalar.
    ///
    /// Axes became an input with operator set 13 (ReduceSum) and 18 (the others). Negative axes need the rank below 11, where the
    /// specification does not name them, although every runtime takes them.
    pub fn reduce(&mut self, label: &str, op: &str, x: &Tensor, axes: Option<&[i64]>, keep: bool) -> Tensor {
        let rank = x.dims().map(Vec::len);
        let axes: Option<Vec<i64>> = axes.map(|axes| axes.iter().map(|a| self.axis(*a, rank)).collect());
        let dims = match (&axes, x.dims()) {
            (None, _) => Some(if keep { vec![Dim::Known(1); rank.unwrap_or(0)] } else { Vec::new() }),
            (Some(axes), Some(dims)) => Some(reduced(dims, axes, keep)),
            (Some(_), None) => None,
        };
        let ty = TensorType { elem: x.ty.elem, dims };
        let keepdims = int("keepdims", i64::from(keep));
        let since = if op == "ReduceSum" { 13 } else { 18 };
        match axes {
            None => self.node(label, op, &[x], vec![keepdims], ty),
            Some(axes) if self.opset < since => self.node(label, op, &[x], vec![ints("axes", &axes), keepdims], ty),
            Some(axes) => {
                let axes = self.shape_constant("axes", &axes);
                self.node(label, op, &[x, &axes], vec![keepdims], ty)
            }
        }
    }

    /// An axis as this operator set wants it: not negative below 11 when the rank is known.
    fn axis(&self, axis: i64, rank: Option<usize>) -> i64 {
        match rank {
            Some(rank) if axis < 0 && self.opset < 11 => axis + rank as i64,
            _ => axis,
        }
    }

    /// A one-dimensional int64 constant named after its elements.
    pub fn shape_constant(&mut self, what: &str, values: &[i64]) -> Tensor {
        let text: Vec<String> = values.iter().map(ToString::to_string).collect();
        let values: Vec<f64> = values.iter().map(|v| *v as f64).collect();
        self.constant(&format!("{what}_{}", text.join("_")), Elem::I64, &[values.len() as u64], &values)
    }

    /// Flatten to two dimensions: the first one, and the product of the others.
    pub fn flatten(&mut self, label: &str, x: &Tensor) -> Tensor {
        let dims = x.dims().map_or_else(
            || vec![Dim::Unknown, Dim::Unknown],
            |dims| {
                let rest = dims.get(1..).unwrap_or_default();
                let product = rest.iter().try_fold(1u64, |n, d| n.checked_mul(d.known()?));
                vec![dims.first().cloned().unwrap_or(Dim::Known(1)), product.map_or(Dim::Unknown, Dim::Known)]
            },
        );
        let ty = TensorType { elem: x.ty.elem, dims: Some(dims) };
        self.node(label, "Flatten", &[x], vec![int("axis", 1)], ty)
    }

    /// Transpose with an explicit permutation; ONNX Runtime's gradient builder fails without.
    pub fn transpose(&mut self, label: &str, x: &Tensor, perm: &[usize]) -> Tensor {
        let dims = x.dims().map(|dims| perm.iter().map(|p| dims.get(*p).cloned().unwrap_or_default()).collect());
        let perm: Vec<i64> = perm.iter().map(|p| *p as i64).collect();
        self.node(label, "Transpose", &[x], vec![ints("perm", &perm)], TensorType { elem: x.ty.elem, dims })
    }

    /// [N, C, …] to [N, C, L], whatever the rank, static or not.
    pub fn merge_locations(&mut self, label: &str, x: &Tensor) -> Tensor {
        let dims = x.dims().map_or_else(
            || vec![Dim::Unknown; 3],
            |dims| {
                let rest = dims.get(2..).unwrap_or_default();
                let product = rest.iter().try_fold(1u64, |n, d| n.checked_mul(d.known()?));
                let at = |i: usize| dims.get(i).cloned().unwrap_or_default();
                vec![at(0), at(1), product.map_or(Dim::Unknown, Dim::Known)]
            },
        );
        self.reshape(label, x, &[0, 0, -1], dims)
    }

    /// [m, k] · [n, k]ᵀ by Gemm, which reads the second operand as it lies in memory. Its third became optional with operator set 11.
    pub fn gemm(&mut self, label: &str, a: &Tensor, b: &Tensor, dims: Option<Vec<Dim>>) -> Tensor {
        let ty = TensorType { elem: a.ty.elem, dims };
        let transposed = vec![int("transB", 1)];
        if self.opset >= 11 {
            return self.node(label, "Gemm", &[a, b], transposed, ty);
        }
        let elem = if a.ty.elem == Elem::F64.onnx() { Elem::F64 } else { Elem::F32 };
        let zero = self.scalar("zero", elem, 0.0);
        self.node(label, "Gemm", &[a, b, &zero], transposed, ty)
    }

    /// MatMul with a result of the given dims.
    pub fn matmul(&mut self, label: &str, a: &Tensor, b: &Tensor, dims: Option<Vec<Dim>>) -> Tensor {
        self.node(label, "MatMul", &[a, b], Vec::new(), TensorType { elem: a.ty.elem, dims })
    }

    /// One run-time dimension of `x` as an int64 tensor of one element; −1 is the last.
    pub fn dimension(&mut self, label: &str, x: &Tensor, axis: i64) -> Tensor {
        let rank = x.dims().map(|d| Dim::Known(d.len() as u64));
        let shape_ty = TensorType { elem: Elem::I64.onnx(), dims: Some(vec![rank.unwrap_or_default()]) };
        let shape = self.node(&format!("{label}_shape"), "Shape", &[x], Vec::new(), shape_ty);
        let ty = TensorType { elem: Elem::I64.onnx(), dims: Some(vec![Dim::Known(1)]) };
        let end = if axis == -1 { i64::from(i32::MAX) } else { axis + 1 };
        self.sliced(label, &shape, 0, [axis, end], ty)
    }

    /// The elements in a range of one axis.
    pub fn slice(&mut self, label: &str, x: &Tensor, axis: usize, range: Range<u64>) -> Tensor {
        let mut ty = x.ty.clone();
        if let Some(dim) = ty.dims.as_mut().and_then(|dims| dims.get_mut(axis)) {
            *dim = Dim::Known(range.end - range.start);
        }
        self.sliced(label, x, axis, [range.start, range.end].map(u64::cast_signed), ty)
    }

    /// Slice; from operator set 10 on with inputs.
    fn sliced(&mut self, label: &str, x: &Tensor, axis: usize, [start, end]: [i64; 2], ty: TensorType) -> Tensor {
        let axis = axis as i64;
        if self.opset < 10 {
            let attributes = vec![ints("axes", &[axis]), ints("starts", &[start]), ints("ends", &[end])];
            return self.node(label, "Slice", &[x], attributes, ty);
        }
        let [start, end] = [start, end].map(|at| self.shape_constant("shape", &[at]));
        let axes = self.shape_constant("axes", &[axis]);
        self.node(label, "Slice", &[x, &start, &end, &axes], Vec::new(), ty)
    }

    /// Reshape to a shape in which 0 keeps a dimension and −1 takes what is left; `dims` is what is known of it.
    pub fn reshape(&mut self, label: &str, x: &Tensor, shape: &[i64], dims: Vec<Dim>) -> Tensor {
        let ty = TensorType { elem: x.ty.elem, dims: Some(dims) };
        if self.opset < 5 {
            return self.node(label, "Reshape", &[x], vec![ints("shape", shape)], ty);
        }
        let shape = self.shape_constant("shape", shape);
        self.node(label, "Reshape", &[x, &shape], Vec::new(), ty)
    }

    /// The shape of `x`, a one-dimensional int64 tensor.
    pub fn shape(&mut self, label: &str, x: &Tensor) -> Tensor {
        let rank = x.dims().map_or(Dim::Unknown, |d| Dim::Known(d.len() as u64));
        let ty = TensorType { elem: Elem::I64.onnx(), dims: Some(vec![rank]) };
        self.node(label, "Shape", &[x], Vec::new(), ty)
    }

    /// The number of elements of `x`, an int64 scalar.
    pub fn size(&mut self, label: &str, x: &Tensor) -> Tensor {
        let ty = TensorType { elem: Elem::I64.onnx(), dims: Some(Vec::new()) };
        self.node(label, "Size", &[x], Vec::new(), ty)
    }

    /// Reshape to the dimensions `dims`, which the int64 tensor `shape` holds at run time.
    pub fn reshape_to(&mut self, label: &str, x: &Tensor, shape: &Tensor, dims: Option<Vec<Dim>>) -> Tensor {
        self.node(label, "Reshape", &[x, shape], Vec::new(), TensorType { elem: x.ty.elem, dims })
    }

    /// Unsqueeze, which gives `x` axes of length 1 where `axes` count in the result. They became an input with operator set 13.
    pub fn unsqueeze(&mut self, label: &str, x: &Tensor, axes: &[i64]) -> Tensor {
        let dims = x.dims().map(|dims| {
            let mut dims = dims.clone();
            let rank = dims.len() + axes.len();
            let mut places: Vec<usize> =
                axes.iter().filter_map(|a| usize::try_from(a.rem_euclid(rank.max(1) as i64)).ok()).collect();
            places.sort_unstable();
            places.iter().for_each(|at| dims.insert(*at.min(&dims.len()), Dim::Known(1)));
            dims
        });
        let ty = TensorType { elem: x.ty.elem, dims };
        if self.opset < 13 {
            return self.node(label, "Unsqueeze", &[x], vec![ints("axes", axes)], ty);
        }
        let axes = self.shape_constant("axes", axes);
        self.node(label, "Unsqueeze", &[x, &axes], Vec::new(), ty)
    }

    /// As [`Emitter::random_normal`], but one draw for all layers that ask for these dimensions: `root/slices/AxB`.
    pub fn shared_random_normal(&mut self, elem: Elem, dims: [u64; 2], seed: Option<u32>) -> Tensor {
        let suffix = if elem == Elem::F64 { "_double" } else { "" };
        let name = format!("{}slices/{}x{}{suffix}", self.root, dims[0], dims[1]);
        let (attributes, ty) = normal(elem, &dims, seed);
        let node = NodeProto {
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some("RandomNormal".into()),
            attribute: attributes,
            ..NodeProto::default()
        };
        self.out.draws.insert(name.clone(), (node, ty.declare(&name)));
        Tensor { name, ty }
    }

    /// Standard normal numbers, new in every run. `seed` must be an integer in [2, 2²⁴): ONNX Runtime truncates it, and others collide.
    pub fn random_normal(&mut self, label: &str, elem: Elem, dims: &[u64], seed: Option<u32>) -> Tensor {
        let (attributes, ty) = normal(elem, dims, seed);
        self.node(label, "RandomNormal", &[], attributes, ty)
    }

    /// Standard normal numbers in a shape known at run time (`shape`: int64, one-dimensional). Needs operator set 9.
    pub fn random_normal_of(
        &mut self,
        label: &str,
        elem: Elem,
        shape: &Tensor,
        dims: Vec<Dim>,
        seed: Option<u32>,
    ) -> Tensor {
        let ty = TensorType { elem: elem.onnx(), dims: Some(dims) };
        let zero = AttributeProto {
            name: Some("value".into()),
            r#type: Some(AttributeType::Tensor as i32),
            t: Some(Box::new(TensorProto {
                dims: vec![1],
                data_type: Some(elem.onnx()),
                raw_data: Some(vec![0; if elem == Elem::F32 { 4 } else { 8 }].into()),
                ..TensorProto::default()
            })),
            ..AttributeProto::default()
        };
        let like = self.node(&format!("{label}_like"), "ConstantOfShape", &[shape], vec![zero], ty.clone());
        let attributes = seed.map(|s| float("seed", s as f32)).into_iter().collect();
        self.node(label, "RandomNormalLike", &[&like], attributes, ty)
    }

    /// An operator without attributes whose result has the first operand's element type and these dims.
    pub fn node_of(&mut self, label: &str, op: &str, inputs: &[&Tensor], dims: Vec<Dim>) -> Tensor {
        let elem = inputs.first().map_or(0, |t| t.ty.elem);
        self.node(label, op, inputs, Vec::new(), TensorType { elem, dims: Some(dims) })
    }

    /// Concat along an axis.
    pub fn concat(&mut self, label: &str, parts: &[&Tensor], axis: i64, dims: Vec<Dim>) -> Tensor {
        let elem = parts.first().map_or(0, |t| t.ty.elem);
        self.node(label, "Concat", parts, vec![int("axis", axis)], TensorType { elem, dims: Some(dims) })
    }

    /// Concat of one-dimensional int64 tensors.
    pub fn concat_shape(&mut self, label: &str, parts: &[&Tensor]) -> Tensor {
        let lengths = parts.iter().map(|part| part.ty.element_count()).try_fold(0u64, |sum, n| Some(sum + n?));
        let length = lengths.map_or(Dim::Unknown, Dim::Known);
        let ty = TensorType { elem: Elem::I64.onnx(), dims: Some(vec![length]) };
        self.node(label, "Concat", parts, vec![int("axis", 0)], ty)
    }

    /// Gather along an axis (0 or 1) by an index tensor of any rank.
    pub fn gather(&mut self, label: &str, data: &Tensor, index: &Tensor, axis: usize) -> Tensor {
        let dims = match (index.dims(), data.dims()) {
            (Some(i), Some(d)) => {
                let (before, after) = d.split_at(axis.min(d.len()));
                Some(before.iter().chain(i).chain(after.iter().skip(1)).cloned().collect())
            }
            _ => None,
        };
        let ty = TensorType { elem: data.ty.elem, dims };
        self.node(label, "Gather", &[data, index], vec![int("axis", axis as i64)], ty)
    }
}

/// The attributes of RandomNormal, and the type of what it makes.
fn normal(elem: Elem, dims: &[u64], seed: Option<u32>) -> (Vec<AttributeProto>, TensorType) {
    let shape: Vec<i64> = dims.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
    let mut attributes = vec![int("dtype", i64::from(elem.onnx())), ints("shape", &shape)];
    attributes.extend(seed.map(|s| float("seed", s as f32)));
    (attributes, TensorType { elem: elem.onnx(), dims: Some(dims.iter().copied().map(Dim::Known).collect()) })
}

/// The shape of two operands together, numpy's rules; a dimension that only one of them could decide stays unknown.
fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], i: usize| (i + dims.len()).checked_sub(rank).map_or(Dim::Known(1), |i| dims[i].clone());
    let one = Dim::Known(1);
    let join = |(a, b): (Dim, Dim)| match (a, b) {
        (a, b) if a == b || b == one => a,
        (a, b) if a == one => b,
        _ => Dim::Unknown,
    };
    (0..rank).map(|i| join((at(a, i), at(b, i)))).collect()
}

fn reduced(dims: &[Dim], axes: &[i64], keep: bool) -> Vec<Dim> {
    let rank = dims.len() as i64;
    let hit = |i: usize| axes.iter().any(|a| a.rem_euclid(rank.max(1)) == i as i64);
    let mut out = Vec::new();
    for (i, dim) in dims.iter().enumerate() {
        match (hit(i), keep) {
            (true, true) => out.push(Dim::Known(1)),
            (true, false) => {}
            (false, _) => out.push(dim.clone()),
        }
    }
    out
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    AttributeProto { name: Some(name.into()), r#type: kind, i: Some(value), ..AttributeProto::default() }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> AttributeProto {
    let kind = Some(AttributeType::Float as i32);
    AttributeProto { name: Some(name.into()), r#type: kind, f: Some(value), ..AttributeProto::default() }
}

/// A string attribute.
pub fn string(name: &str, value: &str) -> AttributeProto {
    let kind = Some(AttributeType::String as i32);
    let s = Some(value.as_bytes().to_vec().into());
    AttributeProto { name: Some(name.into()), r#type: kind, s, ..AttributeProto::default() }
}

/// An attribute that is a list of integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let kind = Some(AttributeType::Ints as i32);
    AttributeProto { name: Some(name.into()), r#type: kind, ints: values.to_vec(), ..AttributeProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dims: &[u64]) -> Tensor {
        let dims = Some(dims.iter().map(|d| Dim::Known(*d)).collect());
        Tensor { name: name.into(), ty: TensorType { elem: Elem::F32.onnx(), dims } }
    }

    /// The nodes for one operator of two operands, as `Op(a, b)` with a `*` where broadcasting is asked for.
    fn written(opset: i64, op: &str, a: &Tensor, b: &Tensor) -> String {
        let mut e = Emitter::new(opset, "", "");
        e.binary("y", op, a, b);
        let text = |n: &NodeProto| {
            let star = if n.attribute.iter().any(|a| a.name() == "broadcast") { "*" } else { "" };
            format!("{}{star}({})", n.op_type(), n.input.join(", "))
        };
        e.finish().nodes.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn before_operator_set_seven_only_a_second_operand_is_stretched() {
        let (x, one, row) = (tensor("x", &[3, 2]), tensor("one", &[]), tensor("row", &[1]));
        assert_eq!(written(7, "Div", &one, &x), "Div(one, x)");
        assert_eq!(written(6, "Div", &one, &x), "Reciprocal(x) Mul*(y_inverse, one)");
        assert_eq!(written(6, "Sub", &one, &row), "Neg(row) Add*(y_negative, one)");
        assert_eq!(written(6, "Mul", &one, &x), "Mul*(x, one)");
        assert_eq!(written(6, "Mul", &x, &x), "Mul(x, x)");
        assert_eq!(written(6, "Min", &row, &row), "Min(row, row)");
    }
}
