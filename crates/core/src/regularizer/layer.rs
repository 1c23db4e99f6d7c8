//! One activation to be regularised: its rows, whatever its rank and however much of its shape is known.

use thiserror::Error;

use super::emit::{Elem, Emitter, Tensor};
use super::rho::Reduction;
use crate::graph::types::Dim;
use crate::onnx::tensor_proto::DataType;

/// What one sample, one row of the regulariser, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// All activations of a sample: d is the product of all dimensions but the batch's (the paper's reading).
    Flatten,
    /// The channels at one location: [N, C, …] is N·… rows of C.
    Channel,
    /// The last axis at one position: [B, T, D] is B·T rows of D.
    Last,
}

impl View {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            View::Flatten => "flatten",
            View::Channel => "channel",
            View::Last => "last",
        }
    }
}

/// The regulariser cannot be written in this operator set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("needs {what}, which ONNX has from operator set {since} on, and the model imports {opset}")]
pub struct Unsupported {
    /// What is missing.
    pub what: &'static str,
    /// The first operator set that has it.
    pub since: i64,
    /// The model's operator set.
    pub opset: i64,
}

impl Unsupported {
    /// An error when `opset` is older than `since`.
    pub fn below(opset: i64, since: i64, what: &'static str) -> Result<(), Self> {
        if opset < since { Err(Unsupported { what, since, opset }) } else { Ok(()) }
    }
}

/// What a layer's term costs in one step, forward.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Multiply-adds.
    pub multiply_adds: f64,
    /// Bytes of intermediate tensors that grow with the number of slices.
    pub bytes: f64,
    /// Normal numbers drawn.
    pub random_numbers: f64,
}

/// How rows and directions meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// [rows, d] · [s, d]ᵀ.
    RowsByDirections,
    /// [.., d] · [d, s], of any dimensions but two.
    StackTimesDirections,
    /// [s, C] · [N, C, L]: maps are projected as they lie in memory, without a transpose.
    DirectionsTimesMaps,
}

/// An activation with the decisions made about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The tapped value.
    pub h: Tensor,
    /// What a row is.
    pub view: View,
    /// The axis that counts samples: 0, but 2 for the Y of a recurrent operator in its default layout. Only `Flatten` asks.
    pub batch_axis: usize,
    /// How rows become one number.
    pub reduction: Reduction,
}

impl Layer {
    /// The arithmetic: float64 for float64 activations, float32 for all others (half precisions are cast).
    pub fn elem(&self) -> Elem {
        if self.h.ty.elem == DataType::Double as i32 { Elem::F64 } else { Elem::F32 }
    }

    /// The activation in that arithmetic.
    pub(super) fn input(&self, e: &mut Emitter) -> Tensor {
        e.cast("cast", &self.h, self.elem().onnx())
    }

    fn dims(&self) -> Option<&[Dim]> {
        self.h.ty.dims.as_deref()
    }

    /// The axes that make up one row, counted from the front (`[-1]` for the last axis of an unknown rank); `None` for an unknown
    /// rank flattened. Empty where every element is a row of its own.
    pub fn row_axes(&self) -> Option<Vec<i64>> {
        let rank = self.dims().map(<[Dim]>::len);
        match (self.view, rank) {
            (_, Some(0)) => Some(Vec::new()),
            (View::Flatten, Some(rank)) => Some((0..rank as i64).filter(|a| *a != self.batch_axis as i64).collect()),
            (View::Flatten, None) => None,
            // On vectors every view is the row.
            (View::Channel, Some(rank)) => Some(if rank == 1 { Vec::new() } else { vec![1] }),
            (View::Channel, None) => Some(vec![1]),
            (View::Last, Some(rank)) => Some(vec![rank as i64 - 1]),
            (View::Last, None) => Some(vec![-1]),
        }
    }

    /// d, the number of values in a row, when the shape says it.
    pub fn row_length(&self) -> Option<u64> {
        let dims = self.dims()?;
        self.row_axes()?.iter().try_fold(1u64, |n, axis| {
            let axis = usize::try_from(*axis).ok()?;
            n.checked_mul(dims.get(axis)?.known()?)
        })
    }

