//! Conv with a 3×3 kernel by Winograd's minimal filtering F(4×4, 3×3), the algorithm that PyTorch and cuDNN have inside: a tile of 4×4
//! results takes 36 multiplications for each pair of channels in the place of 144, forward and in both gradients.
//!
//! One axis first. Four results of a kernel of three cells are y = Aᵀ[(G·w) ⊙ (Bᵀ·x)] of the six values x that they see: polynomials are
//! multiplied by their values at five points and their leading coefficient. Bᵀ and Aᵀ for all tiles of an axis at once are two matrices
//! \[6·tiles, length\] and \[length, 6·tiles\], in which padding is a row's missing entries. So with channels last a picture is
//!
//! 1. multiplied by Bᵀ along one axis and the other, [N, 6·t, 6·u, C], and put in order, V \[36, N·t·u, C\];
//! 2. multiplied by the weights, U = (G⊗G)·w \[36, C, O\]: 36 products of matrices, in which all the work is;
//! 3. put back, and multiplied by Aᵀ along both axes.
//!
//! Every part has a gradient: those of the products are V and U again, those of the transforms the transposed matrices. So ∂x and ∂w cost a
//! quarter too.
//!
//! The points are 0, ±2/3 and ±3/2. With 0, ±1 and ±2, the usual ones, float32 is off by five times as much in y and twice in ∂w; with these
//! y is off by 1.4 times what it is by a plain product of matrices.

use crate::autodiff::rules::product::gemm_of;
use crate::graph::types::Dim;
use crate::lower::registry::Rule;
use crate::regularizer::emit::Elem;
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Site, extent, size};
use crate::rewrite::window::Window;

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule { ops: &["Conv"], because: "its parts are faster", applies: is_faster, rewrite }];

/// Results along an axis of one tile, cells along an axis of the kernel, and values that a tile sees along an axis.
const TILE: usize = 4;
const CELLS: usize = 3;
const SEEN: usize = TILE + CELLS - 1;

/// The points; the last row and column of the matrices are the one at infinity.
const POINTS: [f64; SEEN - 1] = [0.0, 2.0 / 3.0, -2.0 / 3.0, 1.5, -1.5];

/// Of the multiplications of a Conv, what is left has to be less than this share: the transforms are passes over memory besides.
const WORTH: f64 = 0.7;

/// A Conv of fewer multiplications, over all samples, is done before the nodes that would take its place are under way.
const LARGE: f64 = 3e7;

/// Samples, where the number is known only to the running graph.
const SAMPLES: f64 = 16.0;

/// A convolution that can be written so.
struct Plan {
    window: Window,
    /// Input channels, output channels.
    channels: [i64; 2],
    /// Lengths of the two axes of x, and of y.
    from: [i64; 2],
    to: [i64; 2],
}

impl Plan {
    fn of(site: &Site) -> Option<Self> {
        let (x, w) = (site.required(0).ok()?, site.required(1).ok()?);
        let is_full = [Elem::F32.onnx(), Elem::F64.onnx()].contains(&x.ty.elem);
        let dims = w.ty.dims.as_ref()?.iter().map(Dim::known).collect::<Option<Vec<u64>>>()?;
        let [outputs, inputs, 3, 3] = dims[..] else { return None };
        if !is_full || site.int("group", 1) != 1 || x.ty.dims.as_ref()?.len() != 4 {
            return None;
        }
        let window = Window::of(site, &x, vec![3, 3]).ok()?;
        let is_near = window.pads.iter().all(|pad| (0..SEEN as i64).contains(pad));
        if !is_near || !window.is_dense() || window.dilations != [1, 1] {
            return None;
        }
        let from = [size(&x, 2).ok()?, size(&x, 3).ok()?].map(extent);
        let to = [0, 1].map(|i| from[i] + window.pads[i] + window.pads[2 + i] - window.reach(i));
        to.iter().all(|n| *n > 0).then_some(Plan { window, channels: [inputs, outputs].map(extent), from, to })
    }

    /// Tiles along an axis.
    fn tiles(&self, axis: usize) -> i64 {
        (self.to[axis] + TILE as i64 - 1) / TILE as i64
    }

    /// Multiplications of Conv for one sample.
    fn multiplications(&self) -> f64 {
        let cells = (CELLS * CELLS) as f64;
        [&self.channels, &self.to].into_iter().flatten().fold(cells, |product, n| product * *n as f64)
    }

    /// Whether it takes less time by tiles.
    fn is_faster(&self, samples: f64) -> bool {
        samples * self.multiplications() >= LARGE && self.share(samples) < WORTH
    }

