//! NumPy archives, `.npz`.

use bytes::Bytes;

use crate::engine::arrays::entries;
use crate::engine::npy::{Header, in_memory_order};
use crate::weights::Array;

/// The arrays of an archive: stored ones where they lie, others unpacked.
pub fn archive(bytes: &Bytes) -> Result<Vec<Array>, String> {
    let read = |(name, data): (String, Bytes)| {
        let header = Header::parse(&data).map_err(|e| format!("{name}: {e}"))?;
        let cut = || format!("{name}: it is cut off");
        let length = header.byte_len().ok_or_else(cut)?;
        let end = header.data.checked_add(length).filter(|end| *end <= data.len()).ok_or_else(cut)?;
        let elements = in_memory_order(&header, data.slice(header.data..end));
        Array::new(name, header.elem, header.shape, elements)
    };
    entries(bytes)?.into_iter().map(read).collect()
}
