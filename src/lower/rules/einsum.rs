//! **What.** Einsum of any number of operands.
//!
//! **Why.** No gradient of it is registered.
//!
//! **Equation.** Operands are joined one by one. Letters that only one of two has, and that nobody asks for later, are summed first;
//! shared ones that are asked for are the batch of a MatMul, shared ones that are not its contraction, the others its rows and columns.
//! An ellipsis stands for letters of its own. A letter that an operand has twice is its diagonal: the two axes in one, and of that every
//! (n + 1)-th element.

use std::collections::BTreeSet;

use crate::graph::Attributes;
use crate::graph::types::Dim;
use crate::lower::registry::{Rule, on_path};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Refusal, Site, extent, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["Einsum"], because: "no gradient of it is registered", applies: on_path, rewrite }];

/// An operand with the letters of its axes.
#[derive(Clone)]
struct Term {
    tensor: Tensor,
    letters: Vec<char>,
}

/// The letters of an ellipsis: nothing that an equation can hold.
const ELLIPSIS: u32 = 0xE000;

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let equation: String =
        site.node.string("equation").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left.to_owned(), Some(right.to_owned())),
        None => (equation, None),
    };
    let subscripts: Vec<&str> = left.split(',').collect();
    let operands = site.inputs();
    if subscripts.len() != operands.len() {
        return Err("its equation does not fit its operands".into());
    }
    let mut terms = Vec::new();
    for (subscript, tensor) in subscripts.iter().zip(operands) {
        let mut term = Term { letters: letters(subscript, rank(&tensor)?)?, tensor };
        let twice = |letters: &[char]| {
            (0..letters.len()).find_map(|i| Some((i, i + 1 + letters[i + 1..].iter().position(|c| *c == letters[i])?)))
        };
        while let Some((first, second)) = twice(&term.letters) {
            term = diagonal(b, &term, first, second)?;
        }
        terms.push(term);
    }
    let result = match right {
        Some(right) => {
            let dots = terms
                .iter()
                .flat_map(|t| &t.letters)
                .filter(|c| u32::from(**c) >= ELLIPSIS)
                .collect::<BTreeSet<_>>()
                .len();
            let plain = right.chars().filter(|c| *c != '.').count();
            letters(&right, plain + if right.contains("...") { dots } else { 0 })?
        }
        None => implied(&terms),
    };
    let mut rest = terms.into_iter();
    let mut joined = rest.next().ok_or("it has no operands")?;
    let others: Vec<Term> = rest.collect();
    for (i, other) in others.iter().enumerate() {
        let mut wanted: BTreeSet<char> = result.iter().copied().collect();
        others[i + 1..].iter().for_each(|t| wanted.extend(&t.letters));
        joined = join(b, joined, other.clone(), &wanted)?;
    }
    let wanted: BTreeSet<char> = result.iter().copied().collect();
    let joined = without(b, joined, |c| !wanted.contains(&c));
    let perm = result.iter().map(|c| joined.letters.iter().position(|l| l == c)).collect::<Option<Vec<usize>>>();
    let perm = perm.ok_or("its result has a letter that no operand has")?;
    Ok(vec![b.transpose(&joined.tensor, &perm).into()])
}

/// Two axes of one letter become one, the last.
fn diagonal(b: &mut Builder, term: &Term, first: usize, second: usize) -> Known<Term> {
    let (n, same) = (size(&term.tensor, first)?, size(&term.tensor, second)?);
    if n != same {
        return Err("two axes of one letter have different lengths".into());
    }
    let others: Vec<usize> = (0..term.letters.len()).filter(|i| *i != first && *i != second).collect();
    let perm: Vec<usize> = others.iter().copied().chain([first, second]).collect();
    let moved = b.transpose(&term.tensor, &perm);
    let all = extent(n.saturating_mul(n));
    let extents: Vec<Extent> = (0..others.len()).map(|i| (&moved, i).into()).chain([all.into()]).collect();
    let flat = b.reshape(&moved, &extents);
    let tensor = b.slice(&flat, others.len(), 0, all, extent(n) + 1);
    let letters = others.iter().map(|i| term.letters[*i]).chain([term.letters[first]]).collect();
    Ok(Term { tensor, letters })
}

/// One letter an axis. The axes of an ellipsis are counted from the last, so that those of all operands fit.
fn letters(subscript: &str, rank: usize) -> Known<Vec<char>> {
    let plain: Vec<char> = subscript.replace("...", "…").chars().collect();
    let named = plain.iter().filter(|c| **c != '…').count();
    let dots = rank.checked_sub(named).ok_or("its equation does not fit the rank of an operand")?;
    if dots > 0 && !plain.contains(&'…') {
        return Err("its equation does not fit the rank of an operand".into());
    }
    let mut letters = Vec::new();
    for c in plain {
        if c == '…' {
            let of = |k: usize| char::from_u32(ELLIPSIS + k as u32).ok_or(Refusal("too many axes".into()));
            letters.extend((0..dots).rev().map(of).collect::<Known<Vec<char>>>()?);
        } else {
            letters.push(c);
        }
    }
    Ok(letters)
}

/// Without an arrow: the ellipsis, then the letters that stand once, in alphabetical order.
fn implied(terms: &[Term]) -> Vec<char> {
    let all: Vec<char> = terms.iter().flat_map(|t| t.letters.clone()).collect();
    let mut dots: Vec<char> =
        all.iter().copied().filter(|c| u32::from(*c) >= ELLIPSIS).collect::<BTreeSet<_>>().into_iter().collect();
    dots.reverse();
    let once: BTreeSet<char> = all
        .iter()
        .copied()
        .filter(|c| u32::from(*c) < ELLIPSIS && all.iter().filter(|o| *o == c).count() == 1)
        .collect();
    dots.into_iter().chain(once).collect()
}

