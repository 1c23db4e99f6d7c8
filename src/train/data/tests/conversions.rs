//! How arrays come to fit inputs, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::engine::Data;

/// Rows 2 × 3 × 3 of bytes 0…17 and 18…35, with labels 1 and 0 in bytes.
fn images() -> tempfile::TempDir {
    let pixels: Vec<u8> = (0..36).collect();
    files(&[("x.npy", &npy("|u1", "(2, 2, 3, 3)", &pixels)), ("y.npy", &npy("|u1", "(2,)", &[1, 0]))])
}

fn y() -> Input {
    Input { below: Some(2), ..input("y", DataType::Int64, &[]) }
}

fn fit(folder: &tempfile::TempDir, inputs: &[Input], normalize: &[Normalize]) -> DataResult<Dataset> {
    Dataset::open(&[folder.path()], &[])?.fit(inputs, normalize)
}

fn floats(tensor: &Tensor) -> &[f32] {
    let Data::Float(values) = tensor.data() else { panic!("{tensor:?}") };
    values
}

#[test]
fn bytes_become_scaled_channels_first_and_labels_int64_and_it_is_said() {
    let x = input("x", DataType::Float, &known(&[3, 2, 3]));
    let data = fit(&images(), &[x, y()], &[]).unwrap();
    data.check().unwrap();
    // Channel c of pixel (h, w) was byte 9 h + 3 w + c.
    let expected: Vec<f32> = (0..18).map(|t| (9 * (t / 3 % 2) + 3 * (t % 3) + t / 6) as f32 / 255.0).collect();
    let x = all(&data, "x");
    assert_eq!(x.shape(), [2, 3, 2, 3]);
    for (value, expected) in floats(&x).iter().zip(&expected) {
        // Scaled in float64 and rounded once; the expectation is rounded twice.
        assert!((value - expected).abs() <= f32::EPSILON, "{value} {expected}");
    }
    assert_eq!(all(&data, "y").data(), &Data::Int64(vec![1, 0]));
    assert_eq!(
        data.notes(),
        [
            "x: the channels, the last axis of 2×3×3, become the first",
            "x: uint8 x becomes float x / 255",
            "y: uint8 becomes int64, each value the same"
        ]
    );
}

#[test]
fn each_channel_has_its_own_mean_and_deviation() {
    let x = input("x", DataType::Float, &known(&[3, 2, 3]));
    let normalize = Normalize::parse("0.1,0.2,0.3,0.5,0.25,2").unwrap();
    let data = fit(&images(), &[x, y()], &[normalize]).unwrap();
    let (mean, std) = ([0.1, 0.2, 0.3], [0.5, 0.25, 2.0]);
    for (t, value) in floats(&all(&data, "x")).iter().take(18).enumerate() {
        let (c, byte) = (t / 6, 9 * (t / 3 % 2) + 3 * (t % 3) + t / 6);
        let expected = (byte as f64 / 255.0 - mean[c]) / std[c];
        assert!((f64::from(*value) - expected).abs() <= 1e-7, "{value} {expected}");
    }
}

#[test]
fn axes_of_one_come_and_go_and_two_axes_are_flattened() {
    let pixels: Vec<u8> = (0..12).collect();
    let folder = files(&[("x.npy", &npy("|u1", "(2, 2, 3)", &pixels)), ("y.npy", &npy("<i4", "(2, 1)", &[0; 8]))]);
    for (row, shape) in [(&[1, 2, 3][..], &[2, 1, 2, 3][..]), (&[2, 3, 1], &[2, 2, 3, 1]), (&[6], &[2, 6])] {
        let data = fit(&folder, &[input("x", DataType::Float, &known(row)), y()], &[]).unwrap();
        let x = all(&data, "x");
        assert_eq!(x.shape(), shape);
        assert!(floats(&x).iter().zip(&pixels).all(|(x, p)| *x == (f64::from(*p) / 255.0) as f32));
        assert_eq!(all(&data, "y").shape(), [2]);
        assert_eq!(data.notes().len(), 4, "{:?}", data.notes());
    }
}

#[test]
fn symbols_take_any_size_and_equal_ones_equal_sizes() {
    let t = || vec![Dim::Symbol("T".into())];
    let folder = files(&[
        ("x.npy", &npy("<i8", "(2, 3)", &[0; 48])),
        ("y.npy", &npy("<i8", "(2, 3)", &[0; 48])),
        ("z.npy", &npy("<i8", "(2, 4)", &[0; 64])),
    ]);
    let tokens = |name| input(name, DataType::Int64, &t());
    assert_eq!(fit(&folder, &[tokens("x"), tokens("y")], &[]).unwrap().fields()[1].row, [3]);
    let message = fit(&folder, &[tokens("x"), tokens("z")], &[]).unwrap_err().to_string();
    assert!(message.contains("a row is [4], and the graph takes rows of [3]"), "{message}");
}

