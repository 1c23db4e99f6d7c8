//! Rows to train on: from files, through conversions that are said, checked, shuffled, and read ahead.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use per_inject::graph::types::{Dim, TensorType};
//! use per_inject::train::data::{Batches, Dataset, Input, Plan};
//!
//! let n = || Dim::Symbol("N".into());
//! let x = Input::new("x", &TensorType { elem: 1, dims: Some(vec![n(), Dim::Known(64)]) }, 0);
//! let y = Input { below: Some(10), ..Input::new("y", &TensorType { elem: 7, dims: Some(vec![n()]) }, 0) };
//!
//! let data = Dataset::open(&["models/mlp_relu.inputs.npz"], &[])?.fit(&[x, y], &[])?;
//! data.check()?;
//! let mut batches = data.batches(&Plan { batch: 5, shuffle: true, ..Plan::default() }, 0)?;
//! while let Some(batch) = batches.next_batch()? {
//!     println!("{} samples of {}", batch.samples, batch.arrays[0].1.tensor_type());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Files are mapped into memory, and rows are copied out of them batch by batch, so that data may be larger than memory. What is
//! compressed is unpacked once.

mod array;
mod augment;
mod batches;
mod check;
mod cifar;
mod convert;
mod digest;
mod error;
mod fit;
mod idx;
mod map;
mod open;
mod order;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use array::Array;
pub use array::Field;
pub use augment::Augment;
pub use batches::{Ahead, Batch, Batches, Plan};
use bytes::Bytes;
use convert::Conversion;
pub use error::{DataError, DataResult};
pub use fit::{Input, Normalize, parse_map};
use map::Maps;
pub use open::Part;

/// Arrays with the same number of rows, one sample in each.
#[derive(Debug, Clone)]
pub struct Dataset {
    columns: Arc<Vec<Column>>,
    maps: Arc<Maps>,
    notes: Vec<String>,
    /// Sizes of batches that inputs ask for, with the input.
    fixed: Option<(String, u64)>,
}

/// An array, and what it is turned into.
#[derive(Debug)]
struct Column {
    array: Array,
    conversion: Conversion,
    /// What integers must stay below, and the one that is exempt.
    below: Option<u64>,
    ignored: Option<i64>,
}

impl Dataset {
    /// Opens files and folders: NumPy's `.npz` and `.npy`, safetensors, IDX (also compressed, `.gz`), CIFAR-10 and CIFAR-100 in their
    /// binary version; folders of `.npy`, IDX or CIFAR files. Files are recognised by what they hold.
    ///
    /// Arrays are named by the file that holds several, else by the file itself: `x` for `x.npy`, `images` and `labels` for IDX and
    /// CIFAR. `map` renames them: input of the graph, array. Of a folder that holds both parts it is the training part.
    ///
    /// # Errors
    /// When a file cannot be read, two arrays have one name, or `map` names no array.
    pub fn open(paths: &[impl AsRef<Path>], map: &[(String, String)]) -> DataResult<Self> {
        Self::open_part(paths, map, Part::Training)
    }

