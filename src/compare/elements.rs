//! Two tensors → how far apart they are.

use std::fmt;

use half::{bf16, f16};
use serde::Serialize;

use crate::engine::{Data, Tensor};
use crate::graph::types::elem_name;

/// What comes of comparing two values.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// They have the same type and shape; the numbers say how far apart they are.
    Compared(TensorDifference),
    /// Their shapes differ.
    Shapes {
        /// Of the first.
        a: Vec<usize>,
        /// Of the second.
        b: Vec<usize>,
    },
    /// Their element types differ.
    Types {
        /// Of the first, as ONNX names it.
        a: String,
        /// Of the second.
        b: String,
    },
    /// One of them cannot be compared: it is no tensor of numbers or bools.
    Skipped {
        /// Which, and what it is.
        why: String,
    },
}

impl Outcome {
    /// Whether nothing differs beyond the tolerance. What could not be compared does not agree.
    pub fn agrees(&self) -> bool {
        matches!(self, Outcome::Compared(d) if d.beyond == 0)
    }
}

impl fmt::Display for Outcome {
    /// In a few words, such as `max |Δ| 1.2e-7, relative 3e-7, 2 ulp; 5 of 20 differ`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Compared(d) if d.differing == 0 => {
                write!(f, "equal, {}{:?}", d.elem, d.shape)?;
                if d.nan_in_both > 0 { write!(f, ", {} NaN in both", d.nan_in_both) } else { Ok(()) }
            }
            Outcome::Compared(d) => {
                write!(f, "max |Δ| {:.3e}, relative {:.3e}", d.max_abs, d.max_rel)?;
                if let Some(ulp) = d.max_ulp {
                    write!(f, ", {ulp} ulp")?;
                }
                write!(f, "; {} of {} differ", d.differing, d.elements)
            }
            Outcome::Shapes { a, b } => write!(f, "shape {a:?} → {b:?}"),
            Outcome::Types { a, b } => write!(f, "type {a} → {b}"),
            Outcome::Skipped { why } => write!(f, "not compared: {why}"),
        }
    }
}

/// How far apart two tensors of one type and shape are.
///
/// Two NaN are equal, whatever their bits, and so are the two zeros. Where one side alone is NaN or infinite there is no distance:
/// such elements are counted in `special`, and the largest distances are those of the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDifference {
    /// Element type, as ONNX names it.
    pub elem: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// How many elements there are.
    pub elements: usize,
    /// How many of them differ at all.
    pub differing: usize,
    /// How many of them differ by more than the tolerance, `special` ones included.
    pub beyond: usize,
    /// How many are NaN or infinite on one side alone, or infinite with opposite signs.
    pub special: usize,
    /// How many are NaN on both sides.
    pub nan_in_both: usize,
    /// Largest |a − b|.
    pub max_abs: f64,
    /// Largest |a − b| / max(|a|, |b|).
    pub max_rel: f64,
    /// Largest distance in units in the last place: how many numbers of the type lie between, plus one. `None` where there are none:
    /// integers and bools.
    pub max_ulp: Option<u64>,
    /// The first `special` element, else the one with the largest |a − b|; `None` where none differs.
    pub worst: Option<Worst>,
}

/// An element of two tensors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worst {
    /// Where it stands.
    pub index: Vec<usize>,
    /// In the first tensor, with all the digits that tell it from its neighbours; `NaN`, `inf` or `-inf`.
    pub a: String,
    /// In the second.
    pub b: String,
}

/// Compares two tensors.
pub fn compare(a: &Tensor, b: &Tensor, tolerance: f64) -> Outcome {
    if a.elem() != b.elem() {
        return Outcome::Types { a: elem_name(a.elem() as i32), b: elem_name(b.elem() as i32) };
    }
    if a.shape() != b.shape() {
        return Outcome::Shapes { a: a.shape().to_vec(), b: b.shape().to_vec() };
    }
    let found = match (a.data(), b.data()) {
        (Data::Float16(a), Data::Float16(b)) => scan(a, b, tolerance),
        (Data::Bfloat16(a), Data::Bfloat16(b)) => scan(a, b, tolerance),
        (Data::Float(a), Data::Float(b)) => scan(a, b, tolerance),
        (Data::Double(a), Data::Double(b)) => scan(a, b, tolerance),
        (Data::Int8(a), Data::Int8(b)) => scan(a, b, tolerance),
        (Data::Int16(a), Data::Int16(b)) => scan(a, b, tolerance),
        (Data::Int32(a), Data::Int32(b)) => scan(a, b, tolerance),
        (Data::Int64(a), Data::Int64(b)) => scan(a, b, tolerance),
        (Data::Uint8(a), Data::Uint8(b)) => scan(a, b, tolerance),
        (Data::Uint16(a), Data::Uint16(b)) => scan(a, b, tolerance),
        (Data::Uint32(a), Data::Uint32(b)) => scan(a, b, tolerance),
        (Data::Uint64(a), Data::Uint64(b)) => scan(a, b, tolerance),
        (Data::Bool(a), Data::Bool(b)) => scan(a, b, tolerance),
        // Types that differ were told above.
        _ => return Outcome::Skipped { why: "element types without a common comparison".into() },
    };
    Outcome::Compared(found.finish(a))
}

