//! `weights get`: initializers of a model as a safetensors file or a NumPy archive.

use std::io::{Cursor, Write};
use std::path::Path;

use safetensors::tensor::TensorView;
use serde::Serialize;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::array::Array;
use super::error::{WeightsError, WeightsResult};
use super::initializers::{self, DataFiles};
use super::put::Entry;
use super::{SCHEMA, Wanted, candidates, dtype, stored};
use crate::engine::npy;
use crate::wire::{Model, ModelFile, Piece, Rope, Sync, write};

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.safetensors`.
    Safetensors,
    /// `.npz`.
    Npz,
}

impl Format {
    /// By a file name's extension.
    ///
    /// # Errors
    /// For any other one.
    pub fn of(path: &Path) -> WeightsResult<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => Ok(Format::Safetensors),
            Some("npz") => Ok(Format::Npz),
            _ => {
                let problem = format!(
                    "{}: weights are written as .safetensors or .npz; give the file one of these names",
                    path.display()
                );
                Err(WeightsError::Options(problem))
            }
        }
    }
}

/// What was taken, as JSON `schemas/weights.schema.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which layout this is: [`SCHEMA`].
    pub schema: &'static str,
    /// The initializers that were taken.
    pub taken: Vec<Entry>,
    /// How many there are that were not wanted.
    pub left: usize,
    /// Why wanted ones were left out: types that no array has.
    pub refused: Vec<String>,
}

/// The initializers that are wanted.
///
/// # Errors
/// When elements cannot be read, or there is nothing to take.
pub fn get(model: &Model, wanted: &Wanted) -> WeightsResult<(Vec<Array>, Report)> {
    let candidates = candidates(model, wanted)?;
    let mut files = DataFiles::default();
    let mut arrays = Vec::new();
    let mut report = Report { schema: SCHEMA, taken: Vec::new(), left: 0, refused: Vec::new() };
    for (initializer, candidate) in stored(model)?.iter().zip(candidates) {
        if !candidate.is_wanted {
            report.left += 1;
            continue;
        }
        if let Err(problem) = initializers::declared(initializer) {
            report.refused.push(format!("the initializer {:?} {problem}", initializer.name));
            continue;
        }
        let array = initializers::read(model, initializer, &mut files)?;
        report.taken.push(Entry { name: array.name.clone(), ty: array.describe(), role: Some(candidate.role.name()) });
        arrays.push(array);
    }
    if arrays.is_empty() {
        let problem = match report.refused.first() {
            Some(why) => format!("there is nothing to take: {why}"),
            None => "no initializer has the role of something that is trained; --all takes every one, --wrt those that it names".to_owned(),
        };
        return Err(WeightsError::Options(problem));
    }
    Ok((arrays, report))
}

/// Writes arrays to a file, all of it or nothing.
///
/// # Errors
/// When it cannot be written.
pub fn save(arrays: &[Array], format: Format, target: &Path, sync: Sync) -> WeightsResult<()> {
    let failed = |error| WeightsError::Options(format!("{}: {error}", target.display()));
    let rope = Rope { pieces: vec![Piece::New(encode(arrays, format).map_err(failed)?.into())] };
    write(&rope, &ModelFile::from_bytes(Vec::new()), target, sync)?;
    Ok(())
}

/// The bytes of a file that holds arrays.
///
/// # Errors
/// For an element type that the format lacks.
pub fn encode(arrays: &[Array], format: Format) -> WeightsResult<Vec<u8>> {
    let bytes = match format {
        Format::Safetensors => safetensors_bytes(arrays),
        Format::Npz => npz_bytes(arrays),
    };
    bytes.map_err(WeightsError::Options)
}

fn safetensors_bytes(arrays: &[Array]) -> Result<Vec<u8>, String> {
    let mut views = Vec::with_capacity(arrays.len());
    for array in arrays {
        let dtype = dtype(array.elem).ok_or_else(|| format!("{:?} is of a type that safetensors lacks", array.name))?;
        views.push((&array.name, TensorView::new(dtype, array.shape.clone(), &array.data).map_err(|e| e.to_string())?));
    }
    safetensors::serialize(views, None).map_err(|e| e.to_string())
}

fn npz_bytes(arrays: &[Array]) -> Result<Vec<u8>, String> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for array in arrays {
        let is_large = array.data.len() as u64 > u64::from(u32::MAX) - 4096;
        // Stored, as numpy.savez does: readers can map it.
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(is_large);
        archive.start_file(format!("{}.npy", array.name), options).map_err(|e| e.to_string())?;
        let head = npy::header(array.elem, &array.shape);
        archive.write_all(&head).and_then(|()| archive.write_all(&array.data)).map_err(|e| e.to_string())?;
    }
    Ok(archive.finish().map_err(|e| e.to_string())?.into_inner())
}