    /// As [`Self::open`], and of folders that hold what is trained on and what is evaluated on, as those of MNIST and CIFAR do, this part.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_part(paths: &[impl AsRef<Path>], map: &[(String, String)], part: Part) -> DataResult<Self> {
        let mut opened = open::Opened::of(part);
        paths.iter().try_for_each(|path| opened.add(path.as_ref()))?;
        Self::of(opened, map)
    }

    /// Takes arrays that are in memory, by name, each as the bytes of an `.npy` file. Nothing of them is copied but what is in Fortran
    /// order.
    ///
    /// # Errors
    /// When bytes are no `.npy` file, two arrays have one name, or `map` names no array.
    pub fn in_memory(arrays: impl IntoIterator<Item = (String, Bytes)>, map: &[(String, String)]) -> DataResult<Self> {
        let mut opened = open::Opened::of(Part::Training);
        arrays.into_iter().try_for_each(|(name, bytes)| opened.add_array(&name, &bytes))?;
        Self::of(opened, map)
    }

    fn of(opened: open::Opened, map: &[(String, String)]) -> DataResult<Self> {
        let mut arrays = opened.arrays;
        rename(&mut arrays, map)?;
        let column = |array: Array| Column { conversion: Conversion::none(&array), array, below: None, ignored: None };
        let columns = Arc::new(arrays.into_iter().map(column).collect());
        Ok(Dataset { columns, maps: Arc::new(opened.maps), notes: opened.notes, fixed: None })
    }

    /// What it gives for each input, or, before [`Self::fit`], what is in the files.
    pub fn fields(&self) -> Vec<Field> {
        let field = |c: &Column| Field {
            name: c.array.field.name.clone(),
            elem: c.conversion.to,
            row: c.conversion.row.clone(),
            rows: c.array.field.rows,
        };
        self.columns.iter().map(field).collect()
    }

    /// Number of samples; of the shortest array before [`Self::fit`], which asks that all have as many.
    pub fn rows(&self) -> usize {
        self.columns.iter().map(|c| c.array.field.rows).min().unwrap_or_default()
    }

    /// What was done with the data, for people: conversions, and what is not used.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Chooses the arrays that these inputs take, by name, and converts them where that keeps their meaning:
    ///
    /// - bytes with two axes or more a row become floats divided by 255; other integers keep their values, floats are rounded;
    /// - axes of size 1 come and go, `[H, W, C]` becomes `[C, H, W]` or the reverse, two axes are flattened to one, where the input's
    ///   shape is met so and not otherwise;
    /// - [`Normalize`] scales.
    ///
    /// [`Self::notes`] says each of them. Axes without a number take any size, equal symbols equal ones.
    ///
    /// # Errors
    /// When an input has no array or one that does not fit, or arrays have different numbers of rows or none.
    pub fn fit(self, inputs: &[Input], normalize: &[Normalize]) -> DataResult<Self> {
        let Dataset { columns, maps, mut notes, .. } = self;
        let arrays = columns.iter().map(|c| c.array.clone()).collect();
        let fitted = fit::fit(arrays, inputs, normalize, &mut notes)?;
        if let Some((first, _)) = fitted.first() {
            for (other, _) in &fitted {
                if other.field.rows != first.field.rows {
                    return Err(DataError::Rows {
                        first: first.field.name.clone(),
                        first_rows: first.field.rows,
                        second: other.field.name.clone(),
                        second_rows: other.field.rows,
                    });
                }
                let field = &other.field;
                if field.rows == 0 || field.row.contains(&0) {
                    return Err(DataError::Empty { array: field.name.clone(), given: field.describe() });
                }
            }
        }
        let column = |((array, conversion), input): ((Array, Conversion), &Input)| Column {
            array,
            conversion,
            below: input.below,
            ignored: input.ignored,
        };
        let fixed = inputs.iter().find_map(|i| Some((i.name.clone(), i.batch.as_ref()?.known()?)));
        let columns = Arc::new(fitted.into_iter().zip(inputs).map(column).collect());
        Ok(Dataset { columns, maps, notes, fixed })
    }
}

fn rename(arrays: &mut [Array], map: &[(String, String)]) -> DataResult<()> {
    let names: Vec<String> = arrays.iter().map(|a| a.field.name.clone()).collect();
    let mut renamed = vec![false; arrays.len()];
    for (input, name) in map {
        let Some(place) = names.iter().position(|n| n == name) else {
            let near =
                names.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            let hint = near.map(|n| format!("; is {n:?} meant?")).unwrap_or_default();
            return Err(DataError::Options(format!(
                "--map {input}={name}: the data has no array {name:?}, only {}{hint}",
                names.join(", ")
            )));
        };
        if std::mem::replace(&mut renamed[place], true) {
            return Err(DataError::Options(format!(
                "--map {input}={name}: the array {name:?} was given to another input already"
            )));
        }
        arrays[place].field.name.clone_from(input);
    }
    // An array that has an input's name, and was not meant for it, keeps out of its way.
    for (place, array) in arrays.iter_mut().enumerate() {
        if !renamed[place] && map.iter().any(|(input, _)| *input == array.field.name) {
            array.field.name.push_str(" (replaced by --map)");
        }
    }
    let mut seen = std::collections::HashSet::new();
    match map.iter().find(|(input, _)| !seen.insert(input)) {
        Some((input, _)) => Err(DataError::Options(format!("--map names the input {input:?} twice"))),
        None => Ok(()),
    }
}
