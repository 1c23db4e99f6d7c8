//! Elements of initializers: out of a model's file, and back into it, without a change of any other byte.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use prost::Message;

use super::error::{TrainError, TrainResult};
use crate::engine::{Element, Tensor, element_size, with_elements};
use crate::graph::types::elem_name;
use crate::onnx::TensorProto;
use crate::onnx::tensor_proto::DataType;
use crate::patch::{Change, Part, Patch, Replacement, Substitute};
use crate::wire::fields::{graph, tensor as field};
use crate::wire::{
    Initializer, Model, ModelFile, Piece, Rope, Sync, external_files, record_bytes, refuse_data_as_target, splice,
    write,
};

/// The elements of an initializer.
///
/// # Errors
/// For element types that cannot be trained or run, and external data that is not there.
pub fn read(model: &Model, initializer: &Initializer) -> TrainResult<Tensor> {
    let refuse = |problem: String| TrainError::Weights { name: initializer.name.clone(), problem };
    let elem = initializer.data_type;
    let size = element_size(elem).ok_or_else(|| refuse(format!("is of {}, which cannot be run", elem_name(elem))))?;
    let sizes = initializer.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
    let shape = sizes.map_err(|_| refuse("has a negative dimension".into()))?;
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let length = count.and_then(|n| n.checked_mul(size)).ok_or_else(|| refuse("is larger than memory".into()))?;
    let bytes = if initializer.external.is_empty() {
        inline(model, initializer, size)
    } else {
        let (path, range) = place(model, initializer, length)?;
        let file = ModelFile::open(&path)?;
        file.bytes.get(range).map(<[u8]>::to_vec)
    };
    let bytes =
        bytes.filter(|b| b.len() == length).ok_or_else(|| refuse("has not the elements that its shape says".into()))?;
    from_bytes(elem, shape, &bytes).ok_or_else(|| refuse(format!("is of {}, which cannot be run", elem_name(elem))))
}

/// Little-endian elements of an initializer that keeps them in the model's file.
fn inline(model: &Model, initializer: &Initializer, size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (number, range) in &initializer.payload {
        let payload = model.file.bytes.get(range.clone())?;
        match *number {
            field::RAW_DATA | field::FLOAT_DATA | field::DOUBLE_DATA => out.extend_from_slice(payload),
            // One varint an element, whatever its type: of float16 the bits.
            field::INT32_DATA | field::INT64_DATA => {
                let mut at = range.start;
                while at < range.end {
                    let (value, next) = crate::wire::read_varint(&model.file.bytes, at, range.end).ok()?;
                    out.extend_from_slice(value.to_le_bytes().get(..size)?);
                    at = next;
                }
            }
            _ => return None,
        }
    }
    Some(out)
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
    trait Bytes: Copy {
        fn put(self, out: &mut Vec<u8>);
    }
    macro_rules! bytes {
        ($($type:ty),*) => {$(impl Bytes for $type {
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        })*};
    }
    bytes!(f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64);
    impl Bytes for bool {
        fn put(self, out: &mut Vec<u8>) {
            out.push(u8::from(self));
        }
    }
    let mut out = Vec::with_capacity(tensor.byte_len());
    with_elements!(tensor.data(), values => values.iter().for_each(|v| v.put(&mut out)));
    out
}

/// The file and the bytes in it where external elements lie.
fn place(model: &Model, initializer: &Initializer, length: usize) -> TrainResult<(PathBuf, Range<usize>)> {
    let location = initializer.location().unwrap_or_default();
    let refuse = |problem: String| TrainError::Weights { name: initializer.name.clone(), problem };
    let files = external_files(model)?;
    let file = files.iter().find(|f| f.location == location);
    let file = file.ok_or_else(|| refuse(format!("keeps its elements in {location:?}, which is not known")))?;
    if let Some(problem) = file.problem() {
        return Err(problem.into());
    }
    let number = |key: &str| {
        let entry = initializer.external.iter().find(|(k, _)| k == key);
        entry.map_or(Some(0), |(_, v)| v.trim().parse::<usize>().ok())
    };
    let start = number("offset").ok_or_else(|| refuse("has an offset that is no number".into()))?;
    let end = start.checked_add(length).ok_or_else(|| refuse("lies beyond the end of its file".into()))?;
    Ok((file.path.clone(), start..end))
}

/// Bytes, what takes their place, and whose they are.
type Patched = (Range<usize>, Vec<u8>, String);

