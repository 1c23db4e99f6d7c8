//! Sums over sliding windows, by a convolution with ones: its gradient knows run-time shapes, that of AveragePool does not.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Tensor, ints};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::{Known, Refusal, Site, extent};

/// A sliding window over the spatial axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub kernel: Vec<u64>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    /// The beginnings of all axes, then their ends.
    pub pads: Vec<i64>,
}

impl Window {
    /// The window of a pooling or convolution over `x` with this kernel; `auto_pad` and `ceil_mode` become pads.
    pub fn of(site: &Site, x: &Tensor, kernel: Vec<u64>) -> Known<Self> {
        let n = kernel.len();
        let list = |name: &str, default: i64, length: usize| {
            let given = site.node.ints(name).filter(|l| l.len() == length);
            given.map_or_else(|| vec![default; length], <[i64]>::to_vec)
        };
        let mut window = Window {
            kernel,
            strides: list("strides", 1, n),
            dilations: list("dilations", 1, n),
            pads: list("pads", 0, 2 * n),
        };
        if window.strides.iter().chain(&window.dilations).any(|v| *v < 1) {
            return Err("a stride or dilation is below 1".into());
        }
        let auto_pad = site.node.string("auto_pad").unwrap_or("NOTSET");
        for axis in 0..n {
            let reach = window.reach(axis);
            let stride = window.strides[axis];
            let length = x.ty.dims.as_ref().and_then(|d| d.get(axis + 2)).and_then(Dim::known).map(extent);
            let unknown = || {
                Refusal(format!(
                    "dimension {} of {:?} decides its padding and is known only to the running graph",
                    axis + 2,
                    x.name
                ))
            };
            match auto_pad {
                "SAME_UPPER" | "SAME_LOWER" => {
                    let total = if stride == 1 {
                        reach
                    } else {
                        let length = length.ok_or_else(unknown)?;
                        ((length + stride - 1) / stride - 1) * stride + reach + 1 - length
                    };
                    let total = total.max(0);
                    let (less, more) = (total / 2, total - total / 2);
                    let upper = auto_pad == "SAME_UPPER";
                    window.pads[axis] = if upper { less } else { more };
                    window.pads[n + axis] = if upper { more } else { less };
                }
                "VALID" => (window.pads[axis], window.pads[n + axis]) = (0, 0),
                _ if site.int("ceil_mode", 0) != 0 && stride > 1 => {
                    let length = length.ok_or_else(unknown)?;
                    let room = length + window.pads[axis] + window.pads[n + axis] - reach - 1;
                    let mut count = (room + stride - 1) / stride + 1;
                    // No window starts in the padding behind the end.
                    if (count - 1) * stride >= length + window.pads[axis] {
                        count -= 1;
                    }
                    window.pads[n + axis] += ((count - 1) * stride - room).max(0);
                }
                _ => {}
            }
        }
        Ok(window)
    }

    /// d·(k − 1): the distance between the first and the last cell.
    pub fn reach(&self, axis: usize) -> i64 {
        self.dilations[axis] * (extent(self.kernel[axis]) - 1)
    }

    /// Whether it reaches over the edge.
    pub fn is_padded(&self) -> bool {
        self.pads.iter().any(|p| *p != 0)
    }

    /// Whether it is one cell that visits every place.
    pub fn is_point(&self) -> bool {
        !self.is_padded() && self.is_dense() && self.kernel.iter().all(|k| *k == 1)
    }

    /// Whether it moves by one place at a time.
    pub fn is_dense(&self) -> bool {
        self.strides.iter().all(|s| *s == 1)
    }

    /// How many cells it has.
    pub fn cells(&self) -> f64 {
        self.kernel.iter().map(|k| *k as f64).product()
    }

    /// The same as attributes of Conv.
    pub fn attributes(&self) -> Vec<crate::onnx::AttributeProto> {
        let kernel: Vec<i64> = self.kernel.iter().map(|k| extent(*k)).collect();
        vec![
            ints("kernel_shape", &kernel),
            ints("strides", &self.strides),
            ints("dilations", &self.dilations),
            ints("pads", &self.pads),
        ]
    }

    /// Spatial dims of the result for spatial dims of the operand.
    pub fn slid(&self, spatial: &[Dim]) -> Vec<Dim> {
        let n = self.kernel.len();
        let slide = |(axis, d): (usize, &Dim)| {
            let length = extent(d.known()?) + self.pads[axis] + self.pads[n + axis] - self.reach(axis) - 1;
            u64::try_from(length / self.strides[axis] + 1).ok().filter(|_| length >= 0).map(Dim::Known)
        };
        spatial.iter().take(n).enumerate().map(|each| slide(each).unwrap_or_default()).collect()
    }
}

/// Sums over windows of a picture [N, 1, …].
pub fn window_sum(b: &mut Builder, picture: &Tensor, window: &Window) -> Tensor {
    let dims: Vec<u64> = [1, 1].into_iter().chain(window.kernel.iter().copied()).collect();
    let ones = b.ones(picture, &dims);
    let made = picture
        .ty
        .dims
        .as_ref()
        .map(|d| d.iter().take(2).cloned().chain(window.slid(d.get(2..).unwrap_or_default())).collect());
    b.one("Conv", &[picture, &ones], window.attributes(), TensorType { elem: picture.ty.elem, dims: made })
}

/// Sums over windows of each channel: [N, C, …] → [N, C, …].
pub fn channel_sums(b: &mut Builder, x: &Tensor, rank: usize, window: &Window) -> Tensor {
    let channel_as_sample: Vec<Extent> =
        [Extent::Fixed(-1), Extent::Fixed(1)].into_iter().chain((2..rank).map(|i| (x, i).into())).collect();
    let pictures = b.reshape(x, &channel_as_sample);
    let sums = window_sum(b, &pictures, window);
    let back: Vec<Extent> =
        [(x, 0).into(), (x, 1).into()].into_iter().chain((2..rank).map(|i| (&sums, i).into())).collect();
    b.reshape(&sums, &back)
}
