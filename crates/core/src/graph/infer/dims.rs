//! Arithmetic of dimensions. Nothing overflows: what would is unknown.

use crate::graph::types::Dim;

/// One dimension of the result of broadcasting. Two different symbols may be equal, or one of them 1: nothing is known then.
fn broadcast_one(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(1), other) | (other, Dim::Known(1)) => other.clone(),
        (Dim::Known(m), Dim::Known(n)) if m != n => Dim::Unknown,
        (Dim::Known(n), _) | (_, Dim::Known(n)) => Dim::Known(*n),
        (Dim::Symbol(s), Dim::Symbol(t)) if s == t => a.clone(),
        _ => Dim::Unknown,
    }
}

/// The shape that two shapes broadcast to, after numpy's rule.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let (lead, tail) = long.split_at(long.len() - short.len());
    lead.iter().cloned().chain(tail.iter().zip(short).map(|(x, y)| broadcast_one(x, y))).collect()
}

/// Product of two sizes; a symbol times 1 stays itself.
pub(super) fn times(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(1), other) | (other, Dim::Known(1)) => other.clone(),
        (Dim::Known(0), _) | (_, Dim::Known(0)) => Dim::Known(0),
        (Dim::Known(m), Dim::Known(n)) => m.checked_mul(*n).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}

/// Sum of two sizes; a symbol plus 0 stays itself.
pub(super) fn plus(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(0), other) | (other, Dim::Known(0)) => other.clone(),
        (Dim::Known(m), Dim::Known(n)) => m.checked_add(*n).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}

/// Number of elements.
pub(super) fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::Known(1), |n, d| times(&n, d))
}

/// `a / b` where it comes out even, with equal factors cancelled: what a −1 of Reshape stands for.
pub(super) fn quotient(a: &[Dim], b: &[Dim]) -> Dim {
    let mut rest: Vec<&Dim> = b.iter().collect();
    let mut left = Vec::new();
    for dim in a {
        match rest.iter().position(|d| *d == dim && matches!(d, Dim::Symbol(_))) {
            Some(i) => drop(rest.swap_remove(i)),
            None => left.push(dim),
        }
    }
    let symbols: Vec<&&Dim> = left.iter().filter(|d| matches!(d, Dim::Symbol(_))).collect();
    let numbers = |dims: &[&Dim]| product(dims.iter().copied().filter(|d| !matches!(d, Dim::Symbol(_))));
    let divisor = if rest.iter().any(|d| matches!(d, Dim::Symbol(_))) { Dim::Unknown } else { numbers(&rest) };
    match (numbers(&left), divisor, symbols.as_slice()) {
        (Dim::Known(m), Dim::Known(n), []) if n != 0 && m % n == 0 => Dim::Known(m / n),
        (Dim::Known(m), Dim::Known(n), [symbol]) if n != 0 && m == n => (**symbol).clone(),
        _ => Dim::Unknown,
    }
}

/// A position from an axis that may count from the end.
pub(super) fn position(axis: i64, rank: usize) -> Option<usize> {
    let size = i64::try_from(rank).ok()?;
    let from_start = if axis < 0 { axis.checked_add(size)? } else { axis };
    usize::try_from(from_start).ok().filter(|p| *p < rank)
}

/// How many elements `start..end` with `step` takes of `size`, with Slice's clamping.
pub(super) fn slice_length(size: i64, start: i64, end: i64, step: i64) -> Option<u64> {
    let from_end = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
    let (start, end) = (from_end(start), from_end(end));
    let span = if step > 0 {
        end.clamp(0, size).checked_sub(start.clamp(0, size))?
    } else if step < 0 {
        start.clamp(0, size.saturating_sub(1)).checked_sub(end.clamp(-1, size.saturating_sub(1)))?
    } else {
        return None;
    };
    u64::try_from(span.max(0)).ok().map(|s| s.div_ceil(step.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str) -> Dim {
        Dim::Symbol(name.into())
    }

    #[test]
    fn symbols_broadcast_only_with_themselves_and_with_one() {
        let shape = broadcast(&[symbol("N"), symbol("T"), Dim::Known(1), Dim::Unknown], &[Dim::Known(1), symbol("S")]);
        assert_eq!(shape, [symbol("N"), symbol("T"), Dim::Known(1), Dim::Unknown]);
        let tail = broadcast(&[symbol("N"), symbol("N")], &[symbol("M"), Dim::Known(4)]);
        assert_eq!(tail, [Dim::Unknown, Dim::Known(4)]);
    }

    #[test]
    fn a_quotient_cancels_symbols_and_never_divides_by_zero() {
        let n = symbol("N");
        assert_eq!(quotient(&[n.clone(), Dim::Known(12)], &[Dim::Known(12)]), n);
        assert_eq!(quotient(&[n.clone(), Dim::Known(12)], std::slice::from_ref(&n)), Dim::Known(12));
        assert_eq!(quotient(&[Dim::Known(12)], &[Dim::Known(0)]), Dim::Unknown);
        assert_eq!(quotient(&[Dim::Known(u64::MAX), Dim::Known(2)], &[Dim::Known(2)]), Dim::Unknown);
    }

    #[test]
    fn slices_clamp_like_the_operator() {
        assert_eq!(slice_length(10, 2, i64::MAX, 3), Some(3));
        assert_eq!(slice_length(10, -1, i64::MIN, -1), Some(10));
        assert_eq!(slice_length(10, 7, 3, 1), Some(0));
        assert_eq!(slice_length(10, 0, 10, 0), None);
        assert_eq!(slice_length(10, i64::MIN, i64::MAX, i64::MIN), Some(0));
    }
}
