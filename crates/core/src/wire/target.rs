//! What the name after `-o` stands for.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{WireError, WireResult};

#[derive(Debug)]
pub enum Destination {
    /// A pipe or a device.
    Stream(File),
    /// A regular file that is there or shall be.
    File { path: PathBuf, folder: PathBuf, existing: Option<Box<Metadata>> },
}

impl Destination {
    /// What `target` stands for; every reason to refuse it that shows before anything is written.
    pub fn of(target: &Path) -> WireResult<Self> {
        let refuse = |problem: String| Err(WireError::Target { path: target.to_owned(), problem });
        let failed = |e: io::Error| WireError::Target { path: target.to_owned(), problem: e.to_string() };
        if ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| target.as_os_str() == *name) {
            return stdout().map(Destination::Stream).map_err(failed);
        }
        if target.as_os_str().is_empty() {
            return refuse("the name is empty".into());
        }
        match fs::metadata(target) {
            Ok(kind) if kind.is_dir() => {
                refuse(format!("it is a folder; name a file in it, such as {}", target.join("model.onnx").display()))
            }
            Ok(kind) if kind.is_file() && !is_a_descriptor(target) => {
                if let Err(e) = may_write(target) {
                    return refuse(format!("{e}; allow it with chmod u+w, or choose another name"));
                }
                let path = fs::canonicalize(target).map_err(failed)?;
                let folder = folder_of(&path);
                Ok(Destination::File { path, folder, existing: Some(Box::new(kind)) })
            }
            // Without truncation: what `>> log` appends to keeps its beginning.
            Ok(_) => OpenOptions::new().append(true).open(target).map(Destination::Stream).map_err(failed),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                if ends_in_separator(target) {
                    return refuse(format!("there is no such folder; make it first: mkdir -p {}", target.display()));
                }
                let path = follow_dangling(target).map_err(failed)?;
                let folder = folder_of(&path);
                match fs::metadata(&folder) {
                    Ok(kind) if kind.is_dir() => Ok(Destination::File { path, folder, existing: None }),
                    Ok(_) => refuse(format!("{} is a file, not a folder", folder.display())),
                    Err(_) => {
                        refuse(format!("the folder {0} is not there; make it first: mkdir -p {0}", folder.display()))
                    }
                }
            }
            Err(e) => Err(failed(e)),
        }
    }
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// The file that a symbolic link to nothing would create; `target` itself when it is no link.
fn follow_dangling(target: &Path) -> io::Result<PathBuf> {
    let mut path = target.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(next) => path = folder_of(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("its symbolic links go round in a circle"))
}

/// Whether the name stands for an open descriptor, whose file cannot be replaced under whoever opened it.
fn is_a_descriptor(target: &Path) -> bool {
    ["/dev/fd", "/dev/stdin", "/dev/stderr", "/proc"].iter().any(|name| target.starts_with(name))
}

fn ends_in_separator(target: &Path) -> bool {
    target.as_os_str().as_encoded_bytes().last().is_some_and(|b| std::path::is_separator(char::from(*b)))
}

/// Rename needs no permission on the file that it replaces, yet a person who took it away meant something by it.
fn may_write(target: &Path) -> io::Result<()> {
    #[cfg(unix)]
    rustix::fs::access(target, rustix::fs::Access::WRITE_OK)?;
    #[cfg(not(unix))]
    if fs::metadata(target)?.permissions().readonly() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Standard output without its line buffer.
fn stdout() -> io::Result<File> {
    #[cfg(unix)]
    let owned = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?;
    #[cfg(windows)]
    let owned = std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned()?;
    Ok(owned.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refusal(target: &Path) -> String {
        Destination::of(target).unwrap_err().to_string()
    }

    fn file(target: &Path) -> (PathBuf, bool) {
        match Destination::of(target).unwrap() {
            Destination::File { path, folder, existing } => {
                assert_eq!(path.parent(), Some(&*folder));
                (path, existing.is_some())
            }
            Destination::Stream(_) => panic!("{} is no stream", target.display()),
        }
    }

    #[test]
    fn a_target_that_cannot_be_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "x").unwrap();
        symlink(at("round"), at("and round")).unwrap();
        symlink(at("and round"), at("round")).unwrap();
        for (target, words) in [
            (at("missing/sub/m.onnx"), format!("make it first: mkdir -p {}", at("missing/sub").display())),
            (at("missing/"), format!("make it first: mkdir -p {}", at("missing/").display())),
            (folder.path().into(), "it is a folder; name a file in it, such as ".into()),
            (".".into(), "it is a folder; name a file in it, such as ./model.onnx".into()),
            ("".into(), "the name is empty".into()),
            (at("file/m.onnx"), format!("{} is a file, not a folder", at("file").display())),
            (at(&"long".repeat(100)), "too long".into()),
            (at("round"), "symbolic links".into()),
        ] {
            let message = refusal(&target);
            assert!(message.contains(&words), "{message:?} lacks {words:?}");
        }
    }

    #[test]
    fn a_symbolic_link_stands_for_the_file_that_it_points_to() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("sub")).unwrap();
        symlink("sub/new", folder.join("link")).unwrap();
        assert_eq!(file(&folder.join("link")), (folder.join("sub/new"), false));
        fs::write(folder.join("sub/new"), "").unwrap();
        assert_eq!(file(&folder.join("link")), (folder.join("sub/new"), true));
    }

    #[test]
    fn pipes_devices_and_descriptors_are_written_directly() {
        for name in ["-", "/dev/stdout", "/dev/null"] {
            assert!(matches!(Destination::of(Path::new(name)), Ok(Destination::Stream(_))), "{name}");
        }
        assert!(is_a_descriptor(Path::new("/dev/fd/63")));
        assert!(!is_a_descriptor(Path::new("/dev/shm/model.onnx")), "shared memory holds ordinary files");
    }
}
