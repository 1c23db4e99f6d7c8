//! Event files of TensorBoard: TFRecord frames around protobuf messages.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::crc32c::masked;
use super::{Event, Sink};

/// `tensorflow.Event`, as far as it is written here.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// In a `oneof` there, so that 0 is written.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorflow.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`, at which TensorBoard forgets what older files say of this step and of later ones.
const START: i32 = 1;

/// Writes events as scalars, named `train/loss` and `eval/loss`; TensorBoard keeps them as `float32`.
///
/// Each run makes a file of its own in the folder, as TensorBoard wants it; a run that goes on makes another one beside it.
#[derive(Debug)]
pub struct TensorBoard {
    file: BufWriter<File>,
    path: PathBuf,
}

impl TensorBoard {
    /// A new file in a folder, which is made if it is not there. `time` is seconds since 1970; `after` the steps that the run has behind it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(folder: &Path, time: f64, after: Option<u64>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        // TensorBoard reads the files of a folder in the order of their names.
        let path = (0..10_000)
            .map(|n| folder.join(format!("events.out.tfevents.{:010}.{n:04}.per-inject", time.max(0.0) as u64)))
            .find(|path| !path.exists())
            .ok_or_else(|| io::Error::new(io::ErrorKind::AlreadyExists, "the folder is full of event files"))?;
        let mut board = TensorBoard { file: BufWriter::new(File::create_new(&path)?), path };
        board.write(time, 0, What::FileVersion("brain.Event:2".into()))?;
        if let Some(after) = after {
            board.write(time, after.saturating_add(1), What::SessionLog(SessionLog { status: START }))?;
        }
        Ok(board)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, wall_time: f64, step: u64, what: What) -> io::Result<()> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let message = Entry { wall_time, step, what: Some(what) }.encode_to_vec();
        self.file.write_all(&frame(&message))
    }
}

/// A record of a TFRecord file: length, its check sum, the message, and its check sum.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), message, &masked(message).to_le_bytes()].concat()
}

impl Sink for TensorBoard {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        let scalar = |(name, x): &(String, f64)| Scalar {
            tag: format!("{}/{name}", event.kind.name()),
            simple_value: Some(*x as f32),
        };
        let summary = Summary { value: event.values.iter().map(scalar).collect() };
        self.write(event.time, event.step, What::Summary(summary))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    /// What `tests/python/test_tensorboard.py` reads with TensorBoard.
    const FOLDER: &str = "tests/data/tensorboard";

    fn event(kind: Kind, step: u64, loss: f64) -> Event {
        let values = vec![("loss".into(), loss), ("per/relu1".into(), 1.25)];
        Event { kind, time: 1_700_000_000.5 + step as f64, step, epoch: 1, values }
    }

    /// Two files: a run of four steps, and its repetition from step 3 on.
    fn write_to(folder: &Path) -> Vec<PathBuf> {
        let mut first = TensorBoard::create(folder, 1_700_000_000.0, None).unwrap();
        for (step, loss) in [(1, 2.5), (2, 0.0), (3, 7.0), (4, 8.0)] {
            first.record(&event(Kind::Train, step, loss)).unwrap();
        }
        first.record(&event(Kind::Eval, 4, f64::NAN)).unwrap();
        first.flush().unwrap();
        let mut second = TensorBoard::create(folder, 1_700_000_000.0, Some(2)).unwrap();
        second.record(&event(Kind::Train, 3, -1.5)).unwrap();
        second.record(&event(Kind::Eval, 3, 0.75)).unwrap();
        second.flush().unwrap();
        vec![first.path().to_owned(), second.path().to_owned()]
    }

    #[test]
    fn the_files_that_tensorboard_is_tested_with_are_those_that_are_written() {
        let folder = tempfile::tempdir().unwrap();
        for path in write_to(folder.path()) {
            let kept = Path::new(FOLDER).join(path.file_name().unwrap());
            let kept_bytes = fs::read(&kept).unwrap_or_default();
            if std::env::var_os("UPDATE_TENSORBOARD").is_some() {
                fs::create_dir_all(FOLDER).unwrap();
                fs::copy(&path, &kept).unwrap();
            } else {
                let update = "UPDATE_TENSORBOARD=1 cargo test --lib tensor_board writes it anew";
                assert!(fs::read(&path).unwrap() == kept_bytes, "{}: {update}", kept.display());
            }
        }
    }

    #[test]
    fn a_record_has_its_length_and_both_check_sums() {
        let record = frame(b"123456789");
        assert_eq!(record.len(), 8 + 4 + 9 + 4);
        assert_eq!(record[..8], 9u64.to_le_bytes());
        assert_eq!(record[8..12], masked(&9u64.to_le_bytes()).to_le_bytes());
        assert_eq!(record[21..], masked(b"123456789").to_le_bytes());
    }
}
