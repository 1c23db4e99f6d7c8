//! The binary version of CIFAR-10 and CIFAR-100: records of one or two label bytes and an image of 3 × 32 × 32 bytes.

use bytes::Bytes;

use super::array::{Array, Stretch};

const IMAGE: usize = 3 * 32 * 32;

/// Names and classes of the label bytes of a record, by the length of the file; where both lengths divide it, by its name.
fn labels_of(file: &str, length: usize) -> Option<&'static [(&'static str, u8)]> {
    const TEN: &[(&str, u8)] = &[("labels", 10)];
    const HUNDRED: &[(&str, u8)] = &[("coarse_labels", 20), ("labels", 100)];
    let fits = |labels: &[_]| length > 0 && length.is_multiple_of(labels.len() + IMAGE);
    match (fits(TEN), fits(HUNDRED)) {
        (true, true) if file.contains("batch") => Some(TEN),
        (_, true) => Some(HUNDRED),
        (true, false) => Some(TEN),
        (false, false) => None,
    }
}

/// Whether a file can be one of these: there is no mark at its beginning, only its name and its length.
pub(super) fn is_one(file: &str, length: usize) -> bool {
    file.ends_with(".bin") && labels_of(file, length).is_some()
}

/// `images` [N, 3, 32, 32], `labels` [N], and for CIFAR-100 `coarse_labels` [N].
pub(super) fn read(file: &str, bytes: &Bytes) -> Result<Vec<Array>, String> {
    let labels =
        labels_of(file, bytes.len()).ok_or("its length is no multiple of a CIFAR record's, 3073 or 3074 bytes")?;
    let stride = labels.len() + IMAGE;
    let rows = bytes.len() / stride;
    for (row, record) in bytes.chunks_exact(stride).enumerate() {
        for ((name, classes), label) in labels.iter().zip(record) {
            if label >= classes {
                return Err(format!(
                    "it is no CIFAR data of {classes} {name}: record {row} (counted from 0) has the label {label}"
                ));
            }
        }
    }
    let stretch = |start| Stretch { bytes: bytes.clone(), start, stride, rows };
    let mut arrays = vec![Array::strided("images", &[3, 32, 32], stretch(labels.len()))?];
    for (place, (name, _)) in labels.iter().enumerate() {
        arrays.push(Array::strided(name, &[], stretch(place))?);
    }
    Ok(arrays)
}
