//! Upsample and Resize, which is told where it reads since operator set 11.
//!
//! Before, a scale of 1 or more reads at i/scale, rounded down where one element is read, as Upsample did. Of a smaller one the specification
//! says nothing; ONNX Runtime rounds up.

use super::Inputs;
use super::convert::{Converter, set, take};
use crate::graph::Attributes;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{NodeProto, TensorProto};
use crate::regularizer::emit::string;
use crate::rewrite::site::Known;

/// Since this operator set Resize is told where it reads.
const COORDINATES: i64 = 11;

impl Converter<'_> {
    /// Upsample is a Resize to no smaller size.
    pub fn upsample(&mut self, node: &mut NodeProto, before: &mut Vec<NodeProto>) -> Known<bool> {
        node.op_type = Some("Resize".into());
        if self.to >= COORDINATES {
            self.asymmetric(node, "floor", before);
        }
        Ok(true)
    }

    /// Resize of operator set 10, whose scales decide how it rounds.
    pub(super) fn coordinates(
        &mut self,
        node: &mut NodeProto,
        inputs: Inputs<'_>,
        before: &mut Vec<NodeProto>,
    ) -> Known<bool> {
        if node.attribute("coordinate_transformation_mode").is_some() {
            return Ok(false);
        }
        let is_nearest = node.string("mode").unwrap_or("nearest") == "nearest";
        let rounding = match inputs.numbers(1) {
            _ if !is_nearest => "floor",
            Some(scales) if scales.iter().all(|s| *s >= 1.0) => "floor",
            Some(scales) if scales.iter().all(|s| *s <= 1.0) => "ceil",
            Some(_) => {
                return Err(
                    "it rounds down where it grows and up where it shrinks, and since operator set 11 one way".into()
                );
            }
            None => return Err("how it rounds depends on its scales, which are known only to the running graph".into()),
        };
        self.asymmetric(node, rounding, before);
        Ok(true)
    }

    fn asymmetric(&mut self, node: &mut NodeProto, rounding: &str, before: &mut Vec<NodeProto>) {
        let none = TensorProto { dims: vec![0], data_type: Some(DataType::Float as i32), ..TensorProto::default() };
        let roi = self.constant(none, before);
        node.input.insert(1, roi);
        node.attribute.push(string("coordinate_transformation_mode", "asymmetric"));
        node.attribute.push(string("nearest_mode", rounding));
    }
}

/// Scales used to be an empty tensor beside sizes. tf_half_pixel_for_nn, which is gone, is half_pixel + ½: ⌊x + ½⌋ is what the latter has as
/// round_prefer_ceil, and ⌈x + ½ − ½⌉ its ceil.
pub fn sizes(node: &mut NodeProto) -> Known<bool> {
    let is_shifted = node.string("coordinate_transformation_mode") == Some("tf_half_pixel_for_nn");
    if is_shifted {
        let rounding = match node.string("nearest_mode").unwrap_or("round_prefer_floor") {
            _ if node.string("mode").unwrap_or("nearest") != "nearest" => None,
            "floor" => Some("round_prefer_ceil"),
            "round_prefer_floor" => Some("ceil"),
            _ => None,
        };
        let gone = "tf_half_pixel_for_nn is gone since operator set 13, and nothing else reads and rounds so";
        let rounding = rounding.ok_or(gone)?;
        take(node, "coordinate_transformation_mode");
        take(node, "nearest_mode");
        node.attribute.push(string("coordinate_transformation_mode", "half_pixel"));
        node.attribute.push(string("nearest_mode", rounding));
    }
    let has_sizes = node.input.get(3).is_some_and(|s| !s.is_empty());
    if has_sizes {
        set(node, 2, String::new());
    }
    Ok(is_shifted || has_sizes)
}