/// Sums over the axes of some letters.
fn without(b: &mut Builder, term: Term, gone: impl Fn(char) -> bool) -> Term {
    let axes: Vec<i64> = (0i64..).zip(&term.letters).filter(|(_, c)| gone(**c)).map(|(i, _)| i).collect();
    if axes.is_empty() {
        return term;
    }
    let tensor = b.reduce("ReduceSum", &term.tensor, Some(&axes), false);
    Term { tensor, letters: term.letters.into_iter().filter(|c| !gone(*c)).collect() }
}

/// Two operands to one, whose letters are the batch, the first's own and the second's own.
fn join(b: &mut Builder, left: Term, right: Term, wanted: &BTreeSet<char>) -> Known<Term> {
    let (in_left, in_right) = (left.letters.clone(), right.letters.clone());
    let left = without(b, left, |c| !wanted.contains(&c) && !in_right.contains(&c));
    let right = without(b, right, |c| !wanted.contains(&c) && !in_left.contains(&c));
    let shared = |c: &char| in_left.contains(c) && in_right.contains(c);
    let batch: Vec<char> = left.letters.iter().copied().filter(|c| shared(c) && wanted.contains(c)).collect();
    let contracted: Vec<char> = left.letters.iter().copied().filter(|c| shared(c) && !wanted.contains(c)).collect();
    let rows: Vec<char> = left.letters.iter().copied().filter(|c| !shared(c)).collect();
    let columns: Vec<char> = right.letters.iter().copied().filter(|c| !shared(c)).collect();
    if contracted.is_empty() {
        return Ok(multiplied(b, &left, &right, &batch, &rows, &columns));
    }
    let first = matrix(b, &left, &batch, &rows, &contracted)?;
    let second = matrix(b, &right, &batch, &contracted, &columns)?;
    let product = b.matmul(&first, &second);
    // Rows and columns apart again; a letter alone is there already.
    let letters: Vec<char> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    if rows.len() == 1 && columns.len() == 1 {
        return Ok(Term { tensor: product, letters });
    }
    let from = |c: &char| {
        let term = if left.letters.contains(c) { &left } else { &right };
        let axis = term.letters.iter().position(|l| l == c).unwrap_or_default();
        Extent::from((&term.tensor, axis))
    };
    let extents: Vec<Extent> = letters.iter().map(from).collect();
    Ok(Term { tensor: b.reshape(&product, &extents), letters })
}

/// [batch…, Π first, Π second].
fn matrix(b: &mut Builder, term: &Term, batch: &[char], first: &[char], second: &[char]) -> Known<Tensor> {
    let order: Vec<char> = batch.iter().chain(first).chain(second).copied().collect();
    let perm = order.iter().map(|c| term.letters.iter().position(|l| l == c)).collect::<Option<Vec<usize>>>();
    let perm = perm.ok_or("its letters do not fit")?;
    let moved = b.transpose(&term.tensor, &perm);
    if first.len() == 1 && second.len() == 1 {
        return Ok(moved);
    }
    let product = |from: usize, count: usize| -> Option<i64> {
        let dims = moved.ty.dims.as_ref()?;
        let n = dims[from..from + count].iter().try_fold(1u64, |n, d| n.checked_mul(d.known()?))?;
        i64::try_from(n).ok()
    };
    let (rows, columns) = (product(batch.len(), first.len()), product(batch.len() + first.len(), second.len()));
    let mut extents: Vec<Extent> = (0..batch.len()).map(|i| (&moved, i).into()).collect();
    let one_axis = |at: usize, count: usize| (count == 1).then(|| Extent::from((&moved, at)));
    let rows = one_axis(batch.len(), first.len()).or(rows.map(Extent::Fixed));
    let columns = one_axis(batch.len() + first.len(), second.len()).or(columns.map(Extent::Fixed));
    if rows.is_none() && columns.is_none() {
        return Err("several of its dimensions are known only to the running graph".into());
    }
    extents.push(rows.unwrap_or(Extent::Fixed(-1)));
    extents.push(columns.unwrap_or(Extent::Fixed(-1)));
    Ok(b.reshape(&moved, &extents))
}

/// Without a contraction: both stretched to all letters, and Mul.
fn multiplied(b: &mut Builder, left: &Term, right: &Term, batch: &[char], rows: &[char], columns: &[char]) -> Term {
    let letters: Vec<char> = batch.iter().chain(rows).chain(columns).copied().collect();
    let mut aligned = |term: &Term| {
        let own: Vec<char> = letters.iter().copied().filter(|c| term.letters.contains(c)).collect();
        let perm: Vec<usize> = own.iter().filter_map(|c| term.letters.iter().position(|l| l == c)).collect();
        let moved = b.transpose(&term.tensor, &perm);
        let missing: Vec<usize> = (0..letters.len()).filter(|i| !term.letters.contains(&letters[*i])).collect();
        b.unsqueeze(&moved, &missing)
    };
    let (first, second) = (aligned(left), aligned(right));
    let mut tensor = b.binary("Mul", &first, &second);
    if let Some(dims) = &mut tensor.ty.dims {
        // Of two dimensions that share a letter, a known one counts.
        let known = |axis: usize| {
            [&first, &second]
                .iter()
                .find_map(|t| t.ty.dims.as_ref()?.get(axis).and_then(Dim::known).filter(|n| *n != 1))
        };
        for (axis, dim) in dims.iter_mut().enumerate().filter(|(_, d)| **d == Dim::Unknown) {
            *dim = known(axis).map_or(Dim::Unknown, Dim::Known);
        }
    }
    Term { tensor, letters }
}
