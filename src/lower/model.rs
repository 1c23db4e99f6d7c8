//! What the pipeline wants of the model as a whole: operator set, IR version, and the loss as the first output.

use bytes::Bytes;

use super::{LowerError, Lowering};
use crate::analysis::Analysis;
use crate::graph::{NodeId, ValueId};
use crate::onnx::{OperatorSetIdProto, ValueInfoProto};
use crate::patch::{Change, Part, Replacement, Substitute};
use crate::record::{Replaced, Standin};
use crate::wire::record_bytes;

/// The oldest operator set in which ONNX Runtime's gradients are valid: they hold Gemm without a third input, and LessOrEqual.
const OLDEST_OPSET: i64 = 12;

/// Since this one, operands broadcast as they do today.
const BROADCASTING: i64 = 7;

/// Operators that mean something else, or nothing, from operator set 11 on, and that no rule rewrites.
const CHANGED: &[&str] = &[
    "ATen",
    "Affine",
    "Crop",
    "DynamicSlice",
    "GRUUnit",
    "GivenTensorFill",
    "If",
    "ImageScaler",
    "Loop",
    "NonMaxSuppression",
    "ParametricSoftplus",
    "Resize",
    "Scale",
    "ScaledTanh",
    "Scan",
    "Scatter",
    "TopK",
];

/// The newest operator set that ONNX Runtime 1.19.2 knows.
const NEWEST_OPSET: i64 = 21;

/// The newest IR version that it reads.
const NEWEST_IR: i64 = 10;

/// The first IR version in which an initializer need not be an input as well.
const FIRST_WITHOUT_INPUTS: i64 = 4;

/// An IR version that everything reads.
const COMMON_IR: i64 = 8;

/// Operators of newer sets: what comes with them has no meaning in [`NEWEST_OPSET`]. All others mean there what they mean now; the
/// newer versions only take more element types.
pub const NEWER: &[&str] =
    &["Attention", "BitCast", "CumProd", "RMSNormalization", "RotaryEmbedding", "Swish", "TensorScatter"];

/// The changes that no single node asks for.
pub fn lower(analysis: &Analysis, loss: Option<ValueId>) -> Result<Lowering, LowerError> {
    let model = analysis.model;
    let mut lowering = Lowering { opset: model.opset(), ir_version: model.ir_version, ..Lowering::default() };
    opset(analysis, &mut lowering)?;
    inputs(analysis, &mut lowering)?;
    ir_version(analysis, &mut lowering)?;
    outputs(analysis, loss, &mut lowering)?;
    Ok(lowering)
}

fn change(
    analysis: &Analysis,
    lowering: &mut Lowering,
    reason: String,
    replacements: Vec<(Replacement, Standin)>,
) -> Result<(), LowerError> {
    let mut change = Change { reason: reason.clone(), ..Change::default() };
    for (replacement, standin) in replacements {
        lowering.replaced.push(Replaced::new(standin, &record_bytes(analysis.model, replacement.part)?));
        change.replacements.push(replacement);
    }
    lowering.changes.push(change);
    lowering.model.push(reason);
    Ok(())
}

fn opset(analysis: &Analysis, lowering: &mut Lowering) -> Result<(), LowerError> {
    let found = lowering.opset;
    let (wanted, why) = match found {
        OLDEST_OPSET..=NEWEST_OPSET => return Ok(()),
        ..OLDEST_OPSET => (OLDEST_OPSET, "the first that ONNX Runtime's gradients can be written in"),
        _ => (NEWEST_OPSET, "the newest that ONNX Runtime 1.19.2 knows"),
    };
    if let Some(problem) = cannot_be_raised(analysis).filter(|_| found < OLDEST_OPSET) {
        let problem = format!(
            "ONNX Runtime's gradients need {OLDEST_OPSET} or later, and {problem}; convert the model with onnx.version_converter"
        );
        return Err(LowerError::Opset { found, problem });
    }
    let imports = &analysis.model.opset_imports;
    let Some(at) = imports.iter().position(|o| matches!(o.domain(), "" | "ai.onnx")) else { return Ok(()) };
    let with = OperatorSetIdProto { version: Some(wanted), ..imports[at].clone() };
    let domain = imports[at].domain().to_owned();
    let replacement = Replacement { part: Part::OpsetImport(at), with: Substitute::OpsetImport(with) };
    lowering.opset = wanted;
    let reason = format!("operator set {found} → {wanted}, {why}");
    change(analysis, lowering, reason, vec![(replacement, Standin::OpsetImport(domain))])
}

/// Why a model cannot be read as one of operator set 12, where that is so.
fn cannot_be_raised(analysis: &Analysis) -> Option<String> {
    if analysis.model.opset() < BROADCASTING {
        return Some(format!("before {BROADCASTING} operands do not broadcast by themselves"));
    }
    if !analysis.model.functions.is_empty() {
        return Some("the model has functions".into());
    }
    let graph = &analysis.graph;
    let is_changed = |i: &usize| {
        let node = &graph.nodes[*i];
        // The mask of Dropout became one of booleans.
        (CHANGED.contains(&node.op_type()) && analysis.model.opset() < 11)
            || (node.op_type() == "Dropout" && node.output.len() > 1)
    };
    let found = (0..graph.nodes.len()).find(is_changed)?;
    Some(format!("{} changed in between", graph.describe(NodeId(u32::try_from(found).ok()?))))
}

