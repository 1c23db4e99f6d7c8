//! State dicts of PyTorch, `.pt` and `.pth`, as `torch.save` writes them since 1.6: a zip archive with a pickle that says which tensor
//! lies in which of the archive's other files. The pickle is read as data; nothing that it names is run. See [`super::pickle`].

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Value};
use crate::engine::element_size;
use crate::onnx::tensor_proto::DataType;
use crate::weights::Array;

/// How a file of older versions begins: a pickle of protocol 2 that holds a magic number.
pub const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Stands in a message for [`advice`], which wants the file's name.
pub const ADVICE_HERE: &str = "{advice}";

/// Largest pickle that is read: it holds names and shapes alone.
const LARGEST_PICKLE: u64 = 256 << 20;

/// Deepest nesting of dicts.
const DEEPEST: usize = 32;

/// Entries of all dicts together: forged ones could hold each other a billion times.
const MOST_ENTRIES: usize = 1 << 20;

/// What makes a file that is read out of one that is not.
pub fn advice(path: &Path) -> String {
    format!(
        "where PyTorch is installed and the file is trusted, make a safetensors file of it: python -c \"import torch, safetensors.torch as s; \
         s.save_file(torch.load('{}', weights_only=True), 'weights.safetensors')\"",
        path.display()
    )
}

/// Whether an archive is one.
pub fn is_one(bytes: &Bytes) -> bool {
    ZipArchive::new(Cursor::new(bytes)).is_ok_and(|archive| pickle_name(&archive).is_some())
}

/// `NAME/data.pkl`.
fn pickle_name<R: Read + std::io::Seek>(archive: &ZipArchive<R>) -> Option<String> {
    archive
        .file_names()
        .filter_map(|n| n.ok())
        .find(|n| *n == "data.pkl" || n.ends_with("/data.pkl"))
        .map(|n| n.into_owned())
}

