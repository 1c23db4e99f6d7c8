//! Named arrays from files: an `.npz` archive, a folder of `.npy` files, or one `.npy` file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use zip::{CompressionMethod, ZipArchive};

use super::error::{EngineError, EngineResult};
use super::npy;
use super::tensor::Tensor;

/// Arrays with the names of what they are for.
#[derive(Debug, Clone, Default)]
pub struct Arrays {
    /// Where they were read from.
    pub path: PathBuf,
    /// Name and array, in the order of the file, or of the names in a folder.
    pub named: Vec<(String, Tensor)>,
    /// A single `.npy` file: its array goes to the only input there is.
    pub nameless: Option<Tensor>,
}

impl Arrays {
    /// Reads an `.npz` or `.npy` file, recognised by what it holds, or the `.npy` files of a folder, named after inputs.
    pub fn read(path: &Path) -> EngineResult<Self> {
        let fail = |problem: String| EngineError::Array { path: path.display().to_string(), problem };
        let mut arrays = Arrays { path: path.to_owned(), ..Arrays::default() };
        if path.is_dir() {
            arrays.named = folder(path)?;
            return Ok(arrays);
        }
        let mut file = File::open(path).map_err(|e| fail(e.to_string()))?;
        let mut magic = [0; 6];
        let read = file.read(&mut magic).map_err(|e| fail(e.to_string()))?;
        if magic[..read].starts_with(b"PK") {
            arrays.named = archive(path, file)?;
        } else if magic == npy::MAGIC {
            let mut bytes = Vec::new();
            let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
            read.map_err(|e| fail(e.to_string()))?;
            arrays.nameless = Some(npy::read(&bytes).map_err(fail)?);
        } else {
            let problem =
                "it is neither a NumPy archive (.npz) nor an array (.npy); numpy.savez(FILE, NAME=array, …) writes one";
            return Err(fail(problem.into()));
        }
        Ok(arrays)
    }

    /// The array for an input. `only` says that there is one input alone, which an array without a name is for.
    pub fn get(&self, name: &str, only: bool) -> Option<&Tensor> {
        let named = self.named.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
        named.or(if only { self.nameless.as_ref() } else { None })
    }
}

fn folder(path: &Path) -> EngineResult<Vec<(String, Tensor)>> {
    let fail = |path: &Path, problem: String| EngineError::Array { path: path.display().to_string(), problem };
    let mut arrays = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| fail(path, e.to_string()))? {
        let file = entry.map_err(|e| fail(path, e.to_string()))?.path();
        let Some(name) = file.file_stem().filter(|_| file.extension().is_some_and(|e| e == "npy")) else { continue };
        let name = name.to_string_lossy().into_owned();
        let bytes = fs::read(&file).map_err(|e| fail(&file, e.to_string()))?;
        arrays.push((name, npy::read(&bytes).map_err(|problem| fail(&file, problem))?));
    }
    if arrays.is_empty() {
        return Err(fail(path, "no .npy file is in this folder; each is named after an input, such as x.npy".into()));
    }
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(arrays)
}

fn archive(path: &Path, file: File) -> EngineResult<Vec<(String, Tensor)>> {
    let fail = |problem: String| EngineError::Array { path: path.display().to_string(), problem };
    let mut archive = ZipArchive::new(file).map_err(|e| fail(format!("it is no archive that can be read: {e}")))?;
    let mut arrays = Vec::new();
    let mut seen = HashSet::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| fail(e.to_string()))?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name().map_err(|e| fail(e.to_string()))?.into_owned();
        let Some(name) = name.strip_suffix(".npy") else {
            return Err(fail(format!(
                "it holds {name:?}, which is no .npy array; is it a PyTorch file? numpy.savez writes archives of arrays"
            )));
        };
        let fail = |problem: String| EngineError::Array { path: format!("{}: {name}", path.display()), problem };
        let bytes = entry_bytes(&mut entry).map_err(fail)?;
        if !seen.insert(name.to_owned()) {
            return Err(fail("it is there twice".into()));
        }
        arrays.push((name.to_owned(), npy::read(&bytes).map_err(fail)?));
    }
    Ok(arrays)
}

/// The `.npy` files in the bytes of an `.npz` archive, by the names of their arrays: stored ones where they lie, compressed ones unpacked.
pub(crate) fn entries(bytes: &Bytes) -> Result<Vec<(String, Bytes)>, String> {
    let zip = |e: zip::result::ZipError| format!("it is no archive that can be read: {e}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(zip)?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(zip)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name().map_err(zip)?.into_owned();
        let Some(name) = name.strip_suffix(".npy") else {
            return Err(format!(
                "it holds {name:?}, which is no .npy array; is it a PyTorch file? numpy.savez writes archives of arrays"
            ));
        };
        let stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
        let place = entry.data_start().filter(|_| stored).and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= bytes.len()).then(|| bytes.slice(start..end))
        });
        let data = match place {
            Some(data) => data,
            None => entry_bytes(&mut entry).map_err(|e| format!("{name}: {e}"))?.into(),
        };
        if !seen.insert(name.to_owned()) {
            return Err(format!("{name}: it is there twice"));
        }
        found.push((name.to_owned(), data));
    }
    Ok(found)
}

/// The bytes of an entry, no more of them than its header asks for: a few forged kilobytes could unpack to terabytes.
fn entry_bytes(entry: &mut impl Read) -> Result<Vec<u8>, String> {
    const HEAD: u64 = 1 << 16;
    let mut bytes = Vec::new();
    entry.take(HEAD).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if let Ok(header) = npy::Header::parse(&bytes) {
        let whole = header.byte_len().and_then(|n| n.checked_add(header.data)).unwrap_or(usize::MAX);
        let rest = whole.saturating_sub(bytes.len()) as u64;
        entry.take(rest).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    }
    Ok(bytes)
}
