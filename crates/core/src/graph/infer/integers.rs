//! Shape arithmetic: what exporters write to compute shapes (Shape → Gather → Mul → Concat …), evaluated as far as it is known.

use std::rc::Rc;

use super::dims::{position, product, slice_length};
use super::int::{Int, add, divide, equal, multiply, subtract};
use super::site::{Axes, Known, Site};
use crate::graph::{Graph, ValueId, tensor_elements};

/// Tensors of more elements than this are no shapes.
pub(super) const LIMIT: usize = 64;

/// Float constants of more elements than this take no part in shape arithmetic.
const FLOAT_LIMIT: usize = 8;

/// The elements of a small constant, where all of them are whole.
fn read_constant(graph: &Graph<'_>, value: ValueId) -> Option<Rc<[Int]>> {
    if let Some(initializer) = graph.initializer(value) {
        let limit = if initializer.is_float() { FLOAT_LIMIT } else { LIMIT } as u64;
        if initializer.element_count().is_none_or(|n| n > limit) {
            return None;
        }
    }
    // A conversion to i64 saturates, which is right for the largest numbers, the "to the end" of Slice.
    let whole = |v: f64| (v.fract() == 0.0).then_some(Int::Known(v as i64));
    graph.constant(value)?.into_iter().map(whole).collect()
}

/// What is known of the elements of a small integer tensor.
pub(super) fn integers_of(known: &Known<'_, '_>, value: ValueId) -> Option<Rc<[Int]>> {
    match &known.integers[value.index()] {
        Some(found) => Some(found.clone()),
        None => known.graph.initializer(value).and_then(|_| read_constant(known.graph, value)),
    }
}

/// The same, all of them known.
pub(super) fn known_numbers(known: &Known<'_, '_>, value: ValueId) -> Option<Vec<i64>> {
    integers_of(known, value)?.iter().map(Int::known).collect()
}

/// Whether an operator takes part in shape arithmetic.
pub(super) fn takes_part(op: &str) -> bool {
    matches!(
        op,
        "Abs"
            | "Add"
            | "Cast"
            | "CastLike"
            | "Ceil"
            | "Concat"
            | "Constant"
            | "ConstantOfShape"
            | "Div"
            | "Equal"
            | "Floor"
            | "Gather"
            | "Identity"
            | "Max"
            | "Min"
            | "Mod"
            | "Mul"
            | "Neg"
            | "Range"
            | "ReduceProd"
            | "Reshape"
            | "Round"
            | "Shape"
            | "Size"
            | "Slice"
            | "Squeeze"
            | "Sub"
            | "Unsqueeze"
            | "Where"
    )
}

/// What is known of the elements of a node's first output.
pub(super) fn evaluate(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    match site.node.op_type() {
        "Constant" => site.known.graph.output(site.id, 0).and_then(|v| read_constant(site.known.graph, v)),
        "Shape" => {
            let dims = site.dims(0)?;
            let (start, end) = shape_range(site, dims.len());
            Some(dims.get(start..end)?.iter().map(Int::from).collect())
        }
        "Size" => Some(Rc::new([Int::from(&product(site.dims(0)?))])),
        "Identity" | "Unsqueeze" | "Squeeze" | "Reshape" | "Ceil" | "Floor" | "Round" | "CastLike" => site.integers(0),
        "Cast" => site.integers(0).filter(|_| site.elem_attribute("to") != Some(BOOL)),
        "Concat" => concat(site),
        "Gather" => gather(site),
        "Slice" => slice(site),
        "ConstantOfShape" => constant_of_shape(site),
        "Range" => range(site),
        "ReduceProd" => reduce_product(site),
        "Where" => choose(site),
        "Abs" => each(site, |n| n.checked_abs()),
        "Neg" => each(site, |n| n.checked_neg()),
        op => arithmetic(op, site),
    }
}

const BOOL: i32 = crate::onnx::tensor_proto::DataType::Bool as i32;

/// The part of the shape that Shape takes, after its attributes `start` and `end` (opset 15).
pub(super) fn shape_range(site: &Site<'_, '_>, rank: usize) -> (usize, usize) {
    let size = i64::try_from(rank).unwrap_or(i64::MAX);
    let clamp = |v: i64| usize::try_from((if v < 0 { v.saturating_add(size) } else { v }).clamp(0, size)).unwrap_or(0);
    let end = clamp(site.int("end", size));
    (clamp(site.int("start", 0)).min(end), end)
}

fn concat(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    let mut all = Vec::new();
    for slot in 0..site.input_count() {
        let [length] = site.dims(slot)? else { return None };
        match site.integers(slot) {
            Some(part) => all.extend(part.iter().cloned()),
            None => {
                let length = usize::try_from(length.known()?).ok().filter(|n| *n <= LIMIT)?;
                all.resize(all.len() + length, Int::Unknown);
            }
        }
        if all.len() > LIMIT {
            return None;
        }
    }
    all.iter().any(|i| *i != Int::Unknown).then(|| all.into())
}

fn gather(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    let data = site.integers(0)?;
    if site.dims(0)?.len() != 1 {
        return None;
    }
    site.numbers(1)?.iter().map(|i| Some(data[position(*i, data.len())?].clone())).collect()
}

