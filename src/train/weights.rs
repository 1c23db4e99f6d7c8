//! Tensors of a run from the model's initializers, and back into its file.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};

use super::error::{TrainError, TrainResult};
use crate::engine::{Element, Tensor, element_size, with_elements};
use crate::graph::types::elem_name;
use crate::onnx::tensor_proto::DataType;
use crate::weights::initializers::{self, DataFiles};
use crate::weights::stored;
use crate::wire::{Initializer, Model, Sync};

/// The elements of an initializer.
///
/// # Errors
/// For element types that cannot be trained or run, and external data that is not there.
pub fn read(model: &Model, initializer: &Initializer) -> TrainResult<Tensor> {
    let array = initializers::read(model, initializer, &mut DataFiles::default())?;
    let elem = array.elem as i32;
    let refuse = || TrainError::Weights {
        name: initializer.name.clone(),
        problem: format!("is of {}, which cannot be run", elem_name(elem)),
    };
    from_bytes(elem, array.shape, &array.data).ok_or_else(refuse)
}

/// A tensor of little-endian elements; `None` for types that cannot be run, or another number of elements.
pub fn from_bytes(elem: i32, shape: Vec<usize>, bytes: &[u8]) -> Option<Tensor> {
    fn of<T: Element>(shape: Vec<usize>, bytes: &[u8], size: usize) -> Option<Tensor> {
        Tensor::new(shape, bytes.chunks_exact(size).map(T::from_le).collect::<Option<Vec<T>>>()?)
    }
    let size = element_size(elem)?;
    match DataType::try_from(elem).ok()? {
        DataType::Float16 => of::<f16>(shape, bytes, size),
        DataType::Bfloat16 => of::<bf16>(shape, bytes, size),
        DataType::Float => of::<f32>(shape, bytes, size),
        DataType::Double => of::<f64>(shape, bytes, size),
        DataType::Int8 => of::<i8>(shape, bytes, size),
        DataType::Int16 => of::<i16>(shape, bytes, size),
        DataType::Int32 => of::<i32>(shape, bytes, size),
        DataType::Int64 => of::<i64>(shape, bytes, size),
        DataType::Uint8 => of::<u8>(shape, bytes, size),
        DataType::Uint16 => of::<u16>(shape, bytes, size),
        DataType::Uint32 => of::<u32>(shape, bytes, size),
        DataType::Uint64 => of::<u64>(shape, bytes, size),
        DataType::Bool => of::<bool>(shape, bytes, size),
        _ => None,
    }
}

/// The elements of a tensor, little-endian.
pub fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = with_elements!(tensor.data(), values => Element::as_bytes(values.as_slice()).to_vec());
    if cfg!(target_endian = "big") {
        let size = element_size(tensor.elem() as i32).unwrap_or(1);
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    bytes
}

/// Writes the model with new elements for some initializers to `target`, and its data files beside it. Only elements differ from the
/// files that it was read from.
///
/// # Errors
/// When `target` is one of those files; when two initializers share their elements and were given different ones; when writing fails.
pub fn write_back(model: &Model, values: &[(String, Tensor)], target: &Path) -> TrainResult<()> {
    let stored = stored(model)?;
    let positions: HashMap<&str, usize> = stored.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let place = |(name, value): &(String, Tensor)| {
        let unknown = || TrainError::Weights { name: name.clone(), problem: "is not in the model".into() };
        let i = *positions.get(name.as_str()).ok_or_else(unknown)?;
        Ok((i, to_bytes(value).into()))
    };
    let values = values.iter().map(place).collect::<TrainResult<Vec<_>>>()?;
    Ok(initializers::write_back(model, &values, target, Sync::Auto)?)
}

/// The original is never written over.
pub fn refuse_itself(original: &Path, target: &Path) -> TrainResult<()> {
    let is_same = fs::canonicalize(original).is_ok_and(|a| fs::canonicalize(target).is_ok_and(|b| a == b));
    if is_same {
        return Err(TrainError::Options(format!(
            "the result would be written over {}, which it is made from; choose another folder with --out",
            original.display()
        )));
    }
    Ok(())
}
