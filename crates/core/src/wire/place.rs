//! Tensors inside nodes, by their place.

use std::ops::Range;

use super::error::{WireError, WireResult};
use super::model::Model;
use super::record::records;
use super::tensor::Initializer;

/// The initializer of a body, by its place from a node of the main graph inwards, with the ranges of its elements in the model's file.
///
/// # Errors
/// When the model lacks the place.
pub fn tensor_at(model: &Model, place: &[(u32, usize)]) -> WireResult<Initializer> {
    let graph = &model.layout.graph;
    let node = place.first().and_then(|(_, i)| graph.records.get(*graph.nodes.get(*i)? as usize));
    let node = node.ok_or_else(|| missing(place))?;
    let range = inside(&model.file.bytes, node.payload.clone(), place.get(1..).unwrap_or_default())?;
    Initializer::read(&model.file.bytes, range)
}

/// The same in the record of a node: tag, length and message. `place` starts inside the node.
///
/// # Errors
/// When the record lacks the place.
pub fn tensor_in(record: &[u8], place: &[(u32, usize)]) -> WireResult<Initializer> {
    let node = records(record, 0..record.len()).next().ok_or_else(|| missing(place))??;
    Initializer::read(record, inside(record, node.payload, place)?)
}

/// The message at a place inside the message that fills `range`.
fn inside(bytes: &[u8], mut range: Range<usize>, place: &[(u32, usize)]) -> WireResult<Range<usize>> {
    for (field, index) in place {
        let mut count = 0;
        let mut found = None;
        for record in records(bytes, range) {
            let record = record?;
            if record.field == *field && record.is_length_delimited() {
                if count == *index {
                    found = Some(record.payload);
                    break;
                }
                count += 1;
            }
        }
        range = found.ok_or_else(|| missing(place))?;
    }
    Ok(range)
}

fn missing(place: &[(u32, usize)]) -> WireError {
    WireError::NoSuchPlace { what: format!("a tensor at {place:?}") }
}
