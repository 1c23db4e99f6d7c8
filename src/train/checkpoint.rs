//! Checkpoints: everything that a run needs to go on as if it had never stopped, in one safetensors file.
//!
//! The tensors are parameters, running statistics and the optimiser's state under their names in the step graph. The metadata holds the
//! position in the data and in the random streams, which are counter-based: seed, epoch, batch and step say all. A file appears under its
//! name when it is whole, so a process that is killed at any moment leaves the one before.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::error::{TrainError, TrainResult};
use super::weights::{from_bytes, to_bytes};
use crate::engine::Tensor;
use crate::weights::{dtype, elem};
use crate::wire::{ModelFile, Piece, Rope, Sync, write};

/// Which layout of the metadata this is.
pub const FORMAT: &str = "per-inject.checkpoint/1";

/// The key of the metadata under which all of it stands, as JSON.
const KEY: &str = "per-inject";

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Steps behind it, those that were left out included: the counter of random streams and schedules.
    pub step: u64,
    /// Steps that were left out because their result was no number.
    pub skipped: u64,
    /// How many of these are the last ones.
    #[serde(default)]
    pub skipped_in_a_row: u64,
    /// How often the parameters changed: what optimisers count.
    pub updates: u64,
    /// Batches whose gradients are summed up since.
    pub held: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Batches of the epoch behind it.
    pub batch: u64,
    /// Whether the epoch's steps are all behind it, and its evaluation is not.
    #[serde(default)]
    pub evaluation_due: bool,
    /// Sums over the epoch so far.
    pub sums: Sums,
    /// The best evaluation so far, and after how many steps it was.
    pub best: Option<(Bits, u64)>,
    /// What every evaluation said, for schedules that go by it.
    pub history: Vec<Bits>,
}

/// A number that reads back bit for bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits(u64);

impl From<f64> for Bits {
    fn from(value: f64) -> Self {
        Bits(value.to_bits())
    }
}

impl From<Bits> for f64 {
    fn from(bits: Bits) -> Self {
        f64::from_bits(bits.0)
    }
}

/// Sums over the samples of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Samples.
    pub samples: u64,
    /// Steps.
    pub steps: u64,
    /// What the losses are weighted by: labels that count, else samples.
    pub weight: Bits,
    /// Weighted loss.
    pub loss: Bits,
    /// Weighted task loss.
    pub task: Bits,
    /// Weighted PER of each layer.
    pub layers: Vec<Bits>,
    /// Norms of the gradients, each step counting once.
    pub norm: Bits,
    /// Labels that were right.
    pub correct: Bits,
    /// Labels that count.
    pub labels: Bits,
}

/// What a checkpoint holds beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// [`FORMAT`].
    pub format: String,
    /// Version of the program.
    pub version: String,
    /// Seed of all random streams.
    pub seed: u64,
    /// Where the run is.
    pub position: Position,
    /// What the run is: option or part, and value. Another run cannot go on from here.
    pub identity: BTreeMap<String, String>,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// The metadata.
    pub meta: Meta,
    /// The state.
    pub state: HashMap<String, Tensor>,
    /// Later ones that cannot be read, and why.
    pub passed_over: Vec<String>,
}

/// A checkpoint without its state. Only the beginning of the file was read, and its length was checked.
struct Head {
    file: ModelFile,
    meta: Meta,
}

/// The bytes of a safetensors file.
///
/// # Errors
/// For an element type that the format lacks.
pub fn encode(tensors: &[(String, Tensor)], meta: Option<&Meta>) -> TrainResult<Vec<u8>> {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, t)| to_bytes(t)).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), data) in tensors.iter().zip(&bytes) {
        let refuse = |problem: String| TrainError::Weights { name: name.clone(), problem };
        let dtype = dtype(tensor.elem()).ok_or_else(|| refuse("has a type that safetensors lacks".into()))?;
        let view = TensorView::new(dtype, tensor.shape().to_vec(), data).map_err(|e| refuse(e.to_string()))?;
        views.push((name.as_str(), view));
    }
    let text = meta.map(|meta| serde_json::to_string(meta).unwrap_or_default());
    let metadata = text.map(|text| HashMap::from([(KEY.to_owned(), text)]));
    safetensors::serialize(views, metadata).map_err(|e| TrainError::Options(e.to_string()))
}

/// Writes a file, all of it or nothing.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(bytes: Vec<u8>, path: &Path) -> TrainResult<()> {
    let rope = Rope { pieces: vec![Piece::New(bytes.into())] };
    write(&rope, &ModelFile::from_bytes(Vec::new()), path, Sync::Auto)?;
    Ok(())
}

