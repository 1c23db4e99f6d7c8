//! Brings a model's external data along when the model goes to another folder.

use std::fs::{self, File, FileTimes, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{WireError, WireResult};
use super::external::ExternalFile;
use super::staged::Staged;
use super::write::LARGE;

/// What happens to external data when the output lies in another folder than the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalPolicy {
    /// A second name for the same data (hard link); where the system has none, such as on another disk, a copy.
    ///
    /// It takes no space, but whoever writes to one of the two files in place changes both, and `onnx` refuses to load data files
    /// with more than one name (seen with 1.23: "potential hardlink attack"), the original model's included. ONNX Runtime
    /// loads them.
    Link,
    /// A copy, which shares its blocks with the original where the file system can (Btrfs, XFS).
    Copy,
    /// Nothing: the output works once somebody puts the data beside it.
    Keep,
}

/// What became of one data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Its name as the model has it.
    pub location: String,
    /// What was done.
    pub how: How,
}

/// How a data file comes to be beside the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It stays where it is: the output lies in the same folder, or [`ExternalPolicy::Keep`] asks for it.
    Kept,
    /// It got a second name.
    Linked,
    /// It was copied, time stamp included.
    Copied,
    /// The same file stood there already: the same inode, or the same size and time of change.
    AlreadyThere,
}

/// Brings `files` from the model's folder `from` (`None` for a model from a pipe or from memory) to the folder `to`.
///
/// Call it before the model is written: when it fails, no output that lacks its data is there. Whether anything is in the way
/// is checked for all files before the first one is carried. Nothing is ever overwritten.
///
/// # Errors
/// [`WireError::External`] when a file is missing, shorter than its tensors say, or another one stands at its place;
/// [`WireError::Target`] when `to` is no folder; [`WireError::Write`] when linking and copying fail.
pub fn carry(
    files: &[ExternalFile],
    from: Option<&Path>,
    to: &Path,
    policy: ExternalPolicy,
) -> WireResult<Vec<Carried>> {
    let done = |how| move |file: &ExternalFile| Carried { location: file.location.clone(), how };
    let Some(first) = files.first() else { return Ok(Vec::new()) };
    if policy == ExternalPolicy::Keep {
        return Ok(files.iter().map(done(How::Kept)).collect());
    }
    let Some(from) = from else {
        let problem =
            "but the model came through a pipe or from memory, so that nobody knows which folder is meant".into();
        return Err(refusal(first, problem, "give the model by its path, or pass --external keep"));
    };
    let to = if to.as_os_str().is_empty() { Path::new(".") } else { to };
    let real_to = fs::canonicalize(to).map_err(|e| WireError::Target {
        path: to.to_owned(),
        problem: match e.kind() {
            io::ErrorKind::NotFound => format!("there is no such folder; make it first: mkdir -p {}", to.display()),
            _ => e.to_string(),
        },
    })?;
    if fs::canonicalize(from).is_ok_and(|from| from == real_to) {
        return Ok(files.iter().map(done(How::Kept)).collect());
    }
    let steps: Vec<Step> = files.iter().map(|f| Step::plan(f, &real_to)).collect::<WireResult<_>>()?;
    let carry_one = |step: &Step| {
        let how = step.run(policy).map_err(|source| WireError::Write { path: step.target.clone(), source })?;
        Ok(done(how)(step.file))
    };
    steps.iter().map(carry_one).collect()
}

struct Step<'f> {
    file: &'f ExternalFile,
    /// The data itself, behind any symbolic link inside the model's folder.
    source: PathBuf,
    target: PathBuf,
    is_there: bool,
}

