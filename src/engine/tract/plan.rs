//! A model that tract has prepared for one set of shapes, and tensors on their way to it and back.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{DatumType, InferenceModelExt, IntoRunnable, TractResult, TypedRunnableModel};
use tract_onnx::tract_core::optim::Optimizer;

use crate::engine::onnx_runtime::{guarded, one_line};
use crate::engine::tensor::{Data, Element, Tensor};

/// A tensor of tract, shared.
pub use tract_onnx::prelude::TValue as Value;

/// Ready to run.
pub struct Plan {
    /// What it takes, in this order.
    inputs: Vec<String>,
    runnable: Arc<TypedRunnableModel>,
}

/// Whether tract has an operator of this name.
pub fn has_operator() -> impl Fn(&str) -> bool {
    let register = tract_onnx::onnx().op_register;
    move |op| register.0.contains_key(op)
}

impl Plan {
    /// Prepares a model whose inputs all have known shapes. `folder` is where its external data lies.
    pub fn new(bytes: &[u8], folder: Option<&Path>) -> Result<Self, String> {
        let folder = match folder {
            Some(folder) => Some(folder.to_str().ok_or("the name of its folder is not UTF-8")?),
            None => None,
        };
        let made = || -> TractResult<Plan> {
            let proto = ModelProto::decode(bytes)?;
            let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(&proto, folder)?;
            let inputs = proto.graph.iter().flat_map(|g| &g.input).map(|i| i.name.clone()).collect();
            let mut model = parsed.model.into_typed()?;
            optimizer(Optimizer::declutter()).optimize(&mut model)?;
            optimizer(Optimizer::codegen()).optimize(&mut model)?;
            Ok(Plan { inputs, runnable: model.into_runnable()? })
        };
        guarded(|| made().map_err(|e| said(&e)))
    }

    /// Runs it; `value` gives what an input has. Returns the outputs in the model's order.
    pub fn run(&self, value: impl Fn(&str) -> Option<Value>) -> Result<Vec<Value>, String> {
        let fed = |name: &String| value(name).ok_or_else(|| format!("there is no value for {name:?}"));
        let fed = self.inputs.iter().map(fed).collect::<Result<_, _>>()?;
        // A state that is kept would hand on what a Scan ended with to the next run.
        guarded(|| self.runnable.run(fed).map(|made| made.into_vec()).map_err(|e| said(&e)))
    }
}

/// Without the pass that merges equal nodes: of three that are equal, two of them outputs, it keeps one that it takes out.
fn optimizer(mut optimizer: Optimizer) -> Optimizer {
    optimizer.passes.retain(|pass| format!("{pass:?}") != "PushSplitDown");
    optimizer
}

/// An error of tract with what led to it, on one line.
fn said(error: &tract_onnx::prelude::TractError) -> String {
    one_line(&format!("{error:#}"))
}

/// A tensor as tract has it.
pub fn value_of(tensor: &Tensor) -> Result<Value, String> {
    type Theirs = tract_onnx::prelude::Tensor;
    let shape = tensor.shape();
    let made = match tensor.data() {
        Data::Float16(values) => Theirs::from_shape(shape, values),
        Data::Bfloat16(_) => return Err("it has no bfloat16".into()),
        Data::Float(values) => Theirs::from_shape(shape, values),
        Data::Double(values) => Theirs::from_shape(shape, values),
        Data::Int8(values) => Theirs::from_shape(shape, values),
        Data::Int16(values) => Theirs::from_shape(shape, values),
        Data::Int32(values) => Theirs::from_shape(shape, values),
        Data::Int64(values) => Theirs::from_shape(shape, values),
        Data::Uint8(values) => Theirs::from_shape(shape, values),
        Data::Uint16(values) => Theirs::from_shape(shape, values),
        Data::Uint32(values) => Theirs::from_shape(shape, values),
        Data::Uint64(values) => Theirs::from_shape(shape, values),
        Data::Bool(values) => Theirs::from_shape(shape, values),
    };
    made.map(Value::from).map_err(|e| said(&e))
}

/// A tensor of tract as others have it.
pub fn tensor_of(value: &Value) -> Result<Tensor, String> {
    fn copy<T: Element + tract_onnx::prelude::Datum>(value: &Value) -> Result<Tensor, String> {
        let array = value.to_plain_array_view::<T>().map_err(|e| said(&e))?;
        let made = Tensor::new(value.shape().to_vec(), array.iter().copied().collect());
        made.ok_or_else(|| "of another size than its shape says".into())
    }
    match value.datum_type() {
        DatumType::F16 => copy::<f16>(value),
        DatumType::F32 => copy::<f32>(value),
        DatumType::F64 => copy::<f64>(value),
        DatumType::I8 => copy::<i8>(value),
        DatumType::I16 => copy::<i16>(value),
        DatumType::I32 => copy::<i32>(value),
        DatumType::I64 => copy::<i64>(value),
        DatumType::U8 => copy::<u8>(value),
        DatumType::U16 => copy::<u16>(value),
        DatumType::U32 => copy::<u32>(value),
        DatumType::U64 => copy::<u64>(value),
        DatumType::Bool => copy::<bool>(value),
        // What tract takes for sizes of dimensions.
        DatumType::TDim => {
            let whole = value.cast_to::<i64>().map_err(|e| said(&e))?.into_owned();
            copy::<i64>(&whole.into())
        }
        other => Err(format!("a tensor of {other:?}")),
    }
}
