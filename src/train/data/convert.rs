//! From the bytes of rows to the tensor that an input takes.

use bytemuck::{Pod, cast_slice_mut};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::array::Array;
use crate::engine::{Element, Tensor, element_size};
use crate::onnx::tensor_proto::DataType;

/// How rows of an array become rows of an input.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conversion {
    /// Element type of the input.
    pub to: DataType,
    /// Shape of a row of the input.
    pub row: Vec<usize>,
    /// For each element of the new row the place of the old one; `None` where they stand in the same order.
    pub order: Option<Vec<usize>>,
    /// Scaling of the values.
    pub affine: Option<Affine>,
}

/// `(scale · x − mean[c]) / std[c]`, with the channel `c` of an element.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    pub scale: f64,
    /// One for all channels, or one for each.
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
    /// Number of elements from one channel to the next.
    pub inner: usize,
}

impl Affine {
    fn apply(&self, x: f64, channel: usize) -> f64 {
        let of = |values: &[f64], default| values.get(channel).copied().unwrap_or(default);
        (self.scale * x - of(&self.mean, 0.0)) / of(&self.std, 1.0)
    }

    /// The channel of an element of a row.
    fn channel(&self, place: usize) -> usize {
        (place / self.inner.max(1)) % self.mean.len().max(1)
    }

    /// What 0 becomes in each channel.
    pub fn zeros(&self) -> Vec<f64> {
        (0..self.mean.len().max(1)).map(|channel| self.apply(0.0, channel)).collect()
    }
}

/// A number between two types.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wide {
    Integer(i128),
    Real(f64),
}

impl Wide {
    fn real(self) -> f64 {
        match self {
            // Exact below 2⁵³; scaled integers are rounded anyway.
            Wide::Integer(i) => i as f64,
            Wide::Real(x) => x,
        }
    }
}

/// An element type that numbers of another one can be brought into.
pub(super) trait Number: Element + Default {
    fn wide(self) -> Wide;

    /// `None` where the number is none of this type: integers must be met exactly, reals are rounded to the nearest.
    fn narrow(wide: Wide) -> Option<Self>;

    /// Little-endian elements in the place of others, of which there are as many.
    fn copy(bytes: &[u8], out: &mut [Self]);
}