    /// Multiplications by tiles in the place of one of Conv's.
    fn share(&self, samples: f64) -> f64 {
        let [c, o] = self.channels.map(|n| n as f64);
        let seen = [0, 1].map(|axis| SEEN as f64 * self.tiles(axis) as f64);
        let transform = |channels: f64, [h, w]: [i64; 2]| {
            let (h, w) = (h as f64, w as f64);
            channels * seen[0] * w * (h + seen[1])
        };
        let weights = (SEEN * SEEN * CELLS * CELLS) as f64 * c * o / samples;
        let whole = transform(c, self.from) + transform(o, self.to) + seen[0] * seen[1] * c * o + weights;
        whole / self.multiplications()
    }

    /// Bᵀ for all tiles of an axis: \[6·tiles, length of x\].
    fn seen(&self, axis: usize) -> Vec<f64> {
        let (tiles, length) = (self.tiles(axis) as usize, self.from[axis]);
        let mut matrix = vec![0.0; SEEN * tiles * length as usize];
        for (i, row) in transposed_b().iter().enumerate() {
            for tile in 0..tiles {
                for (k, value) in row.iter().enumerate() {
                    let place = (TILE * tile + k) as i64 - self.window.pads[axis];
                    if (0..length).contains(&place) {
                        matrix[(i * tiles + tile) * length as usize + place as usize] = *value;
                    }
                }
            }
        }
        matrix
    }

    /// Aᵀ for all tiles of an axis: \[length of y, 6·tiles\]. What the last tile makes behind the end is left out.
    fn joined(&self, axis: usize) -> Vec<f64> {
        let (tiles, length) = (self.tiles(axis) as usize, self.to[axis] as usize);
        let mut matrix = vec![0.0; length * SEEN * tiles];
        for place in 0..length {
            let (tile, k) = (place / TILE, place % TILE);
            for i in 0..SEEN {
                matrix[place * SEEN * tiles + i * tiles + tile] = transposed_a(k, i);
            }
        }
        matrix
    }
}

/// Whether it takes less time so.
pub fn is_faster(site: &Site) -> bool {
    Plan::of(site).is_some_and(|plan| {
        let samples = site.required(0).ok().and_then(|x| size(&x, 0).ok());
        plan.is_faster(samples.map_or(SAMPLES, |n| n.max(1) as f64))
    })
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let plan = Plan::of(site).ok_or("it is no convolution of 3×3 cells that move by one place")?;
    let (x, w) = (site.required(0)?, site.required(1)?);
    let ([inputs, outputs], [high, wide]) = (plan.channels, plan.to);
    let [t, u] = [plan.tiles(0), plan.tiles(1)];
    let seen = SEEN as i64;
    let matrix = |b: &mut Builder, rows: i64, columns: i64, values: &[f64]| {
        b.matrix(&x, rows.unsigned_abs(), columns.unsigned_abs(), values)
    };
    let fixed = |extents: &[i64]| extents.iter().map(|n| Extent::Fixed(*n)).collect::<Vec<_>>();

    // U [36, C, O]. A Gemm turns the weights by itself, on the way back too; a Transpose would be merged with others to a slower one.
    let cells = b.reshape(&w, &fixed(&[outputs, inputs, (CELLS * CELLS) as i64]));
    let cells = b.transpose(&cells, &[1, 0, 2]);
    let cells = b.reshape(&cells, &fixed(&[inputs * outputs, (CELLS * CELLS) as i64]));
    let both = matrix(b, seen * seen, (CELLS * CELLS) as i64, &g_twice());
    let weights = gemm_of(b, (&both, false), (&cells, true), 1.0);
    let weights = b.reshape(&weights, &fixed(&[seen * seen, inputs, outputs]));

    // V [36, N·t·u, C]. ONNX Runtime moves one axis of three several times faster than one of more.
    let maps = b.reshape(&x, &[(&x, 0).into(), inputs.into(), (plan.from[0] * plan.from[1]).into()]);
    let last = b.transpose(&maps, &[0, 2, 1]);
    let rows = b.reshape(&last, &[(&x, 0).into(), plan.from[0].into(), (plan.from[1] * inputs).into()]);
    let along = matrix(b, seen * t, plan.from[0], &plan.seen(0));
    let rows = b.matmul(&along, &rows);
    let columns = b.reshape(&rows, &fixed(&[-1, plan.from[1], inputs]));
    let along = matrix(b, seen * u, plan.from[1], &plan.seen(1));
    let columns = b.matmul(&along, &columns);
    let apart = b.reshape(&columns, &[(&x, 0).into(), seen.into(), t.into(), seen.into(), u.into(), inputs.into()]);
    let tiles = b.transpose(&apart, &[1, 3, 0, 2, 4, 5]);
    let tiles = b.reshape(&tiles, &fixed(&[seen * seen, -1, inputs]));

    let products = b.matmul(&tiles, &weights);

    let apart = b.reshape(&products, &[seen.into(), seen.into(), (&x, 0).into(), t.into(), u.into(), outputs.into()]);
    let back = b.transpose(&apart, &[2, 0, 3, 1, 4, 5]);
    let columns = b.reshape(&back, &fixed(&[-1, seen * u, outputs]));
    let along = matrix(b, wide, seen * u, &plan.joined(1));
    let columns = b.matmul(&along, &columns);
    let rows = b.reshape(&columns, &[(&x, 0).into(), (seen * t).into(), (wide * outputs).into()]);
    let along = matrix(b, high, seen * t, &plan.joined(0));
    let rows = b.matmul(&along, &rows);
    let mut places = b.reshape(&rows, &[(&x, 0).into(), (high * wide).into(), outputs.into()]);
    if let Some(bias) = site.input(2) {
        places = b.binary("Add", &places, &bias);
    }
    let maps = b.transpose(&places, &[0, 2, 1]);
    Ok(vec![b.reshape(&maps, &[(&x, 0).into(), outputs.into(), high.into(), wide.into()]).into()])
}