impl<'f> Step<'f> {
    fn plan(file: &'f ExternalFile, to: &Path) -> WireResult<Self> {
        if let Some(problem) = file.problem() {
            return Err(problem);
        }
        let target = to.join(&file.location);
        let read = |source| WireError::Read { path: file.path.clone(), source };
        let source = fs::canonicalize(&file.path).map_err(read)?;
        // A symbolic link at the destination must not carry the data elsewhere.
        let exists = target.ancestors().find_map(|p| fs::canonicalize(p).ok()).unwrap_or_else(|| to.to_owned());
        if !exists.starts_with(to) {
            let problem = format!("but {} leads out of the output's folder, to {}", target.display(), exists.display());
            return Err(refusal(file, problem, "write the model to a folder of its own"));
        }
        let is_there = match fs::symlink_metadata(&target) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(WireError::Read { path: target, source }),
            Ok(_) if exists == source => true,
            Ok(_) if fs::metadata(&target).is_ok_and(|t| fs::metadata(&source).is_ok_and(|s| is_same(&s, &t))) => true,
            Ok(_) => {
                let problem =
                    format!("but {} is there already and another file than {}", target.display(), file.path.display());
                return Err(refusal(file, problem, "move it away, or write the model to a folder of its own"));
            }
        };
        Ok(Step { file, source, target, is_there })
    }

    fn run(&self, policy: ExternalPolicy) -> io::Result<How> {
        if self.is_there {
            return Ok(How::AlreadyThere);
        }
        match self.bring(policy) {
            // Two locations may be spellings of one ("w.bin", "./w.bin"), and another process may do the same.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let same = is_same(&fs::metadata(&self.source)?, &fs::metadata(&self.target)?);
                if same { Ok(How::AlreadyThere) } else { Err(e) }
            }
            brought => brought,
        }
    }

    fn bring(&self, policy: ExternalPolicy) -> io::Result<How> {
        let folder = self.target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        if policy == ExternalPolicy::Link {
            match fs::hard_link(&self.source, &self.target) {
                Ok(()) => return Ok(How::Linked),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
                // Another disk, too many links, somebody else's file, no links at all: whatever it is, a copy may do.
                Err(_) => {}
            }
        }
        copy(&self.source, &self.target, folder).map(|()| How::Copied)
    }
}

fn copy(source: &Path, target: &Path, folder: &Path) -> io::Result<()> {
    let mut data = File::open(source)?;
    let kind = data.metadata()?;
    let mut staged = Staged::new(folder, Some(&kind))?;
    if io::copy(&mut data, staged.file_mut())? != kind.len() {
        return Err(io::Error::other(format!("{} changed while it was copied", source.display())));
    }
    staged.file_mut().set_times(FileTimes::new().set_modified(kind.modified()?))?;
    if kind.len() < LARGE {
        staged.file_mut().sync_all()?;
    }
    staged.publish_new(target)
}

/// The same inode, or a copy that was made with its time stamp.
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
            return true;
        }
    }
    // Network file systems round time stamps.
    let rounding = Duration::from_millis(10);
    let times = a.modified().ok().zip(b.modified().ok());
    let apart = times.map(|(a, b)| a.duration_since(b).unwrap_or_else(|e| e.duration()));
    b.is_file() && a.len() == b.len() && apart.is_some_and(|d| d <= rounding)
}