    /// Number of rows; unknown dimensions count as 1.
    pub fn row_count(&self) -> f64 {
        let axes = self.row_axes().unwrap_or_default();
        let dims = self.dims().unwrap_or_default().iter().enumerate();
        dims.filter(|(i, _)| !axes.contains(&(*i as i64))).map(|(_, d)| d.known().map_or(1.0, |n| n as f64)).product()
    }

    /// Number of rows and their length, as far as known; the rest counts as 1.
    pub(super) fn size(&self) -> (f64, f64) {
        (self.row_count(), self.row_length().unwrap_or(1) as f64)
    }

    /// d as an int64 tensor of shape [1] in the running graph.
    pub(super) fn run_time_length(&self, e: &mut Emitter) -> Tensor {
        match (self.row_axes().as_deref(), self.dims()) {
            (Some([axis]), _) => e.dimension("length", &self.h, *axis),
            // More than one axis, or all of them but the first: the second dimension of the flattened tensor.
            _ => {
                let h = self.batch_first(e, "length_batch_first", &self.h);
                let flat = e.flatten("length_rows", &h);
                e.dimension("length", &flat, 1)
            }
        }
    }

    /// Which way the projection goes.
    pub fn projection(&self) -> Projection {
        let rank = self.dims().map(<[Dim]>::len);
        match (self.view, rank) {
            (View::Last, Some(1)) => Projection::StackTimesDirections,
            (View::Flatten, _) | (_, Some(0..=2)) => Projection::RowsByDirections,
            (View::Channel, _) => Projection::DirectionsTimesMaps,
            (View::Last, _) => Projection::StackTimesDirections,
        }
    }

    /// `h` (cast already) in the shape in which [`Layer::projection`] wants it: [rows, d], [.., d] or [N, C, L].
    pub(super) fn rows_to_project(&self, e: &mut Emitter, h: &Tensor) -> Tensor {
        let rank = self.dims().map(<[Dim]>::len);
        match (self.view, rank) {
            // Every element is a row of length 1.
            (View::Flatten | View::Channel, Some(0 | 1)) | (View::Last, Some(0)) => {
                e.reshape("rows", h, &[-1, 1], vec![Dim::Unknown, Dim::Known(1)])
            }
            (View::Flatten, Some(2)) if self.batch_axis == 0 => h.clone(),
            (View::Flatten, _) => {
                let h = self.batch_first(e, "batch_first", h);
                e.flatten("rows", &h)
            }
            (View::Channel, Some(2 | 3)) => h.clone(),
            (View::Channel, _) => e.merge_locations("maps", h),
            (View::Last, _) => h.clone(),
        }
    }