/// A number whose distance from another of its type can be told.
trait Number: Copy {
    /// `None` where one side alone is NaN or infinite, or both are infinite with opposite signs.
    fn distance(self, other: Self) -> Option<Distance>;
    fn is_nan(self) -> bool {
        false
    }
    fn text(self) -> String;
}

struct Distance {
    abs: f64,
    /// The larger of the two magnitudes.
    scale: f64,
    ulp: Option<u64>,
}

/// |a − b| of two finite numbers.
fn distance(a: f64, b: f64, ulp: Option<u64>) -> Distance {
    Distance { abs: (a - b).abs().min(f64::MAX), scale: a.abs().max(b.abs()), ulp }
}

macro_rules! floats {
    ($($type:ty, $signed:ty, $text:literal);* $(;)?) => {$(
        impl Number for $type {
            fn distance(self, other: Self) -> Option<Distance> {
                let (a, b) = (f64::from(self), f64::from(other));
                if (a.is_nan() && b.is_nan()) || a == b {
                    return Some(Distance { abs: 0.0, scale: 0.0, ulp: Some(0) });
                }
                // As integers in the order of the numbers: negative ones count down from zero.
                let ordered = |x: Self| {
                    let bits = x.to_bits().cast_signed();
                    i128::from(if bits < 0 { <$signed>::MIN.wrapping_sub(bits) } else { bits })
                };
                let ulp = u64::try_from((ordered(self) - ordered(other)).unsigned_abs()).ok();
                (a.is_finite() && b.is_finite()).then(|| distance(a, b, ulp))
            }

            fn is_nan(self) -> bool {
                f64::from(self).is_nan()
            }

            fn text(self) -> String {
                format!($text, self)
            }
        }
    )*};
}

// The half types show as the float32 that they are, which is exact and longer than it need be.
floats! { f16, i16, "{}"; bf16, i16, "{}"; f32, i32, "{:?}"; f64, i64, "{:?}" }

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn distance(self, other: Self) -> Option<Distance> {
                let (a, b) = (i128::from(self), i128::from(other));
                let scale = a.unsigned_abs().max(b.unsigned_abs()) as f64;
                Some(Distance { abs: (a - b).unsigned_abs() as f64, scale, ulp: None })
            }

            fn text(self) -> String {
                self.to_string()
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64, bool);

#[derive(Default)]
struct Scan {
    differing: usize,
    beyond: usize,
    special: usize,
    nan_in_both: usize,
    max_abs: f64,
    max_rel: f64,
    max_ulp: Option<u64>,
    worst: Option<(usize, String, String)>,
}

fn scan<T: Number>(a: &[T], b: &[T], tolerance: f64) -> Scan {
    let mut found = Scan::default();
    let mut worst = None;
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        found.nan_in_both += usize::from(a.is_nan() && b.is_nan());
        let Some(distance) = a.distance(*b) else {
            if found.special == 0 {
                worst = Some(i);
            }
            found.special += 1;
            found.differing += 1;
            found.beyond += 1;
            continue;
        };
        found.max_ulp = found.max_ulp.max(distance.ulp);
        if distance.abs == 0.0 {
            continue;
        }
        let allowed = if distance.ulp.is_some() { tolerance * distance.scale.max(1.0) } else { 0.0 };
        found.differing += 1;
        // A tolerance that is no number allows nothing.
        let is_within = distance.abs <= allowed;
        found.beyond += usize::from(!is_within);
        if distance.abs > found.max_abs {
            found.max_abs = distance.abs;
            if found.special == 0 {
                worst = Some(i);
            }
        }
        found.max_rel = found.max_rel.max(distance.abs / distance.scale);
    }
    found.worst = worst.map(|i| (i, a[i].text(), b[i].text()));
    found
}

impl Scan {
    fn finish(self, tensor: &Tensor) -> TensorDifference {
        TensorDifference {
            elem: elem_name(tensor.elem() as i32),
            shape: tensor.shape().to_vec(),
            elements: tensor.len(),
            differing: self.differing,
            beyond: self.beyond,
            special: self.special,
            nan_in_both: self.nan_in_both,
            max_abs: self.max_abs,
            max_rel: self.max_rel,
            max_ulp: self.max_ulp,
            worst: self.worst.map(|(i, a, b)| Worst { index: place(i, tensor.shape()), a, b }),
        }
    }
}

