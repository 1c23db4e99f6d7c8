//! Trained initializers with the same elements, or with each other's transpose.
//!
//! A few elements spread over each tensor are hashed first, so that of a large model only some pages are read; whole tensors are read
//! only when those agree. Tensors that hold one number throughout (fresh biases and gains) are alike by design and left out, external
//! and unusually encoded ones too.

use std::hash::{BuildHasher, Hasher};

use super::Warning;
use crate::graph::Graph;
use crate::graph::reach::Reach;
use crate::graph::role::InitializerRole;
use crate::wire::fields::tensor::RAW_DATA;

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// How many elements of a tensor are compared first.
const SAMPLES: u64 = 32;

/// How many tensors are compared in full with one whose sample agrees: genuine copies are few.
const CANDIDATES: usize = 8;

/// An initializer with its elements as bytes.
struct Tensor<'m> {
    name: &'m str,
    data_type: i32,
    dims: &'m [i64],
    bytes: &'m [u8],
    /// Bytes an element.
    width: usize,
    /// Number of elements.
    count: usize,
}

pub(super) fn find(graph: &Graph<'_>, roles: &[InitializerRole], reach: &Reach) -> Vec<Warning> {
    let trained = roles.iter().filter(|r| reach.depends_on_trainable(r.value));
    let tensors: Vec<Tensor<'_>> = trained.filter_map(|r| tensor(graph, r)).collect();
    let mut found = equal(&tensors);
    found.extend(transposed(&tensors));
    found
}

fn tensor<'m>(graph: &Graph<'m>, role: &InitializerRole) -> Option<Tensor<'m>> {
    let initializer = graph.initializer(role.value)?;
    let [(RAW_DATA, range)] = initializer.payload.as_slice() else { return None };
    let bytes = graph.bytes.get(range.clone())?;
    let count = usize::try_from(initializer.element_count()?).ok().filter(|n| *n > 1)?;
    let width = bytes.len() / count;
    (initializer.external.is_empty() && width > 0 && width * count == bytes.len()).then_some(Tensor {
        name: &initializer.name,
        data_type: initializer.data_type,
        dims: &initializer.dims,
        bytes,
        width,
        count,
    })
}

impl Tensor<'_> {
    fn element(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.width..(i + 1) * self.width]
    }

    /// Positions that spread over all elements, the same for every tensor of this size.
    fn sampled(count: usize) -> impl Iterator<Item = usize> {
        let size = u64::try_from(count).unwrap_or(u64::MAX);
        // A golden-ratio sequence in [0, 1), as the high bits of a product: irregular, so that no stride of the tensor hides from it.
        let position = move |k: u64| (u128::from(k.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(size)) >> 64;
        (0..SAMPLES).map(move |k| usize::try_from(position(k)).unwrap_or(0))
    }

    fn hash<'a>(&'a self, elements: impl Iterator<Item = &'a [u8]>) -> u64 {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        elements.for_each(|e| hasher.write(e));
        hasher.finish()
    }

    fn is_uniform(&self) -> bool {
        let first = self.element(0);
        Tensor::sampled(self.count).all(|i| self.element(i) == first)
            && self.bytes.chunks_exact(self.width).all(|e| e == first)
    }

    /// Rows and columns of a matrix that is more than a row or a column.
    fn matrix(&self) -> Option<(usize, usize)> {
        match self.dims {
            [rows, columns] if *rows > 1 && *columns > 1 => {
                Some((usize::try_from(*rows).ok()?, usize::try_from(*columns).ok()?))
            }
            _ => None,
        }
    }

    fn is_transpose_of(&self, other: &Tensor<'_>) -> bool {
        let (Some((rows, columns)), Some(shape)) = (self.matrix(), other.matrix()) else { return false };
        shape == (columns, rows)
            && (0..rows).all(|i| (0..columns).all(|j| self.element(i * columns + j) == other.element(j * rows + i)))
    }
}

fn equal(tensors: &[Tensor<'_>]) -> Vec<Warning> {
    let mut alike: HashMap<(i32, &[i64], u64), Vec<&Tensor<'_>>> = HashMap::default();
    let mut of_size: HashMap<(i32, &[i64]), usize> = HashMap::default();
    for tensor in tensors {
        *of_size.entry((tensor.data_type, tensor.dims)).or_default() += 1;
    }
    for tensor in tensors.iter().filter(|t| of_size[&(t.data_type, t.dims)] > 1) {
        let sample = tensor.hash(Tensor::sampled(tensor.count).map(|i| tensor.element(i)));
        alike.entry((tensor.data_type, tensor.dims, sample)).or_default().push(tensor);
    }
    let mut found: Vec<(&str, Warning)> = Vec::new();
    for group in alike.into_values().filter(|g| g.len() > 1) {
        // By the hash of all bytes, then by the bytes: linear, and certain.
        let mut exact: HashMap<u64, Vec<&Tensor<'_>>> = HashMap::default();
        for tensor in group.into_iter().filter(|t| !t.is_uniform()) {
            exact.entry(tensor.hash(std::iter::once(tensor.bytes))).or_default().push(tensor);
        }
        for group in exact.into_values() {
            let same: Vec<String> =
                group.iter().filter(|t| t.bytes == group[0].bytes).map(|t| t.name.to_owned()).collect();
            if same.len() > 1 {
                found.push((group[0].name, Warning::Equal { initializers: same }));
            }
        }
    }
    in_file_order(tensors, found)
}

fn transposed(tensors: &[Tensor<'_>]) -> Vec<Warning> {
    let matrices = || tensors.iter().filter_map(|t| t.matrix().map(|shape| (t, shape)));
    let mut shapes: HashMap<(i32, usize, usize), usize> = HashMap::default();
    matrices().for_each(|(t, (r, c))| *shapes.entry((t.data_type, r, c)).or_default() += 1);
    let partners = |t: &Tensor<'_>, (r, c): (usize, usize)| {
        shapes.get(&(t.data_type, c, r)).copied().unwrap_or(0) > usize::from(r == c)
    };
    let mut seen: HashMap<(i32, usize, usize, u64), Vec<&Tensor<'_>>> = HashMap::default();
    let mut found = Vec::new();
    for (tensor, (rows, columns)) in matrices().filter(|(t, shape)| partners(t, *shape)) {
        let at = |i: usize, columns: usize| (i / columns, i % columns);
        // The elements of a tensor that came before, at the places where this one's transpose has them.
        let turned = Tensor::sampled(tensor.count).map(|i| at(i, rows)).map(|(j, i)| tensor.element(i * columns + j));
        let key = (tensor.data_type, columns, rows, tensor.hash(turned));
        for other in seen.get(&key).into_iter().flatten() {
            if tensor.is_transpose_of(other) && !tensor.is_uniform() {
                found.push((other.name, Warning::Transposed { first: other.name.into(), second: tensor.name.into() }));
                break;
            }
        }
        let plain = tensor.hash(Tensor::sampled(tensor.count).map(|i| tensor.element(i)));
        let earlier = seen.entry((tensor.data_type, rows, columns, plain)).or_default();
        if earlier.len() < CANDIDATES {
            earlier.push(tensor);
        }
    }
    in_file_order(tensors, found)
}

fn in_file_order(tensors: &[Tensor<'_>], mut found: Vec<(&str, Warning)>) -> Vec<Warning> {
    if found.len() > 1 {
        let places: HashMap<&str, usize> = tensors.iter().enumerate().map(|(i, t)| (t.name, i)).collect();
        found.sort_by_key(|(name, _)| places.get(name).copied());
    }
    found.into_iter().map(|(_, warning)| warning).collect()
}
