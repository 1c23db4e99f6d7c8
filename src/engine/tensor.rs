//! A tensor in memory: what goes into a program and what comes out of it.

use bytemuck::cast_slice;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// A dense tensor in C order. Its elements are always as many as its shape says.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

/// The elements of a [`Tensor`], one variant per element type that can be run. Strings, complex numbers and types below one byte cannot.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    Float16(Vec<f16>),
    Bfloat16(Vec<bf16>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Bool(Vec<bool>),
}

/// Evaluates an expression for the elements of a [`Data`], whatever their type.
macro_rules! with_elements {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::engine::Data::Float16($values) => $body,
            $crate::engine::Data::Bfloat16($values) => $body,
            $crate::engine::Data::Float($values) => $body,
            $crate::engine::Data::Double($values) => $body,
            $crate::engine::Data::Int8($values) => $body,
            $crate::engine::Data::Int16($values) => $body,
            $crate::engine::Data::Int32($values) => $body,
            $crate::engine::Data::Int64($values) => $body,
            $crate::engine::Data::Uint8($values) => $body,
            $crate::engine::Data::Uint16($values) => $body,
            $crate::engine::Data::Uint32($values) => $body,
            $crate::engine::Data::Uint64($values) => $body,
            $crate::engine::Data::Bool($values) => $body,
        }
    };
}
pub(crate) use with_elements;

/// A type that elements of a tensor can have.
pub trait Element: Copy + Send + Sync + 'static {
    /// Its number in `TensorProto.DataType`.
    const TYPE: DataType;

    /// From as many little-endian bytes as an element takes.
    fn from_le(bytes: &[u8]) -> Option<Self>;

    /// Elements of this type as [`Data`].
    fn into_data(values: Vec<Self>) -> Data;

    /// The bytes of elements, in the order of this machine: at once, as one by one takes several times as long where a build is made for
    /// size.
    fn as_bytes(values: &[Self]) -> &[u8];
}

macro_rules! elements {
    ($($type:ty => $variant:ident, $words:expr;)*) => {$(
        impl Element for $type {
            const TYPE: DataType = DataType::$variant;

            fn from_le(bytes: &[u8]) -> Option<Self> {
                Some(<$type>::from_le_bytes(bytes.try_into().ok()?))
            }

            fn into_data(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }

            fn as_bytes(values: &[Self]) -> &[u8] {
                let words: fn(&[Self]) -> &[_] = $words;
                cast_slice(words(values))
            }
        }
    )*};
    ($($type:ty => $variant:ident),* $(,)?) => {
        elements! { $($type => $variant, |values| values;)* }
    };
}

elements! {
    f32 => Float, f64 => Double,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
}

elements! {
    f16 => Float16, |values| values.reinterpret_cast();
    bf16 => Bfloat16, |values| values.reinterpret_cast();
}

impl Element for bool {
    const TYPE: DataType = DataType::Bool;

    fn from_le(bytes: &[u8]) -> Option<Self> {
        bytes.first().map(|b| *b != 0)
    }

    fn into_data(values: Vec<Self>) -> Data {
        Data::Bool(values)
    }

    fn as_bytes(values: &[Self]) -> &[u8] {
        cast_slice(values)
    }
}

impl Tensor {
    /// A tensor of this shape; `None` when there are more or fewer elements than it has places.
    pub fn new<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Option<Self> {
        let places = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        (places == Some(values.len())).then(|| Tensor { shape, data: T::into_data(values) })
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        Tensor { shape: Vec::new(), data: T::into_data(vec![value]) }
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, in C order.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Its elements, without a copy.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        with_elements!(&self.data, values => values.len())
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its element type.
    pub fn elem(&self) -> DataType {
        fn of<T: Element>(_: &[T]) -> DataType {
            T::TYPE
        }
        with_elements!(&self.data, values => of(values))
    }

    /// Bytes that its elements take.
    pub fn byte_len(&self) -> usize {
        with_elements!(&self.data, values => size_of_val(values.as_slice()))
    }

    /// Its type, with every dimension known.
    pub fn tensor_type(&self) -> TensorType {
        TensorType { elem: self.elem() as i32, dims: Some(self.shape.iter().map(|d| Dim::Known(*d as u64)).collect()) }
    }
}

/// Bytes of one element; `None` for types that a [`Tensor`] cannot hold.
pub fn element_size(elem: i32) -> Option<usize> {
    match DataType::try_from(elem).ok()? {
        DataType::Bool | DataType::Int8 | DataType::Uint8 => Some(1),
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => Some(2),
        DataType::Float | DataType::Int32 | DataType::Uint32 => Some(4),
        DataType::Double | DataType::Int64 | DataType::Uint64 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_as_many_elements_as_its_shape_says() {
        assert!(Tensor::new(vec![2, 3], vec![0f32; 6]).is_some());
        assert!(Tensor::new(vec![2, 3], vec![0f32; 5]).is_none());
        assert!(Tensor::new(vec![usize::MAX, 2], Vec::<f32>::new()).is_none());
        assert_eq!(Tensor::new(vec![0, 7], Vec::<i64>::new()).unwrap().to_owned().len(), 0);
        let scalar = Tensor::scalar(bf16::ONE);
        assert_eq!((scalar.shape(), scalar.elem(), scalar.byte_len()), (&[][..], DataType::Bfloat16, 2));
    }

    #[test]
    fn the_size_of_an_element_is_that_of_its_type() {
        for tensor in [Tensor::scalar(true), Tensor::scalar(f16::ONE), Tensor::scalar(1f64), Tensor::scalar(1u32)] {
            assert_eq!(element_size(tensor.elem() as i32), Some(tensor.byte_len()));
        }
        assert_eq!(element_size(DataType::String as i32), None);
    }
}
