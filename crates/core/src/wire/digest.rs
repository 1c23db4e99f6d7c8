//! A fingerprint of a model that training does not change.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::error::WireResult;
use super::file::ModelFile;
use super::model::{Layout, Model};
use super::place::tensor_at;
use super::tensor::Initializer;
use crate::patch::Place;

/// SHA-256 over every byte of the file but the elements of the main graph's initializers, as `sha256:` and 64 hexadecimal digits.
///
/// In place of each payload field (`raw_data`, `float_data` …) goes its length, 8 bytes little-endian. So new values of the same
/// size leave the digest alone; another shape, type, name, order, encoding, node or unknown field changes it.
pub fn structure_digest(model: &Model) -> String {
    digest(&model.file.bytes, &model.graph.initializers)
}

/// [`structure_digest`] of a file whose nodes nobody needs decoded.
pub fn structure_digest_of(file: &ModelFile) -> WireResult<String> {
    Ok(digest(&file.bytes, &Layout::scan(&file.bytes)?.graph.initializers(&file.bytes)?))
}

/// [`structure_digest`] without the elements of some initializers of bodies either, by their places.
pub fn structure_digest_without(model: &Model, inner: &[Place]) -> WireResult<String> {
    let mut initializers = model.graph.initializers.clone();
    for place in inner {
        initializers.push(tensor_at(model, place)?);
    }
    Ok(digest(&model.file.bytes, &initializers))
}

fn digest(bytes: &[u8], initializers: &[Initializer]) -> String {
    let mut payloads: Vec<&Range<usize>> =
        initializers.iter().flat_map(|i| i.payload.iter().map(|(_, range)| range)).collect();
    // File order already, unless a file is stranger than any that was seen.
    payloads.sort_unstable_by_key(|range| range.start);
    let mut hash = Sha256::new();
    let mut at = 0;
    for payload in payloads {
        hash.update(&bytes[at..payload.start]);
        hash.update((payload.len() as u64).to_le_bytes());
        at = payload.end;
    }
    hash.update(&bytes[at..]);
    hash.finalize().iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
    use prost::Message;

    fn model() -> ModelProto {
        let tensor = |name: &str| TensorProto {
            name: Some(name.into()),
            dims: vec![2],
            data_type: Some(1),
            raw_data: Some(vec![1; 8].into()),
            ..Default::default()
        };
        let typed = TensorProto { raw_data: None, float_data: vec![1.0, 2.0], ..tensor("typed") };
        ModelProto {
            ir_version: Some(8),
            graph: Some(GraphProto {
                node: vec![NodeProto { op_type: Some("Neg".into()), ..Default::default() }],
                initializer: vec![tensor("raw"), typed],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn digest(edit: impl Fn(&mut GraphProto)) -> String {
        let mut model = model();
        edit(model.graph.as_mut().unwrap());
        let model = Model::from_bytes(model.encode_to_vec()).unwrap();
        let digest = structure_digest(&model);
        assert_eq!(structure_digest_of(&model.file).unwrap(), digest);
        digest
    }

    #[test]
    fn other_weights_of_the_same_size_have_the_same_digest() {
        let same = digest(|_| {});
        assert_eq!(same.len(), "sha256:".len() + 64);
        assert_eq!(digest(|g| g.initializer[0].raw_data = Some(vec![9; 8].into())), same);
        assert_eq!(digest(|g| g.initializer[1].float_data = vec![-1.0, f32::NAN]), same);
    }

    #[test]
    fn everything_but_a_weight_changes_the_digest() {
        let edits: [&dyn Fn(&mut GraphProto); 8] = [
            &|_| {},
            &|g| g.node[0].op_type = Some("Abs".into()),
            &|g| g.initializer[0].name = Some("war".into()),
            &|g| g.initializer[0].dims = vec![1, 2],
            &|g| g.initializer[0].data_type = Some(7),
            &|g| g.initializer[0].raw_data = Some(vec![1; 12].into()),
            &|g| g.initializer.swap(0, 1),
            &|g| g.doc_string = Some("x".into()),
        ];
        let digests: std::collections::BTreeSet<_> = edits.iter().map(digest).collect();
        assert_eq!(digests.len(), edits.len());
    }

    #[test]
    fn every_byte_outside_the_payloads_counts() {
        let bytes = model().encode_to_vec();
        let original = Model::from_bytes(bytes.clone()).unwrap();
        let expected = structure_digest(&original);
        let is_payload = |at: usize| {
            original.graph.initializers.iter().flat_map(|i| &i.payload).any(|(_, range)| range.contains(&at))
        };
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            if let Ok(changed) = Model::from_bytes(changed) {
                assert_eq!(structure_digest(&changed) == expected, is_payload(at), "byte {at}");
            }
        }
    }
}