fn refusal(file: &ExternalFile, problem: String, advice: &'static str) -> WireError {
    let tensor = file.tensors.first().map_or_else(String::new, |t| t.name.clone());
    WireError::External { tensor, location: file.location.clone(), problem, advice }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::wire::{DataFile, ExternalTensor};
    use std::os::unix::fs::{MetadataExt, symlink};

    /// A folder with data files, and an empty one.
    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new() -> Self {
            let scene = Scene(tempfile::tempdir().unwrap());
            fs::create_dir_all(scene.from().join("sub")).unwrap();
            fs::create_dir(scene.to()).unwrap();
            fs::write(scene.from().join("w.bin"), "weights").unwrap();
            fs::write(scene.from().join("sub/b.bin"), "biases").unwrap();
            scene
        }

        fn from(&self) -> PathBuf {
            self.0.path().join("from")
        }

        fn to(&self) -> PathBuf {
            self.0.path().join("to")
        }

        fn file(&self, location: &str) -> ExternalFile {
            let path = self.from().join(location);
            let data = fs::metadata(&path).map_or(DataFile::Missing, |m| DataFile::Present { size: m.len() });
            let tensors = vec![ExternalTensor { name: "w".into(), offset: 2, length: Some(4) }];
            ExternalFile { location: location.into(), path, tensors, data }
        }

        fn carry(&self, locations: &[&str], policy: ExternalPolicy) -> WireResult<Vec<How>> {
            let files: Vec<_> = locations.iter().map(|l| self.file(l)).collect();
            Ok(carry(&files, Some(&self.from()), &self.to(), policy)?.into_iter().map(|c| c.how).collect())
        }

        fn refusal(&self, locations: &[&str]) -> String {
            self.carry(locations, ExternalPolicy::Copy).unwrap_err().to_string()
        }
    }

    const BOTH: [&str; 2] = ["w.bin", "sub/b.bin"];

    #[test]
    fn links_share_the_data_and_copies_keep_its_time() {
        for (policy, how) in [(ExternalPolicy::Link, How::Linked), (ExternalPolicy::Copy, How::Copied)] {
            let scene = Scene::new();
            assert_eq!(scene.carry(&BOTH, policy).unwrap(), [how; 2]);
            let metadata = BOTH.map(|l| [scene.from(), scene.to()].map(|f| fs::metadata(f.join(l)).unwrap()));
            for [a, b] in metadata {
                assert_eq!(a.ino() == b.ino(), how == How::Linked);
                assert_eq!((a.len(), a.modified().unwrap(), a.mode()), (b.len(), b.modified().unwrap(), b.mode()));
            }
            assert_eq!(scene.carry(&BOTH, policy).unwrap(), [How::AlreadyThere; 2]);
            assert_eq!(fs::read_dir(scene.to()).unwrap().count(), 2);
        }
    }

    #[test]
    fn another_disk_gets_a_copy_instead_of_a_link() {
        let (scene, other) = (Scene::new(), tempfile::tempdir_in("/dev/shm").unwrap());
        let is_other = fs::metadata(other.path()).unwrap().dev() != fs::metadata(scene.from()).unwrap().dev();
        let carried = carry(&[scene.file("w.bin")], Some(&scene.from()), other.path(), ExternalPolicy::Link).unwrap();
        assert_eq!(carried[0].how, if is_other { How::Copied } else { How::Linked });
        assert_eq!(fs::read(other.path().join("w.bin")).unwrap(), b"weights");
    }

    #[test]
    fn two_spellings_of_one_file_are_one_file() {
        let how = Scene::new().carry(&["w.bin", "./w.bin"], ExternalPolicy::Copy).unwrap();
        assert_eq!(how, [How::Copied, How::AlreadyThere]);
    }

    #[test]
    fn nothing_moves_within_a_folder_or_when_asked_to_keep() {
        let scene = Scene::new();
        assert_eq!(scene.carry(&BOTH, ExternalPolicy::Keep).unwrap(), [How::Kept; 2]);
        let files = [scene.file("w.bin")];
        let same = scene.to().join("../from");
        assert_eq!(carry(&files, Some(&scene.from()), &same, ExternalPolicy::Link).unwrap()[0].how, How::Kept);
        assert_eq!(fs::read_dir(scene.to()).unwrap().count(), 0);
    }

    #[test]
    fn another_file_in_the_way_is_never_overwritten_and_nothing_is_carried() {
        let scene = Scene::new();
        fs::create_dir(scene.to().join("sub")).unwrap();
        fs::write(scene.to().join("sub/b.bin"), "mine!!").unwrap();
        fs::File::open(scene.to().join("sub/b.bin"))
            .unwrap()
            .set_times(FileTimes::new().set_modified(std::time::UNIX_EPOCH))
            .unwrap();
        let message = scene.refusal(&BOTH);
        for name in ["to/sub/b.bin is there already", "from/sub/b.bin", "move it away"] {
            assert!(message.contains(name), "{message}");
        }
        assert!(!scene.to().join("w.bin").exists());
        assert_eq!(fs::read(scene.to().join("sub/b.bin")).unwrap(), b"mine!!");
    }

    #[test]
    fn a_link_at_the_destination_leads_nowhere_else() {
        let scene = Scene::new();
        symlink(scene.0.path(), scene.to().join("sub")).unwrap();
        assert!(scene.refusal(&["sub/b.bin"]).contains("leads out of the output's folder"));
        symlink("nowhere", scene.to().join("w.bin")).unwrap();
        assert!(scene.refusal(&["w.bin"]).contains("is there already"));
        assert!(!scene.0.path().join("b.bin").exists());
    }

    #[test]
    fn what_cannot_be_carried_says_why() {
        let scene = Scene::new();
        assert!(scene.refusal(&["gone.bin"]).contains("from/gone.bin is not there"));
        fs::write(scene.from().join("w.bin"), "wei").unwrap();
        assert!(scene.refusal(&["w.bin"]).contains("from/w.bin is 3 bytes shorter than that tensor says"));
        let files = [scene.file("sub/b.bin")];
        let piped = carry(&files, None, &scene.to(), ExternalPolicy::Link).unwrap_err().to_string();
        assert!(piped.contains("give the model by its path"), "{piped}");
        let missing = carry(&files, Some(&scene.from()), &scene.to().join("x"), ExternalPolicy::Link).unwrap_err();
        assert!(missing.to_string().contains("mkdir -p"), "{missing}");
    }
}
