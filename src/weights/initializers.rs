//! Elements of initializers: out of a model's file, and back into it, without a change of any other byte.
//!
//! Elements stay where the exporter put them: `raw_data`, `float_data` and `double_data` are overwritten in place; varints
//! (`int32_data`, `int64_data`, `uint64_data`), whose length depends on the number, are written anew in the same field; external
//! elements are overwritten in a copy of their data file, which comes to lie beside the new model.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::array::{Array, byte_len, describe};
use super::error::{WeightsError, WeightsResult};
use super::stored;
use crate::engine::element_size;
use crate::graph::types::elem_name;
use crate::onnx::tensor_proto::DataType;
use crate::patch::{Change, Part, Patch, Replacement, Substitute};
use crate::wire::fields::{graph, tensor as field};
use crate::wire::{
    Initializer, Model, ModelFile, Piece, Rope, Sync, external_files, put_varint, read_varint, record_bytes, records,
    refuse_data_as_target, splice, write,
};

/// The data files of a model that were read from, mapped once each.
#[derive(Debug, Default)]
pub struct DataFiles {
    places: Option<HashMap<String, Result<PathBuf, String>>>,
    open: HashMap<String, ModelFile>,
}

/// An initializer as an array. Inline `raw_data` and external elements are not copied.
///
/// # Errors
/// For element types without a fixed size, elements that are not as many as the shape says, and external data that is not there.
pub fn read(model: &Model, initializer: &Initializer, files: &mut DataFiles) -> WeightsResult<Array> {
    read_from(&model.file.bytes, model, initializer, files)
}

/// As [`read`], where what the initializer holds itself lies in `bytes`: the model's file, or a record of an earlier one.
///
/// # Errors
/// Those of [`read`].
pub fn read_from(
    bytes: &Bytes,
    model: &Model,
    initializer: &Initializer,
    files: &mut DataFiles,
) -> WeightsResult<Array> {
    let refuse = |problem: String| WeightsError::Initializer { name: initializer.name.clone(), problem };
    let (elem, shape) = declared(initializer).map_err(refuse)?;
    let size = element_size(elem as i32).unwrap_or_default();
    let length = byte_len(elem, &shape).ok_or_else(|| refuse("is larger than memory".into()))?;
    let data = if initializer.external.is_empty() {
        inline(bytes, initializer, size)
    } else {
        let (location, range) = place(initializer, length).map_err(refuse)?;
        let file = files.bytes(model, &location, initializer)?;
        file.get(range.clone()).is_some().then(|| file.slice(range))
    };
    let data = data.ok_or_else(|| refuse("lies beyond the end of its file, or in a field that is not known".into()))?;
    if data.len() != length {
        let what = describe(elem as i32, &shape);
        return Err(refuse(format!("has {} bytes of elements, and {what} needs {length}", data.len())));
    }
    Ok(Array { name: initializer.name.clone(), elem, shape, data })
}

/// Element type and shape, as far as arrays can have them; else what is wrong.
pub fn declared(initializer: &Initializer) -> Result<(DataType, Vec<usize>), String> {
    let elem = initializer.data_type;
    let known = DataType::try_from(elem).ok().filter(|_| element_size(elem).is_some());
    let known = known.ok_or_else(|| format!("is of {}, which cannot be run", elem_name(elem)))?;
    let sizes = initializer.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
    Ok((known, sizes.map_err(|_| "has a negative dimension".to_owned())?))
}

/// Little-endian elements of an initializer that keeps them in `file`.
fn inline(file: &Bytes, initializer: &Initializer, size: usize) -> Option<Bytes> {
    if let [(field::RAW_DATA | field::FLOAT_DATA | field::DOUBLE_DATA, range)] = &initializer.payload[..] {
        return file.get(range.clone()).is_some().then(|| file.slice(range.clone()));
    }
    let mut out = Vec::new();
    for (number, range) in &initializer.payload {
        let payload = file.get(range.clone())?;
        match *number {
            field::RAW_DATA | field::FLOAT_DATA | field::DOUBLE_DATA => out.extend_from_slice(payload),
            // One varint an element, whatever its type: of float16 the bits.
            field::INT32_DATA | field::INT64_DATA | field::UINT64_DATA => {
                let mut at = range.start;
                while at < range.end {
                    let (value, next) = read_varint(file, at, range.end).ok()?;
                    out.extend_from_slice(value.to_le_bytes().get(..size)?);
                    at = next;
                }
            }
            _ => return None,
        }
    }
    Some(out.into())
}

