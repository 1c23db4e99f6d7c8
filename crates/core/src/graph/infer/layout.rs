//! What the axes of an activation mean, by how it was made.

use super::reduction::reduced_axes;
use super::shaping::{inserted_axes, permutation};
use super::site::{Axes, Site};
use crate::graph::types::{Dim, TensorType};

/// What the axes of a value mean. It decides whether a regulariser takes `[N, C, L]` for a map or for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Rank 2: rows of features.
    Features,
    /// Axis 1 holds the channels: made by Conv, ConvTranspose, pooling, BatchNormalization of rank 3 and more,
    /// InstanceNormalization or GroupNormalization, and what element-wise operators, Concat, Resize and the like made of that.
    Spatial,
    /// The last axis holds the features: made by LSTM, GRU, RNN, by MatMul, an embedding or LayerNormalization of rank 3 and more,
    /// and what keeps the last axis where it is.
    Sequence,
    /// Neither is known.
    #[default]
    Unknown,
}

/// How an operator decides the layout of what it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    Maps,
    Rows,
    /// Sequences, of any known rank above 2.
    Sequences,
    /// Maps, of any known rank above 2.
    MapsFromRank,
    Recurrent,
    Nothing,
    Joined,
    Normalized,
    Gathered,
    Transposed,
    Reshaped,
    Unsqueezed,
    Squeezed,
    Reduced,
}

impl Making {
    /// By the operator's name, whatever its domain; `None` for one that has no way of its own.
    pub fn of(op: &str) -> Option<Self> {
        Some(match op {
            "Conv"
            | "ConvTranspose"
            | "DeformConv"
            | "ConvInteger"
            | "QLinearConv"
            | "FusedConv"
            | "MaxPool"
            | "AveragePool"
            | "LpPool"
            | "GlobalAveragePool"
            | "GlobalMaxPool"
            | "GlobalLpPool"
            | "MaxUnpool"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "GroupNorm"
            | "LRN"
            | "DepthToSpace"
            | "SpaceToDepth"
            | "MaxRoiPool"
            | "RoiAlign"
            | "GridSample" => Making::Maps,
            "BatchNormalization" | "BatchNormInternal" => Making::MapsFromRank,
            "LSTM" | "GRU" | "RNN" | "LSTMTraining" | "GRUTraining" | "Attention" | "MultiHeadAttention" => {
                Making::Recurrent
            }
            "MatMul" | "FusedMatMul" | "Einsum" => Making::Sequences,
            "LayerNormalization"
            | "RMSNormalization"
            | "SimplifiedLayerNormalization"
            | "SkipLayerNormalization"
            | "SkipSimplifiedLayerNormalization" => Making::Normalized,
            "Gather" => Making::Gathered,
            "Transpose" => Making::Transposed,
            "Reshape" => Making::Reshaped,
            "Unsqueeze" => Making::Unsqueezed,
            "Squeeze" => Making::Squeezed,
            "ArgMax" | "ArgMin" => Making::Reduced,
            "Flatten" => Making::Rows,
            "Shape" | "Size" | "NonZero" | "Constant" | "ConstantOfShape" | "Range" | "OneHot" | "GatherND"
            | "GatherElements" => Making::Nothing,
            op if op.starts_with("Reduce") => Making::Reduced,
            _ => return None,
        })
    }
}

/// The layout of a node's outputs, given that of its inputs and the type of its first output.
pub(super) fn of(making: Making, site: &Site<'_, '_>, input: impl Fn(usize) -> Layout, result: &TensorType) -> Layout {
    let rank = result.rank();
    match (making, rank) {
        (_, Some(2)) => Layout::Features,
        (_, Some(0 | 1)) | (Making::Nothing, _) | (Making::Sequences | Making::MapsFromRank, None) => Layout::Unknown,
        (Making::Maps | Making::MapsFromRank, _) => Layout::Spatial,
        (Making::Rows, _) => Layout::Features,
        (Making::Recurrent | Making::Sequences, _) => Layout::Sequence,
        (Making::Joined, _) => joined(site, &input, rank),
        (Making::Normalized, _) => normalized(site, &input, rank),
        (Making::Gathered, _) => gathered(site, &input),
        (Making::Transposed, _) => transposed(site, input(0)),
        (Making::Reshaped, _) => reshaped(site, input(0), result),
        (Making::Unsqueezed, _) => unsqueezed(site, input(0)),
        (Making::Squeezed, _) => squeezed(site, input(0)),
        (Making::Reduced, _) => reduced(site, input(0)),
    }
}

/// What the inputs of the result's rank agree on. Constants and scalars say nothing.
fn joined(site: &Site<'_, '_>, input: impl Fn(usize) -> Layout, rank: Option<usize>) -> Layout {
    let mut found = Layout::Unknown;
    for slot in 0..site.input_count() {
        let other_rank = rank.is_some() && site.dims(slot).is_some_and(|d| Some(d.len()) != rank);
        match input(slot) {
            Layout::Unknown | Layout::Features => {}
            _ if other_rank => {}
            layout if found == Layout::Unknown || found == layout => found = layout,
            _ => return Layout::Unknown,
        }
    }
    found
}

