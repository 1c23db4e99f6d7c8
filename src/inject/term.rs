//! From the layers' values to one term, and to the sum with the task loss.

use std::collections::HashSet;

use super::report::Coefficient;
use super::{Destination, Injection, Written};
use crate::graph::types::{Dim, TensorType};
use crate::lower::Target;
use crate::naming::visit_names;
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{AttributeProto, NodeProto, TensorProto, ValueInfoProto};
use crate::regularizer::emit::{Elem, Emission, Emitter, Tensor};

/// What is written once for all layers.
pub struct Term {
    /// The nodes.
    pub emission: Emission,
    /// Initializers that hold λ, the common one first.
    pub coefficients: Vec<TensorProto>,
    /// The same with their values.
    pub named: Vec<Coefficient>,
    /// Graph inputs to add.
    pub inputs: Vec<ValueInfoProto>,
    /// Graph outputs to add.
    pub outputs: Vec<ValueInfoProto>,
    /// The new name of the task loss.
    pub task: Option<String>,
    /// The name of the value that holds the term or the sum.
    pub result: String,
}

/// Writes Σ_k λ_k·Σ PER and adds it to the loss, or makes it an output.
pub fn write_term(injection: &Injection, opset: i64, root: &str, written: &[Written]) -> Term {
    let (graph, options) = (&injection.analysis.graph, injection.options);
    let mut e = Emitter::new(opset, root, "");
    let elem = arithmetic(injection);
    let mut term = Term {
        emission: Emission::default(),
        coefficients: Vec::new(),
        named: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        task: injection.loss.as_ref().map(|_| format!("{root}task_loss")),
        result: String::new(),
    };
    if written.is_empty() {
        return term;
    }
    let mut sums = Vec::new();
    let mut weighted = Vec::new();
    let joins = injection.loss.is_some() || injection.destination == Destination::Output;
    for group in 0..=options.coef_overrides.len() {
        let members: Vec<&Written> =
            written.iter().zip(&injection.coefficients).filter(|(_, g)| **g == group).map(|(w, _)| w).collect();
        if members.is_empty() {
            continue;
        }
        let coef = coefficient(injection, &mut term, root, group);
        let pers: Vec<Tensor> = members
            .iter()
            .filter_map(|w| Some(e.cast(&format!("{}/per_cast", w.name), w.per.as_ref()?, elem.onnx())))
            .collect();
        if pers.is_empty() || !(joins || options.outputs.per) {
            continue;
        }
        let suffix = suffix(group);
        let sum = add_all(&mut e, &format!("sum{suffix}"), &pers);
        if joins {
            let all_in_one = pers.len() == written.len();
            let label = if all_in_one { "term".to_owned() } else { format!("weighted{suffix}") };
            weighted.push(e.binary(&label, "Mul", &sum, &coef));
        }
        sums.push(sum);
    }
    let mut exposed: Vec<Tensor> = Vec::new();
    match (&injection.loss, &term.task) {
        (Some(loss), Some(task)) => {
            let total = add_all(&mut e, "term", &weighted);
            let ty = injection.analysis.types.get(loss.value).clone();
            // A loss of unknown type is taken for float32, as nearly all are.
            let elem = if ty.elem == 0 { DataType::Float as i32 } else { ty.elem };
            let total = e.cast("term_cast", &total, elem);
            let task = Tensor { name: task.clone(), ty: TensorType { elem, dims: ty.dims.clone() } };
            let name = graph.name(loss.value).to_owned();
            let node = format!("{root}total");
            let sum = e.named_node(&node, name, "Add", &[&task, &total], Vec::new(), task.ty.clone());
            term.result = sum.name;
            if options.outputs.task {
                // Of an output the rank has to be declared; the one number that a loss is has rank 0 when it is reduced.
                let needs_rank = task.ty.dims.is_none();
                exposed.push(if needs_rank {
                    e.reduce("task_loss_scalar", "ReduceSum", &task, None, false)
                } else {
                    task
                });
            } else if let Some(declared) = task.ty.dims.as_ref().and_then(|_| task.ty.declare(&task.name)) {
                term.emission.value_info.push(declared);
            }
        }
        _ if injection.destination == Destination::Gradients => {}
        _ => {
            let total = add_all(&mut e, "term", &weighted);
            let name = free_output_name(injection);
            let node = format!("{root}output");
            let output = e.named_node(&node, name, "Identity", &[&total], Vec::new(), total.ty.clone());
            term.result = output.name.clone();
            exposed.push(output);
        }
    }
    if options.outputs.per {
        let sum = add_all(&mut e, "per", &sums);
        // A sum of one has no name of its own yet.
        exposed.push(if sums.len() == 1 { e.unary("per", "Identity", &sum) } else { sum });
    }
    if options.outputs.layers {
        exposed.extend(written.iter().filter_map(|w| w.per.clone()));
    }
    let declared = std::mem::take(&mut term.emission.value_info);
    term.emission = e.finish();
    term.emission.value_info.extend(declared);
    // What is an output is declared there.
    let outputs: HashSet<&str> = exposed.iter().map(|o| o.name.as_str()).collect();
    term.emission.value_info.retain(|v| !outputs.contains(v.name()));
    term.outputs = exposed.iter().filter_map(|o| o.ty.declare(&o.name)).collect();
    term
}

/// float64 where the loss is, or, without one, where any layer is; else float32.
pub fn arithmetic(injection: &Injection) -> Elem {
    let double = match &injection.loss {
        Some(loss) => injection.analysis.types.get(loss.value).elem == DataType::Double as i32,
        None => injection.chosen.iter().any(|c| c.layer.elem() == Elem::F64),
    };
    if double { Elem::F64 } else { Elem::F32 }
}