impl DataFiles {
    /// The bytes of one of the model's data files.
    fn bytes(&mut self, model: &Model, location: &str, of: &Initializer) -> WeightsResult<&Bytes> {
        let refuse = |problem: String| WeightsError::Initializer { name: of.name.clone(), problem };
        if model.file.folder().is_none() {
            // Not in the current folder, which is no place of the model's.
            return Err(refuse(format!(
                "keeps its elements in {location:?}, and a model from a pipe or from memory has no folder to look for it in; give the \
                 model by its path"
            )));
        }
        if self.places.is_none() {
            let place = |f: crate::wire::ExternalFile| {
                let usable = f.problem().map_or(Ok(f.path.clone()), |e| Err(e.to_string()));
                (f.location, usable)
            };
            self.places = Some(external_files(model)?.into_iter().map(place).collect());
        }
        if !self.open.contains_key(location) {
            let known = self.places.as_ref().and_then(|p| p.get(location));
            let path = match known {
                Some(Ok(path)) => path,
                Some(Err(problem)) => return Err(refuse(format!("has no elements: {problem}"))),
                None => return Err(refuse(format!("keeps its elements in {location:?}, which is not known"))),
            };
            self.open.insert(location.to_owned(), ModelFile::open(path)?);
        }
        let lost = || refuse(format!("keeps its elements in {location:?}, which is not known"));
        self.open.get(location).map(|f| &f.bytes).ok_or_else(lost)
    }
}

/// The data file, and the bytes in it where external elements lie.
fn place(initializer: &Initializer, length: usize) -> Result<(String, Range<usize>), String> {
    let location = initializer.location().unwrap_or_default().to_owned();
    let number = |key: &str| {
        let entry = initializer.external.iter().find(|(k, v)| k == key && !v.is_empty());
        entry.map_or(Some(0), |(_, v)| v.trim().parse::<usize>().ok())
    };
    let start = number("offset").ok_or_else(|| "has an offset that is no number".to_owned())?;
    let end = start.checked_add(length).ok_or_else(|| "lies beyond the end of its file".to_owned())?;
    Ok((location, start..end))
}

/// What is wrong with an initializer of a body that is not [replaceable](is_replaceable).
pub const IRREPLACEABLE: &str = "keeps its elements as numbers of varying length (int32_data), inside a body, where only as many bytes can be \
                                 replaced; save the model with raw data first";

/// Bytes, what takes their place, and whose they are.
type Patched = (Range<usize>, Bytes, String);

/// Writes the model with new elements for some initializers to `target`, and its data files beside it. Only those elements differ from
/// the files that it was read from. `values` are positions among the
/// [`stored`] initializers, with little-endian elements of their type and shape.
///
/// # Errors
/// When a data file would be written over the one that it is made from; when two initializers share their elements and were given
/// different ones; when writing fails.
pub fn write_back(model: &Model, values: &[(usize, Bytes)], target: &Path, sync: Sync) -> WeightsResult<()> {
    let files = external_files(model)?;
    let is_stream = target.as_os_str() == "-";
    let Edits { own, change, outside: mut patches } = edits(model, values)?;
    if is_stream && !patches.is_empty() {
        let problem =
            "weights that lie in data files cannot go to standard output; write to a file with -o, in another folder";
        return Err(WeightsError::Options(problem.into()));
    }
    if !is_stream {
        refuse_data_as_target(&files, target)?;
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for file in &files {
            let pieces = patches.remove(&file.location).unwrap_or_default();
            let beside = folder.join(&file.location);
            if is_same(&file.path, &beside) {
                if pieces.is_empty() {
                    continue;
                }
                return Err(over(&file.path));
            }
            if let Some(problem) = file.problem() {
                return Err(problem.into());
            }
            let source = ModelFile::open(&file.path)?;
            if let Some(parent) = beside.parent() {
                fs::create_dir_all(parent).map_err(|source| WeightsError::Io { path: parent.to_owned(), source })?;
            }
            write(&rope(pieces, source.bytes.len())?, &source, &beside, sync)?;
        }
    }
    let own = rope(own, model.file.bytes.len())?;
    if change.replacements.is_empty() {
        write(&own, &model.file, target, sync)?;
        return Ok(());
    }
    let (model, spliced) = moved(model, &own, change)?;
    write(&spliced, &model.file, target, sync)?;
    Ok(())
}

/// The bytes of the model's file with new elements for some initializers, as [`write_back`] writes them.
///
/// # Errors
/// When elements lie in data files; when two initializers share their elements and were given different ones.
pub fn with_values(model: &Model, values: &[(usize, Bytes)]) -> WeightsResult<Vec<u8>> {
    let Edits { own, change, outside } = edits(model, values)?;
    if let Some(location) = outside.keys().next() {
        let problem = format!(
            "weights that lie in data files ({location:?}) cannot go into a model in memory; give the model by its path"
        );
        return Err(WeightsError::Options(problem));
    }
    let own = rope(own, model.file.bytes.len())?;
    if change.replacements.is_empty() {
        return Ok(own.to_vec(&model.file.bytes));
    }
    let (model, spliced) = moved(model, &own, change)?;
    Ok(spliced.to_vec(&model.file.bytes))
}

/// What changes its length moves what lies behind it: first what keeps its length, then that.
fn moved(model: &Model, own: &Rope, change: Change) -> WeightsResult<(Model, Rope)> {
    let model = Model::from_bytes(own.to_vec(&model.file.bytes))?;
    let patch = Patch { changes: vec![change], ..Patch::default() };
    let spliced = splice(&model, &patch)?;
    Ok((model, spliced))
}

