mod conversions;
mod epochs;
mod readers;

use super::*;
use crate::engine::Tensor;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// An input of this type whose first axis, named N, counts samples.
fn input(name: &str, elem: DataType, row: &[Dim]) -> Input {
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(row.iter().cloned()).collect();
    Input::new(name, &TensorType { elem: elem as i32, dims: Some(dims) }, 0)
}

fn known(sizes: &[u64]) -> Vec<Dim> {
    sizes.iter().map(|n| Dim::Known(*n)).collect()
}

/// The bytes of an array in NumPy's format.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
}

/// The bytes of an array in the format of MNIST.
fn idx(kind: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, kind, u8::try_from(shape.len()).unwrap()];
    out.extend(shape.iter().flat_map(|n| n.to_be_bytes()));
    out.extend(data);
    out
}

/// Files with these contents in a folder.
fn files(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// The rows of an array as they are stored.
fn all(data: &Dataset, name: &str) -> Tensor {
    let plan = Plan { batch: data.rows(), ahead: 0, ..Plan::default() };
    let batch = data.batches(&plan, 0).unwrap().next_batch().unwrap().unwrap();
    batch.arrays.into_iter().find(|(n, _)| n == name).unwrap().1
}
