//! Field numbers of `schemas/onnx.proto` that this layer edits or skips by itself. Their names are the schema's.
#![allow(missing_docs)]

/// Fields of `ModelProto`.
pub mod model {
    pub const IR_VERSION: u32 = 1;
    pub const GRAPH: u32 = 7;
    pub const OPSET_IMPORT: u32 = 8;
    pub const METADATA_PROPS: u32 = 14;
    pub const TRAINING_INFO: u32 = 20;
    pub const FUNCTIONS: u32 = 25;
}

/// Fields of `TrainingInfoProto`.
pub mod training_info {
    pub const ALGORITHM: u32 = 2;
}

/// Fields of `GraphProto`.
pub mod graph {
    pub const NODE: u32 = 1;
    pub const NAME: u32 = 2;
    pub const INITIALIZER: u32 = 5;
    pub const INPUT: u32 = 11;
    pub const OUTPUT: u32 = 12;
    pub const VALUE_INFO: u32 = 13;
    pub const SPARSE_INITIALIZER: u32 = 15;
}

/// Fields of `NodeProto`.
pub mod node {
    pub const INPUT: u32 = 1;
    pub const OUTPUT: u32 = 2;
    pub const ATTRIBUTE: u32 = 5;
}

/// Fields of `AttributeProto`.
pub mod attribute {
    pub const NAME: u32 = 1;
    pub const F: u32 = 2;
    pub const GRAPH: u32 = 6;
    pub const GRAPHS: u32 = 11;
}

/// Fields of `ValueInfoProto`.
pub mod value_info {
    pub const NAME: u32 = 1;
}

/// Fields of `TensorProto`.
pub mod tensor {
    pub const DIMS: u32 = 1;
    pub const DATA_TYPE: u32 = 2;
    pub const SEGMENT: u32 = 3;
    pub const FLOAT_DATA: u32 = 4;
    pub const INT32_DATA: u32 = 5;
    pub const STRING_DATA: u32 = 6;
    pub const INT64_DATA: u32 = 7;
    pub const NAME: u32 = 8;
    pub const RAW_DATA: u32 = 9;
    pub const DOUBLE_DATA: u32 = 10;
    pub const UINT64_DATA: u32 = 11;
    pub const EXTERNAL_DATA: u32 = 13;
    pub const DATA_LOCATION: u32 = 14;

    /// Whether a field holds elements of the tensor.
    pub fn is_payload(field: u32) -> bool {
        matches!(field, FLOAT_DATA..=INT64_DATA | RAW_DATA | DOUBLE_DATA | UINT64_DATA)
    }
}
