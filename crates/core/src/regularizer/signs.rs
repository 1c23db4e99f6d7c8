//! Slices that differ in signs alone: one normal vector z makes a group of g slices θ_j = z ⊙ H_j, where H_j is row j of a Hadamard matrix,
//! repeated along z.
//!
//! Signs do not change what a normal vector is: every θ_j/‖θ_j‖ is as uniform on the sphere as a slice drawn on its own, so the penalty and its
//! gradient keep their expectations. Within a group the projections ⟨h, θ_j⟩ are jointly normal given h, with the correlations
//! Σᵢ hᵢ²·H_ji·H_ki/‖h‖², which are 0 where the energy of h is the same in all classes of i mod g. So a group scatters as g slices drawn
//! independently do, but for a share of g over the number of values that carry the energy of h; g is kept at a quarter of d at most.
//!
//! What it saves: d normal numbers for each group instead of for each slice, and where one group is enough, the projection too: it is the
//! product of h ⊙ z, summed over the classes, with H: O(d + g·s) for a row instead of O(d·s).

use super::emit::{Elem, Emitter, Tensor};
use crate::graph::types::Dim;

/// How s slices of length d fall into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Groups {
    /// Slices of one group, a power of two; the last group may lose some.
    pub size: u64,
    /// Number of groups, each with a normal vector of its own.
    pub count: u64,
}

impl Groups {
    /// `None` where there is nothing to save.
    pub fn of(slices: u64, d: u64) -> Option<Self> {
        // The largest power of two that d is four times.
        let most = (d / 4).checked_ilog2().map_or(1, |log| 1 << log);
        let size = slices.checked_next_power_of_two()?.min(most);
        (size > 1).then(|| Groups { size, count: slices.div_ceil(size) })
    }
}

/// Row j, column i: (−1)^(number of ones that j and i have in common), for `rows` rows and `columns` columns of the matrix of order `size`.
pub(super) fn hadamard(e: &mut Emitter, label: &str, elem: Elem, size: u64, [rows, columns]: [u64; 2]) -> Tensor {
    let sign = |j: u64, i: u64| if (j & i).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let values: Vec<f64> = (0..size).flat_map(|j| (0..size).map(move |i| sign(j, i))).collect();
    let signs = e.constant(&format!("hadamard_{size}"), Elem::I8, &[size, size], &values);
    let mut signs = e.cast(label, &signs, elem.onnx());
    for (axis, length) in [rows, columns].into_iter().enumerate() {
        if length < size {
            signs = e.slice(&format!("{label}_part_{axis}"), &signs, axis, 0..length);
        }
    }
    signs
}

/// The slices [s, d] of normal vectors [count, d]; of [samples, count, d], the slices [samples, s, d].
pub(super) fn directions(
    e: &mut Emitter,
    elem: Elem,
    groups: Groups,
    slices: u64,
    d: u64,
    samples: Option<&Dim>,
    normal: &Tensor,
) -> Tensor {
    let Groups { size, count } = groups;
    if size == 1 {
        return normal.clone();
    }
    let signs = hadamard(e, "hadamard", elem, size, [size, size]);
    let copies = d.div_ceil(size);
    let repeats = e.shape_constant("repeats", &[1, copies.cast_signed()]);
    let ty = |dims: &[u64]| dims.iter().map(|d| Dim::Known(*d)).collect::<Vec<_>>();
    let tiled = e.node_of("signs_tiled", "Tile", &[&signs, &repeats], ty(&[size, copies * size]));
    let signs = if copies * size == d { tiled } else { e.slice("signs", &tiled, 1, 0..d) };
    let axis = usize::from(samples.is_some());
    let apart = e.unsqueeze("normal_apart", normal, &[axis as i64 + 1]);
    let signed = e.binary("signed", "Mul", &apart, &signs);
    let shape = [(count * size).cast_signed(), d.cast_signed()];
    let shape: Vec<i64> = samples.map(|_| 0).into_iter().chain(shape).collect();
    let dims = samples.cloned().into_iter().chain(ty(&[count * size, d])).collect();
    let joined = e.reshape("directions_all", &signed, &shape, dims);
    if count * size == slices { joined } else { e.slice("directions", &joined, axis, 0..slices) }
}

/// The sums over classes, [b, size], and what is left of the last classes, [b, r], of rows [b, d].
pub(super) fn fold(e: &mut Emitter, rows: &Tensor, size: u64, d: u64) -> (Tensor, Option<Tensor>) {
    let whole = d / size * size;
    let head = if whole == d { rows.clone() } else { e.slice("head", rows, 1, 0..whole) };
    let batch = rows.ty.dims.as_ref().and_then(|dims| dims.first().cloned()).unwrap_or_default();
    let dims = vec![batch, Dim::Known(whole / size), Dim::Known(size)];
    let classes = e.reshape("classes", &head, &[0, (whole / size).cast_signed(), size.cast_signed()], dims);
    let sums = e.reduce("class_sums", "ReduceSum", &classes, Some(&[1]), false);
    (sums, (whole < d).then(|| e.slice("tail", rows, 1, whole..d)))
}

/// The way back from [`fold`] through the product with a vector [1, d]: `sums` [b, size] to rows [b, d].
pub(super) fn unfold(e: &mut Emitter, sums: &Tensor, vector: &Tensor, size: u64, d: u64) -> Tensor {
    let whole = d / size * size;
    let blocks = whole / size;
    let batch = sums.ty.dims.as_ref().and_then(|dims| dims.first().cloned()).unwrap_or_default();
    let head = if whole == d { vector.clone() } else { e.slice("vector_head", vector, 1, 0..whole) };
    let dims = [blocks, size].map(Dim::Known).to_vec();
    let head = e.reshape("vector_classes", &head, &[blocks.cast_signed(), size.cast_signed()], dims);
    let apart = e.unsqueeze("sums_apart", sums, &[1]);
    let product = e.binary("head_classes", "Mul", &apart, &head);
    let flat = e.reshape("head_rows", &product, &[0, whole.cast_signed()], vec![batch.clone(), Dim::Known(whole)]);
    if whole == d {
        return flat;
    }
    let vector = e.slice("vector_tail", vector, 1, whole..d);
    let sums = e.slice("sums_tail", sums, 1, 0..d - whole);
    let tail = e.binary("tail_rows", "Mul", &sums, &vector);
    e.concat("all_rows", &[&flat, &tail], 1, vec![batch, Dim::Known(d)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_power_of_two_that_rows_are_four_times_as_long_as() {
        let of = |slices, d| Groups::of(slices, d).map(|g| (g.size, g.count));
        assert_eq!(of(256, 1), None);
        assert_eq!(of(256, 7), None);
        assert_eq!(of(256, 8), Some((2, 128)));
        assert_eq!(of(256, 192), Some((32, 8)));
        assert_eq!(of(256, 1023), Some((128, 2)));
        assert_eq!(of(256, 196_608), Some((256, 1)));
        assert_eq!(of(100, 196_608), Some((128, 1)));
        assert_eq!(of(1, 196_608), None);
    }
}