/// The index of an element by its position in C order.
fn place(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let i = position % size.max(&1);
            position /= size.max(&1);
            i
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Element;

    fn of<T: Element>(a: &[T], b: &[T], tolerance: f64) -> TensorDifference {
        let tensor = |v: &[T]| Tensor::new(vec![v.len()], v.to_vec()).unwrap();
        match compare(&tensor(a), &tensor(b), tolerance) {
            Outcome::Compared(difference) => difference,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_step_to_the_next_number_is_one_ulp_in_every_type() {
        let next = 1.0f32.next_up();
        let found = of(&[1.0f32, 2.0], &[next, 2.0], 0.0);
        assert_eq!((found.max_ulp, found.differing, found.beyond), (Some(1), 1, 1));
        assert_eq!(found.max_abs, f64::from(f32::EPSILON));
        assert_eq!(found.max_rel, f64::from(f32::EPSILON) / f64::from(next));
        assert_eq!(found.worst, Some(Worst { index: vec![0], a: "1.0".into(), b: "1.0000001".into() }));
        assert_eq!(of(&[1.0f64], &[1.0f64.next_down()], 0.0).max_ulp, Some(1));
        assert_eq!(of(&[f16::ONE], &[f16::from_bits(f16::ONE.to_bits() + 1)], 0.0).max_ulp, Some(1));
        assert_eq!(of(&[bf16::ONE], &[bf16::from_bits(bf16::ONE.to_bits() + 3)], 0.0).max_ulp, Some(3));
    }

    #[test]
    fn the_distance_across_zero_counts_every_number_in_between() {
        let (least, zero) = (f32::from_bits(1), 0.0f32);
        assert_eq!(of(&[least], &[-least], 0.0).max_ulp, Some(2));
        assert_eq!(of(&[zero], &[-zero], 0.0).differing, 0);
        assert_eq!(of(&[-zero], &[least], 0.0).max_ulp, Some(1));
        assert_eq!(of(&[f64::MAX], &[f64::MIN], 0.0).max_ulp, Some(2 * f64::MAX.to_bits()));
        assert_eq!(of(&[f64::MAX], &[f64::MIN], 0.0).max_abs, f64::MAX);
    }

    #[test]
    fn nan_equals_nan_and_differs_from_all_else() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let found = of(&[nan, 1.0, nan, inf, inf, 1.0], &[-nan, nan, 1.0, inf, -inf, 1.5], 10.0);
        assert_eq!((found.nan_in_both, found.special, found.differing, found.beyond), (1, 3, 4, 3));
        assert_eq!((found.max_abs, found.max_ulp), (0.5, Some(1 << 22)));
        assert_eq!(found.worst, Some(Worst { index: vec![1], a: "1.0".into(), b: "NaN".into() }));
        assert_eq!(serde_json::to_value(&found).unwrap()["max_abs"], 0.5, "JSON has no infinite numbers");
    }

    #[test]
    fn a_tolerance_is_absolute_below_one_relative_above_and_for_floats_alone() {
        for (a, b, tolerance, beyond) in [
            (0.0, 1e-6, 1e-5, 0),
            (0.0, 1e-4, 1e-5, 1),
            (1e6, 1e6 + 1.0, 1e-5, 0),
            (1e6, 1e6 + 100.0, 1e-5, 1),
            (1.0, 2.0, f64::NAN, 1),
        ] {
            assert_eq!(of(&[a], &[b], tolerance).beyond, beyond, "{a} {b} {tolerance}");
        }
        let found = of(&[1_000_000i64, i64::MIN], &[1_000_001, i64::MAX], 1e-3);
        assert_eq!((found.beyond, found.max_ulp, found.max_abs), (2, None, 2f64.powi(64)));
        assert_eq!(of(&[true, false], &[true, true], 1.0).beyond, 1);
    }

    #[test]
    fn other_shapes_and_types_are_told_instead_of_compared() {
        let a = Tensor::new(vec![2, 3], vec![0f32; 6]).unwrap();
        let b = Tensor::new(vec![3, 2], vec![0f32; 6]).unwrap();
        let c = Tensor::new(vec![2, 3], vec![0f64; 6]).unwrap();
        assert_eq!(compare(&a, &b, 0.0), Outcome::Shapes { a: vec![2, 3], b: vec![3, 2] });
        assert_eq!(compare(&a, &c, 0.0), Outcome::Types { a: "float".into(), b: "double".into() });
        assert!(!compare(&a, &b, 1e9).agrees());
        let d = Tensor::new(vec![2, 3], vec![0.0, 0.0, 0.0, 0.0, 7.0, 0f32]).unwrap();
        let Outcome::Compared(found) = compare(&a, &d, 0.0) else { panic!("they compare") };
        assert_eq!(found.worst.unwrap().index, [1, 1]);
    }
}
