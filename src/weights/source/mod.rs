//! Files that others save weights in, recognised by what they hold.

mod flatbuffer;
mod numpy;
mod ort_checkpoint;
mod pickle;
mod torch;

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use safetensors::SafeTensors;

use super::array::Array;
use super::error::{WeightsError, WeightsResult};
use super::{Wanted, candidates, elem, initializers, stored};
use crate::engine::npy;
use crate::wire::{Model, ModelFile};

/// Named arrays of a file.
#[derive(Debug)]
pub struct Source {
    /// What kind of file it is, for people: `a safetensors file`.
    pub kind: &'static str,
    /// Its arrays, in the order of the file.
    pub arrays: Vec<Array>,
    /// Arrays that nobody misses when no initializer takes them: constants of another model. In the same order.
    pub minor: Vec<bool>,
}

/// What else is to do with a file that is not read.
const FORMATS: &str = "training checkpoints of ONNX Runtime, safetensors, .npz archives, PyTorch's state dicts (.pt, .pth) and ONNX files";

impl Source {
    /// Reads a file. Elements that lie in it as they are needed are not copied.
    ///
    /// # Errors
    /// When it cannot be read, is of no known kind, or holds two arrays of one name.
    pub fn open(path: &Path) -> WeightsResult<Self> {
        let fail = |problem: String| WeightsError::Source { path: path.to_owned(), problem };
        if path.is_dir() {
            return Err(fail(format!("it is a folder; name a file in it: {FORMATS} are read")));
        }
        let file = ModelFile::open(path)?;
        let bytes = &file.bytes;
        let (kind, arrays) = match bytes.as_ref() {
            [] => return Err(fail("it is empty".into())),
            b if b.get(4..8) == Some(ort_checkpoint::IDENTIFIER) => {
                ("a training checkpoint of ONNX Runtime", ort_checkpoint::read(path, bytes))
            }
            b if b.starts_with(b"PK") && torch::is_one(bytes) => ("a PyTorch state dict", torch::read(bytes)),
            b if b.starts_with(b"PK") => ("a NumPy archive", numpy::archive(bytes)),
            b if b.starts_with(torch::LEGACY) => {
                return Err(fail(format!(
                    "it was saved by PyTorch before 1.6, in a form that runs code when read; {}",
                    torch::advice(path)
                )));
            }
            b if b.starts_with(npy::MAGIC) => {
                let problem =
                    "it is one array without a name; numpy.savez(\"weights.npz\", **{\"NAME\": array}) gives it one";
                return Err(fail(problem.into()));
            }
            b if b.get(8) == Some(&b'{') => ("a safetensors file", tensors(bytes)),
            _ => return Self::of_model(path, file),
        };
        let arrays = arrays.map_err(|problem| fail(problem.replace(torch::ADVICE_HERE, &torch::advice(path))))?;
        let minor = vec![false; arrays.len()];
        Source { kind, arrays, minor }.checked(path)
    }

    /// The arrays of an `.npz` archive in memory.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn of_archive(bytes: &Bytes) -> WeightsResult<Self> {
        let arrays = numpy::archive(bytes).map_err(WeightsError::Options)?;
        if arrays.is_empty() {
            return Err(WeightsError::Options("there is no array to put in".into()));
        }
        let minor = vec![false; arrays.len()];
        Ok(Source { kind: "arrays in memory", arrays, minor })
    }

    /// The initializers of another model; those that are not trained are minor, and of types without a fixed size left out.
    fn of_model(path: &Path, file: ModelFile) -> WeightsResult<Self> {
        let fail = |problem: String| WeightsError::Source { path: path.to_owned(), problem };
        let model = Model::open(path)
            .map_err(|e| fail(format!("it is no file with weights that is known ({FORMATS}): {e}")))?;
        drop(file);
        let roles = candidates(&model, &Wanted::Trained)?;
        let mut files = initializers::DataFiles::default();
        let (mut arrays, mut minor) = (Vec::new(), Vec::new());
        for (initializer, candidate) in stored(&model)?.iter().zip(roles) {
            match initializers::read(&model, initializer, &mut files) {
                Ok(array) => {
                    arrays.push(array);
                    minor.push(!candidate.is_wanted);
                }
                Err(error) if candidate.is_wanted => return Err(fail(error.to_string())),
                Err(_) => {}
            }
        }
        Source { kind: "an ONNX model", arrays, minor }.checked(path)
    }

    fn checked(self, path: &Path) -> WeightsResult<Self> {
        let fail = |problem: String| WeightsError::Source { path: path.to_owned(), problem };
        if self.arrays.is_empty() {
            return Err(fail(format!("it is {} without any array", self.kind)));
        }
        let mut seen = HashMap::new();
        for array in &self.arrays {
            if seen.insert(array.name.as_str(), ()).is_some() {
                return Err(fail(format!("it holds two arrays named {:?}", array.name)));
            }
        }
        Ok(self)
    }
}

fn tensors(bytes: &Bytes) -> Result<Vec<Array>, String> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|e| format!("it is no safetensors file that can be read: {e}"))?;
    let mut arrays = Vec::new();
    for (name, view) in file.iter() {
        let elem = elem(view.dtype())
            .ok_or_else(|| format!("{name:?} is of {:?}, which no initializer can be", view.dtype()))?;
        arrays.push(Array::new(name.to_owned(), elem, view.shape().to_vec(), bytes.slice_ref(view.data()))?);
    }
    arrays.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(arrays)
}
