//! Files of each format, against what other programs write.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::*;
use crate::engine::Data;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn error(folder: &tempfile::TempDir, names: &[&str]) -> String {
    let paths: Vec<_> = names.iter().map(|n| folder.path().join(n)).collect();
    Dataset::open(&paths, &[]).unwrap_err().to_string()
}

#[test]
fn what_numpy_writes_is_read_in_every_layout() {
    let expected: Vec<f64> = (0..30).map(|n| f64::from(100 * (n / 6) + 10 * (n / 2 % 3) + n % 2)).collect();
    let singles = Data::Float(expected.iter().map(|x| *x as f32).collect());
    let open = |file: &str| Dataset::open(&[format!("tests/data/arrays/{file}")], &[]).unwrap();
    for file in ["stored.npz", "compressed.npz"] {
        let data = open(file);
        assert_eq!(all(&data, "x").data(), &singles, "{file}");
        assert_eq!(all(&data, "x").shape(), [5, 3, 2]);
        assert_eq!(all(&data, "y").data(), &Data::Int64(vec![0, 1, 2, 3, 4]));
    }
    for file in ["fortran", "big_endian"] {
        assert_eq!(all(&open(&format!("{file}.npy")), file).data(), &singles, "{file}");
    }
    assert_eq!(all(&open("both.npy"), "both").data(), &Data::Double(expected));
}

#[test]
fn a_stored_entry_is_looked_up_where_it_lies() {
    let file = std::fs::read("tests/data/arrays/stored.npz").unwrap();
    let bytes = Bytes::from(file);
    let arrays = open::read("stored.npz", &bytes).unwrap();
    let range = bytes.as_ptr_range();
    assert!(arrays.iter().all(|a| range.contains(&a.row(0).unwrap().as_ptr())));
}

#[test]
fn idx_files_are_named_after_what_they_hold_and_may_be_compressed() {
    let images = idx(8, &[2, 2, 3], &(0..12).collect::<Vec<u8>>());
    let labels = gzip(&idx(8, &[2], &[7, 9]));
    let short: Vec<u8> = [-1i16, 258].iter().flat_map(|x| x.to_be_bytes()).collect();
    let folder = files(&[
        ("train-images-idx3-ubyte", &images),
        ("train-labels-idx1-ubyte.gz", &labels),
        ("t10k-labels-idx1-ubyte", &idx(8, &[1], &[0])),
        ("depth.idx", &idx(11, &[2], &short)),
    ]);
    let data = Dataset::open(&[folder.path()], &[]).unwrap();
    let names: Vec<String> = data.fields().iter().map(|f| format!("{} {}", f.name, f.describe())).collect();
    assert_eq!(names, ["images uint8[2, 2, 3]", "labels uint8[2]"]);
    assert_eq!(all(&data, "labels").data(), &Data::Uint8(vec![7, 9]));
    assert!(data.notes()[0].contains("t10k-labels-idx1-ubyte hold the other part"), "{:?}", data.notes());
    let other = Dataset::open_part(&[folder.path()], &[], Part::Evaluation).unwrap();
    assert_eq!(all(&other, "labels").data(), &Data::Uint8(vec![0]));
    let depth = Dataset::open(&[folder.path().join("depth.idx")], &[]).unwrap();
    assert_eq!(all(&depth, "depth").data(), &Data::Int16(vec![-1, 258]));
}

#[test]
fn cifar_files_are_put_together() {
    let record = |labels: &[u8], pixel: u8| [labels, &[pixel; 3072]].concat();
    let first = [record(&[3], 1), record(&[9], 2)].concat();
    let folder = files(&[
        ("data_batch_1.bin", &first),
        ("data_batch_2.bin", &record(&[5], 3)),
        ("test_batch.bin", &record(&[0], 4)),
        ("train.bin", &record(&[19, 99], 5)),
        ("wrong.bin", &record(&[10], 5)),
        ("batches.meta.txt", b"airplane"),
    ]);
    let path = |name: &str| folder.path().join(name);
    let ten = Dataset::open(&[path("data_batch_1.bin"), path("data_batch_2.bin")], &[]).unwrap();
    assert_eq!(all(&ten, "labels").data(), &Data::Uint8(vec![3, 9, 5]));
    assert_eq!(all(&ten, "images").shape(), [3, 3, 32, 32]);
    assert_eq!(all(&ten, "images").data(), &Data::Uint8([[1; 3072], [2; 3072], [3; 3072]].concat()));
    let hundred = Dataset::open(&[path("train.bin")], &[]).unwrap();
    assert_eq!(all(&hundred, "labels").data(), &Data::Uint8(vec![99]));
    assert_eq!(all(&hundred, "coarse_labels").data(), &Data::Uint8(vec![19]));
    let message = error(&folder, &["wrong.bin"]);
    assert!(message.contains("record 0 (counted from 0) has the label 10"), "{message}");

    for name in ["train.bin", "wrong.bin"] {
        std::fs::remove_file(path(name)).unwrap();
    }
    let whole = Dataset::open(&[folder.path()], &[]).unwrap();
    assert_eq!(whole.rows(), 3);
    assert!(whole.notes()[0].contains("test_batch.bin"), "{:?}", whole.notes());
}

