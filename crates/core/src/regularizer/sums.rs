//! Long sums in stages, because runtimes add float32 one by one.

use super::emit::{Elem, Emitter, Tensor};
use crate::graph::types::Dim;

impl Emitter {
    /// ReduceMean or ReduceSum to a scalar, in stages from the last axis to the first where the sum is long.
    ///
    /// ONNX Runtime's CPU provider adds float32 one by one in a few lanes: the mean of 33 million equal numbers over all axes at once
    /// comes out 3 % wrong. In stages no sum is longer than a dimension, and all stages but the first are small.
    pub fn reduce_all(&mut self, label: &str, op: &str, x: &Tensor) -> Tensor {
        let rank = x.dims().map_or(0, Vec::len);
        let is_short = self.length(x, 0..usize::MAX).is_some_and(|n| n <= LONGEST_SUM);
        if is_short || rank == 0 {
            return self.reduce(label, op, x, None, false);
        }
        self.in_stages(label, op, x, &(0..rank).collect::<Vec<_>>())
    }

    /// ReduceSum over some axes (counted from the front), in stages as in [`Emitter::reduce_all`] where the sum is long.
    pub fn sum(&mut self, label: &str, x: &Tensor, axes: &[i64]) -> Tensor {
        let mut within: Vec<usize> = axes.iter().filter_map(|a| usize::try_from(*a).ok()).collect();
        within.sort_unstable();
        let is_short = self.length(x, within.iter().copied()).is_some_and(|n| n <= LONGEST_SUM);
        if is_short || within.is_empty() || within.len() != axes.len() {
            return self.reduce(label, "ReduceSum", x, Some(axes), false);
        }
        self.in_stages(label, "ReduceSum", x, &within)
    }

    /// Sums over ascending axes, as many trailing ones at a time as make a short sum.
    fn in_stages(&mut self, label: &str, op: &str, x: &Tensor, axes: &[usize]) -> Tensor {
        let (mut partial, mut left) = (x.clone(), axes);
        while let Some((last, before)) = left.split_last() {
            let is_short = |from: &usize| {
                let stage = left[*from..].iter().copied();
                self.length(&partial, stage).is_some_and(|n| n <= LONGEST_SUM)
            };
            let from = (0..before.len()).rev().take_while(is_short).last();
            let name =
                |first: usize| if first == 0 { label.to_owned() } else { format!("{label}_axis{}", left[first]) };
            partial = match from {
                Some(from) => {
                    let stage: Vec<i64> = left[from..].iter().map(|a| *a as i64).collect();
                    self.reduce(&name(from), op, &partial, Some(&stage), false)
                }
                None => self.reduce_axis(&name(before.len()), op, &partial, *last),
            };
            left = &left[..from.unwrap_or(before.len())];
        }
        partial
    }

    /// ReduceMean or ReduceSum over one axis; in stages where it is the last one and known to be long.
    fn reduce_axis(&mut self, label: &str, op: &str, x: &Tensor, axis: usize) -> Tensor {
        let last = x.dims().filter(|dims| axis + 1 == dims.len()).and_then(|dims| dims[axis].known());
        match last.filter(|n| *n > LONGEST_SUM) {
            None => self.reduce(label, op, x, Some(&[axis as i64]), false),
            Some(n) if op == "ReduceMean" => {
                let sum = self.long_sum(&format!("{label}_sum"), x, n);
                let elem = if x.ty.elem == Elem::F64.onnx() { Elem::F64 } else { Elem::F32 };
                let weight = self.scalar(&format!("one_over_{n}"), elem, 1.0 / n as f64);
                self.binary(label, "Mul", &sum, &weight)
            }
            Some(n) => self.long_sum(label, x, n),
        }
    }

