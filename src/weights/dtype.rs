//! Element types of safetensors files.

use safetensors::Dtype;

use crate::onnx::tensor_proto::DataType;

/// The type of a safetensors file for elements; `None` where it has none.
pub fn dtype(elem: DataType) -> Option<Dtype> {
    TYPES.iter().find(|(e, _)| *e == elem).map(|(_, d)| *d)
}

/// Elements of a type of a safetensors file; `None` where none are.
pub fn elem(dtype: Dtype) -> Option<DataType> {
    TYPES.iter().find(|(_, d)| *d == dtype).map(|(e, _)| *e)
}

/// Element types that safetensors files and initializers have in common.
const TYPES: [(DataType, Dtype); 13] = [
    (DataType::Float16, Dtype::F16),
    (DataType::Bfloat16, Dtype::BF16),
    (DataType::Float, Dtype::F32),
    (DataType::Double, Dtype::F64),
    (DataType::Int8, Dtype::I8),
    (DataType::Int16, Dtype::I16),
    (DataType::Int32, Dtype::I32),
    (DataType::Int64, Dtype::I64),
    (DataType::Uint8, Dtype::U8),
    (DataType::Uint16, Dtype::U16),
    (DataType::Uint32, Dtype::U32),
    (DataType::Uint64, Dtype::U64),
    (DataType::Bool, Dtype::BOOL),
];
