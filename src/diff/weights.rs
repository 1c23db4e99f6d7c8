//! Elements of two initializers, compared by chunks: neither is ever in memory as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use super::change::ValuesChange;
use super::elements::{self, Stream};
use super::view::{Data, Tensor};
use crate::wire::{DataFile, Initializer, Model, external_files, fields::tensor as field};

/// Where the elements of one model's initializers are.
pub struct Store<'m> {
    bytes: &'m [u8],
    /// By location: the data file, or why it is not read.
    files: HashMap<String, Result<(PathBuf, u64), String>>,
    /// Why no external data is read at all.
    refused: Option<String>,
}

impl<'m> Store<'m> {
    /// Of a model. A data file that lies where it must not is a reason to leave external data alone, not to compare nothing.
    pub fn of(model: &'m Model) -> Self {
        let (found, refused) = match external_files(model) {
            Ok(files) => (files, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let file = |f: crate::wire::ExternalFile| {
            let place = match f.data {
                DataFile::Present { size } => Ok((f.path, size)),
                DataFile::Missing => Err(format!("the data file {} is not there", f.path.display())),
                DataFile::Unknown => Err("a model from a pipe has no folder for its data files".into()),
            };
            (f.location, place)
        };
        Store { bytes: &model.file.bytes, files: found.into_iter().map(file).collect(), refused }
    }

    /// The model's bytes.
    pub fn bytes(&self) -> &'m [u8] {
        self.bytes
    }

    fn stream<'x>(&'x self, tensor: &'x Tensor) -> Result<Stream<'x>, String> {
        let unreadable = || "elements of that type are not read".to_owned();
        match &tensor.data {
            Data::Stored(t) if t.external.is_empty() => Stream::inline(t, self.bytes).ok_or_else(unreadable),
            Data::Stored(t) => self.external(&|key| t.external.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())),
            Data::Decoded(t) => match Stream::decoded(t) {
                Some(stream) => Ok(stream),
                None => self.external(&|key| t.external_data.iter().find(|e| e.key() == key).map(|e| e.value())),
            },
            Data::Sparse(_) => Err("sparse tensors are compared as a whole".into()),
        }
    }

    fn external<'x>(&self, entry: &dyn Fn(&str) -> Option<&'x str>) -> Result<Stream<'static>, String> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        let location = entry("location").unwrap_or_default();
        let (path, size) = self
            .files
            .get(location)
            .cloned()
            .unwrap_or_else(|| Err(format!("nobody knows the data file {location:?}")))?;
        let number = |key| entry(key).filter(|v| !v.is_empty()).map(|v| v.trim().parse::<u64>().unwrap_or(u64::MAX));
        let offset = number("offset").unwrap_or(0);
        let length = number("length").unwrap_or(size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(format!("the data file {} is shorter than the tensor says", path.display()));
        }
        let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
        Stream::file(File::open(&path).map_err(failed)?, offset, length).map_err(failed)
    }
}

/// How far two tensors of one type and shape are apart; `None` where no element differs.
///
/// # Errors
/// Why the elements could not be read, as a clause.
pub fn compare(a: (&Store, &Tensor), b: (&Store, &Tensor)) -> Result<Option<ValuesChange>, String> {
    let data_type = match (&a.1.data, &b.1.data) {
        (Data::Sparse(x), Data::Sparse(y)) => {
            return Ok((x != y).then_some(NOT_NUMBERS));
        }
        (Data::Stored(t), _) => t.data_type,
        (Data::Decoded(t), _) => t.data_type(),
        _ => return Err("a sparse tensor became a dense one".into()),
    };
    let Some(bits) = elements::bits(data_type) else {
        return Ok((strings(a.0, a.1) != strings(b.0, b.1)).then_some(NOT_NUMBERS));
    };
    if is_same_bytes(a, b)? {
        return Ok(None);
    }
    let mut sums = Sums::default();
    let (mut left, mut right) = (a.0.stream(a.1)?, b.0.stream(b.1)?);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let (mut u, mut v) = (Vec::new(), Vec::new());
    let count = count(a.1).unwrap_or(u64::MAX).saturating_mul(elements::components(data_type));
    loop {
        left.next(&mut x).map_err(|e| e.to_string())?;
        right.next(&mut y).map_err(|e| e.to_string())?;
        if x.len() != y.len() {
            return Err("they hold different numbers of bytes".into());
        }
        if x.is_empty() {
            break;
        }
        u.clear();
        v.clear();
        if elements::numbers(data_type, &x, &mut u).is_none() || elements::numbers(data_type, &y, &mut v).is_none() {
            return Err("elements of that type are not read".into());
        }
        // Bits of the last byte that belong to no element.
        let left_over = usize::try_from(count.saturating_sub(sums.elements)).unwrap_or(usize::MAX);
        u.truncate(left_over);
        v.truncate(left_over);
        let wide = elements::is_wide(data_type).then_some((&x[..], &y[..]));
        sums.add(&u, &v, wide, usize::try_from(bits / 8).unwrap_or(8));
    }
    Ok(sums.finish())
}

