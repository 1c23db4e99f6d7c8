//! Gemm, MatMul, Einsum.

use std::collections::HashMap;

use super::dims::broadcast;
use super::site::Site;
use crate::graph::types::Dim;

/// `[M, N]`.
pub(super) fn gemm(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let side = |slot: usize, transposed: &str, axis: usize| match site.dims(slot) {
        Some([rows, columns]) => if (site.int(transposed, 0) != 0) ^ (axis == 1) { columns } else { rows }.clone(),
        _ => Dim::Unknown,
    };
    Some(vec![side(0, "transA", 0), side(1, "transB", 1)])
}

/// numpy.matmul: vectors are promoted, leading axes broadcast.
pub(super) fn matmul(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    multiply(site.dims(0)?, site.dims(1)?)
}

/// com.microsoft FusedMatMul: MatMul with either operand transposed in its last two axes.
pub(super) fn fused(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    if site.int("transBatchA", 0) != 0 || site.int("transBatchB", 0) != 0 {
        return None;
    }
    let operand = |slot: usize, transposed: &str| {
        let mut dims = site.dims(slot)?.to_vec();
        let rank = dims.len();
        if site.int(transposed, 0) != 0 && rank >= 2 {
            dims.swap(rank - 1, rank - 2);
        }
        Some(dims)
    };
    multiply(&operand(0, "transA")?, &operand(1, "transB")?)
}

fn multiply(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let batch = |d: &[Dim]| d.len().saturating_sub(2);
    let mut out = broadcast(&a[..batch(a)], &b[..batch(b)]);
    match a {
        [] => return None,
        [_] => {}
        [.., rows, _] => out.push(rows.clone()),
    }
    match b {
        [] => return None,
        [_] => {}
        [.., columns] => out.push(columns.clone()),
    }
    Some(out)
}

/// Einsum whose equation names every axis by a letter; no ellipsis.
pub(super) fn einsum(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let equation: String = site.string("equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    if equation.len() > 512 || equation.contains('.') {
        return None;
    }
    let (operands, result) = match equation.split_once("->") {
        Some((operands, result)) => (operands.to_owned(), result.to_owned()),
        None => (equation.clone(), implicit_result(&equation)),
    };
    let mut sizes: HashMap<char, Dim> = HashMap::new();
    for (slot, letters) in operands.split(',').enumerate() {
        let Some(dims) = site.dims(slot) else { continue };
        if letters.chars().count() != dims.len() {
            return None;
        }
        for (letter, dim) in letters.chars().zip(dims) {
            let known = sizes.entry(letter).or_default();
            if !matches!(known, Dim::Known(n) if *n != 1) && *dim != Dim::Unknown {
                *known = dim.clone();
            }
        }
    }
    Some(result.chars().map(|letter| sizes.get(&letter).cloned().unwrap_or_default()).collect())
}

/// Without an arrow the result has the letters that stand once, in alphabetical order.
fn implicit_result(operands: &str) -> String {
    let count = |letter: char| operands.chars().filter(|c| *c == letter).count();
    let mut letters: Vec<char> = operands.chars().filter(|c| *c != ',' && count(*c) == 1).collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}
