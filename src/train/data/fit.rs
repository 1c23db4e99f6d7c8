//! Which array goes to which input, and what has to be done to it: each conversion is one that keeps the meaning, and is said.

use std::collections::HashMap;

use super::array::{Array, Field};
use super::convert::{Affine, Conversion};
use super::error::{DataError, DataResult};
use crate::graph::types::{Dim, TensorType, elem_name};
use crate::onnx::tensor_proto::DataType;
use crate::wire::is_float;

/// An input of the graph that data is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub elem: i32,
    /// The size of the axis that counts samples; `None` when nothing is known of the shape.
    pub batch: Option<Dim>,
    /// The position of that axis. In the data it is the first.
    pub axis: usize,
    /// The other axes; `None` when nothing is known of the shape.
    pub row: Option<Vec<Dim>>,
    /// Integers must be at least 0 and below this: the number of classes of a label, the size of an embedding.
    pub below: Option<u64>,
    /// A label that may stand there all the same, since the loss ignores it.
    pub ignored: Option<i64>,
}

impl Input {
    /// From its declared type and the axis that counts samples.
    pub fn new(name: &str, declared: &TensorType, batch_axis: usize) -> Self {
        let mut row = declared.dims.clone();
        let batch = row.as_mut().and_then(|dims| (batch_axis < dims.len()).then(|| dims.remove(batch_axis)));
        Input { name: name.to_owned(), elem: declared.elem, batch, axis: batch_axis, row, below: None, ignored: None }
    }

    /// Type and shape as the graph has them, such as `float[N, 3, 32, 32]`, and where samples are not along the first axis, that.
    fn describe(&self) -> String {
        let dims = self.row.as_ref().map(|row| {
            let mut dims = row.clone();
            dims.splice(self.axis.min(row.len())..self.axis.min(row.len()), self.batch.clone());
            dims
        });
        let samples = match self.axis {
            0 => String::new(),
            axis => format!(" with the samples along axis {axis} (in the data they come first: transpose it)"),
        };
        format!("{}{samples}", TensorType { elem: self.elem, dims })
    }

    fn wants_float(&self) -> bool {
        is_float(self.elem)
    }
}

/// Mean and standard deviation that values are brought to 0 and 1 from: `x ↦ (x − mean) / std`, for bytes with `x / 255` for `x`.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// The input; `None` where there is only one that it can be meant for.
    pub input: Option<String>,
    /// One for all channels, or one for each.
    pub mean: Vec<f64>,
    /// As many; none is 0.
    pub std: Vec<f64>,
}

impl Normalize {
    /// Reads `[INPUT=]MEAN,STD` or, for channels of their own, `[INPUT=]MEAN,…,STD,…` with all means first.
    ///
    /// # Errors
    /// A sentence that says what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (input, numbers) = match text.rsplit_once('=') {
            Some((input, numbers)) => (Some(input.to_owned()), numbers),
            None => (None, text),
        };
        let parse = |n: &str| n.trim().parse().ok().filter(|n: &f64| n.is_finite()).ok_or(n.to_owned());
        let values: Result<Vec<f64>, String> = numbers.split(',').map(parse).collect();
        let values = values.map_err(|n| format!("{n:?} is no number; write MEAN,STD such as 0.286,0.353"))?;
        if !values.len().is_multiple_of(2) {
            let n = values.len();
            return Err(format!(
                "these are {n} numbers; write MEAN,STD, or a mean for each channel and then as many STD"
            ));
        }
        let (mean, std) = values.split_at(values.len() / 2);
        if std.iter().any(|s| *s <= 0.0) {
            return Err("a standard deviation must be above 0; the second half of the numbers are these".into());
        }
        Ok(Normalize { input, mean: mean.to_vec(), std: std.to_vec() })
    }
}

/// Reads `INPUT=ARRAY`, the value of `--map`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_map(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((input, array)) if !input.is_empty() && !array.is_empty() => Ok((input.to_owned(), array.to_owned())),
        _ => Err("write INPUT=ARRAY: the graph's input, and the array that it takes, such as x=images".into()),
    }
}

/// The conversion of an array for an input, and what is to be said of it.
pub(super) fn conversion(
    array: &Array,
    input: &Input,
    normalize: Option<&Normalize>,
    sizes: &HashMap<String, u64>,
) -> Result<(Conversion, Vec<String>), String> {
    let field = &array.field;
    let mut notes = Vec::new();
    let mut conversion = Conversion::none(array);
    if let Some(dims) = &input.row {
        let known = |d: &Dim| match d {
            Dim::Symbol(s) => sizes.get(&**s).map_or_else(|| d.clone(), |n| Dim::Known(*n)),
            d => d.clone(),
        };
        let dims: Vec<Dim> = dims.iter().map(known).collect();
        if let Some((row, order, note)) = shape(&field.row, &dims)? {
            (conversion.row, conversion.order) = (row, order);
            notes.push(note);
        }
    }
    let to = DataType::try_from(input.elem).unwrap_or_default();
    conversion.to = if to == DataType::Undefined { field.elem } else { to };
    let (affine, note) = values(field, input, &conversion, normalize)?;
    conversion.affine = affine;
    notes.extend(note);
    Ok((conversion, notes))
}