#[test]
fn every_refusal_says_what_is_there() {
    let zip = |name: &str, data: &[u8]| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(data).unwrap();
        zip.finish().unwrap().into_inner()
    };
    let folder = files(&[
        ("empty.npy", b""),
        ("text.csv", b"a,b\n1,2\n"),
        ("scalar.npy", &npy("<f4", "()", &[0; 4])),
        ("short.npy", &npy("<f4", "(3,)", &[0; 8])),
        ("long.idx", &idx(8, &[1], &[1, 2])),
        ("text.gz", &gzip(b"hello")),
        ("torch.npz", &zip("data.pkl", b"x")),
        ("x.npy", &npy("<f4", "(1,)", &[0; 4])),
        ("x.npz", &zip("x.npy", &npy("<f4", "(1,)", &[0; 4]))),
        ("cut.gz", &gzip(&idx(8, &[100], &[1; 100]))[..20]),
    ]);
    for (names, words) in [
        (&["empty.npy"][..], "it is empty"),
        (&["text.csv"], "none of the formats that are read"),
        (&["scalar.npy"], "a single number"),
        (&["short.npy"], "8 bytes of elements, and float[3] needs 12"),
        (&["long.idx"], "behind its last element"),
        (&["text.gz"], "neither an IDX file nor"),
        (&["torch.npz"], "is it a PyTorch file"),
        (&["x.npy", "x.npz"], "has an array \"x\" already"),
        (&["cut.gz"], "compressed data is broken"),
        (&["nowhere.npy"], "nowhere.npy"),
    ] {
        let message = error(&folder, names);
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

/// What a file of some format, with some of its bytes changed and its end cut off, gives.
fn broken(format: usize, changes: &[(usize, u8)], end: usize, noise: &[u8]) -> (&'static str, Vec<u8>) {
    let floats: Vec<u8> = (0..24u8).flat_map(|x| f32::from(x).to_le_bytes()).collect();
    let (name, mut bytes) = match format {
        0 => ("x.npy", npy("<f4", "(6, 4)", &floats)),
        1 => ("x.npz", std::fs::read("tests/data/arrays/stored.npz").unwrap()),
        2 => ("x.npz", std::fs::read("tests/data/arrays/compressed.npz").unwrap()),
        3 => {
            let view = TensorView::new(Dtype::F32, vec![6, 4], &floats).unwrap();
            ("x.safetensors", serialize([("x", view)], None).unwrap())
        }
        4 => ("x-images", idx(13, &[6, 4], &floats)),
        5 => ("x.gz", gzip(&idx(13, &[6, 4], &floats))),
        6 => ("x.bin", vec![1; 3073 * 2]),
        7 => ("x.npy", [b"\x93NUMPY\x01\0", noise].concat()),
        8 => ("x.npz", [b"PK\x03\x04", noise].concat()),
        9 => ("x.gz", [b"\x1f\x8b\x08\0", noise].concat()),
        10 => ("x", [b"\0\0\x08", noise].concat()),
        _ => ("x", noise.to_vec()),
    };
    for (place, byte) in changes {
        let length = bytes.len();
        if length > 0 {
            bytes[place % length] = *byte;
        }
    }
    bytes.truncate(bytes.len().saturating_sub(end));
    (name, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// No file makes a reader panic, and what it gives are rows that are there.
    #[test]
    fn broken_files_are_refused_or_read(
        format in 0usize..12,
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        end in prop_oneof![Just(0usize), 0usize..60],
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (name, bytes) = broken(format, &changes, end, &noise);
        let bytes = Bytes::from(bytes);
        if let Ok(arrays) = open::read(name, &bytes) {
            for array in arrays {
                let rows = array.field.rows;
                let length = array.row_bytes().saturating_mul(rows);
                prop_assert!(length <= bytes.len() * 1100, "{length} bytes of {}", bytes.len());
                if array.row_bytes() > 0 && rows > 0 {
                    prop_assert_eq!(array.row(0).map(<[u8]>::len), Some(array.row_bytes()));
                    prop_assert_eq!(array.row(rows - 1).map(<[u8]>::len), Some(array.row_bytes()));
                    prop_assert_eq!(array.row(rows), None);
                }
            }
        }
    }

    /// What the crate safetensors writes comes back.
    #[test]
    fn safetensors_come_back(rows in 1usize..9, width in 1usize..9, seed in any::<u64>()) {
        let values: Vec<i64> = (0..rows * width).map(|n| (seed.wrapping_mul(n as u64 + 1)) as i64).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::I64, vec![rows, width], &bytes).unwrap();
        let folder = files(&[("a.safetensors", &serialize([("b", view)], None).unwrap())]);
        let data = Dataset::open(&[folder.path().join("a.safetensors")], &[]).unwrap();
        let b = all(&data, "b");
        prop_assert_eq!(b.shape(), [rows, width]);
        prop_assert_eq!(b.data(), &Data::Int64(values));
    }
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    let folder = files(&[
        ("huge.npy", &npy("<f4", "(1099511627776, 1024)", &[0; 64])),
        ("huge.idx", &idx(14, &[u32::MAX, u32::MAX], &[0; 8])),
        ("huge.gz", &gzip(&idx(8, &[u32::MAX], &[0; 8]))),
        ("head.safetensors", &[&(1u64 << 40).to_le_bytes()[..], b"{}"].concat()),
    ]);
    for (name, words) in [
        ("huge.npy", "cut off"),
        ("huge.idx", "more elements than memory"),
        ("huge.gz", "cut off"),
        ("head.safetensors", "no safetensors file"),
    ] {
        let message = error(&folder, &[name]);
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}