#[test]
fn what_would_change_the_meaning_is_refused() {
    let one = [0, 0, 128, 63];
    let folder = files(&[
        ("bytes.npy", &npy("|u1", "(1, 4)", &[1, 2, 3, 4])),
        ("floats.npy", &npy("<f4", "(1,)", &one)),
        ("image.npy", &npy("|u1", "(1, 2, 3, 3)", &[0; 18])),
        ("two.npy", &npy("<f4", "(2,)", &[0; 8])),
        ("none.npy", &npy("<f4", "(0,)", &[])),
        ("hollow.npy", &npy("<f4", "(4611686018427387904, 0)", &[])),
    ]);
    let float = |name, row: &[u64]| input(name, DataType::Float, &known(row));
    let with = |text: &str| vec![Normalize::parse(text).unwrap()];
    for (inputs, normalize, words) in [
        (vec![float("bytes", &[4])], vec![], "bytes may be pixels or numbers"),
        (vec![input("floats", DataType::Int64, &[])], vec![], "float is not turned into int64"),
        (vec![float("image", &[18])], vec![], "a row is [2, 3, 3], and the graph takes rows of [18]"),
        (vec![float("image", &[3, 3, 2])], vec![], "the graph takes rows of [3, 3, 2]"),
        (vec![float("floats", &[]), float("two", &[])], vec![], "\"floats\" has 1 rows and \"two\" has 2"),
        (vec![float("none", &[])], vec![], "\"none\", float[0], is empty"),
        (vec![float("hollow", &[0])], vec![], "float[4611686018427387904, 0], is empty"),
        (vec![float("label", &[])], vec![], "--map label="),
        (vec![float("image", &[2, 3, 3])], with("0,1,2,3"), "2 means, and the rows have 3 channels"),
        (vec![float("image", &[2, 3, 3])], with("x=0,1"), "--normalize x=… is for one of the inputs"),
        (vec![float("floats", &[]), float("image", &[2, 3, 3])], with("0,1"), "write --normalize INPUT=MEAN,STD"),
    ] {
        let message = fit(&folder, &inputs, &normalize).unwrap_err().to_string();
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn arrays_are_given_to_inputs_by_hand_and_what_is_missing_is_suggested() {
    let pixels: Vec<u8> = (0..18).collect();
    let folder = files(&[("a-images", &idx(8, &[2, 3, 3], &pixels)), ("a-labels", &idx(8, &[2], &[1, 0]))]);
    let paths = [folder.path().join("a-images"), folder.path().join("a-labels")];
    let inputs = [input("x", DataType::Float, &known(&[1, 3, 3])), y()];
    let message = Dataset::open(&paths, &[]).unwrap().fit(&inputs, &[]).unwrap_err().to_string();
    assert!(
        message.contains("no array of the data is named \"x\", which the graph takes as float[N, 1, 3, 3]"),
        "{message}"
    );
    assert!(message.contains("--map x=images --map y=labels"), "{message}");
    let map = ["x=images", "y=labels"].map(|m| parse_map(m).unwrap());
    let data = Dataset::open(&paths, &map).unwrap().fit(&inputs, &[]).unwrap();
    assert_eq!(all(&data, "y").data(), &Data::Int64(vec![1, 0]));
    let only = Dataset::open(&paths, &map).unwrap().fit(&inputs[1..], &[]).unwrap();
    assert_eq!(only.notes()[1], "the data's \"x\" is not used");

    for (map, words) in [
        (vec!["x=image"], "is \"images\" meant?"),
        (vec!["x=images", "y=images"], "given to another input already"),
        (vec!["x=images", "x=labels"], "names the input \"x\" twice"),
    ] {
        let map: Vec<_> = map.into_iter().map(|m| parse_map(m).unwrap()).collect();
        let message = Dataset::open(&paths, &map).unwrap_err().to_string();
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn the_check_names_the_row() {
    let mut values = vec![0f32; 3000 * 200];
    values[2999 * 200 + 7] = f32::NAN;
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let ints = |values: &[i64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let half = half::f16::INFINITY.to_le_bytes();
    let folder = files(&[
        ("nan.npy", &npy("<f4", "(3000, 200)", &bytes)),
        ("labels.npy", &npy("<i8", "(3,)", &ints(&[0, 9, 10]))),
        ("ignored.npy", &npy("<i8", "(3,)", &ints(&[0, -100, 9]))),
        ("large.npy", &npy("<i8", "(2,)", &ints(&[1 << 24, (1 << 24) + 1]))),
        ("half.npy", &npy("<f2", "(1,)", &half)),
        ("double.npy", &npy("<f8", "(1,)", &1e300f64.to_le_bytes())),
    ]);
    let float = |name, row: &[u64]| input(name, DataType::Float, &known(row));
    let label = |name, ignored| Input { below: Some(10), ignored, ..input(name, DataType::Int64, &[]) };
    for (input, words) in [
        (float("nan", &[200]), Some("row 2999 (counted from 0) of \"nan\" holds NaN")),
        (
            label("labels", None),
            Some("row 2 (counted from 0) of \"labels\" holds 10, and the graph takes integers from 0 to 9; do"),
        ),
        (label("ignored", None), Some("row 1 (counted from 0) of \"ignored\" holds -100")),
        (label("ignored", Some(-100)), None),
        (
            float("large", &[]),
            Some("row 1 (counted from 0) of \"large\" has the value 16777217, which float cannot hold"),
        ),
        (float("half", &[]), Some("holds inf")),
        (float("double", &[]), Some("row 0 (counted from 0) of \"double\" has the value 1")),
    ] {
        let found = fit(&folder, &[input], &[]).unwrap().check();
        match words {
            None => found.unwrap(),
            Some(words) => {
                let message = found.unwrap_err().to_string();
                assert!(message.contains(words), "{message:?} lacks {words:?}");
            }
        }
    }
}

#[test]
fn options_that_are_not_understood_say_how_they_are_written() {
    for text in ["", "0.1", "1,2,3", "a,b", "0,0", "0,-1", "nan,1", "x="] {
        assert!(Normalize::parse(text).is_err(), "{text}");
    }
    for text in ["", "x", "=a", "x="] {
        assert!(parse_map(text).unwrap_err().contains("INPUT=ARRAY"), "{text}");
    }
    for text in ["", "flop", "pad-crop", "pad-crop:0", "pad-crop:-1", "flip,flip", "pad-crop:4,pad-crop:4", "flip:1"] {
        assert!(Augment::parse(text).is_err(), "{text}");
    }
    assert_eq!(Augment::parse("pad-crop:4,flip"), Ok(Augment { pad_crop: 4, flip: true }));
}

/// NumPy's name of an integer type, its smallest and its largest value.
const INTEGERS: [(DataType, &str, i128, i128); 8] = [
    (DataType::Int8, "|i1", -(1 << 7), (1 << 7) - 1),
    (DataType::Int16, "<i2", -(1 << 15), (1 << 15) - 1),
    (DataType::Int32, "<i4", -(1 << 31), (1 << 31) - 1),
    (DataType::Int64, "<i8", -(1 << 63), (1 << 63) - 1),
    (DataType::Uint8, "|u1", 0, (1 << 8) - 1),
    (DataType::Uint16, ">u2", 0, (1 << 16) - 1),
    (DataType::Uint32, ">u4", 0, (1 << 32) - 1),
    (DataType::Uint64, ">u8", 0, (1 << 64) - 1),
];

/// Bits of the significand with the hidden one, and the largest integer.
const FLOATS: [(DataType, u32, f64); 4] = [
    (DataType::Float16, 11, 65504.0),
    (DataType::Bfloat16, 8, f64::INFINITY),
    (DataType::Float, 24, f64::INFINITY),
    (DataType::Double, 53, f64::INFINITY),
];

/// The only element, as an integer.
fn only(tensor: &Tensor) -> i128 {
    match tensor.data() {
        Data::Int8(v) => v[0].into(),
        Data::Int16(v) => v[0].into(),
        Data::Int32(v) => v[0].into(),
        Data::Int64(v) => v[0].into(),
        Data::Uint8(v) => v[0].into(),
        Data::Uint16(v) => v[0].into(),
        Data::Uint32(v) => v[0].into(),
        Data::Uint64(v) => v[0].into(),
        Data::Bool(v) => v[0].into(),
        Data::Float16(v) => v[0].to_f64() as i128,
        Data::Bfloat16(v) => v[0].to_f64() as i128,
        Data::Float(v) => v[0] as i128,
        Data::Double(v) => v[0] as i128,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Between any two types an integer stays what it is, or its row is refused.
    #[test]
    fn integers_keep_their_value_or_are_refused(
        from in 0usize..8,
        bits in any::<u64>(),
        width in 0u32..64,
        negative in any::<bool>(),
    ) {
        let (from, descr, least, most) = INTEGERS[from];
        let value = i128::from(bits >> width) * if negative { -1 } else { 1 };
        let value = value.clamp(least, most);
        let bytes = value.to_le_bytes();
        let size = descr[2..].parse::<usize>().unwrap();
        let mut bytes = bytes[..size].to_vec();
        if descr.starts_with('>') {
            bytes.reverse();
        }
        let folder = files(&[("x.npy", &npy(descr, "(1,)", &bytes))]);
        let read = |to| {
            let data = fit(&folder, &[input("x", to, &[])], &[]).unwrap();
            data.check().map(|()| only(&all(&data, "x"))).ok()
        };
        for (to, _, least, most) in INTEGERS {
            prop_assert_eq!(read(to), (least..=most).contains(&value).then_some(value), "{:?} {:?}", from, to);
        }
        prop_assert_eq!(read(DataType::Bool), (0..=1).contains(&value).then_some(value));
        for (to, digits, most) in FLOATS {
            if from == DataType::Uint8 {
                // Pixels or numbers: it is not said.
                prop_assert!(fit(&folder, &[input("x", to, &[])], &[]).is_err());
                continue;
            }
            let size = value.unsigned_abs();
            let significant = 128 - (size >> size.trailing_zeros().min(127)).leading_zeros();
            let exact = significant <= digits && size as f64 <= most;
            prop_assert_eq!(read(to), exact.then_some(value), "{:?} {:?} {}", from, to, value);
        }
    }
}
