//! Conv and ConvTranspose, and the windows that they share with pooling.

use super::site::{MAX_RANK, Site};
use crate::graph::Attributes;
use crate::graph::types::Dim;

/// How a window slides along one axis.
pub(super) struct Window {
    pub kernel: Option<u64>,
    pub stride: u64,
    pub dilation: u64,
    /// Padding before and after.
    pub pads: (i64, i64),
    pub auto: AutoPad,
}

/// The attribute `auto_pad`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AutoPad {
    Explicit,
    Same,
    Valid,
}

impl Window {
    /// The window along spatial axis `axis` of `axes`, from the attributes; `kernel` is used where `kernel_shape` is missing.
    pub fn along(site: &Site<'_, '_>, axis: usize, axes: usize, kernel: Option<u64>) -> Option<Self> {
        let positive = |name: &str| match site.node.ints(name).filter(|list| !list.is_empty()) {
            Some(list) => list.get(axis).and_then(|n| u64::try_from(*n).ok()).filter(|n| *n > 0),
            None => Some(1),
        };
        let kernel = match site.node.ints("kernel_shape").filter(|list| !list.is_empty()) {
            Some(list) => u64::try_from(*list.get(axis)?).ok(),
            None => kernel,
        };
        let pads = site.node.ints("pads").unwrap_or(&[]);
        let pad = |i: usize| if pads.is_empty() { Some(0) } else { pads.get(i).copied() };
        let auto = match site.string("auto_pad") {
            None | Some("" | "NOTSET") => AutoPad::Explicit,
            Some("SAME_UPPER" | "SAME_LOWER") => AutoPad::Same,
            Some("VALID") => AutoPad::Valid,
            Some(_) => return None,
        };
        Some(Window {
            kernel,
            stride: positive("strides")?,
            dilation: positive("dilations")?,
            pads: (pad(axis)?, pad(axis + axes)?),
            auto,
        })
    }

    /// `(kernel − 1)·dilation + 1`, what the kernel spans.
    fn span(&self) -> Option<i128> {
        let gaps = i128::from(self.kernel?.checked_sub(1)?);
        gaps.checked_mul(i128::from(self.dilation))?.checked_add(1)
    }

    fn pads(&self) -> (i128, i128) {
        match self.auto {
            AutoPad::Explicit => (self.pads.0.into(), self.pads.1.into()),
            _ => (0, 0),
        }
    }

    /// Output size: `⌊(in + pads − span)/stride⌋ + 1`, rounded up with `ceil` except where the last window would start in the
    /// padding; `⌈in/stride⌉` with SAME padding.
    pub fn slide(&self, input: &Dim, ceil: bool) -> Dim {
        let keeps = match self.auto {
            AutoPad::Same => self.stride == 1,
            _ => self.stride == 1 && self.span().is_some_and(|span| self.pads().0 + self.pads().1 == span - 1),
        };
        if keeps {
            return input.clone();
        }
        let Some(size) = input.known() else { return Dim::Unknown };
        if self.auto == AutoPad::Same {
            return Dim::Known(size.div_ceil(self.stride));
        }
        let count = || {
            let stride = i128::from(self.stride);
            let (before, after) = self.pads();
            let room = i128::from(size) + before + after - self.span()?;
            if room < 0 {
                return None;
            }
            let mut count = room / stride + 1 + i128::from(ceil && room % stride != 0);
            if ceil && (count - 1).checked_mul(stride)? >= i128::from(size) + before {
                count -= 1;
            }
            u64::try_from(count).ok()
        };
        count().map_or(Dim::Unknown, Dim::Known)
    }

    /// Output size of the transposed operation: `stride·(in − 1) + output_padding + span − pads`; `in·stride` with SAME padding.
    fn spread(&self, input: &Dim, output_padding: i64) -> Dim {
        let Some(size) = input.known() else { return Dim::Unknown };
        let count = || {
            let stride = i128::from(self.stride);
            let count = match self.auto {
                AutoPad::Same => i128::from(size).checked_mul(stride)?,
                _ => {
                    let between = i128::from(size.checked_sub(1)?).checked_mul(stride)?;
                    let (before, after) = self.pads();
                    between.checked_add(i128::from(output_padding))?.checked_add(self.span()?)? - before - after
                }
            };
            u64::try_from(count).ok()
        };
        count().map_or(Dim::Unknown, Dim::Known)
    }
}

/// Rank from the data, else from the weight, else from `kernel_shape`.
fn spatial_axes(site: &Site<'_, '_>) -> Option<usize> {
    let known = site.dims(0).map(<[Dim]>::len).or_else(|| site.dims(1).map(<[Dim]>::len));
    let rank = known.or_else(|| site.node.ints("kernel_shape").map(|k| k.len() + 2))?;
    (3..=MAX_RANK).contains(&rank).then(|| rank - 2)
}

fn at(dims: Option<&[Dim]>, i: usize) -> Dim {
    dims.and_then(|d| d.get(i)).cloned().unwrap_or_default()
}

/// `[N, M, …]` from data `[N, C, …]` and weight `[M, C/group, …]`.
pub(super) fn conv(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let axes = spatial_axes(site)?;
    let (data, weight) = (site.dims(0), site.dims(1));
    let mut out = Vec::with_capacity(axes + 2);
    out.extend([at(data, 0), at(weight, 0)]);
    for axis in 0..axes {
        let window = Window::along(site, axis, axes, at(weight, axis + 2).known());
        out.push(window.map_or(Dim::Unknown, |w| w.slide(&at(data, axis + 2), false)));
    }
    Some(out)
}

/// `[N, M, …]` from data `[N, C, …]` and weight `[C, M/group, …]`.
pub(super) fn transposed(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let axes = spatial_axes(site)?;
    let (data, weight) = (site.dims(0), site.dims(1));
    let group = u64::try_from(site.int("group", 1)).map_or(Dim::Unknown, Dim::Known);
    let mut out = vec![at(data, 0), super::dims::times(&at(weight, 1), &group)];
    let fixed = site.node.ints("output_shape").filter(|s| s.len() >= axes);
    let padding = site.node.ints("output_padding").unwrap_or(&[]);
    for axis in 0..axes {
        out.push(match fixed {
            // Some exporters write all of the shape, the operator asks for its spatial part.
            Some(shape) => u64::try_from(shape[shape.len() - axes + axis]).map_or(Dim::Unknown, Dim::Known),
            None => {
                let window = Window::along(site, axis, axes, at(weight, axis + 2).known());
                let padding = padding.get(axis).copied().unwrap_or(0);
                window.map_or(Dim::Unknown, |w| w.spread(&at(data, axis + 2), padding))
            }
        });
    }
    Some(out)
}
