//! Nodes in the form of a newer operator set: attributes that became inputs, and defaults that became others.

use super::Inputs;
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{AttributeProto, NodeProto, TensorProto};
use crate::regularizer::emit::{int, string};
use crate::rewrite::site::{Known, Refusal};

/// Since this operator set Reshape can be told that 0 is an extent.
const ALLOWZERO: i64 = 14;

/// Bounds of Clip before operator set 11, where it names none.
const BOUNDS: [(&str, f32); 2] = [("min", f32::MIN), ("max", f32::MAX)];

/// Writes nodes anew.
pub struct Converter<'a> {
    /// The operator set that they shall be in.
    pub to: i64,
    root: &'a str,
    names: usize,
}

impl<'a> Converter<'a> {
    /// New values get names that start with `root`.
    pub fn new(to: i64, root: &'a str) -> Self {
        Converter { to, root, names: 0 }
    }

    /// Applies one conversion of the table to a node; whether that changed the node. What goes before and behind it is added to `before`
    /// and `after`.
    ///
    /// # Errors
    ///
    /// A form of the node that has no counterpart.
    pub(super) fn convert(
        &mut self,
        rule: &str,
        node: &mut NodeProto,
        inputs: Inputs<'_>,
        before: &mut Vec<NodeProto>,
        after: &mut Vec<NodeProto>,
    ) -> Known<bool> {
        let x = &inputs.ty(0);
        match rule {
            "axes" => self.moved(node, "axes", 1, before),
            "split" => self.moved(node, "split", 1, before),
            "pads" => self.pads(node, x, before),
            "slice" => {
                for (slot, name) in ["starts", "ends", "axes"].into_iter().enumerate() {
                    self.moved(node, name, slot + 1, before)?;
                }
                Ok(true)
            }
            "k" => {
                let k = node.int("k").ok_or_else(|| Refusal::from("it has no k"))?;
                let name = self.constant(integers(&[k]), before);
                set(node, 1, name);
                take(node, "k");
                Ok(true)
            }
            "num_outputs" => {
                let is_even = node.input.get(1).is_none_or(String::is_empty);
                if is_even {
                    node.attribute.push(int("num_outputs", i64::try_from(node.output.len()).unwrap_or(i64::MAX)));
                }
                Ok(is_even)
            }
            "bounds" => self.bounds(node, x, before),
            "ratio" => {
                only_output(node, "its mask is defined otherwise since operator set 12")?;
                let Some(ratio) = node.float("ratio") else { return Ok(false) };
                let name = self.constant(float(ratio), before);
                set(node, 1, name);
                take(node, "ratio");
                Ok(true)
            }
            "no_mask" => {
                only_output(node, "its mask is of booleans since operator set 10")?;
                Ok(false)
            }
            "inference" => {
                only_output(
                    node,
                    "its outputs beside the first, which ask for training, are others since operator set 14",
                )?;
                Ok(false)
            }
            "last_axis" => {
                self.last_axis(node, x, before, after);
                Ok(true)
            }
            "scatter_elements" => {
                node.op_type = Some("ScatterElements".into());
                Ok(true)
            }
            "pads_given" => match node.string("auto_pad").unwrap_or("NOTSET") {
                "NOTSET" | "VALID" if node.attribute("output_shape").is_none() => Ok(false),
                _ => Err("since operator set 11 pads that it works out itself go to other ends".into()),
            },
            "floor" => match node.int("ceil_mode").unwrap_or(0) {
                0 => Ok(false),
                _ if has_the_same_windows(node, x) => Ok(false),
                _ => Err("ceil_mode counts windows that begin in the padding otherwise since then, or what reaches behind it".into()),
            },
            "upsample" => self.upsample(node, before),
            "coordinates" => self.coordinates(node, inputs, before),
            "sizes" => super::resize::sizes(node),
            "mask" if node.input.get(3).is_none_or(String::is_empty) => Ok(false),
            "mask" => match (from_the_end(&inputs.ty(3), 1), from_the_end(&inputs.ty(1), 2)) {
                (Dim::Known(2..), _) => Ok(false),
                // Of one key, the first is all.
                (columns, keys) if columns == keys && columns != Dim::Unknown => Ok(false),
                _ => Err("a mask of one column was for all keys, and since operator set 24 is for the first alone".into()),
            },
            "axis" => {
                let axis = take(node, "axis").map_or(1, |a| a.i());
                let name = self.constant(TensorProto { dims: Vec::new(), ..integers(&[axis]) }, before);
                set(node, 2, name);
                Ok(true)
            }
            "modes" => {
                let renamed = match node.string("mode") {
                    Some("bilinear") => "linear",
                    Some("bicubic") => "cubic",
                    _ => return Ok(false),
                };
                take(node, "mode");
                node.attribute.push(string("mode", renamed));
                Ok(true)
            }
            "output_half_pixel" => {
                node.attribute.push(string("coordinate_transformation_mode", "output_half_pixel"));
                Ok(true)
            }
            "channels" => self.channels(node, x, before),
            other => Err(Refusal(format!("the table names a conversion {other:?} that does not exist"))),
        }
    }