type Reshaped = (Vec<usize>, Option<Vec<usize>>, String);

/// How rows of this shape fill these axes; `None` where they do as they are.
fn shape(row: &[usize], dims: &[Dim]) -> Result<Option<Reshaped>, String> {
    if fits(row, dims) {
        return Ok(None);
    }
    let as_one = |size: &[usize]| size.iter().map(|n| n.to_string()).collect::<Vec<_>>().join("×");
    // Axes of size 1 carry nothing.
    let longer: Vec<usize> = row.iter().copied().filter(|n| *n != 1).collect();
    let wanted: Vec<Dim> = dims.iter().filter(|d| **d != Dim::Known(1)).cloned().collect();
    if fits(&longer, &wanted) {
        let mut sizes = longer.iter();
        let filled = dims.iter().map(|d| if *d == Dim::Known(1) { 1 } else { sizes.next().copied().unwrap_or(1) });
        let filled: Vec<usize> = filled.collect();
        let note = format!("rows of {} are taken as {}", name_of(row), name_of(&filled));
        return Ok(Some((filled, None, note)));
    }
    if let ([a, b, c], [_, _, _]) = (row, dims) {
        let is_channels = |n: usize| matches!(n, 1 | 3 | 4);
        let first = fits(&[*c, *a, *b], dims) && is_channels(*c);
        let last = fits(&[*b, *c, *a], dims) && is_channels(*a);
        match (first, last) {
            (true, false) => {
                let order = (0..a * b * c).map(|t| (t % (a * b)) * c + t / (a * b)).collect();
                let note = format!("the channels, the last axis of {}, become the first", as_one(row));
                return Ok(Some((vec![*c, *a, *b], Some(order), note)));
            }
            (false, true) => {
                let order = (0..a * b * c).map(|t| (t % a) * (b * c) + t / a).collect();
                let note = format!("the channels, the first axis of {}, become the last", as_one(row));
                return Ok(Some((vec![*b, *c, *a], Some(order), note)));
            }
            _ => {}
        }
    }
    let count = row.iter().product::<usize>();
    match dims {
        // With more than two axes it is open which order was meant.
        [Dim::Known(n)] if u64::try_from(count) == Ok(*n) && longer.len() <= 2 => {
            Ok(Some((vec![count], None, format!("rows of {} are flattened to {count}", as_one(row)))))
        }
        _ => {
            let want: Vec<String> = dims.iter().map(ToString::to_string).collect();
            Err(format!("a row is {}, and the graph takes rows of [{}]", name_of(row), want.join(", ")))
        }
    }
}

fn name_of(row: &[usize]) -> String {
    format!("{row:?}")
}

fn fits(row: &[usize], dims: &[Dim]) -> bool {
    let same = |(size, dim): (&usize, &Dim)| dim.known().is_none_or(|n| u64::try_from(*size) == Ok(n));
    row.len() == dims.len() && row.iter().zip(dims).all(same)
}

type Scaled = (Option<Affine>, Option<String>);

/// How values of the array's type become values of the input's.
fn values(
    field: &Field,
    input: &Input,
    conversion: &Conversion,
    normalize: Option<&Normalize>,
) -> Result<Scaled, String> {
    let (from, to) = (field.elem, conversion.to);
    let name = |t: DataType| elem_name(t as i32);
    let from_float = is_float(from as i32);
    if !input.wants_float() {
        return match (from == to, from_float) {
            (true, _) => Ok((None, None)),
            (false, true) => Err(format!("{} is not turned into {}; store it as integers", name(from), name(to))),
            (false, false) => Ok((None, Some(format!("{} becomes {}, each value the same", name(from), name(to))))),
        };
    }
    let pixels = from == DataType::Uint8 && (field.row.len() >= 2 || normalize.is_some());
    if from == DataType::Uint8 && !pixels {
        return Err(
            "bytes may be pixels or numbers; --normalize 0,1 says that they are pixels, to be divided by 255, and numbers \
             are stored as float32 or int32"
                .into(),
        );
    }
    if let Some(normalize) = normalize {
        // Images are [C, H, W]; [H, W, C] where only the last axis can be channels.
        let channels = channel_axis(&conversion.row).and_then(|axis| conversion.row.get(axis).copied()).unwrap_or(1);
        let given = normalize.mean.len();
        if given != 1 && given != channels {
            return Err(format!("--normalize has {given} means, and the rows have {channels} channels"));
        }
        let inner = channel_axis(&conversion.row).and_then(|axis| conversion.row.get(axis + 1..));
        let affine = Affine {
            scale: if pixels { 1.0 / 255.0 } else { 1.0 },
            mean: normalize.mean.clone(),
            std: normalize.std.clone(),
            inner: inner.map_or(1, |sizes| sizes.iter().product()),
        };
        let x = if pixels { "x / 255" } else { "x" };
        let list = |values: &[f64]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (mean, std) = (list(&affine.mean), list(&affine.std));
        let note = format!("{} x becomes {} ({x} − [{mean}]) / [{std}]", name(from), name(to));
        return Ok((Some(affine), Some(note)));
    }
    if pixels {
        let affine = Affine { scale: 1.0 / 255.0, mean: vec![0.0], std: vec![1.0], inner: 1 };
        return Ok((Some(affine), Some(format!("uint8 x becomes {} x / 255", name(to)))));
    }
    let note = match (from == to, from_float) {
        (true, _) => None,
        (false, true) => Some(format!("{} becomes {}, rounded where it must be", name(from), name(to))),
        (false, false) => Some(format!("{} becomes {}, each value the same", name(from), name(to))),
    };
    Ok((None, note))
}

