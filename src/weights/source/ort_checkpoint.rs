//! Training checkpoints of ONNX Runtime: what `generate_artifacts` and `CheckpointState.save_checkpoint` write, file version 1 and 2.
//!
//! A FlatBuffer of the schema `ort_training_checkpoint.fbs`. Above 1.8 GB of parameters their elements stand in a second file, whose name
//! is that of the checkpoint and `.data`. The optimiser's state is not read: no model has a place for it.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::flatbuffer::Table;
use crate::onnx::tensor_proto::DataType;
use crate::weights::Array;
use crate::wire::ModelFile;

/// What stands at the fifth byte of the file.
pub const IDENTIFIER: &[u8] = b"ODTC";

/// Versions of the file that are known.
const VERSIONS: [i32; 2] = [1, 2];

/// Fields of `Checkpoint`.
mod checkpoint {
    pub const VERSION: usize = 0;
    pub const MODULE_STATE: usize = 1;
}

/// Fields of `ModuleState`.
mod module_state {
    pub const REQUIRES_GRAD: usize = 0;
    pub const FROZEN: usize = 1;
    pub const IS_NOMINAL: usize = 2;
    pub const HAS_EXTERNAL_DATA: usize = 3;
}

/// Fields of `Tensor`.
mod tensor {
    pub const NAME: usize = 0;
    pub const DIMS: usize = 2;
    pub const DATA_TYPE: usize = 3;
    pub const RAW_DATA: usize = 4;
    pub const EXTERNAL_DATA_OFFSET: usize = 6;
}

/// Reads the parameters, trained ones first.
pub fn read(path: &Path, bytes: &Bytes) -> Result<Vec<Array>, String> {
    let broken = || "it is a training checkpoint of ONNX Runtime that is cut off or broken".to_owned();
    let root = Table::root(bytes).ok_or_else(broken)?;
    let version = root.int(checkpoint::VERSION, 0).ok_or_else(broken)?;
    if !VERSIONS.contains(&version) {
        return Err(format!(
            "it is a training checkpoint of ONNX Runtime in version {version} of the format, and 1 and 2 are known"
        ));
    }
    let module = root.table(checkpoint::MODULE_STATE).ok_or_else(broken)?;
    let module = module.ok_or("it is a training checkpoint of ONNX Runtime without the state of a module")?;
    if module.flag(module_state::IS_NOMINAL).ok_or_else(broken)? {
        return Err(
            "it is a nominal checkpoint, which has names of parameters and no values; generate_artifacts writes \
                    both, and the other one, 'checkpoint', has them"
                .into(),
        );
    }
    let data = if module.flag(module_state::HAS_EXTERNAL_DATA).ok_or_else(broken)? { Some(data(path)?) } else { None };
    let mut arrays = Vec::new();
    for slot in [module_state::REQUIRES_GRAD, module_state::FROZEN] {
        for tensor in module.tables(slot).ok_or_else(broken)? {
            arrays.push(array(bytes, &tensor, data.as_ref()).ok_or_else(broken)??);
        }
    }
    Ok(arrays)
}

/// The second file.
fn data(path: &Path) -> Result<Bytes, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".data");
    let path = PathBuf::from(name);
    let file = ModelFile::open(&path);
    file.map(|f| f.bytes).map_err(|e| format!("its elements stand in a second file, which cannot be read: {e}"))
}

/// A tensor; `None` where the buffer is broken.
fn array(bytes: &Bytes, tensor: &Table<'_>, data: Option<&Bytes>) -> Option<Result<Array, String>> {
    let name = tensor.text(tensor::NAME)?.unwrap_or_default().to_owned();
    // The numbers are those of TensorProto.DataType.
    let elem = DataType::try_from(tensor.int(tensor::DATA_TYPE, 0)?).unwrap_or(DataType::Undefined);
    let shape = tensor.longs(tensor::DIMS)?.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>()?;
    let offset = tensor.long(tensor::EXTERNAL_DATA_OFFSET, -1)?;
    let elements = match (tensor.vector(tensor::RAW_DATA, 1)?, usize::try_from(offset)) {
        (Some(range), _) => bytes.slice(range),
        (None, Ok(start)) => {
            let found = data.and_then(|data| {
                let end = start.checked_add(crate::weights::array::byte_len(elem, &shape)?)?;
                data.get(start..end).is_some().then(|| data.slice(start..end))
            });
            match found {
                Some(found) => found,
                None => return Some(Err(format!("the elements of {name:?} lie beyond the end of its data file"))),
            }
        }
        // An empty vector may be left out.
        (None, Err(_)) => Bytes::new(),
    };
    Some(Array::new(name, elem, shape, elements))
}