    /// The way back from [`Layer::rows_to_project`]: `rows` in the shape of h.
    pub(super) fn as_h(&self, e: &mut Emitter, rows: &Tensor) -> Tensor {
        let rank = self.dims().map(<[Dim]>::len);
        let is_reshaped = match (self.view, rank) {
            (View::Flatten, Some(2)) => self.batch_axis != 0,
            (View::Flatten, _) | (View::Channel, None | Some(0 | 1)) | (View::Last, Some(0)) => true,
            (View::Channel, Some(rank)) => rank > 3,
            (View::Last, _) => false,
        };
        if !is_reshaped {
            return rows.clone();
        }
        let shape = e.shape("h_shape", &self.h);
        let Some(perm) = self.batch_first_axes().filter(|_| self.view == View::Flatten) else {
            return e.reshape_to("gradient_shaped", rows, &shape, self.h.ty.dims.clone());
        };
        let order: Vec<i64> = perm.iter().map(|p| *p as i64).collect();
        let order = e.shape_constant("axes", &order);
        let shape = e.gather("batch_first_shape", &shape, &order, 0);
        let dims = self.dims().map(|dims| perm.iter().map(|p| dims[*p].clone()).collect());
        let shaped = e.reshape_to("gradient_batch_first", rows, &shape, dims);
        let mut back = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(i, p)| back[*p] = i);
        e.transpose("gradient_shaped", &shaped, &back)
    }

    /// The order of h's axes that has the axis of samples in front; `None` where it is there already.
    fn batch_first_axes(&self) -> Option<Vec<usize>> {
        let rank = self.dims()?.len();
        let rest = (0..rank).filter(|a| *a != self.batch_axis);
        (self.batch_axis > 0 && self.batch_axis < rank).then(|| std::iter::once(self.batch_axis).chain(rest).collect())
    }

    /// Moves the axis of samples to the front.
    fn batch_first(&self, e: &mut Emitter, label: &str, h: &Tensor) -> Tensor {
        match self.batch_first_axes() {
            Some(perm) => e.transpose(label, h, &perm),
            None => h.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::types::TensorType;
    use crate::regularizer::{Exact, Regularizer, Sampled};
    use std::collections::HashSet;

    /// Every layer there can be, as far as emission tells them apart.
    fn layers() -> impl Iterator<Item = Layer> {
        let shapes =
            [0, 1, 2, 3, 5].into_iter().flat_map(|rank| [Dim::Known(3), Dim::Unknown].map(|d| Some(vec![d; rank])));
        shapes.chain([None]).flat_map(|dims| {
            let views = [View::Flatten, View::Channel, View::Last].into_iter();
            views.flat_map(move |view| {
                let dims = dims.clone();
                [1, 10, 11].into_iter().flat_map(move |elem| {
                    let dims = dims.clone();
                    [0, 2].into_iter().flat_map(move |batch_axis| {
                        let dims = dims.clone();
                        [Reduction::Mean, Reduction::Sum].map(move |reduction| {
                            let h = Tensor { name: "h".into(), ty: TensorType { elem, dims: dims.clone() } };
                            Layer { h, view, batch_axis, reduction }
                        })
                    })
                })
            })
        })
    }

    #[test]
    fn every_name_is_made_once_and_read_after_it_was_made() {
        let regularizers: [&dyn Regularizer; 4] = [
            &Exact::default(),
            &Exact { for_ort_training: true },
            &Sampled { slices: 2, seed: Some(5), shared: false, structured: false },
            &Sampled { slices: 2, seed: Some(5), shared: true, structured: false },
        ];
        for layer in layers() {
            for (regularizer, opset) in regularizers.iter().flat_map(|r| [8, 13, 18].map(|o| (r, o))) {
                if regularizer.check(opset, &layer).is_err() {
                    continue;
                }
                let coef = Tensor {
                    name: "coef".into(),
                    ty: TensorType { elem: layer.elem().onnx(), dims: Some(Vec::new()) },
                };
                for with_value in [None, Some(false), Some(true)] {
                    let mut e = Emitter::new(opset, "root/", "layer");
                    let results = match with_value {
                        None => vec![regularizer.emit(&mut e, &layer)],
                        Some(with_value) => {
                            let made = regularizer.emit_gradient(&mut e, &layer, &coef, with_value);
                            assert_eq!(made.tensor.ty.elem, layer.h.ty.elem);
                            assert_eq!(made.tensor.ty.rank(), layer.h.ty.rank(), "{layer:?}");
                            [Some(made.tensor), made.value].into_iter().flatten().collect()
                        }
                    };
                    let emission = e.finish();
                    let mut made: HashSet<&str> = emission.constants.keys().map(String::as_str).collect();
                    made.extend(["h", "coef"]);
                    made.extend(emission.draws.keys().map(String::as_str));
                    for node in &emission.nodes {
                        for input in &node.input {
                            assert!(made.contains(input.as_str()), "{} reads {input} of {layer:?}", regularizer.name());
                        }
                        for output in &node.output {
                            assert!(made.insert(output), "{} makes {output} twice of {layer:?}", regularizer.name());
                        }
                    }
                    assert!(results.iter().all(|r| made.contains(r.name.as_str())));
                }
            }
        }
    }
}
