//! One JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Event, Kind, Sink};

/// Writes a line for each event: `{"kind":"train","time":…,"step":…,"epoch":…,"values":{"loss":…}}`.
///
/// Numbers that JSON lacks are strings, as Python's `float()` and most parsers take them: `"NaN"`, `"Infinity"`, `"-Infinity"`.
#[derive(Debug)]
pub struct JsonLines {
    file: BufWriter<File>,
}

#[derive(Serialize)]
struct Line {
    kind: Kind,
    time: Value,
    step: u64,
    epoch: u64,
    values: Map<String, Value>,
}

/// What must be known of a line to go on behind it.
#[derive(Deserialize)]
struct Place {
    kind: Kind,
    step: u64,
}

impl JsonLines {
    /// A new file, in the place of one that is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(JsonLines { file: BufWriter::new(File::create(path)?) })
    }

    /// The file of a run that goes on after `step`: what came later is cut off, and so is a line that is not whole, and an evaluation after
    /// that step where the run goes on with it (`evaluation_due`). Without a file, a new one.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn resume(path: &Path, step: u64, evaluation_due: bool) -> io::Result<Self> {
        let is_repeated = |p: Place| p.step > step || (evaluation_due && p.step == step && p.kind == Kind::Eval);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut kept = 0;
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            let place = line.strip_suffix(b"\n").and_then(|l| serde_json::from_slice::<Place>(l).ok());
            if place.is_none_or(is_repeated) {
                break;
            }
            kept += length as u64;
        }
        file.set_len(kept)?;
        file.seek(SeekFrom::Start(kept))?;
        Ok(JsonLines { file: BufWriter::new(file) })
    }
}

fn number(x: f64) -> Value {
    match serde_json::Number::from_f64(x) {
        Some(number) => Value::Number(number),
        None if x.is_nan() => "NaN".into(),
        None if x > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

impl Sink for JsonLines {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        let values = event.values.iter().map(|(name, x)| (name.clone(), number(*x))).collect();
        let line = Line { kind: event.kind, time: number(event.time), step: event.step, epoch: event.epoch, values };
        serde_json::to_writer(&mut self.file, &line)?;
        self.file.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(step: u64, loss: f64) -> Event {
        let values = vec![("loss".into(), loss), ("per/relu1".into(), 1.25)];
        Event { kind: Kind::Train, time: 1.5, step, epoch: 1, values }
    }

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_event_is_a_line_of_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = JsonLines::create(&path).unwrap();
        for (step, loss) in [(1, 0.5), (2, f64::NAN), (3, f64::NEG_INFINITY)] {
            log.record(&event(step, loss)).unwrap();
        }
        log.flush().unwrap();
        let lines = lines(&path);
        assert_eq!(
            lines[0],
            r#"{"kind":"train","time":1.5,"step":1,"epoch":1,"values":{"loss":0.5,"per/relu1":1.25}}"#
        );
        assert!(lines[1].contains(r#""loss":"NaN""#) && lines[2].contains(r#""loss":"-Infinity""#), "{lines:?}");
    }

    #[test]
    fn an_evaluation_that_is_made_again_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = JsonLines::create(&path).unwrap();
        log.record(&event(3, 1.0)).unwrap();
        log.record(&Event { kind: Kind::Eval, ..event(3, 2.0) }).unwrap();
        drop(log);
        drop(JsonLines::resume(&path, 3, false).unwrap());
        assert_eq!(lines(&path).len(), 2);
        drop(JsonLines::resume(&path, 3, true).unwrap());
        assert_eq!(lines(&path).len(), 1);
    }

    #[test]
    fn a_run_that_goes_on_cuts_off_what_it_repeats() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = JsonLines::resume(&path, 0, false).unwrap();
        (1..=5).for_each(|step| log.record(&event(step, step as f64)).unwrap());
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut log = JsonLines::resume(&path, 3, false).unwrap();
            log.record(&event(4, 9.0)).unwrap();
            drop(log);
            let lines = lines(&path);
            let kept = whole[..cut].iter().filter(|b| **b == b'\n').count().min(3);
            assert_eq!(lines.len(), kept + 1, "{cut}");
            assert!(lines.iter().all(|l| serde_json::from_str::<Value>(l).is_ok()));
        }
    }
}
