//! Files and folders, recognised by what they hold.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use safetensors::SafeTensors;

use super::array::Array;
use super::error::{DataError, DataResult};
use super::map::Maps;
use super::{cifar, idx};
use crate::engine::arrays::entries;
use crate::engine::npy;
use crate::weights::elem;

/// What is read of any file, for its messages.
const FORMATS: &str = "it is none of the formats that are read: NumPy (.npz, .npy), safetensors, IDX (also .gz), CIFAR-10 \
                       and CIFAR-100 in their binary version (.bin)";

/// Which half of a folder that holds both is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// What is trained on: names that begin with `train` or `data_batch`.
    #[default]
    Training,
    /// What is evaluated on: the others.
    Evaluation,
}

/// Arrays of several files and folders, and what a person should know of how they were read.
#[derive(Default)]
pub(super) struct Opened {
    part: Part,
    pub arrays: Vec<Array>,
    pub maps: Maps,
    pub notes: Vec<String>,
    /// Where each name stands among the arrays.
    places: HashMap<String, usize>,
}

impl Opened {
    /// Nothing yet.
    pub fn of(part: Part) -> Self {
        Opened { part, ..Opened::default() }
    }

    /// Adds the arrays of a file or a folder.
    pub fn add(&mut self, path: &Path) -> DataResult<()> {
        let files = if path.is_dir() { self.folder(path)? } else { vec![path.to_owned()] };
        for file in files {
            for array in self.file(&file)? {
                self.push(array, &file)?;
            }
        }
        Ok(())
    }

    /// Adds an array that is in memory as the bytes of an `.npy` file.
    pub fn add_array(&mut self, name: &str, bytes: &Bytes) -> DataResult<()> {
        let place = PathBuf::from(format!("the array {name:?}"));
        let array = array(name, bytes).map_err(|problem| fail(&place, problem))?;
        self.push(array, &place)
    }

    fn push(&mut self, array: Array, path: &Path) -> DataResult<()> {
        // The batches of CIFAR-10 come as one file each.
        let is_part = path.extension().is_some_and(|e| e == "bin");
        match self.places.get(&array.field.name).and_then(|place| self.arrays.get_mut(*place)) {
            Some(before) if is_part => before.append(array).map_err(|problem| fail(path, problem)),
            Some(before) => {
                let name = &before.field.name;
                Err(fail(path, format!("another file has an array {name:?} already; leave one of the two out")))
            }
            None => {
                self.places.insert(array.field.name.clone(), self.arrays.len());
                self.arrays.push(array);
                Ok(())
            }
        }
    }

    /// The files of a folder that belong together, by name.
    fn folder(&mut self, path: &Path) -> DataResult<Vec<PathBuf>> {
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut files: Vec<PathBuf> = entries.map_err(|e| no_access(path, e))?.iter().map(|e| e.path()).collect();
        files.sort_unstable();
        let name = |file: &PathBuf| file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let chosen = |test: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
            files.iter().filter(|f| test(&name(f))).cloned().collect()
        };
        let arrays = chosen(&|f| f.ends_with(".npy"));
        let images = chosen(&|f| f.ends_with("-ubyte") || f.ends_with("-ubyte.gz"));
        let batches = chosen(&|f| f.ends_with(".bin"));
        let is_training = |f: &str| f.starts_with("train") || f.starts_with("data_batch");
        let found = [arrays, images, batches].into_iter().find(|files| !files.is_empty());
        let found = found.ok_or_else(|| {
            fail(
                path,
                "this folder holds none of .npy files, IDX files (…-ubyte, …-ubyte.gz) and CIFAR files (.bin); a .npz or safetensors file is \
                 given by its own path".into(),
            )
        })?;
        let (training, other): (Vec<_>, Vec<_>) = found.iter().cloned().partition(|f| is_training(&name(f)));
        if training.is_empty() || other.is_empty() || found.iter().any(|f| f.extension().is_some_and(|e| e == "npy")) {
            return Ok(found);
        }
        let (chosen, other) = if self.part == Part::Training { (training, other) } else { (other, training) };
        let list = |files: &[PathBuf]| files.iter().map(name).collect::<Vec<_>>().join(", ");
        let (read, left) = (list(&chosen), list(&other));
        self.notes.push(format!("{}: read {read}; {left} hold the other part and are left out", path.display()));
        Ok(chosen)
    }

    fn file(&mut self, path: &Path) -> DataResult<Vec<Array>> {
        let bytes = self.maps.open(path).map_err(|e| no_access(path, e))?;
        let file = path.file_name().unwrap_or(OsStr::new("")).to_string_lossy();
        read(&file, &bytes).map_err(|problem| fail(path, problem))
    }
}