    /// An attribute of integers that became an input.
    fn moved(&mut self, node: &mut NodeProto, name: &str, slot: usize, before: &mut Vec<NodeProto>) -> Known<bool> {
        let Some(values) = take(node, name) else { return Ok(false) };
        // No axes at all are all of them, as where they are left out.
        if values.ints.is_empty() && name == "axes" && node.op_type().starts_with("Reduce") {
            return Ok(true);
        }
        let constant = self.constant(integers(&values.ints), before);
        set(node, slot, constant);
        Ok(true)
    }

    fn pads(&mut self, node: &mut NodeProto, x: &TensorType, before: &mut Vec<NodeProto>) -> Known<bool> {
        self.moved(node, "pads", 1, before)?;
        if let Some(value) = take(node, "value").filter(|v| v.f() != 0.0) {
            let name = self.number(value.f(), x, before)?;
            set(node, 2, name);
        }
        Ok(true)
    }

    fn bounds(&mut self, node: &mut NodeProto, x: &TensorType, before: &mut Vec<NodeProto>) -> Known<bool> {
        let mut is_new = false;
        for (i, (name, default)) in BOUNDS.into_iter().enumerate() {
            let given = take(node, name).map(|a| a.f());
            // Since then they are the ends of the element type, which float32 has as its own.
            if given.is_none() && x.elem == DataType::Float as i32 {
                continue;
            }
            let name = self.number(given.unwrap_or(default), x, before)?;
            set(node, i + 1, name);
            is_new = true;
        }
        Ok(is_new)
    }

    /// Until operator set 12 what lies before the axis is one dimension, and the rest another; since 13 the axis stands alone.
    fn last_axis(
        &mut self,
        node: &mut NodeProto,
        x: &TensorType,
        before: &mut Vec<NodeProto>,
        after: &mut Vec<NodeProto>,
    ) {
        let axis = take(node, "axis").map_or(1, |a| a.i());
        let output = node.output.clone();
        let is_last = axis == -1 || x.rank().is_some_and(|rank| i64::try_from(rank).is_ok_and(|rank| axis + 1 == rank));
        node.attribute.push(int("axis", -1));
        if is_last {
            return;
        }
        let [shape, flat, made] = [(); 3].map(|()| self.name());
        before.push(plain("Shape", &node.input, std::slice::from_ref(&shape), Vec::new()));
        before.push(plain("Flatten", &node.input, std::slice::from_ref(&flat), vec![int("axis", axis)]));
        node.input = vec![flat];
        node.output = vec![made.clone()];
        let attributes = if self.to < ALLOWZERO { Vec::new() } else { vec![int("allowzero", 1)] };
        after.push(plain("Reshape", &[made, shape], &output, attributes));
    }

    /// Scale and bias had one element for each group; since operator set 21 they have one for each channel.
    fn channels(&mut self, node: &mut NodeProto, x: &TensorType, before: &mut Vec<NodeProto>) -> Known<bool> {
        let channels = x.dims.as_ref().and_then(|dims| i64::try_from(dims.get(1)?.known()?).ok());
        let channels = channels.ok_or_else(|| Refusal::from("the number of its channels is not known"))?;
        let groups = node.int("num_groups").filter(|g| *g > 0 && channels % g == 0);
        let groups = groups.ok_or_else(|| Refusal::from("num_groups does not divide the number of its channels"))?;
        for slot in [1, 2] {
            let [column, rows] = [(); 2].map(|()| self.name());
            let of_a_group = node.input.get(slot).cloned().unwrap_or_default();
            let shapes = [vec![groups, 1], vec![groups, channels / groups], vec![channels]];
            let [as_column, as_rows, as_list] = shapes.map(|shape| self.constant(integers(&shape), before));
            before.push(plain("Reshape", &[of_a_group, as_column], std::slice::from_ref(&column), Vec::new()));
            before.push(plain("Expand", &[column, as_rows], std::slice::from_ref(&rows), Vec::new()));
            let of_a_channel = self.name();
            before.push(plain("Reshape", &[rows, as_list], std::slice::from_ref(&of_a_channel), Vec::new()));
            set(node, slot, of_a_channel);
        }
        // It computes in float32 now, unless it is told otherwise.
        if x.elem == DataType::Double as i32 {
            node.attribute.push(int("stash_type", i64::from(x.elem)));
        }
        Ok(true)
    }