/// The axis of a row that counts channels: the first of three, or the last where only that is 1, 3 or 4.
pub(super) fn channel_axis(row: &[usize]) -> Option<usize> {
    match row {
        [first, _, last] if matches!(last, 1 | 3 | 4) && !matches!(first, 1 | 3 | 4) => Some(2),
        [_, _, _] => Some(0),
        _ => None,
    }
}

/// Arrays for all inputs, in the order of the inputs, with their conversions; arrays that no input takes are named in a note.
pub(super) fn fit(
    mut arrays: Vec<Array>,
    inputs: &[Input],
    normalize: &[Normalize],
    notes: &mut Vec<String>,
) -> DataResult<Vec<(Array, Conversion)>> {
    let floats: Vec<&str> = inputs.iter().filter(|i| i.wants_float()).map(|i| i.name.as_str()).collect();
    for n in normalize {
        let meant = match &n.input {
            Some(name) => floats.contains(&name.as_str()),
            None => floats.len() == 1,
        };
        if !meant {
            return Err(DataError::Options(format!(
                "--normalize {}is for one of the inputs that are floating point, and these are {floats:?}; write \
                 --normalize INPUT=MEAN,STD",
                n.input.as_ref().map(|i| format!("{i}=… ")).unwrap_or_default()
            )));
        }
    }
    let mut sizes = HashMap::new();
    let mut out = Vec::new();
    let mut missing = Vec::new();
    for input in inputs {
        let Some(place) = arrays.iter().position(|a| a.field.name == input.name) else {
            missing.push(input);
            continue;
        };
        let array = arrays.remove(place);
        let of_input = |n: &&Normalize| match &n.input {
            Some(name) => *name == input.name,
            None => input.wants_float(),
        };
        let misfit = |problem| DataError::Misfit {
            array: array.field.name.clone(),
            given: array.field.describe(),
            input: input.name.clone(),
            wanted: input.describe(),
            problem,
        };
        let fitted = conversion(&array, input, normalize.iter().rev().find(of_input), &sizes).map_err(misfit)?;
        let (conversion, said) = fitted;
        for (dim, size) in input.row.iter().flatten().zip(&conversion.row) {
            if let Dim::Symbol(symbol) = dim {
                sizes.entry(symbol.to_string()).or_insert(*size as u64);
            }
        }
        notes.extend(said.into_iter().map(|note| format!("{}: {note}", input.name)));
        out.push((array, conversion));
    }
    if let Some(input) = missing.first() {
        return Err(DataError::Missing {
            input: input.name.clone(),
            wanted: input.describe(),
            advice: advice(&missing, &arrays),
        });
    }
    let left: Vec<String> = arrays.iter().map(|a| format!("{:?}", a.field.name)).collect();
    if !left.is_empty() {
        notes.push(format!("the data's {} {} not used", left.join(", "), if left.len() == 1 { "is" } else { "are" }));
    }
    Ok(out)
}

/// What to do about inputs that no array is named after.
fn advice(missing: &[&Input], left: &[Array]) -> String {
    if left.is_empty() {
        return "add one to the data".into();
    }
    let names: Vec<String> = left.iter().map(|a| format!("{:?}, {}", a.field.name, a.field.describe())).collect();
    let names = names.join("; ");
    let suggested: Option<Vec<String>> = missing
        .iter()
        .map(|input| {
            let fitting = left.iter().filter(|a| conversion(a, input, None, &HashMap::new()).is_ok());
            let near = |a: &&Array| strsim::jaro_winkler(&a.field.name, &input.name);
            let nearest = fitting.max_by(|a, b| near(a).total_cmp(&near(b)))?;
            Some(format!("--map {}={}", input.name, nearest.field.name))
        })
        .collect();
    match suggested {
        Some(options) => format!("the data has {names}; if these are meant, say {}", options.join(" ")),
        None => format!("the data has {names}, and none of these fits; --map INPUT=ARRAY says which one is meant"),
    }
}
