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
//! The way back takes the transposed matrices: of g the tiles are M = A·g·Aᵀ \[36, N·t·u, O\], ∂V = M·Uᵀ is put back by B, and
//! ∂w = (G⊗G)ᵀ·Mᵀ·V. So ∂x and ∂w cost a quarter too. V and U, which are larger than x and w, are not kept for it but made again.
//!
//! The points are 0, ±2/3 and ±3/2. With 0, ±1 and ±2, the usual ones, float32 is off by five times as much in y and twice in ∂w; with these
//! y is off by 1.4 times what it is by a plain product of matrices.

use crate::autodiff::rules::product::gemm_of;
use crate::graph::types::Dim;
use crate::regularizer::emit::{Elem, Tensor};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::{Site, extent, size};
use crate::rewrite::window::Window;

/// Results along an axis of one tile, cells along an axis of the kernel, and values that a tile sees along an axis.
const TILE: usize = 4;
const CELLS: usize = 3;
const SEEN: usize = TILE + CELLS - 1;
const CELLS_2: i64 = (CELLS * CELLS) as i64;
const SEEN_2: i64 = (SEEN * SEEN) as i64;

/// The points; the last row and column of the matrices are the one at infinity.
const POINTS: [f64; SEEN - 1] = [0.0, 2.0 / 3.0, -2.0 / 3.0, 1.5, -1.5];

/// Of the multiplications of a Conv, what is left has to be less than this share: the transforms are passes over memory besides.
const WORTH: f64 = 0.5;

/// A Conv of fewer multiplications, over all samples, is no large part of a step, and makes it no faster to speak of.
const LARGE: f64 = 1e8;

/// How many times as large as the tiles the weights may become, which are four times what they were and live in turn with them.
const HEAVY: f64 = 8.0;

/// Along a longer axis the matrices of the transforms, which are as long and half again as wide, are no small constants any more.
const LONGEST: i64 = 512;

/// More channels has no real model, and numbers that are multiplied have to stay numbers.
const MOST_CHANNELS: i64 = 1 << 20;

/// Samples, where the number is known only to the running graph.
const SAMPLES: f64 = 16.0;

/// A convolution that is faster so.
pub struct Plan {
    window: Window,
    /// Input channels, output channels.
    channels: [i64; 2],
    /// Lengths of the two axes of x, and of y.
    from: [i64; 2],
    to: [i64; 2],
}

impl Plan {
    /// How to write a Conv, where tiles take less time.
    pub fn of(site: &Site) -> Option<Self> {
        let samples = site.required(0).ok().and_then(|x| size(&x, 0).ok());
        Self::of_any(site).filter(|plan| plan.is_faster(samples.map_or(SAMPLES, |n| n.max(1) as f64)))
    }