/// New elements by where the old ones lie.
struct Edits {
    /// In the model's file, as bytes that others of the same length take the place of.
    own: Vec<Patched>,
    /// In the model's file, as varints.
    change: Change,
    /// In data files, by location.
    outside: HashMap<String, Vec<Patched>>,
}

fn edits(model: &Model, values: &[(usize, Bytes)]) -> WeightsResult<Edits> {
    let mut outside: HashMap<String, Vec<Patched>> = HashMap::new();
    let mut own = Vec::new();
    let mut change = Change { reason: "trained weights".into(), ..Change::default() };
    let stored = stored(model)?;
    for (i, bytes) in values {
        let unknown = || WeightsError::Options(format!("there is no initializer {i}"));
        let initializer = stored.get(*i).ok_or_else(unknown)?;
        let name = &initializer.name;
        if !initializer.external.is_empty() {
            let refuse = |problem: String| WeightsError::Initializer { name: name.clone(), problem };
            let (location, range) = place(initializer, bytes.len()).map_err(refuse)?;
            outside.entry(location).or_default().push((range, bytes.clone(), name.clone()));
        } else if let Some(pieces) = initializer.in_place(bytes) {
            own.extend(pieces.into_iter().map(|(range, piece)| (range, piece, name.clone())));
        } else if *i >= model.graph.initializers.len() {
            return Err(WeightsError::Initializer { name: name.clone(), problem: IRREPLACEABLE.into() });
        } else {
            let with = Substitute::Records(reencoded(model, *i, bytes)?.into());
            change.replacements.push(Replacement { part: Part::Initializer(*i), with });
        }
    }
    Ok(Edits { own, change, outside })
}

fn is_same(a: &Path, b: &Path) -> bool {
    fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

fn over(path: &Path) -> WeightsError {
    WeightsError::Options(format!(
        "the new weights would be written over {}, which other models may read and which they are made from; write the result to \
         another folder",
        path.display()
    ))
}

/// Whether an initializer of a body can be given other elements: what lies around it keeps its length.
pub fn is_replaceable(initializer: &Initializer) -> bool {
    !initializer.external.is_empty() || initializer.is_in_place()
}

/// The record of an initializer whose elements are varints, with new ones; its other fields stay byte for byte as they are.
fn reencoded(model: &Model, index: usize, elements: &[u8]) -> WeightsResult<Vec<u8>> {
    let unknown = || WeightsError::Options(format!("there is no initializer {index}"));
    let initializer = model.graph.initializers.get(index).ok_or_else(unknown)?;
    let refuse = |problem: &str| WeightsError::Initializer { name: initializer.name.clone(), problem: problem.into() };
    let wrong = || refuse("keeps its elements in a form that cannot be written");
    let (elem, _) = declared(initializer).map_err(|problem| refuse(&problem))?;
    let size = element_size(elem as i32).ok_or_else(wrong)?;
    let number = match initializer.payload.first() {
        Some((number @ (field::INT32_DATA | field::INT64_DATA | field::UINT64_DATA), _)) => *number,
        _ => return Err(wrong()),
    };
    let is_signed = matches!(elem, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64);
    let mut packed = Vec::with_capacity(elements.len());
    for element in elements.chunks_exact(size) {
        // Negative numbers are sign-extended to 64 bits, as protobuf has them.
        let fill = if is_signed && element.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide.get_mut(..size).ok_or_else(wrong)?.copy_from_slice(element);
        put_varint(&mut packed, u64::from_le_bytes(wide), 1);
    }
    let record = record_bytes(model, Part::Initializer(index))?;
    // The tag of the field and the length of the message stand before it.
    let (_, at) = read_varint(&record, 0, record.len())?;
    let (_, at) = read_varint(&record, at, record.len())?;
    let mut message = Vec::with_capacity(record.len() + packed.len());
    let mut is_written = false;
    for part in records(&record, at..record.len()) {
        let part = part?;
        if !field::is_payload(part.field) {
            message.extend_from_slice(record.get(part.span()).unwrap_or_default());
        } else if !is_written {
            is_written = true;
            put_varint(&mut message, u64::from(number) << 3 | 2, 1);
            put_varint(&mut message, packed.len() as u64, 1);
            message.extend_from_slice(&packed);
        }
    }
    let mut out = Vec::with_capacity(message.len() + 12);
    put_varint(&mut out, u64::from(graph::INITIALIZER) << 3 | 2, 1);
    put_varint(&mut out, message.len() as u64, 1);
    out.extend_from_slice(&message);
    Ok(out)
}

/// The original with pieces of it replaced by as many bytes.
fn rope(mut replaced: Vec<Patched>, length: usize) -> WeightsResult<Rope> {
    replaced.sort_unstable_by_key(|(range, _, _)| (range.start, range.end));
    // Initializers with the same place are one tensor with two names.
    replaced.dedup_by(|later, earlier| later.0 == earlier.0 && later.1 == earlier.1);
    let mut pieces = Vec::with_capacity(2 * replaced.len() + 1);
    let mut at = 0;
    for (range, bytes, name) in replaced {
        if range.start < at || range.end > length {
            let problem = "shares its elements with another one, and both are to change; give each its own".into();
            return Err(WeightsError::Initializer { name, problem });
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