/// Normalising over the last axis alone makes features of it; over more axes it says nothing new.
fn normalized(site: &Site<'_, '_>, input: impl Fn(usize) -> Layout, rank: Option<usize>) -> Layout {
    let axis = site.int("axis", -1);
    let last = axis == -1 || rank.and_then(|r| i64::try_from(r).ok()).is_some_and(|r| axis == r - 1);
    if last { Layout::Sequence } else { input(0) }
}

/// Rows of a table that is no activation are an embedding; from an activation, Gather takes positions.
fn gathered(site: &Site<'_, '_>, input: impl Fn(usize) -> Layout) -> Layout {
    let from_table = site.value(0).is_some_and(|v| site.known.graph.initializer(v).is_some());
    let Some(rank) = site.dims(0).map(<[Dim]>::len) else { return Layout::Unknown };
    let Some(axis) = super::dims::position(site.int("axis", 0), rank) else { return Layout::Unknown };
    if axis + 1 == rank {
        return Layout::Unknown;
    }
    match input(0) {
        _ if from_table => Layout::Sequence,
        Layout::Sequence => Layout::Sequence,
        Layout::Spatial if axis >= 2 => Layout::Spatial,
        _ => Layout::Unknown,
    }
}

/// The axis that holds channels or features.
fn channel_axis(layout: Layout, rank: usize) -> Option<usize> {
    match layout {
        Layout::Spatial => Some(1),
        Layout::Features | Layout::Sequence => rank.checked_sub(1),
        Layout::Unknown => None,
    }
}

/// The layout with channels or features at this axis.
fn with_channels_at(axis: usize, rank: usize) -> Layout {
    match axis {
        _ if axis + 1 == rank => Layout::Sequence,
        1 => Layout::Spatial,
        _ => Layout::Unknown,
    }
}

fn transposed(site: &Site<'_, '_>, input: Layout) -> Layout {
    let moved = || {
        let rank = site.dims(0)?.len();
        let channels = channel_axis(input, rank)?;
        let to = permutation(site, rank)?.iter().position(|p| *p == channels)?;
        Some(with_channels_at(to, rank))
    };
    moved().unwrap_or_default()
}

/// Features stay features where the last axis is kept, split or merged; channels where the batch and the channels are kept, or where
/// a map is arranged into another map of the same batch (channel shuffles, group normalisation).
fn reshaped(site: &Site<'_, '_>, input: Layout, result: &TensorType) -> Layout {
    let (Some(from), Some(to)) = (site.dims(0), result.dims.as_deref()) else { return Layout::Unknown };
    let same = |a: Option<&Dim>, b: Option<&Dim>| matches!((a, b), (Some(a), Some(b)) if a == b && *a != Dim::Unknown);
    match input {
        Layout::Spatial => {
            let batch = from.first() == to.first();
            let channels = same(from.get(1), to.get(1));
            if batch && (channels || (to.len() >= 4 && from.len() >= 3)) { Layout::Spatial } else { Layout::Unknown }
        }
        Layout::Sequence | Layout::Features => {
            let kept = same(from.last(), to.last()) || ends_in(to, from.last()) || ends_in(from, to.last());
            if kept { Layout::Sequence } else { Layout::Unknown }
        }
        Layout::Unknown => Layout::Unknown,
    }
}

/// Whether some trailing axes hold exactly as many elements as `axis`.
fn ends_in(dims: &[Dim], axis: Option<&Dim>) -> bool {
    let Some(size) = axis.and_then(Dim::known) else { return false };
    let mut product = 1u64;
    for dim in dims.iter().rev() {
        let Some(next) = dim.known().and_then(|n| product.checked_mul(n)) else { return false };
        product = next;
        if product == size {
            return true;
        }
    }
    false
}

fn unsqueezed(site: &Site<'_, '_>, input: Layout) -> Layout {
    let moved = || {
        let rank = site.dims(0)?.len();
        let channels = channel_axis(input, rank)?;
        let inserted = inserted_axes(site, rank)?;
        let to = (0..inserted.len()).filter(|i| !inserted[*i]).nth(channels)?;
        Some(with_channels_at(to, inserted.len()))
    };
    moved().unwrap_or_default()
}

fn squeezed(site: &Site<'_, '_>, input: Layout) -> Layout {
    let moved = || {
        let data = site.dims(0)?;
        let gone = match site.axes(1) {
            Axes::Known(axes) => Site::flags(&axes, data.len())?,
            Axes::Missing => data.iter().map(|d| d.known().map(|n| n == 1)).collect::<Option<_>>()?,
            Axes::Unknown => return None,
        };
        Some(after_dropping(input, &gone))
    };
    moved().unwrap_or_default()
}

fn reduced(site: &Site<'_, '_>, input: Layout) -> Layout {
    let moved = || {
        if site.int("keepdims", 1) != 0 {
            return Some(input);
        }
        let rank = site.dims(0)?.len();
        Some(after_dropping(input, &reduced_axes(site, rank)?))
    };
    moved().unwrap_or_default()
}

/// Maps stay maps and sequences sequences when axes go that are not the channels.
fn after_dropping(input: Layout, gone: &[bool]) -> Layout {
    let rank = gone.len();
    let kept = channel_axis(input, rank).is_some_and(|c| gone.get(c) == Some(&false));
    let batch_kept = gone.first() == Some(&false);
    match input {
        Layout::Spatial if kept && batch_kept => Layout::Spatial,
        Layout::Sequence | Layout::Features if kept => Layout::Sequence,
        _ => Layout::Unknown,
    }
}