/// The tensors of a state dict. Those of dicts inside dicts are called by all keys, joined by dots.
pub fn read(bytes: &Bytes) -> Result<Vec<Array>, String> {
    let zip = |e: zip::result::ZipError| format!("it is no archive that can be read: {e}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(zip)?;
    let pickle_name = pickle_name(&archive).ok_or("it holds no data.pkl")?;
    let folder = pickle_name.trim_end_matches("data.pkl").to_owned();
    if let Ok(mut entry) = archive.by_name(&format!("{folder}byteorder")) {
        let mut order = String::new();
        entry.by_ref().take(16).read_to_string(&mut order).map_err(|e| e.to_string())?;
        if order.trim() != "little" {
            return Err(format!(
                "its elements are in {:?} byte order, and little is read; {ADVICE_HERE}",
                order.trim()
            ));
        }
    }
    let mut text = Vec::new();
    let entry = archive.by_name(&pickle_name).map_err(zip)?;
    entry.take(LARGEST_PICKLE + 1).read_to_end(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > LARGEST_PICKLE {
        return Err(format!("its data.pkl is larger than names and shapes can be; {ADVICE_HERE}"));
    }
    let pickle = pickle::read(&text).map_err(|problem| format!("its data.pkl {problem}; {ADVICE_HERE}"))?;
    let mut state =
        Reading { bytes, archive, folder, storages: HashMap::new(), arrays: Vec::new(), left: MOST_ENTRIES };
    state.visit(&pickle.root, &pickle.containers, "", 0)?;
    Ok(state.arrays)
}

struct Reading<'b> {
    bytes: &'b Bytes,
    archive: ZipArchive<Cursor<&'b Bytes>>,
    folder: String,
    storages: HashMap<String, Bytes>,
    arrays: Vec<Array>,
    /// How many more entries are looked at.
    left: usize,
}

impl Reading<'_> {
    fn visit(&mut self, value: &Value, containers: &[Vec<Value>], name: &str, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("its dicts are nested deeper than {DEEPEST}"));
        }
        match value {
            Value::Dict(place) => {
                for pair in containers.get(*place).into_iter().flat_map(|c| c.chunks_exact(2)) {
                    self.left =
                        self.left.checked_sub(1).ok_or_else(|| format!("it has more than {MOST_ENTRIES} entries"))?;
                    let key = match pair {
                        [Value::Text(key), _] => key.to_string(),
                        [Value::Int(key), _] => key.to_string(),
                        _ => continue,
                    };
                    let inner_name = if name.is_empty() { key } else { format!("{name}.{key}") };
                    if let Some(inner) = pair.get(1) {
                        self.visit(inner, containers, &inner_name, depth + 1)?;
                    }
                }
            }
            Value::Tensor(tensor) => {
                let array = self.array(tensor, name).map_err(|problem| format!("{name:?} {problem}"))?;
                self.arrays.push(array);
            }
            // A training state holds numbers, lists of settings and the like beside the weights.
            _ => {}
        }
        Ok(())
    }

    fn array(&mut self, tensor: &pickle::TensorRef, name: &str) -> Result<Array, String> {
        let elem =
            elem(&tensor.storage).ok_or_else(|| format!("is a {}, which no initializer can be", tensor.storage))?;
        let size = element_size(elem as i32).unwrap_or(1);
        let storage = self.storage(&tensor.key)?;
        let outside = || "reaches outside its storage".to_owned();
        if tensor.shape.len() != tensor.strides.len() {
            return Err("has not as many strides as axes".into());
        }
        let count = tensor.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(outside)?;
        let length = count.checked_mul(size).ok_or_else(outside)?;
        let start = tensor.offset.checked_mul(size).ok_or_else(outside)?;
        let mut in_order = 1;
        let is_dense = tensor.shape.iter().zip(&tensor.strides).rev().all(|(d, stride)| {
            let fits = *d == 1 || *stride == in_order;
            in_order = in_order.saturating_mul((*d).max(1));
            fits
        });
        if count == 0 || is_dense {
            let end =
                start.checked_add(length).filter(|end| count == 0 || *end <= storage.len()).ok_or_else(outside)?;
            let data = if count == 0 { Bytes::new() } else { storage.slice(start..end) };
            return Array::new(name.to_owned(), elem, tensor.shape.clone(), data);
        }
        // A view: a transposed tensor, or one that was expanded. No larger than the storage, lest a few bytes claim terabytes.
        if length > storage.len() {
            return Err("is larger than its storage: save it with .contiguous()".into());
        }
        let mut data = Vec::with_capacity(length);
        let mut index = vec![0usize; tensor.shape.len()];
        for _ in 0..count {
            let steps =
                index.iter().zip(&tensor.strides).try_fold(0usize, |n, (i, s)| n.checked_add(i.checked_mul(*s)?));
            let at = steps.and_then(|s| s.checked_mul(size)?.checked_add(start)).ok_or_else(outside)?;
            data.extend_from_slice(at.checked_add(size).and_then(|end| storage.get(at..end)).ok_or_else(outside)?);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < tensor.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Array::new(name.to_owned(), elem, tensor.shape.clone(), data.into())
    }

    /// The bytes of a storage, where they lie unless they are compressed.
    fn storage(&mut self, key: &str) -> Result<Bytes, String> {
        if let Some(known) = self.storages.get(key) {
            return Ok(known.clone());
        }
        let mut entry = self
            .archive
            .by_name(&format!("{}data/{key}", self.folder))
            .map_err(|e| format!("has no elements in the archive: {e}"))?;
        let is_stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
        let place = entry.data_start().filter(|_| is_stored).and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
        });
        let found = match place {
            Some(found) => found,
            None => {
                // torch.save never compresses; no more than the archive itself could hold uncompressed a hundred times.
                let most = (self.bytes.len() as u64).saturating_mul(100);
                let mut out = Vec::new();
                entry.by_ref().take(most).read_to_end(&mut out).map_err(|e| e.to_string())?;
                out.into()
            }
        };
        self.storages.insert(key.to_owned(), found.clone());
        Ok(found)
    }
}

/// The element type of a storage class, or of a dtype.
fn elem(storage: &str) -> Option<DataType> {
    Some(match storage {
        "FloatStorage" | "float32" => DataType::Float,
        "DoubleStorage" | "float64" => DataType::Double,
        "HalfStorage" | "float16" => DataType::Float16,
        "BFloat16Storage" | "bfloat16" => DataType::Bfloat16,
        "CharStorage" | "int8" => DataType::Int8,
        "ShortStorage" | "int16" => DataType::Int16,
        "IntStorage" | "int32" => DataType::Int32,
        "LongStorage" | "int64" => DataType::Int64,
        "ByteStorage" | "uint8" => DataType::Uint8,
        "BoolStorage" | "bool" => DataType::Bool,
        _ => return None,
    })
}
