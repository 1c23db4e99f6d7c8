//! What an epoch gives: every row once, the same each time, wherever it begins.

use proptest::prelude::*;

use super::*;
use crate::engine::Data;

/// Rows that hold their own number, as `x` int32[rows] and `image` float32[rows, 1, 3, 3].
fn numbered(rows: usize) -> Dataset {
    let x: Vec<u8> = (0..rows as i32).flat_map(i32::to_le_bytes).collect();
    let image: Vec<u8> = (0..rows * 9).flat_map(|n| (n as f32 + 1.0).to_le_bytes()).collect();
    let folder = files(&[
        ("x.npy", &npy("<i4", &format!("({rows},)"), &x)),
        ("image.npy", &npy("<f4", &format!("({rows}, 1, 3, 3)"), &image)),
    ]);
    let inputs = [input("x", DataType::Int32, &[]), input("image", DataType::Float, &known(&[1, 3, 3]))];
    Dataset::open(&[folder.path()], &[]).unwrap().fit(&inputs, &[]).unwrap()
}

fn run(data: &Dataset, plan: &Plan, epoch: u64) -> Vec<Batch> {
    let mut batches = data.batches(plan, epoch).unwrap();
    std::iter::from_fn(|| batches.next_batch().unwrap()).collect()
}

fn rows(batches: &[Batch]) -> Vec<i32> {
    let values = |b: &Batch| match b.arrays[0].1.data() {
        Data::Int32(values) => values.clone(),
        other => panic!("{other:?}"),
    };
    batches.iter().flat_map(values).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_epoch_covers_every_row_once_and_goes_on_where_it_was_broken_off(
        count in 1usize..60,
        batch in 1usize..20,
        seed in any::<u64>(),
        epoch in any::<u64>(),
        shuffle in any::<bool>(),
        keep_rest in any::<bool>(),
        ahead in 0usize..4,
        flip in any::<bool>(),
        pad_crop in 0usize..3,
        first in 0u64..8,
    ) {
        let data = numbered(count);
        let augment = Augment { pad_crop, flip };
        let plan = Plan { batch, seed, shuffle, keep_rest, first: 0, augment, ahead };
        if plan.batches(count) == 0 {
            prop_assert!(data.batches(&plan, epoch).is_err());
            return Ok(());
        }
        let whole = run(&data, &plan, epoch);
        prop_assert_eq!(whole.len() as u64, plan.batches(count));
        prop_assert!(whole.iter().all(|b| b.arrays.iter().all(|(_, t)| t.shape()[0] == b.samples)));
        let mut seen = rows(&whole);
        if !shuffle {
            prop_assert!(seen.is_sorted());
        }
        seen.sort_unstable();
        seen.dedup();
        let expected = if keep_rest { count } else { count / batch * batch };
        prop_assert_eq!(seen.len(), expected);
        // Read ahead or not, from the beginning or not: bit for bit the same.
        let tail = run(&data, &Plan { first, ahead: 0, ..plan }, epoch);
        let at = whole.len().min(usize::try_from(first).unwrap());
        prop_assert_eq!(&whole[at..], &tail[..]);
    }
}

#[test]
fn a_cropped_image_is_a_part_of_the_padded_one() {
    let data = numbered(400);
    let plan =
        Plan { batch: 400, shuffle: true, augment: Augment::parse("pad-crop:1,flip").unwrap(), ..Plan::default() };
    let batch = run(&data, &plan, 3).remove(0);
    let (Data::Int32(numbers), Data::Float(images)) = (batch.arrays[0].1.data(), batch.arrays[1].1.data()) else {
        panic!("{:?}", batch.arrays)
    };
    let mut places = std::collections::HashMap::new();
    for (row, image) in numbers.iter().zip(images.chunks_exact(9)) {
        let padded = |y: usize, x: usize| match (y.checked_sub(1), x.checked_sub(1)) {
            (Some(y @ 0..3), Some(x @ 0..3)) => (*row as usize * 9 + 3 * y + x) as f32 + 1.0,
            _ => 0.0,
        };
        let part = |down: usize, right: usize, mirrored: bool| -> Vec<f32> {
            let column = |x: usize| if mirrored { 2 - x } else { x };
            (0..9).map(|n| padded(n / 3 + down, column(n % 3) + right)).collect()
        };
        let choices = (0..18).map(|n| (n / 6, n / 2 % 3, n % 2 == 1));
        let found: Vec<_> = choices.filter(|(d, r, m)| part(*d, *r, *m) == image).collect();
        assert_eq!(found.len(), 1, "row {row}");
        *places.entry(found[0]).or_insert(0) += 1;
    }
    // 400 draws of 18 kinds: each is missing once in 8 billion trials.
    assert_eq!(places.len(), 18);
}