fn fail(path: &Path, problem: String) -> DataError {
    DataError::File { path: path.display().to_string(), problem }
}

fn no_access(path: &Path, source: io::Error) -> DataError {
    DataError::Io { path: path.display().to_string(), source }
}

/// The arrays in the bytes of a file. Nothing of them is copied but what is compressed or in Fortran order.
pub(super) fn read(file: &str, bytes: &Bytes) -> Result<Vec<Array>, String> {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    match bytes.as_ref() {
        [] => Err("it is empty".into()),
        [b'P', b'K', ..] => archive(bytes),
        [0x1f, 0x8b, ..] => read(stem, &unpack(bytes)?),
        b if b.starts_with(npy::MAGIC) => Ok(vec![array(stem, bytes)?]),
        // Any byte may begin a record of CIFAR, so here the name counts.
        b if cifar::is_one(file, b.len()) => cifar::read(file, bytes),
        b if idx::Header::is_at(b) => Ok(vec![idx::read(idx::name_of(file), bytes)?]),
        b if b.get(8) == Some(&b'{') => tensors(bytes),
        _ => Err(FORMATS.into()),
    }
}

/// The array in the bytes of an `.npy` file.
fn array(name: &str, bytes: &Bytes) -> Result<Array, String> {
    let header = npy::Header::parse(bytes)?;
    let data = bytes.slice(header.data.min(bytes.len())..);
    if !header.fortran_order || header.shape.len() < 2 {
        return Array::dense(name, header.elem, header.big_endian, &header.shape, data);
    }
    // Rows do not lie together, so they are put together once.
    let length = header.byte_len().filter(|n| *n <= data.len()).ok_or("it is cut off")?;
    let data = npy::in_memory_order(&header, data.slice(..length));
    Array::dense(name, header.elem, false, &header.shape, data)
}

/// The arrays of an `.npz` archive: stored ones where they lie, compressed ones unpacked.
fn archive(bytes: &Bytes) -> Result<Vec<Array>, String> {
    let read = |(name, data): (String, Bytes)| array(&name, &data).map_err(|e| format!("{name}: {e}"));
    let arrays = entries(bytes)?.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if arrays.is_empty() { Err("it holds no array".into()) } else { Ok(arrays) }
}

fn tensors(bytes: &Bytes) -> Result<Vec<Array>, String> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|e| format!("it is no safetensors file that can be read: {e}"))?;
    let mut arrays = Vec::new();
    for (name, view) in file.iter() {
        let elem =
            elem(view.dtype()).ok_or_else(|| format!("{name}: its element type {:?} cannot be run", view.dtype()))?;
        let data = bytes.slice_ref(view.data());
        arrays.push(Array::dense(name, elem, false, view.shape(), data).map_err(|e| format!("{name}: {e}"))?);
    }
    arrays.sort_by(|a, b| a.field.name.cmp(&b.field.name));
    if arrays.is_empty() { Err("it holds no array".into()) } else { Ok(arrays) }
}

/// The bytes in a gzip file, no more of them than their own header asks for.
fn unpack(bytes: &Bytes) -> Result<Bytes, String> {
    const HEAD: u64 = 1 << 16;
    let mut decoder = MultiGzDecoder::new(bytes.as_ref());
    let mut out = Vec::new();
    let broken = |e: io::Error| format!("its compressed data is broken: {e}");
    (&mut decoder).take(HEAD).read_to_end(&mut out).map_err(broken)?;
    let whole = if out.starts_with(npy::MAGIC) {
        let header = npy::Header::parse(&out)?;
        header.byte_len().and_then(|n| n.checked_add(header.data))
    } else if idx::Header::is_at(&out) {
        idx::Header::parse(&out)?.file_len()
    } else {
        return Err("it is compressed, and neither an IDX file nor an .npy array is in it".into());
    };
    let whole = whole.ok_or("its shape has more elements than memory could hold")?;
    // One byte more shows that something follows.
    let rest = whole.saturating_sub(out.len()).saturating_add(1) as u64;
    decoder.take(rest).read_to_end(&mut out).map_err(broken)?;
    Ok(out.into())
}
