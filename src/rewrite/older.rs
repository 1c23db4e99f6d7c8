//! What operators of later sets do, from operator set 9 on.

use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Elem, Tensor, int};

use super::builder::Builder;

impl Builder {
    /// 0, 1, 2 … below `length`, an int64 tensor of one element and of rank 0 or 1: Range, or before operator set 11 where ones stand.
    pub fn counted(&mut self, length: &Tensor, dim: Dim) -> Tensor {
        let is_scalar = length.ty.dims.as_ref().is_some_and(Vec::is_empty);
        let integers = |dims: Vec<Dim>| TensorType { elem: Elem::I64.onnx(), dims: Some(dims) };
        if self.opset() < 11 {
            let length = if is_scalar { self.unsqueeze(length, &[0]) } else { length.clone() };
            let zeros = self.zeros_of(&length, TensorType { elem: Elem::F32.onnx(), dims: Some(vec![dim.clone()]) });
            let ones = self.plus(&zeros, 1.0);
            let found = self.one("NonZero", &[&ones], Vec::new(), integers(vec![Dim::Known(1), dim]));
            return self.squeeze(&found, &[0]);
        }
        let length = if is_scalar { length.clone() } else { self.squeeze(length, &[0]) };
        let (zero, one) = (self.number(0.0, &length), self.number(1.0, &length));
        self.one("Range", &[&zero, &length, &one], Vec::new(), integers(vec![dim]))
    }

    /// `data` with `updates` at `indices` along an axis: ScatterElements, which was Scatter before operator set 11.
    pub fn scatter(&mut self, data: &Tensor, indices: &Tensor, updates: &Tensor, axis: usize) -> Tensor {
        let operator = if self.opset() < 11 { "Scatter" } else { "ScatterElements" };
        self.one(operator, &[data, indices, updates], vec![int("axis", axis as i64)], data.ty.clone())
    }

    /// Where two operands that broadcast are equal. Before operator set 11, Equal takes no floats: neither less nor greater.
    pub fn equal(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        if self.opset() >= 11 || !a.ty.is_float().unwrap_or(true) {
            return self.compare("Equal", a, b);
        }
        let (less, greater) = (self.compare("Less", a, b), self.compare("Greater", a, b));
        let differs = self.one("Or", &[&less, &greater], Vec::new(), less.ty.clone());
        self.one("Not", &[&differs], Vec::new(), less.ty.clone())
    }

    /// What is left when integers that are not negative are divided: Mod came with operator set 10.
    pub fn remainder(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        if self.opset() >= 10 {
            return self.binary("Mod", a, b);
        }
        let quotient = self.binary("Div", a, b);
        let whole = self.binary("Mul", &quotient, b);
        self.binary("Sub", a, &whole)
    }
}