    fn of_any(site: &Site) -> Option<Self> {
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
        let channels = [inputs, outputs].map(extent);
        let is_possible = from.iter().chain(&to).all(|n| (1..=LONGEST).contains(n))
            && channels.iter().all(|n| (1..=MOST_CHANNELS).contains(n));
        is_possible.then_some(Plan { window, channels, from, to })
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

    /// Whether it takes less time by tiles, and little more memory.
    fn is_faster(&self, samples: f64) -> bool {
        let tiles = samples * (self.tiles(0) * self.tiles(1)) as f64;
        let is_light = self.channels.iter().all(|channels| *channels as f64 <= HEAVY * tiles);
        samples * self.multiplications() >= LARGE && self.share(samples) < WORTH && is_light
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

    /// The axes of tiles, [N, 6, t, 6, u, channels].
    fn apart(&self, like: &Tensor, channels: i64) -> Vec<Extent> {
        let [t, u] = [self.tiles(0), self.tiles(1)];
        std::iter::once((like, 0).into()).chain(fixed(&[SEEN as i64, t, SEEN as i64, u, channels])).collect()
    }

    /// Matrices along both axes.
    fn matrices(&self, b: &mut Builder, like: &Tensor, of: fn(&Self, usize) -> (usize, Vec<f64>)) -> [Tensor; 2] {
        [0, 1].map(|axis| of(self, axis)).map(|(rows, values)| matrix(b, like, rows, &values))
    }

    /// [N, channels, lengths] by matrices along both axes, which make tiles of it: \[36, N·t·u, channels\].
    fn tiled(
        &self,
        b: &mut Builder,
        x: &Tensor,
        (channels, lengths): (i64, [i64; 2]),
        [rows, columns]: &[Tensor; 2],
    ) -> Tensor {
        let places = channels_last(b, x);
        let made = left(b, rows, &places, &[(x, 0).into(), lengths[0].into(), (lengths[1] * channels).into()]);
        let made = left(b, columns, &made, &fixed(&[-1, lengths[1], channels]));
        let apart = b.reshape(&made, &self.apart(x, channels));
        tiles_first(b, &apart, channels)
    }

    /// The other way: \[36, N·t·u, channels\] by matrices along both axes as places, [N, lengths, channels].
    fn untiled(
        &self,
        b: &mut Builder,
        products: &Tensor,
        like: &Tensor,
        (channels, lengths): (i64, [i64; 2]),
        [rows, columns]: &[Tensor; 2],
    ) -> Tensor {
        let [t, u] = [self.tiles(0), self.tiles(1)];
        let seen = SEEN as i64;
        let extents = [seen.into(), seen.into(), (like, 0).into(), t.into(), u.into(), channels.into()];
        let apart = b.reshape(products, &extents);
        let back = b.transpose(&apart, &[2, 0, 3, 1, 4, 5]);
        let made = left(b, columns, &back, &fixed(&[-1, seen * u, channels]));
        let places = left(b, rows, &made, &[(like, 0).into(), (seen * t).into(), (lengths[1] * channels).into()]);
        b.reshape(&places, &[(like, 0).into(), (lengths[0] * lengths[1]).into(), channels.into()])
    }

    /// Bᵀ for all tiles of an axis, \[6·tiles, length of x\]: the number of rows, and the matrix.
    fn seen(&self, axis: usize) -> (usize, Vec<f64>) {
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
        (SEEN * tiles, matrix)
    }

    /// Aᵀ for all tiles of an axis, \[length of y, 6·tiles\]: the number of rows, and the matrix. What the last tile makes behind the end is left
    /// out.
    fn joined(&self, axis: usize) -> (usize, Vec<f64>) {
        let (tiles, length) = (self.tiles(axis) as usize, self.to[axis] as usize);
        let mut matrix = vec![0.0; length * SEEN * tiles];
        for place in 0..length {
            let (tile, k) = (place / TILE, place % TILE);
            for i in 0..SEEN {
                matrix[place * SEEN * tiles + i * tiles + tile] = transposed_a(k, i);
            }
        }
        (length, matrix)
    }
}

/// y of x, w and a bias.
pub fn forward(b: &mut Builder, plan: &Plan, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let [inputs, outputs] = plan.channels;
    // U [36, C, O]: a Gemm turns the cells by itself.
    let cells = b.reshape(w, &fixed(&[outputs, inputs, CELLS_2]));
    let cells = b.transpose(&cells, &[1, 0, 2]);
    let cells = b.reshape(&cells, &fixed(&[inputs * outputs, CELLS_2]));
    let both = g_twice(b, w);
    let weights = gemm_of(b, (&both, false), (&cells, true), 1.0);
    let weights = b.reshape(&weights, &fixed(&[SEEN_2, inputs, outputs]));
    let along = plan.matrices(b, x, Plan::seen);
    let tiles = plan.tiled(b, x, (inputs, plan.from), &along);

    let products = b.matmul(&tiles, &weights);

    let along = plan.matrices(b, x, Plan::joined);
    let places = plan.untiled(b, &products, x, (outputs, plan.to), &along);
    let places = bias.map_or(places.clone(), |bias| b.binary("Add", &places, bias));
    channels_first(b, &places, x, outputs, plan.to)
}

/// ∂x and ∂w, those that are wanted, of the cotangent g of y.
///
/// ONNX Runtime runs what a node reads from the last one written to the first. So what x and w become stands before what g becomes: then it is
/// made when g is there, and not before the way forward goes on.
pub fn back(
    b: &mut Builder,
    plan: &Plan,
    g: &Tensor,
    x: &Tensor,
    w: &Tensor,
    wanted: [bool; 2],
) -> [Option<Tensor>; 2] {
    let [inputs, outputs] = plan.channels;
    let both = g_twice(b, w);
    // Uᵀ [36, O, C], which needs no cells turned.
    let weights = wanted[0].then(|| {
        let cells = b.reshape(w, &fixed(&[outputs * inputs, CELLS_2]));
        let weights = gemm_of(b, (&both, false), (&cells, true), 1.0);
        b.reshape(&weights, &fixed(&[SEEN_2, outputs, inputs]))
    });
    // V once more, along the other axis first: else ONNX Runtime would find that it is that of the way forward, and keep that one for so long.
    let tiles = wanted[1].then(|| {
        let places = channels_last(b, x);
        let [along_rows, along_columns] = plan.matrices(b, x, Plan::seen);
        let columns = left(b, &along_columns, &places, &fixed(&[-1, plan.from[1], inputs]));
        let row = SEEN as i64 * plan.tiles(1) * inputs;
        let rows = left(b, &along_rows, &columns, &[(x, 0).into(), plan.from[0].into(), row.into()]);
        let apart = b.reshape(&rows, &plan.apart(x, inputs));
        tiles_first(b, &apart, inputs)
    });

    let along = plan.matrices(b, g, |plan, axis| turned(plan.joined(axis)));
    let cotangents = plan.tiled(b, g, (outputs, plan.to), &along);

    let dx = weights.map(|weights| {
        let products = b.matmul(&cotangents, &weights);
        let along = plan.matrices(b, x, |plan, axis| turned(plan.seen(axis)));
        let places = plan.untiled(b, &products, x, (inputs, plan.from), &along);
        channels_first(b, &places, x, inputs, plan.from)
    });
    let dw = tiles.map(|tiles| {
        let turned = b.transpose(&cotangents, &[0, 2, 1]);
        let products = b.matmul(&turned, &tiles);
        let products = b.reshape(&products, &fixed(&[SEEN_2, outputs * inputs]));
        let cells = gemm_of(b, (&products, true), (&both, false), 1.0);
        b.reshape(&cells, &fixed(&[outputs, inputs, CELLS as i64, CELLS as i64]))
    });
    [dx, dw]
}

/// A matrix of so many rows, of the type of `like`.
fn matrix(b: &mut Builder, like: &Tensor, rows: usize, values: &[f64]) -> Tensor {
    b.matrix(like, rows as u64, (values.len() / rows) as u64, values)
}

/// (G⊗G) \[36, 9\].
fn g_twice(b: &mut Builder, like: &Tensor) -> Tensor {
    let g = g();
    let row = |i: usize, j: usize| (0..CELLS * CELLS).map(move |cell| g[i][cell / CELLS] * g[j][cell % CELLS]);
    let values: Vec<f64> = (0..SEEN * SEEN).flat_map(|at| row(at / SEEN, at % SEEN)).collect();
    matrix(b, like, SEEN * SEEN, &values)
}

/// A matrix with its rows and columns exchanged.
fn turned((rows, values): (usize, Vec<f64>)) -> (usize, Vec<f64>) {
    let columns = values.len() / rows;
    (columns, (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect())
}

fn fixed(extents: &[i64]) -> Vec<Extent> {
    extents.iter().map(|n| Extent::Fixed(*n)).collect()
}

/// A matrix times each of the matrices that a reshape to `extents` makes.
fn left(b: &mut Builder, matrix: &Tensor, x: &Tensor, extents: &[Extent]) -> Tensor {
    let x = b.reshape(x, extents);
    b.matmul(matrix, &x)
}

/// [N, C, H, W] as [N, H·W, C]. ONNX Runtime moves one axis of three several times faster than one of more.
fn channels_last(b: &mut Builder, x: &Tensor) -> Tensor {
    let maps = b.reshape(x, &[(x, 0).into(), (x, 1).into(), Extent::Fixed(-1)]);
    b.transpose(&maps, &[0, 2, 1])
}

/// The way back: [N, H·W, C] as [N, C, H, W].
fn channels_first(b: &mut Builder, places: &Tensor, like: &Tensor, channels: i64, lengths: [i64; 2]) -> Tensor {
    let maps = b.transpose(places, &[0, 2, 1]);
    b.reshape(&maps, &[(like, 0).into(), channels.into(), lengths[0].into(), lengths[1].into()])
}

/// [N, 6, t, 6, u, C] as [36, N·t·u, C].
fn tiles_first(b: &mut Builder, apart: &Tensor, channels: i64) -> Tensor {
    let tiles = b.transpose(apart, &[1, 3, 0, 2, 4, 5]);
    b.reshape(&tiles, &fixed(&[SEEN_2, -1, channels]))
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
        for (channels, length) in [(64, 16), (128, 8), (192, 16), (512, 8), (128, 28)] {
            assert!(is_faster(channels, length, SAMPLES), "{channels} {length}");
        }
        for (channels, length) in
            [(16, 32), (32, 16), (64, 32), (64, 56), (64, 8), (256, 4), (256, 2), (256, 1), (3, 8)]
        {
            assert!(!is_faster(channels, length, SAMPLES), "{channels} {length}");
        }
        // Weights are transformed once for all samples.
        assert!(!is_faster(512, 4, 4.0) && is_faster(512, 4, 64.0));
    }
}