fn ir_version(analysis: &Analysis, lowering: &mut Lowering) -> Result<(), LowerError> {
    let found = lowering.ir_version;
    let (wanted, why) = match found {
        ..FIRST_WITHOUT_INPUTS => (COMMON_IR, "since initializers need not be inputs"),
        FIRST_WITHOUT_INPUTS..=NEWEST_IR => return Ok(()),
        _ => (NEWEST_IR, "the newest that ONNX Runtime 1.19.2 reads"),
    };
    lowering.ir_version = wanted;
    let replacement = Replacement { part: Part::IrVersion, with: Substitute::IrVersion(wanted) };
    let reason = format!("IR version {found} → {wanted}, {why}");
    change(analysis, lowering, reason, vec![(replacement, Standin::IrVersion)])
}

/// Initializers that are inputs as well: generate_artifacts makes inputs of parameters itself, and two of one name are refused.
fn inputs(analysis: &Analysis, lowering: &mut Lowering) -> Result<(), LowerError> {
    let graph = &analysis.graph;
    let is_initializer = |v: &ValueId| graph.initializer(*v).is_some();
    let doubled: Vec<usize> = (0..graph.inputs.len()).filter(|i| is_initializer(&graph.inputs[*i])).collect();
    if doubled.is_empty() {
        return Ok(());
    }
    let each: Vec<Bytes> =
        (0..graph.inputs.len()).map(|i| record_bytes(analysis.model, Part::Input(i))).collect::<Result<_, _>>()?;
    // They come back all at once, in the place of the first that stays.
    let is_one_block = each.windows(2).all(|pair| pair[0].as_ptr_range().end == pair[1].as_ptr());
    if !is_one_block || doubled.len() == each.len() {
        return Err(LowerError::Inputs { names: names(analysis, &doubled) });
    }
    let nothing = |i: &usize| Replacement { part: Part::Input(*i), with: Substitute::Records(Bytes::new()) };
    lowering.replaced.push(Replaced::new(Standin::Inputs, &each.concat()));
    let reason =
        format!("{} initializer(s) are inputs no more: generate_artifacts makes them that itself", doubled.len());
    let replacements = doubled.iter().map(nothing).collect();
    lowering.changes.push(Change { reason: reason.clone(), replacements, ..Change::default() });
    lowering.model.push(reason);
    Ok(())
}

fn names(analysis: &Analysis, inputs: &[usize]) -> String {
    let quoted = inputs.iter().map(|i| format!("{:?}", analysis.graph.name(analysis.graph.inputs[*i])));
    quoted.collect::<Vec<_>>().join(", ")
}

/// The loss first, the others in their order, and every one with a shape.
fn outputs(analysis: &Analysis, loss: Option<ValueId>, lowering: &mut Lowering) -> Result<(), LowerError> {
    let graph = &analysis.graph;
    let declared = &analysis.model.graph.outputs;
    let first = loss.and_then(|loss| graph.outputs.iter().position(|v| *v == loss)).unwrap_or(0);
    let mut order: Vec<usize> = (0..declared.len()).collect();
    if first < order.len() {
        order[..=first].rotate_right(1);
    }
    let mut replacements = Vec::new();
    let mut completed = Vec::new();
    for (at, from) in order.iter().enumerate() {
        let with = match with_shape(analysis, *from)? {
            Some(with) => {
                completed.push(format!("{:?}", with.name()));
                with
            }
            None if at == *from => continue,
            None => declared[*from].clone(),
        };
        let part = Part::Output(at);
        replacements.push((Replacement { part, with: Substitute::Output(with) }, Standin::Output(at)));
    }
    if replacements.is_empty() {
        return Ok(());
    }
    let mut reasons = Vec::new();
    if first > 0 {
        reasons.push(format!("output {:?} comes first, as generate_artifacts wants the loss", declared[first].name()));
    }
    if !completed.is_empty() {
        reasons.push(format!("generate_artifacts wants the shape of every output: {} got one", completed.join(", ")));
    }
    change(analysis, lowering, reasons.join("; "), replacements)
}

/// The declaration of an output with its type and shape; `None` when the file's own has them.
fn with_shape(analysis: &Analysis, output: usize) -> Result<Option<ValueInfoProto>, LowerError> {
    let declared = &analysis.model.graph.outputs[output];
    let has_shape =
        crate::graph::types::TensorType::of_value(declared).is_some_and(|t| t.elem != 0 && t.dims.is_some());
    let value = analysis.graph.outputs[output];
    // Sequences and maps are left to the runtime.
    if has_shape || !analysis.types.is_tensor(value) {
        return Ok(None);
    }
    let known = analysis.types.get(value);
    let missing = || LowerError::OutputWithoutShape { output: declared.name().into() };
    let with = known.dims.as_ref().and_then(|_| known.declare(declared.name())).ok_or_else(missing)?;
    Ok(Some(ValueInfoProto { doc_string: declared.doc_string.clone(), ..with }))
}
