//! Data of some gigabytes is checked and shuffled in a bounded amount of memory.

use std::fs::{self, File};
use std::io::Write;

use per_inject::engine::Data;
use per_inject::train::data::{Dataset, Plan};

const ROWS: usize = 800_000;
const WIDTH: usize = 1024;

/// MiB: 512 of the file that may stay in memory, and as much again for all else. Without a bound it is 3,100.
const BOUND: usize = 1024;

/// The most memory that this process has held so far, in MiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
#[cfg(target_os = "linux")]
fn three_gigabytes_stay_on_the_disk() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("x.npy");
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, {WIDTH}), }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    let mut file = File::create(&path).unwrap();
    file.write_all(&[b"\x93NUMPY\x01\0", &length[..], header.as_bytes()].concat()).unwrap();
    // A hole: zeros that take no room on the disk, and as much memory as others when they are mapped.
    file.set_len(10 + header.len() as u64 + (ROWS * WIDTH * 4) as u64).unwrap();

    let data = Dataset::open(&[&path], &[]).unwrap();
    assert_eq!(data.rows(), ROWS);
    data.check().unwrap();
    let after_check = peak();
    assert!(after_check < BOUND, "{after_check} MiB after the check");

    let plan = Plan { batch: 128, shuffle: true, ..Plan::default() };
    let mut batches = data.batches(&plan, 0).unwrap();
    for _ in 0..1000 {
        let batch = batches.next_batch().unwrap().unwrap();
        let Data::Float(values) = batch.arrays[0].1.data() else { panic!() };
        assert!(values.len() == 128 * WIDTH && values.iter().all(|x| *x == 0.0));
    }
    let after_batches = peak();
    assert!(after_batches < BOUND, "{after_batches} MiB after 500 MB of shuffled rows");
}