impl Head {
    fn read(path: &Path) -> TrainResult<Self> {
        let fail = |problem: String| TrainError::Checkpoint { path: path.to_owned(), problem };
        let file = ModelFile::open(path)?;
        let (_, head) = SafeTensors::read_metadata(&file.bytes)
            .map_err(|e| fail(format!("it is no safetensors file, or is cut off ({e})")))?;
        let text = head.metadata().as_ref().and_then(|m| m.get(KEY));
        let text = text.ok_or_else(|| fail("it is no checkpoint: it lacks the position of a run".into()))?;
        let meta: Meta =
            serde_json::from_str(text).map_err(|e| fail(format!("its metadata is not understood ({e})")))?;
        if meta.format != FORMAT {
            return Err(fail(format!("it is of format {:?}, and {FORMAT:?} is known", meta.format)));
        }
        Ok(Head { file, meta })
    }
}

impl Checkpoint {
    /// Reads one.
    ///
    /// # Errors
    /// When the file is none, or is broken.
    pub fn read(path: &Path) -> TrainResult<Self> {
        let fail = |problem: String| TrainError::Checkpoint { path: path.to_owned(), problem };
        let Head { file, meta } = Head::read(path)?;
        let tensors = SafeTensors::deserialize(&file.bytes).map_err(|e| fail(e.to_string()))?;
        let mut state = HashMap::new();
        for (name, view) in tensors.iter() {
            let elem = elem(view.dtype()).ok_or_else(|| fail(format!("{name:?} is of {:?}", view.dtype())))?;
            let tensor = from_bytes(elem as i32, view.shape().to_vec(), view.data());
            state.insert(name.to_owned(), tensor.ok_or_else(|| fail(format!("{name:?} is broken")))?);
        }
        Ok(Checkpoint { path: path.to_owned(), meta, state, passed_over: Vec::new() })
    }

    /// Refuses to go on with a run that is another one.
    ///
    /// # Errors
    /// The first thing that differs, with both values.
    pub fn check(&self, identity: &BTreeMap<String, String>) -> TrainResult<()> {
        let fail = |difference: String| {
            let advice = "go on with the same options and data, or start a new run in another folder";
            let problem = format!("it belongs to a run {difference}; {advice}");
            Err(TrainError::Checkpoint { path: self.path.clone(), problem })
        };
        // An option without a value has an empty one.
        let shown = |key: &str, value: &str| format!("{key} {value}").trim_end().to_owned();
        for (key, now) in identity {
            match self.meta.identity.get(key) {
                Some(then) if then == now => {}
                Some(then) => return fail(format!("with {key} {then}, and this one has {now}")),
                None => return fail(format!("without {key}, and this one has {}", shown(key, now))),
            }
        }
        match self.meta.identity.iter().find(|(key, _)| !identity.contains_key(*key)) {
            Some((key, then)) => fail(format!("with {}, and this one has none", shown(key, then))),
            None => Ok(()),
        }
    }
}

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Shelf {
    /// Their folder.
    pub folder: PathBuf,
    /// How many of the last ones are kept.
    pub keep: usize,
}

impl Shelf {
    /// The file of the best evaluation.
    pub fn best(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }

    /// The files by the steps behind them, the last one first.
    ///
    /// # Errors
    /// When the folder cannot be read; one that is not there is empty.
    pub fn list(&self) -> TrainResult<Vec<(u64, PathBuf)>> {
        let failed = |source| TrainError::Io { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let step = name.strip_prefix("step-").and_then(|n| n.strip_suffix(".safetensors"));
            found.extend(step.and_then(|n| n.parse().ok()).map(|step| (step, path.clone())));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Writes one, and takes away those that are too many. `is_best` makes it the best one as well.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, state: &[(String, Tensor)], meta: &Meta, is_best: bool) -> TrainResult<PathBuf> {
        fs::create_dir_all(&self.folder).map_err(|source| TrainError::Io { path: self.folder.clone(), source })?;
        let path = self.folder.join(format!("step-{:010}.safetensors", meta.position.step));
        write_whole(encode(state, Some(meta))?, &path)?;
        if is_best {
            self.name_best(&path)?;
        }
        // One that cannot be read is none to go back to.
        let readable = self.list()?.into_iter().filter(|(_, path)| Head::read(path).is_ok());
        for (_, old) in readable.skip(self.keep.max(1)) {
            // What cannot be taken away does no harm.
            let _ = fs::remove_file(old);
        }
        Ok(path)
    }

    /// Gives a checkpoint a second name, in one step.
    fn name_best(&self, path: &Path) -> TrainResult<()> {
        let failed = |source| TrainError::Io { path: self.best(), source };
        let passing = self.folder.join(".best.tmp");
        let _ = fs::remove_file(&passing);
        if fs::hard_link(path, &passing).is_err() {
            fs::copy(path, &passing).map_err(failed)?;
        }
        fs::rename(&passing, self.best()).map_err(failed)
    }

    /// The last one that can be read, which says what was passed over; `None` where there is none at all.
    ///
    /// # Errors
    /// When there are some and none of them can be read: that of the last one.
    pub fn last(&self) -> TrainResult<Option<Checkpoint>> {
        let mut problems = Vec::new();
        for (_, path) in self.list()? {
            match Checkpoint::read(&path) {
                Ok(found) => {
                    let passed_over = problems.iter().map(ToString::to_string).collect();
                    return Ok(Some(Checkpoint { passed_over, ..found }));
                }
                Err(problem) => problems.push(problem),
            }
        }
        problems.into_iter().next().map_or(Ok(None), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(step: u64) -> Meta {
        let position =
            Position { step, best: Some((0.1.into(), 3)), history: vec![f64::NAN.into()], ..Position::default() };
        let identity = BTreeMap::from([("--lr".to_owned(), "0.1".to_owned())]);
        Meta { format: FORMAT.into(), version: "1".into(), seed: 7, position, identity }
    }

    fn state() -> Vec<(String, Tensor)> {
        vec![
            ("w".into(), Tensor::new(vec![2], vec![0.1f32, -0.0]).unwrap()),
            ("h".into(), Tensor::new(vec![1, 1], vec![half::bf16::from_f32(3.0)]).unwrap()),
            ("n".into(), Tensor::scalar(-5i64)),
        ]
    }

    #[test]
    fn a_checkpoint_reads_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf { folder: folder.path().join("checkpoints"), keep: 2 };
        assert!(shelf.last().unwrap().is_none());
        for step in [1, 20, 300] {
            shelf.put(&state(), &meta(step), step == 20).unwrap();
        }
        let steps: Vec<u64> = shelf.list().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [300, 20]);
        let last = shelf.last().unwrap().unwrap();
        assert_eq!(last.meta.position.step, 300);
        assert_eq!(last.meta, meta(300));
        assert_eq!(last.state, state().into_iter().collect());
        assert_eq!(Checkpoint::read(&shelf.best()).unwrap().meta.position.step, 20);
    }

    #[test]
    fn a_broken_file_is_passed_over_and_another_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf { folder: folder.path().to_owned(), keep: 3 };
        let good = shelf.put(&state(), &meta(1), false).unwrap();
        let whole = fs::read(&good).unwrap();
        fs::write(folder.path().join("step-0000000002.safetensors"), &whole[..whole.len() - 1]).unwrap();
        let found = shelf.last().unwrap().unwrap();
        assert_eq!(found.path, good);
        assert!(found.passed_over[0].contains("step-0000000002.safetensors: it is no safetensors file, or is cut off"));
        let other = BTreeMap::from([("--lr".to_owned(), "0.2".to_owned())]);
        let message = found.check(&other).unwrap_err().to_string();
        assert!(message.contains("a run with --lr 0.1, and this one has 0.2"), "{message}");
        assert!(found.check(&meta(1).identity).is_ok());
        let more = |key: &str, value: &str| {
            let own = meta(1).identity.into_iter().chain([(key.to_owned(), value.to_owned())]);
            found.check(&own.collect()).unwrap_err().to_string()
        };
        assert!(more("--freeze", "*.bias").contains("a run without --freeze, and this one has --freeze *.bias; go on"));
        assert!(more("--no-shuffle", "").contains("a run without --no-shuffle, and this one has --no-shuffle; go on"));
        let message = found.check(&BTreeMap::new()).unwrap_err().to_string();
        assert!(message.contains("a run with --lr 0.1, and this one has none; go on"), "{message}");
        // It counts for nothing where the last ones are kept.
        let few = Shelf { keep: 1, ..shelf.clone() };
        let next = few.put(&state(), &meta(1), false).unwrap();
        assert!(next == good && good.exists());
        fs::write(&good, "text").unwrap();
        assert!(shelf.last().unwrap_err().to_string().contains("no safetensors file"));
    }
}