/// Copies elements at once: one by one takes a batch of images several times as long where a build is made for size.
fn copy_elements<T: Pod>(bytes: &[u8], out: &mut [T]) {
    let places: &mut [u8] = cast_slice_mut(out);
    places.copy_from_slice(bytes);
    if cfg!(target_endian = "big") {
        places.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn wide(self) -> Wide {
                Wide::Integer(i128::from(self))
            }

            fn narrow(wide: Wide) -> Option<Self> {
                match wide {
                    Wide::Integer(i) => Self::try_from(i).ok(),
                    Wide::Real(_) => None,
                }
            }

            fn copy(bytes: &[u8], out: &mut [Self]) {
                copy_elements(bytes, out);
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! reals {
    ($($type:ty, $from:expr, $words:expr;)*) => {$(
        impl Number for $type {
            fn wide(self) -> Wide {
                Wide::Real(f64::from(self))
            }

            fn narrow(wide: Wide) -> Option<Self> {
                let near: Self = $from(wide.real());
                match wide {
                    Wide::Integer(i) => (f64::from(near) as i128 == i).then_some(near),
                    Wide::Real(x) => (f64::from(near).is_finite() || !x.is_finite()).then_some(near),
                }
            }

            fn copy(bytes: &[u8], out: &mut [Self]) {
                let words: fn(&mut [Self]) -> &mut [_] = $words;
                copy_elements(bytes, words(out));
            }
        }
    )*};
}

reals! {
    f16, f16::from_f64, |out| out.reinterpret_cast_mut();
    bf16, bf16::from_f64, |out| out.reinterpret_cast_mut();
    f32, |x| x as f32, |out| out;
    f64, |x| x, |out| out;
}

impl Number for bool {
    fn wide(self) -> Wide {
        Wide::Integer(i128::from(self))
    }

    fn narrow(wide: Wide) -> Option<Self> {
        match wide {
            Wide::Integer(0) => Some(false),
            Wide::Integer(1) => Some(true),
            _ => None,
        }
    }

    fn copy(bytes: &[u8], out: &mut [Self]) {
        bytes.iter().zip(out).for_each(|(byte, place)| *place = *byte != 0);
    }
}

/// Evaluates an expression with `$type` standing for the Rust type of an element type; `$else` where none does.
macro_rules! with_type {
    ($elem:expr, $type:ident => $body:expr, else $else:expr) => {
        match $elem {
            DataType::Float16 => {
                type $type = f16;
                $body
            }
            DataType::Bfloat16 => {
                type $type = bf16;
                $body
            }
            DataType::Float => {
                type $type = f32;
                $body
            }
            DataType::Double => {
                type $type = f64;
                $body
            }
            DataType::Int8 => {
                type $type = i8;
                $body
            }
            DataType::Int16 => {
                type $type = i16;
                $body
            }
            DataType::Int32 => {
                type $type = i32;
                $body
            }
            DataType::Int64 => {
                type $type = i64;
                $body
            }
            DataType::Uint8 => {
                type $type = u8;
                $body
            }
            DataType::Uint16 => {
                type $type = u16;
                $body
            }
            DataType::Uint32 => {
                type $type = u32;
                $body
            }
            DataType::Uint64 => {
                type $type = u64;
                $body
            }
            DataType::Bool => {
                type $type = bool;
                $body
            }
            _ => $else,
        }
    };
}

/// A row that could not be converted, and why.
pub(super) type BadRow = (usize, String);

impl Conversion {
    /// That which leaves an array as it is.
    pub fn none(array: &Array) -> Self {
        Conversion { to: array.field.elem, row: array.field.row.clone(), order: None, affine: None }
    }

    /// Rows of an array, of which there are as many as `rows` has, along the first axis.
    pub fn gather(&self, array: &Array, rows: &[usize]) -> Result<Tensor, BadRow> {
        let shape: Vec<usize> = std::iter::once(rows.len()).chain(self.row.iter().copied()).collect();
        let tensor = with_type!(self.to, T => Tensor::new(shape, self.convert::<T>(array, rows)?), else None);
        tensor.ok_or_else(|| (rows.first().copied().unwrap_or_default(), "does not fill the shape of the input".into()))
    }

    fn convert<T: Number>(&self, array: &Array, rows: &[usize]) -> Result<Vec<T>, BadRow> {
        let size = self.row.iter().product::<usize>();
        let from = array.field.elem;
        let find = |row: usize| array.row(row).ok_or_else(|| (row, "is not there".to_owned()));
        if from == T::TYPE && !array.big_endian && self.order.is_none() && self.affine.is_none() {
            let mut out = vec![T::default(); size.saturating_mul(rows.len())];
            for (&row, place) in rows.iter().zip(out.chunks_exact_mut(size.max(1))) {
                let bytes = find(row)?;
                if bytes.len() != size_of_val(place) {
                    return Err((row, "does not fill the shape of the input".into()));
                }
                T::copy(bytes, place);
            }
            return Ok(out);
        }
        let mut out = Vec::with_capacity(size.saturating_mul(rows.len()));
        let tables = if from == DataType::Uint8 { self.tables::<T>() } else { None };
        for &row in rows {
            let bytes = find(row)?;
            match &tables {
                Some(tables) => self.look_up(tables, bytes, &mut out),
                None => self.element_by_element(array, bytes, &mut out).map_err(|problem| (row, problem))?,
            }
        }
        Ok(out)
    }

    /// What each byte becomes in each channel, for bytes that are scaled.
    fn tables<T: Number>(&self) -> Option<Vec<[T; 256]>> {
        let affine = self.affine.as_ref()?;
        let table = |channel| {
            let mut table = [T::narrow(Wide::Real(0.0))?; 256];
            for (x, entry) in (0u8..=255).zip(&mut table) {
                *entry = T::narrow(Wide::Real(affine.apply(f64::from(x), channel)))?;
            }
            Some(table)
        };
        (0..affine.mean.len().max(1)).map(table).collect()
    }

    fn look_up<T: Number>(&self, tables: &[[T; 256]], bytes: &[u8], out: &mut Vec<T>) {
        match (&self.order, tables) {
            (None, [table]) => out.extend(bytes.iter().map(|b| table[usize::from(*b)])),
            _ => out.extend((0..bytes.len()).filter_map(|place| {
                let byte = bytes.get(self.source(place))?;
                let channel = self.affine.as_ref().map_or(0, |a| a.channel(place));
                Some(tables.get(channel)?[usize::from(*byte)])
            })),
        }
    }

    /// Where the element for a place stands in the array's row.
    fn source(&self, place: usize) -> usize {
        self.order.as_ref().map_or(place, |order| order.get(place).copied().unwrap_or(usize::MAX))
    }

    fn element_by_element<T: Number>(&self, array: &Array, bytes: &[u8], out: &mut Vec<T>) -> Result<(), String> {
        let width = element_size(array.field.elem as i32).unwrap_or(1);
        for place in 0..bytes.len() / width {
            let scaled = self.scaled(array, bytes, place, width).ok_or("is cut off")?;
            out.push(T::narrow(scaled).ok_or_else(|| cannot_hold(T::TYPE, scaled))?);
        }
        Ok(())
    }

    /// What belongs to a place, as a number of whatever type.
    fn scaled(&self, array: &Array, bytes: &[u8], place: usize, width: usize) -> Option<Wide> {
        let start = self.source(place).saturating_mul(width);
        let mut element = [0; 8];
        let element = element.get_mut(..width)?;
        element.copy_from_slice(bytes.get(start..)?.get(..width)?);
        if array.big_endian {
            element.reverse();
        }
        let wide = with_type!(array.field.elem, S => <S as Element>::from_le(element).map(Number::wide), else None)?;
        Some(match &self.affine {
            Some(affine) => Wide::Real(affine.apply(wide.real(), affine.channel(place))),
            None => wide,
        })
    }
}

fn cannot_hold(elem: DataType, number: Wide) -> String {
    let what = match number {
        Wide::Integer(i) => i.to_string(),
        Wide::Real(x) => x.to_string(),
    };
    format!("has the value {what}, which {} cannot hold", crate::graph::types::elem_name(elem as i32))
}