    /// The sum over a last axis of length `n`, folded to two axes that are summed one after the other.
    ///
    /// What no two factors make up (a prime length) is summed as a head that they do make up, and a tail that is short.
    fn long_sum(&mut self, label: &str, x: &Tensor, n: u64) -> Tensor {
        let (outer, inner) = factors(n);
        let last = x.dims().map_or(0, |dims| dims.len().saturating_sub(1));
        let tail = n - outer * inner;
        let head_label = if tail == 0 { label.to_owned() } else { format!("{label}_head{outer}") };
        let head =
            if tail == 0 { x.clone() } else { self.slice(&format!("{label}_first{}", n - tail), x, last, 0..n - tail) };

        let mut dims = x.dims().cloned().unwrap_or_default();
        dims.truncate(last);
        dims.extend([outer, inner].map(Dim::Known));
        let mut shape = vec![0; last];
        shape.extend([outer, inner].map(u64::cast_signed));
        let folded = self.reshape(&format!("{label}_{outer}x{inner}"), &head, &shape, dims);
        let partial = self.reduce_axis(&format!("{label}_{outer}"), "ReduceSum", &folded, last + 1);
        let sum = self.reduce_axis(&head_label, "ReduceSum", &partial, last);
        if tail == 0 {
            return sum;
        }
        let rest = self.slice(&format!("{label}_last{tail}"), x, last, n - tail..n);
        let rest = self.reduce_axis(&format!("{label}_tail{tail}"), "ReduceSum", &rest, last);
        self.binary(label, "Add", &sum, &rest)
    }

    /// The product of some dimensions, where they are known.
    fn length(&self, x: &Tensor, axes: impl Iterator<Item = usize>) -> Option<u64> {
        let dims = x.dims()?;
        let mut axes = axes.take_while(|i| *i < dims.len());
        axes.try_fold(1u64, |n, i| n.checked_mul(dims[i].known()?))
    }
}

/// Longest sum in float32 that is left to one operator: ONNX Runtime keeps it to 1e-6 even when all terms are equal.
pub(super) const LONGEST_SUM: u64 = 1024;

/// The lengths of sums, outer first, that one after the other make up a sum of length `n`; `None` where factors do not.
///
/// The innermost is as long as may be, so that what is left is small.
pub(super) fn stages(n: u64) -> Option<Vec<u64>> {
    if n <= LONGEST_SUM {
        return Some(vec![n]);
    }
    let inner = (64..=LONGEST_SUM).rev().find(|k| n.is_multiple_of(*k))?;
    let mut stages = stages(n / inner)?;
    stages.push(inner);
    Some(stages)
}

/// Two factors, of which the second is no longer than [`LONGEST_SUM`], that make up `n`, or all but a tail shorter than the second.
fn factors(n: u64) -> (u64, u64) {
    let largest = n.isqrt().min(LONGEST_SUM);
    // Smaller ones would leave sums nearly as long as before.
    let inner = (8..=largest).rev().find(|k| n.is_multiple_of(*k)).unwrap_or(largest);
    (n / inner, inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::types::TensorType;

    #[test]
    fn two_factors_make_up_all_of_a_length_but_a_short_tail() {
        for n in LONGEST_SUM + 1..200_000 {
            let (outer, inner) = factors(n);
            let tail = n - outer * inner;
            assert!((8..=LONGEST_SUM).contains(&inner) && outer >= inner && tail < inner, "{n}: {outer} x {inner}");
            assert!(tail == 0 || inner >= 32, "{n}: {outer} x {inner} is hardly worth a tail");
        }
    }

    /// The longest axis that any ReduceSum of a sum over `n` elements goes over.
    fn longest(n: u64) -> u64 {
        let ty = TensorType { elem: Elem::F32.onnx(), dims: Some(vec![Dim::Unknown, Dim::Known(n)]) };
        let x = Tensor { name: "x".into(), ty };
        let mut e = Emitter::new(17, "", "");
        let sum = e.sum("sum", &x, &[1]);
        assert_eq!((sum.name.as_str(), sum.ty.rank()), ("sum", Some(1)));
        let emission = e.finish();
        let length = |name: &str| {
            let found = emission.value_info.iter().find(|v| v.name() == name);
            let ty = found.and_then(TensorType::of_value).unwrap_or_else(|| x.ty.clone());
            ty.dims.and_then(|dims| dims.last().and_then(Dim::known)).unwrap_or(u64::MAX)
        };
        let sums = emission.nodes.iter().filter(|n| n.op_type() == "ReduceSum");
        sums.map(|n| length(&n.input[0])).max().unwrap_or(0)
    }

    #[test]
    fn no_stage_of_a_sum_is_long_whatever_its_length() {
        for n in [1, 1024, 1025, 1031, 50_021, 11 * 4549, 1 << 20, 1_048_583, 104_395_301, 2_147_483_647] {
            assert!(longest(n) <= LONGEST_SUM.min(n), "{n}: {}", longest(n));
        }
    }
}
