//! The whole data, looked through once before the first step.

use super::convert::Conversion;
use super::{Column, DataError, DataResult, Dataset};
use crate::engine::{Data, Tensor};
use crate::onnx::tensor_proto::DataType;
use crate::wire::is_float;

/// Bytes that are looked at together.
const PIECE: usize = 1 << 20;

impl Dataset {
    /// Reads all rows once: floats must be finite, integers within the range that their input takes, and every value one that the
    /// input's type can hold. Memory stays at about a megabyte, whatever the size of the data.
    ///
    /// # Errors
    /// The first row that is not so.
    pub fn check(&self) -> DataResult<()> {
        for column in self.columns.iter().filter(|c| !c.is_fine()) {
            let field = &column.array.field;
            let step = (PIECE / column.array.row_bytes().max(1)).max(1);
            let mut start = 0;
            while start < field.rows {
                let rows: Vec<usize> = (start..field.rows.min(start.saturating_add(step))).collect();
                self.maps.touched(1, rows.len().saturating_mul(column.array.row_bytes()));
                let tensor = column.gather(&rows)?;
                if let Some((place, problem)) = column.problem(&tensor) {
                    let row = start + place / (tensor.len() / rows.len()).max(1);
                    return Err(DataError::Value { array: field.name.clone(), row, problem });
                }
                start += rows.len();
            }
        }
        Ok(())
    }
}

impl Column {
    /// Rows of the array, converted.
    pub(super) fn gather(&self, rows: &[usize]) -> DataResult<Tensor> {
        let bad = |(row, problem)| DataError::Value { array: self.array.field.name.clone(), row, problem };
        self.conversion.gather(&self.array, rows).map_err(bad)
    }

    /// Whether no value that the array can hold is wrong.
    fn is_fine(&self) -> bool {
        let Conversion { to, affine, .. } = &self.conversion;
        let from = self.array.field.elem;
        (from == DataType::Uint8 && affine.is_some())
            || (from == *to && !is_float(from as i32) && (self.below.is_none() || from == DataType::Bool))
    }

    /// The first element that is wrong, and how.
    fn problem(&self, tensor: &Tensor) -> Option<(usize, String)> {
        let what = |x: f64| format!("holds {x}; training on it would make all weights NaN");
        let finite = |at: Option<(usize, f64)>| at.map(|(place, x)| (place, what(x)));
        match tensor.data() {
            Data::Float(v) => finite(v.iter().position(|x| !x.is_finite()).map(|at| (at, f64::from(v[at])))),
            Data::Double(v) => finite(v.iter().position(|x| !x.is_finite()).map(|at| (at, v[at]))),
            Data::Float16(v) => finite(v.iter().position(|x| !x.is_finite()).map(|at| (at, v[at].to_f64()))),
            Data::Bfloat16(v) => finite(v.iter().position(|x| !x.is_finite()).map(|at| (at, v[at].to_f64()))),
            Data::Bool(_) => None,
            Data::Int8(v) => self.out_of_range(v),
            Data::Int16(v) => self.out_of_range(v),
            Data::Int32(v) => self.out_of_range(v),
            Data::Int64(v) => self.out_of_range(v),
            Data::Uint8(v) => self.out_of_range(v),
            Data::Uint16(v) => self.out_of_range(v),
            Data::Uint32(v) => self.out_of_range(v),
            Data::Uint64(v) => self.out_of_range(v),
        }
    }

    fn out_of_range<T: Copy + Into<i128>>(&self, values: &[T]) -> Option<(usize, String)> {
        let below = self.below?;
        let fits = |x: i128| (0..i128::from(below)).contains(&x) || self.ignored.map(i128::from) == Some(x);
        let place = values.iter().position(|x| !fits((*x).into()))?;
        let value: i128 = values[place].into();
        let first = if value == i128::from(below) { "; do the labels begin at 1? the graph counts from 0" } else { "" };
        Some((
            place,
            format!("holds {value}, and the graph takes integers from 0 to {}{first}", below.saturating_sub(1)),
        ))
    }
}