fn slice(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    let data = site.integers(0)?;
    if site.dims(0)?.len() != 1 {
        return None;
    }
    let [(_, start, end, step)] = super::select::slice_parts(site)?[..] else { return None };
    let size = i64::try_from(data.len()).ok()?;
    let length = slice_length(size, start, end, step)?;
    let first = if start < 0 { start.saturating_add(size) } else { start }.clamp(0, size - i64::from(step < 0));
    (0..length)
        .map(|k| {
            let at = i64::try_from(k).ok()?.checked_mul(step)?.checked_add(first)?;
            data.get(usize::try_from(at).ok()?).cloned()
        })
        .collect()
}

fn constant_of_shape(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    let shape = site.numbers(0)?;
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))?;
    let value = match site.attribute("value").and_then(|a| a.t.as_ref()) {
        Some(tensor) => *tensor_elements(tensor, 1)?.first()?,
        None => 0.0,
    };
    (count <= LIMIT && value.fract() == 0.0).then(|| vec![Int::Known(value as i64); count].into())
}

fn range(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    let (start, limit, step) = (site.number(0)?, site.number(1)?, site.number(2)?);
    let count = range_length(start, limit, step).filter(|n| *n <= LIMIT as u64)?;
    (0..count).map(|k| Some(Int::Known(start.checked_add(i64::try_from(k).ok()?.checked_mul(step)?)?))).collect()
}

/// Number of elements of Range: `max(⌈(limit − start) / step⌉, 0)`.
pub(super) fn range_length(start: i64, limit: i64, step: i64) -> Option<u64> {
    let (from, to) = if step > 0 { (start, limit) } else { (limit, start) };
    let span = to.checked_sub(from)?.max(0);
    (step != 0).then(|| span.unsigned_abs().div_ceil(step.unsigned_abs()))
}

fn reduce_product(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    let data = site.integers(0)?;
    let over_all = match site.axes(1) {
        Axes::Known(axes) => site.dims(0)?.len() == 1 && axes.len() == 1,
        Axes::Missing => site.int("noop_with_empty_axes", 0) == 0,
        Axes::Unknown => false,
    };
    over_all.then(|| Rc::from([data.iter().fold(Int::Known(1), |n, d| multiply(&n, d))]))
}

/// Whether every input is a vector or a scalar, so that broadcasting is a matter of lengths.
fn is_flat(site: &Site<'_, '_>) -> bool {
    (0..site.input_count()).all(|slot| site.dims(slot).is_some_and(|d| d.len() <= 1))
}

/// Where: known where the condition is, and where both choices agree.
fn choose(site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    if !is_flat(site) {
        return None;
    }
    let (a, b) = (site.integers(1)?, site.integers(2)?);
    let condition = site.integers(0);
    let length = a.len().max(b.len()).max(condition.as_ref().map_or(0, |c| c.len()));
    let pick = |list: &[Int], i: usize| if list.len() == 1 { list.first() } else { list.get(i) }.cloned();
    (0..length)
        .map(|i| {
            let (a, b) = (pick(&a, i)?, pick(&b, i)?);
            Some(match condition.as_ref().and_then(|c| pick(c, i)) {
                Some(Int::Known(0)) => b,
                Some(Int::Known(_)) => a,
                _ if a == b => a,
                _ => Int::Unknown,
            })
        })
        .collect()
}

fn each(site: &Site<'_, '_>, f: impl Fn(i64) -> Option<i64>) -> Option<Rc<[Int]>> {
    let apply = |i: &Int| i.known().and_then(&f).map_or(Int::Unknown, Int::Known);
    Some(site.integers(0)?.iter().map(apply).collect())
}

fn arithmetic(op: &str, site: &Site<'_, '_>) -> Option<Rc<[Int]>> {
    if site.input_count() != 2 || !is_flat(site) {
        return None;
    }
    let (a, b) = (site.integers(0)?, site.integers(1)?);
    let exact = site.known.types[site.value(0)?.index()].is_float() != Some(false);
    let f = |x: &Int, y: &Int| match op {
        "Add" => add(x, y),
        "Sub" => subtract(x, y),
        "Mul" => multiply(x, y),
        "Div" => divide(x, y, exact),
        "Equal" => equal(x, y),
        _ => match (op, x.known(), y.known()) {
            ("Min", Some(m), Some(n)) => Int::Known(m.min(n)),
            ("Max", Some(m), Some(n)) => Int::Known(m.max(n)),
            // Mod takes the divisor's sign; with equal signs that is the remainder.
            ("Mod", Some(m), Some(n)) if m >= 0 && n > 0 => Int::Known(m % n),
            _ => Int::Unknown,
        },
    };
    match (a.len(), b.len()) {
        (m, n) if m == n => Some(a.iter().zip(b.iter()).map(|(x, y)| f(x, y)).collect()),
        (_, 1) => Some(a.iter().map(|x| f(x, &b[0])).collect()),
        (1, _) => Some(b.iter().map(|y| f(&a[0], y)).collect()),
        _ => None,
    }
}

impl Known<'_, '_> {
    /// Notes what is known of the elements of a node's first output.
    pub fn note_integers(&mut self, value: ValueId, integers: Option<Rc<[Int]>>) {
        self.integers[value.index()] = integers.filter(|i| i.len() <= LIMIT);
    }
}