/// Writes the model with new elements for some initializers to `target`, and its data files beside it. Only elements differ from the
/// files that it was read from.
///
/// # Errors
/// When `target` is one of those files; when two initializers share their elements and were given different ones; when writing fails.
pub fn write_back(model: &Model, values: &[(String, Tensor)], target: &Path) -> TrainResult<()> {
    let files = external_files(model)?;
    refuse_data_as_target(&files, target)?;
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut patches: HashMap<String, Vec<Patched>> = HashMap::new();
    let mut own = Vec::new();
    let mut change = Change { reason: "trained weights".into(), ..Change::default() };
    let positions: HashMap<&str, usize> =
        model.graph.initializers.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    for (name, value) in values {
        let unknown = || TrainError::Weights { name: name.clone(), problem: "is not in the model".into() };
        let i = *positions.get(name.as_str()).ok_or_else(unknown)?;
        let initializer = &model.graph.initializers[i];
        let bytes = to_bytes(value);
        if !initializer.external.is_empty() {
            let (_, range) = place(model, initializer, bytes.len())?;
            let location = initializer.location().unwrap_or_default();
            patches.entry(location.to_owned()).or_default().push((range, bytes, name.clone()));
        } else if in_place(initializer, bytes.len()) {
            let mut at = 0;
            for (_, range) in &initializer.payload {
                let part = bytes.get(at..at + range.len()).unwrap_or_default().to_vec();
                at += range.len();
                own.push((range.clone(), part, name.clone()));
            }
        } else {
            let record = reencoded(model, i, value)?;
            let with = Substitute::Records(record.into());
            change.replacements.push(Replacement { part: Part::Initializer(i), with });
        }
    }
    for file in &files {
        let pieces = patches.remove(&file.location).unwrap_or_default();
        let source = ModelFile::open(&file.path)?;
        let beside = folder.join(&file.location);
        refuse_itself(&file.path, &beside)?;
        if let Some(parent) = beside.parent() {
            fs::create_dir_all(parent).map_err(|source| TrainError::Io { path: parent.to_owned(), source })?;
        }
        write(&rope(pieces, source.bytes.len())?, &source, &beside, Sync::Auto)?;
    }
    if change.replacements.is_empty() {
        write(&rope(own, model.file.bytes.len())?, &model.file, target, Sync::Auto)?;
        return Ok(());
    }
    // What changes its length moves what lies behind it: first what keeps its length, then that.
    let kept = rope(own, model.file.bytes.len())?.to_vec(&model.file.bytes);
    let model = Model::from_bytes(kept)?;
    let patch = Patch { changes: vec![change], ..Patch::default() };
    write(&splice(&model, &patch)?, &model.file, target, Sync::Auto)?;
    Ok(())
}

/// Whether the elements lie in the file as bytes of their own, which others can take the place of.
fn in_place(initializer: &Initializer, length: usize) -> bool {
    let is_plain =
        |(number, _): &(u32, Range<usize>)| matches!(*number, field::RAW_DATA | field::FLOAT_DATA | field::DOUBLE_DATA);
    let sum: usize = initializer.payload.iter().map(|(_, range)| range.len()).sum();
    initializer.payload.iter().all(is_plain) && sum == length
}

/// The record of an initializer whose elements are varints, with new ones.
fn reencoded(model: &Model, index: usize, value: &Tensor) -> TrainResult<Vec<u8>> {
    let initializer = &model.graph.initializers[index];
    let refuse = |problem: &str| TrainError::Weights { name: initializer.name.clone(), problem: problem.into() };
    let record = record_bytes(model, Part::Initializer(index))?;
    let malformed = || refuse("cannot be decoded");
    let mut bytes = record.clone();
    prost::encoding::decode_key(&mut bytes).map_err(|_| malformed())?;
    let mut tensor = TensorProto::decode_length_delimited(bytes).map_err(|_| malformed())?;
    let bits: Vec<u16> = match value.data() {
        crate::engine::Data::Float16(values) => values.iter().map(|v| v.to_bits()).collect(),
        crate::engine::Data::Bfloat16(values) => values.iter().map(|v| v.to_bits()).collect(),
        _ => return Err(refuse("keeps its elements in a form that cannot be written")),
    };
    tensor.int32_data = bits.into_iter().map(i32::from).collect();
    let mut out = Vec::new();
    prost::encoding::message::encode(graph::INITIALIZER, &tensor, &mut out);
    Ok(out)
}

/// The original with pieces of it replaced by as many bytes.
fn rope(mut replaced: Vec<Patched>, length: usize) -> TrainResult<Rope> {
    replaced.sort_by_key(|(range, _, _)| (range.start, range.end));
    // Initializers with the same place are one tensor with two names.
    replaced.dedup_by(|later, earlier| later.0 == earlier.0 && later.1 == earlier.1);
    let mut pieces = Vec::with_capacity(2 * replaced.len() + 1);
    let mut at = 0;
    for (range, bytes, name) in replaced {
        if range.start < at || range.end > length {
            let problem = "shares its elements with another one, and both were trained; give each its own".into();
            return Err(TrainError::Weights { name, problem });
        }
        if range.start > at {
            pieces.push(Piece::Original(at..range.start));
        }
        at = range.end;
        pieces.push(Piece::New(bytes.into()));
    }
    if at < length {
        pieces.push(Piece::Original(at..length));
    }
    Ok(Rope { pieces })
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