/// A chain of Adds, because ONNX Runtime's training has no gradient for Sum; the last one is called `label`. One value is its own sum.
fn add_all(e: &mut Emitter, label: &str, values: &[Tensor]) -> Tensor {
    let Some((first, rest)) = values.split_first() else { return e.scalar("zero", Elem::F32, 0.0) };
    let mut sum = first.clone();
    for (i, value) in rest.iter().enumerate() {
        let name = if i + 1 == rest.len() { label.to_owned() } else { format!("{label}/{}", i + 2) };
        sum = e.binary(&name, "Add", &sum, value);
    }
    sum
}

/// What the names of a group's values end in.
fn suffix(group: usize) -> String {
    if group == 0 { String::new() } else { format!("_{group}") }
}

/// λ of a group as the graph has it.
pub fn coefficient_tensor(injection: &Injection, root: &str, group: usize) -> Tensor {
    let ty = TensorType { elem: arithmetic(injection).onnx(), dims: Some(Vec::new()) };
    Tensor { name: format!("{root}coef{}", suffix(group)), ty }
}

/// Whether the one who trains the graph feeds every input or none: ONNX Runtime's training knows no defaults, and keeps to an initializer.
pub fn feeds_no_defaults(injection: &Injection) -> bool {
    let graph = &injection.analysis.graph;
    let is_made_by_it = || graph.inputs.iter().any(|v| graph.name(*v) == "lazy_reset_grad");
    injection.options.target == Some(Target::OrtTraining)
        || injection.destination == Destination::Gradients && is_made_by_it()
}

/// The initializer that holds λ of a group; also an input where asked, and where the IR version wants every initializer to be one; and an
/// input without a default where that would never be fed.
fn coefficient(injection: &Injection, term: &mut Term, root: &str, group: usize) -> Tensor {
    let options = injection.options;
    let Tensor { name, ty } = coefficient_tensor(injection, root, group);
    let (value, item) = match group {
        0 => (options.coef.unwrap_or(1.0), None),
        k => (options.coef_overrides[k - 1].1, Some(options.coef_overrides[k - 1].0.clone())),
    };
    let is_double = ty.elem == Elem::F64.onnx();
    let raw = if is_double { value.to_le_bytes().to_vec() } else { (value as f32).to_le_bytes().to_vec() };
    let stored = TensorProto {
        data_type: Some(ty.elem),
        name: Some(name.clone()),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    };
    if !(options.coef_input && feeds_no_defaults(injection)) {
        term.coefficients.push(stored);
    }
    if options.coef_input || injection.analysis.model.ir_version < 4 {
        term.inputs.extend(ty.declare(&name));
    }
    term.named.push(Coefficient { initializer: name.clone(), value, item });
    Tensor { name, ty }
}

/// `per_loss`, or with a number where the graph has that already.
fn free_output_name(injection: &Injection) -> String {
    let mut name = "per_loss".to_owned();
    let mut n = 1;
    // ONNX Runtime wants names to be unique across bodies, too.
    let mut inside = HashSet::new();
    visit_names(injection.analysis.graph.nodes, &mut |name| {
        if name.starts_with("per_loss") {
            inside.insert(name.to_owned());
        }
    });
    while inside.contains(&name) || injection.analysis.graph.find(&name).is_some() {
        n += 1;
        name = format!("per_loss_{n}");
    }
    name
}

/// A Constant node that makes the tensor under its own name, and its declaration.
///
/// Before operator set 9 Constant holds floating point only: integers are cast from double, which holds them all up to 2⁵³.
pub fn constant_nodes(tensor: TensorProto, opset: i64) -> Vec<(NodeProto, ValueInfoProto)> {
    if opset >= 9 || tensor.data_type() != DataType::Int64 as i32 {
        return vec![constant_node(tensor)];
    }
    let integers = tensor.raw_data().chunks_exact(8).filter_map(|b| b.try_into().ok()).map(i64::from_le_bytes);
    let doubles: Vec<u8> = integers.flat_map(|n| (n as f64).to_le_bytes()).collect();
    let mut e = Emitter::new(opset, "", "");
    let as_double = Tensor { name: format!("{}_double", tensor.name()), ty: type_of(&tensor, DataType::Double) };
    e.cast(tensor.name(), &as_double, tensor.data_type());
    let Emission { nodes, value_info, .. } = e.finish();
    let (name, data_type, raw_data) = (Some(as_double.name), Some(DataType::Double as i32), Some(doubles.into()));
    let constant = constant_node(TensorProto { name, data_type, raw_data, ..tensor });
    std::iter::once(constant).chain(nodes.into_iter().zip(value_info)).collect()
}

fn constant_node(tensor: TensorProto) -> (NodeProto, ValueInfoProto) {
    let name = tensor.name().to_owned();
    let elem = DataType::try_from(tensor.data_type()).unwrap_or_default();
    let declared = type_of(&tensor, elem).declare(&name).unwrap_or_default();
    let value = AttributeProto {
        name: Some("value".into()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(Box::new(TensorProto { name: None, ..tensor })),
        ..AttributeProto::default()
    };
    let node = NodeProto {
        output: vec![name.clone()],
        name: Some(name),
        op_type: Some("Constant".into()),
        attribute: vec![value],
        ..NodeProto::default()
    };
    (node, declared)
}

/// A tensor's shape, with elements of type `elem`.
fn type_of(tensor: &TensorProto, elem: DataType) -> TensorType {
    let dims = tensor.dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Unknown, Dim::Known)).collect();
    TensorType { elem: elem as i32, dims: Some(dims) }
}