#[test]
fn a_border_has_the_value_of_a_black_pixel() {
    let folder = files(&[("x.npy", &npy("|u1", "(1, 1, 2, 2)", &[255; 4]))]);
    let normalize = [Normalize::parse("0.25,0.5").unwrap()];
    let data = Dataset::open(&[folder.path()], &[]).unwrap();
    let data = data.fit(&[input("x", DataType::Float, &known(&[1, 2, 2]))], &normalize).unwrap();
    let augment = Augment { pad_crop: 1, flip: false };
    let mut seen = Vec::new();
    for epoch in 0..50 {
        let batch = run(&data, &Plan { augment, ..Plan::default() }, epoch).remove(0);
        let Data::Float(values) = batch.arrays[0].1.data() else { panic!() };
        seen.extend(values.iter().copied());
    }
    seen.sort_by(f32::total_cmp);
    seen.dedup();
    assert_eq!(seen, [-0.5, 1.5]);
}

#[test]
fn plans_that_do_not_suit_are_refused() {
    let folder = files(&[("x.npy", &npy("<f4", "(5,)", &[0; 20]))]);
    let fixed = Input { batch: Some(Dim::Known(2)), ..input("x", DataType::Float, &[]) };
    let data = Dataset::open(&[folder.path()], &[]).unwrap().fit(&[fixed], &[]).unwrap();
    let fine = Plan { batch: 2, keep_rest: false, ..Plan::default() };
    assert_eq!(run(&data, &fine, 0).len(), 2);
    for (plan, words) in [
        (Plan { batch: 0, ..fine.clone() }, "one row at least"),
        (Plan { batch: 3, ..fine.clone() }, "takes batches of exactly 2, not of 3"),
        (Plan { keep_rest: true, ..fine.clone() }, "leave a last one of 1"),
        (Plan { batch: 6, ..fine.clone() }, "fewer than a batch of 6"),
        (Plan { augment: Augment { pad_crop: 0, flip: true }, ..fine.clone() }, "no array is one"),
    ] {
        let Err(message) = data.batches(&plan, 0) else { panic!("{plan:?}") };
        assert!(message.to_string().contains(words), "{message} lacks {words:?}");
    }
}

#[test]
fn an_error_comes_through_the_thread_and_ends_the_epoch() {
    let values: Vec<u8> = [0i64, 1, 1 << 40].iter().flat_map(|x| x.to_le_bytes()).collect();
    let folder = files(&[("x.npy", &npy("<i8", "(3,)", &values))]);
    let data = Dataset::open(&[folder.path()], &[]).unwrap().fit(&[input("x", DataType::Int32, &[])], &[]).unwrap();
    for ahead in [0, 1, 3] {
        let mut batches = data.batches(&Plan { batch: 1, ahead, ..Plan::default() }, 0).unwrap();
        assert!(batches.next_batch().unwrap().is_some());
        assert!(batches.next_batch().unwrap().is_some());
        let message = batches.next_batch().unwrap_err().to_string();
        assert!(message.contains("row 2 (counted from 0) of \"x\" has the value 1099511627776"), "{message}");
    }
}

#[test]
fn an_epoch_that_is_dropped_leaves_no_thread_behind() {
    let data = numbered(100);
    for _ in 0..50 {
        let mut batches = data.batches(&Plan { batch: 1, ahead: 2, ..Plan::default() }, 0).unwrap();
        batches.next_batch().unwrap();
    }
    // Every thread held the columns.
    assert_eq!(std::sync::Arc::strong_count(&data.columns), 1);
}