/// What is said of tensors whose elements are no numbers.
const NOT_NUMBERS: ValuesChange =
    ValuesChange { elements: 0, different: 0, max_abs: None, mean_abs: None, cosine: None };

fn count(tensor: &Tensor) -> Option<u64> {
    let dims = match &tensor.data {
        Data::Stored(t) => &t.dims,
        Data::Decoded(t) => &t.dims,
        Data::Sparse(_) => return None,
    };
    dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?))
}

fn is_same_bytes(a: (&Store, &Tensor), b: (&Store, &Tensor)) -> Result<bool, String> {
    if let (Data::Stored(x), Data::Stored(y)) = (&a.1.data, &b.1.data)
        && let (Some(x), Some(y)) = (raw(x, a.0.bytes), raw(y, b.0.bytes))
    {
        return Ok(x == y);
    }
    let (mut left, mut right) = (a.0.stream(a.1)?, b.0.stream(b.1)?);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    loop {
        left.next(&mut x).map_err(|e| e.to_string())?;
        right.next(&mut y).map_err(|e| e.to_string())?;
        if x != y {
            return Ok(false);
        }
        if x.is_empty() {
            return Ok(true);
        }
    }
}

/// The only payload of a tensor, where that is `raw_data`.
fn raw<'m>(tensor: &Initializer, bytes: &'m [u8]) -> Option<&'m [u8]> {
    match tensor.payload.as_slice() {
        [(field::RAW_DATA, range)] if tensor.external.is_empty() => bytes.get(range.clone()),
        _ => None,
    }
}

/// Elements that are strings, one by one.
fn strings<'x>(store: &'x Store, tensor: &'x Tensor) -> Vec<&'x [u8]> {
    match &tensor.data {
        Data::Stored(t) => t.payload.iter().filter_map(|(_, range)| store.bytes.get(range.clone())).collect(),
        Data::Decoded(t) => t.string_data.iter().map(|s| &s[..]).collect(),
        Data::Sparse(message) => vec![message],
    }
}

#[derive(Default)]
struct Sums {
    elements: u64,
    different: u64,
    finite: u64,
    max: f64,
    sum: f64,
    dot: f64,
    norm_a: f64,
    norm_b: f64,
}

impl Sums {
    /// `wide` are the bytes of integers that f64 does not hold.
    fn add(&mut self, a: &[f64], b: &[f64], wide: Option<(&[u8], &[u8])>, width: usize) {
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            let is_same = match wide {
                Some((p, q)) => p[i * width..(i + 1) * width] == q[i * width..(i + 1) * width],
                None => x == y || (x.is_nan() && y.is_nan()),
            };
            self.different += u64::from(!is_same);
            let delta = (y - x).abs();
            if delta.is_finite() {
                self.finite += 1;
                self.max = self.max.max(delta);
                self.sum += delta;
                self.dot += x * y;
                self.norm_a += x * x;
                self.norm_b += y * y;
            }
        }
        self.elements += a.len() as u64;
    }

    fn finish(self) -> Option<ValuesChange> {
        let some = |v: f64| (self.finite > 0 && v.is_finite()).then_some(v);
        let norms = self.norm_a.sqrt() * self.norm_b.sqrt();
        let cosine = (norms > 0.0).then(|| (self.dot / norms).clamp(-1.0, 1.0));
        (self.different > 0).then(|| ValuesChange {
            elements: self.elements,
            different: self.different,
            max_abs: some(self.max),
            mean_abs: some(self.sum / self.finite.max(1) as f64),
            cosine: cosine.and_then(some),
        })
    }
}
