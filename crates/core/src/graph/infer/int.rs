//! The whole numbers that shapes are computed from, and their arithmetic. Nothing overflows: what would is unknown.

use std::sync::Arc;

use crate::graph::types::Dim;

/// An element of a small integer tensor: a number, the size that a symbol stands for, or nothing known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Int {
    Known(i64),
    Symbol(Arc<str>),
    Unknown,
}

impl Int {
    /// The number, when it is known.
    pub fn known(&self) -> Option<i64> {
        match self {
            Int::Known(n) => Some(*n),
            _ => None,
        }
    }

    /// As a dimension; negative numbers are none.
    pub fn to_dim(&self) -> Dim {
        match self {
            Int::Known(n) => u64::try_from(*n).map_or(Dim::Unknown, Dim::Known),
            Int::Symbol(s) => Dim::Symbol(s.clone()),
            Int::Unknown => Dim::Unknown,
        }
    }
}

impl From<&Dim> for Int {
    fn from(dim: &Dim) -> Self {
        match dim {
            Dim::Known(n) => i64::try_from(*n).map_or(Int::Unknown, Int::Known),
            Dim::Symbol(s) => Int::Symbol(s.clone()),
            Dim::Unknown => Int::Unknown,
        }
    }
}

fn number(n: Option<i64>) -> Int {
    n.map_or(Int::Unknown, Int::Known)
}

pub(super) fn add(x: &Int, y: &Int) -> Int {
    match (x, y) {
        (Int::Known(0), other) | (other, Int::Known(0)) => other.clone(),
        (Int::Known(m), Int::Known(n)) => number(m.checked_add(*n)),
        _ => Int::Unknown,
    }
}

pub(super) fn subtract(x: &Int, y: &Int) -> Int {
    match (x, y) {
        (other, Int::Known(0)) => other.clone(),
        (Int::Known(m), Int::Known(n)) => number(m.checked_sub(*n)),
        (Int::Symbol(s), Int::Symbol(t)) if s == t => Int::Known(0),
        _ => Int::Unknown,
    }
}

pub(super) fn multiply(x: &Int, y: &Int) -> Int {
    match (x, y) {
        (Int::Known(1), other) | (other, Int::Known(1)) => other.clone(),
        (Int::Known(0), _) | (_, Int::Known(0)) => Int::Known(0),
        (Int::Known(m), Int::Known(n)) => number(m.checked_mul(*n)),
        _ => Int::Unknown,
    }
}

/// Integers divide towards zero; floats must come out even to stay whole.
pub(super) fn divide(x: &Int, y: &Int, exact: bool) -> Int {
    match (x, y) {
        (other, Int::Known(1)) => other.clone(),
        (Int::Known(m), Int::Known(n)) if !exact || m.checked_rem(*n) == Some(0) => number(m.checked_div(*n)),
        _ => Int::Unknown,
    }
}

/// A symbol stands for a size, so it equals no negative number.
pub(super) fn equal(x: &Int, y: &Int) -> Int {
    match (x, y) {
        (Int::Known(m), Int::Known(n)) => Int::Known(i64::from(m == n)),
        (Int::Symbol(s), Int::Symbol(t)) if s == t => Int::Known(1),
        (Int::Symbol(_), Int::Known(n)) | (Int::Known(n), Int::Symbol(_)) if *n < 0 => Int::Known(0),
        _ => Int::Unknown,
    }
}