/// Ascending coefficients of Π (x − p) over some points.
fn polynomial(points: impl Iterator<Item = f64>) -> Vec<f64> {
    points.fold(vec![1.0], |factors, p| {
        let shifted = std::iter::once(0.0).chain(factors.iter().copied());
        let scaled = factors.iter().copied().chain([0.0]).map(|c| p * c);
        shifted.zip(scaled).map(|(a, b)| a - b).collect()
    })
}

/// Bᵀ: row i is Π_{j≠i} (x − p_j), the last one Π (x − p_j) over all.
fn transposed_b() -> [[f64; SEEN]; SEEN] {
    std::array::from_fn(|i| {
        let others = POINTS.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, p)| *p);
        let mut row = [0.0; SEEN];
        for (to, from) in row.iter_mut().zip(polynomial(others)) {
            *to = from;
        }
        row
    })
}

/// G: row i is 1, p, p² over Π_{j≠i} (p − p_j), the last one 0, 0, 1.
fn g() -> [[f64; CELLS]; SEEN] {
    std::array::from_fn(|i| match POINTS.get(i) {
        None => [0.0, 0.0, 1.0],
        Some(p) => {
            let scale: f64 = POINTS.iter().filter(|q| *q != p).map(|q| p - q).product();
            [1.0 / scale, p / scale, p * p / scale]
        }
    })
}

/// G ⊗ G: \[36, 9\].
fn g_twice() -> Vec<f64> {
    let g = g();
    let row = |i: usize, j: usize| (0..CELLS * CELLS).map(move |cell| g[i][cell / CELLS] * g[j][cell % CELLS]);
    (0..SEEN * SEEN).flat_map(|at| row(at / SEEN, at % SEEN)).collect()
}

/// Aᵀ, row k: powers of the points; of the one at infinity the last row alone.
fn transposed_a(k: usize, i: usize) -> f64 {
    match POINTS.get(i) {
        Some(p) => p.powi(k as i32),
        None => f64::from(u8::from(k == TILE - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_four_results_is_that_of_three_cells_over_six_values() {
        let x = [0.3, -1.2, 0.7, 2.5, -0.4, 1.1];
        let w = [0.9, -0.6, 1.7];
        let dot = |row: &[f64], column: &[f64]| row.iter().zip(column).map(|(a, b)| a * b).sum::<f64>();
        let (bt, g) = (transposed_b(), g());
        let products: [f64; SEEN] = std::array::from_fn(|i| dot(&bt[i], &x) * dot(&g[i], &w));
        for k in 0..TILE {
            let row: [f64; SEEN] = std::array::from_fn(|i| transposed_a(k, i));
            let expected = dot(&w, &x[k..k + CELLS]);
            assert!((dot(&row, &products) - expected).abs() < 1e-14, "{k}");
        }
    }

    #[test]
    fn tiles_are_for_many_channels_on_maps_that_are_not_large() {
        let is_faster = |channels: i64, length: i64, samples: f64| {
            let window = Window { kernel: vec![3, 3], strides: vec![1, 1], dilations: vec![1, 1], pads: vec![1; 4] };
            Plan { window, channels: [channels; 2], from: [length; 2], to: [length; 2] }.is_faster(samples)
        };
        for (channels, length) in [(32, 16), (64, 8), (192, 16), (256, 4), (64, 32), (128, 28)] {
            assert!(is_faster(channels, length, SAMPLES), "{channels} {length}");
        }
        for (channels, length) in [(16, 32), (64, 56), (256, 2), (256, 1), (3, 8)] {
            assert!(!is_faster(channels, length, SAMPLES), "{channels} {length}");
        }
        // Weights are transformed once for all samples.
        assert!(!is_faster(512, 4, 1.0) && is_faster(512, 4, 8.0));
    }
}