    /// A scalar of the element type of x.
    fn number(&mut self, value: f32, x: &TensorType, before: &mut Vec<NodeProto>) -> Known<String> {
        if x.elem == 0 {
            return Err("the element type of its input is not known, which a number beside it has to have".into());
        }
        let constant = self.constant(float(value), before);
        if x.elem == DataType::Float as i32 {
            return Ok(constant);
        }
        let cast = self.name();
        before.push(plain("Cast", &[constant], std::slice::from_ref(&cast), vec![int("to", i64::from(x.elem))]));
        Ok(cast)
    }

    /// A Constant node.
    pub(super) fn constant(&mut self, tensor: TensorProto, before: &mut Vec<NodeProto>) -> String {
        let name = self.name();
        let value = AttributeProto {
            name: Some("value".into()),
            r#type: Some(AttributeType::Tensor as i32),
            t: Some(Box::new(tensor)),
            ..AttributeProto::default()
        };
        before.push(plain("Constant", &[], std::slice::from_ref(&name), vec![value]));
        name
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("{}raise/{}", self.root, self.names)
    }
}

fn plain(op: &str, inputs: &[String], outputs: &[String], attribute: Vec<AttributeProto>) -> NodeProto {
    let name = outputs.first().cloned();
    let (input, output) = (inputs.to_vec(), outputs.to_vec());
    NodeProto { op_type: Some(op.into()), name, input, output, attribute, ..NodeProto::default() }
}

pub(super) fn take(node: &mut NodeProto, name: &str) -> Option<AttributeProto> {
    let at = node.attribute.iter().position(|a| a.name() == name)?;
    Some(node.attribute.remove(at))
}

pub(super) fn set(node: &mut NodeProto, slot: usize, name: String) {
    if node.input.len() <= slot {
        node.input.resize(slot + 1, String::new());
    }
    node.input[slot] = name;
}

/// The extent of an axis that is counted from the end, the last one being 1.
fn from_the_end(ty: &TensorType, axis: usize) -> Dim {
    let place = |dims: &Vec<Dim>| dims.len().checked_sub(axis).map(|i| dims[i].clone());
    ty.dims.as_ref().and_then(place).unwrap_or_default()
}

/// Whether a pooling with ceil_mode has no window that begins behind the last element of x, nor, where what is padded counts, one that
/// reaches behind the padding.
fn has_the_same_windows(node: &NodeProto, x: &TensorType) -> bool {
    let (Some(kernel), Some(dims)) = (node.ints("kernel_shape"), &x.dims) else { return false };
    let n = kernel.len();
    // In 128 bits, which no sum or product of a file's numbers leaves.
    let list = |name: &str, default: i128, length: usize| -> Vec<i128> {
        let given = node.ints(name).filter(|l| l.len() == length);
        given.map_or_else(|| vec![default; length], |l| l.iter().copied().map(i128::from).collect())
    };
    let (strides, dilations, pads) = (list("strides", 1, n), list("dilations", 1, n), list("pads", 0, 2 * n));
    let counts_padding = node.int("count_include_pad").unwrap_or(0) != 0;
    let is_plain = matches!(node.string("auto_pad"), None | Some("NOTSET"));
    let is_same = |i: usize| {
        let length = dims.get(i + 2).and_then(Dim::known).map(i128::from)?;
        let room = length + pads[i] + pads[n + i] - dilations[i] * (i128::from(kernel[i]) - 1) - 1;
        let stride = strides[i];
        if stride < 1 || room < 0 {
            return None;
        }
        let last = (room + stride - 1) / stride * stride;
        Some(room % stride == 0 || (!counts_padding && last < length + pads[i]))
    };
    is_plain && (0..n).all(|i| is_same(i) == Some(true))
}

fn only_output(node: &NodeProto, reason: &str) -> Known<()> {
    if node.output.iter().skip(1).all(String::is_empty) { Ok(()) } else { Err(reason.into()) }
}

fn integers(values: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![i64::try_from(values.len()).unwrap_or(i64::MAX)],
        data_type: Some(DataType::Int64 as i32),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn float(value: f32) -> TensorProto {
    TensorProto { data_type: Some(DataType::Float as i32), float_data: vec![value], ..TensorProto::default() }
}
