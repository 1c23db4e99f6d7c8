//! A rope → a file, all of it or nothing.
//!
//! A regular file is replaced by renaming a finished one over it: whoever reads the target meanwhile, this very program through its
//! mapping included, sees the old bytes or the new ones, never a mixture. Ctrl-C and `kill -9` need no handler: the unfinished
//! file has no name on Linux, so it vanishes with the process.

use std::fs::File;
use std::io;
use std::path::Path;

use super::copy::copy_rope;
use super::error::{WireError, WireResult};
use super::file::ModelFile;
use super::splice::Rope;
use super::staged::Staged;
use super::target::Destination;

/// Below this many bytes a file is synced in any case, since nobody notices what that costs; from there on its space is reserved
/// first, so that a full disk shows before minutes of copying (measured: reserving makes 1.6 GB no slower).
pub(super) const LARGE: u64 = 64 << 20;

/// When the bytes must have reached the disk before the target's name does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sync {
    /// fsync for outputs below 64 MiB, where it is cheap; above, a power cut soon after may lose the output.
    #[default]
    Auto,
    /// fsync whatever the size (4 to 6 times slower for gigabytes).
    Always,
}

/// What [`write()`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes in the output.
    pub bytes: u64,
    /// Whether both the file and its name are known to have reached the disk.
    pub synced: bool,
    /// Whether a file stood there before.
    pub replaced: bool,
}

/// Writes the bytes of `rope`, whose [`Piece::Original`](super::Piece::Original) ranges refer to `source`, to `target`.
///
/// - `-` and `/dev/stdout` are standard output; other targets that are no regular files (`/dev/null`, a FIFO) are written directly.
/// - A symbolic link keeps being one: the file that it points to is replaced.
/// - A new file has the permissions that the umask leaves, a replaced one keeps its permissions (and its owner, where allowed).
/// - `target` may be the file that `source` maps.
///
/// # Errors
/// [`WireError::ReaderGone`] when the reader of a pipe stopped reading, which deserves no message; [`WireError::Target`] when the
/// target cannot be written at all, with what to do; [`WireError::Write`] when writing failed on the way, with the target as it
/// was and the temporary file removed; [`WireError::WriteDirect`] when that happened to a pipe or a device, where
/// part of the output may have arrived.
pub fn write(rope: &Rope, source: &ModelFile, target: &Path, sync: Sync) -> WireResult<Written> {
    let bytes = rope.len();
    match Destination::of(target)? {
        Destination::Stream(mut file) => {
            copy_rope(rope, source, &mut file).map_err(|source| match source.kind() {
                io::ErrorKind::BrokenPipe => WireError::ReaderGone,
                _ => WireError::WriteDirect { path: target.to_owned(), source },
            })?;
            Ok(Written { bytes, synced: false, replaced: false })
        }
        Destination::File { path, folder, existing } => {
            let staged =
                Staged::new(&folder, existing.as_deref()).map_err(|e| unwritable_folder(target, &folder, &e))?;
            let synced = finish(rope, source, staged, &path, &folder, sync == Sync::Always || bytes < LARGE)
                .map_err(|source| WireError::Write { path: target.to_owned(), source })?;
            Ok(Written { bytes, synced, replaced: existing.is_some() })
        }
    }
}

fn finish(
    rope: &Rope,
    source: &ModelFile,
    mut staged: Staged,
    path: &Path,
    folder: &Path,
    sync: bool,
) -> io::Result<bool> {
    if rope.len() >= LARGE {
        staged.reserve(rope.len())?;
    }
    copy_rope(rope, source, staged.file_mut())?;
    if sync {
        staged.file_mut().sync_all()?;
    }
    staged.publish(path)?;
    // The target is replaced by now; that its name has not reached the disk yet is no failure, but the result says so.
    Ok(sync && sync_folder(folder).is_ok())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn unwritable_folder(target: &Path, folder: &Path, error: &io::Error) -> WireError {
    let problem = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("{error}; free some space first"),
        _ => format!("no file can be made in the folder {} ({error}); choose another place", folder.display()),
    };
    WireError::Target { path: target.to_owned(), problem }
}

#[cfg(all(test, unix))]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::Piece;
    use std::fs;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn rope(text: &str) -> Rope {
        Rope { pieces: vec![Piece::New(text.as_bytes().to_vec().into()), Piece::Original(0..3)] }
    }

    fn abc() -> ModelFile {
        ModelFile::from_bytes(&b"abc"[..])
    }

    #[test]
    fn the_target_is_made_or_replaced_and_nothing_else_appears() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("t");
        for (text, replaced) in [("one ", false), ("two ", true)] {
            let written = write(&rope(text), &abc(), &target, Sync::Auto).unwrap();
            assert_eq!(written, Written { bytes: 7, synced: true, replaced });
            assert_eq!(fs::read_to_string(&target).unwrap(), format!("{text}abc"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_input_itself_may_be_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("t");
        let old: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        fs::write(&target, &old).unwrap();
        let source = ModelFile::open(&target).unwrap();
        let rope = Rope { pieces: vec![Piece::New(Bytes::from_static(b"head").into()), Piece::Original(0..old.len())] };
        write(&rope, &source, &target, Sync::Always).unwrap();
        assert!(fs::read(&target).unwrap() == rope.to_vec(&old));
        assert!(source.bytes == old, "the mapping still shows the old file");
    }

    #[test]
    fn a_symbolic_link_and_the_permissions_of_its_file_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        write(&rope("new "), &abc(), &link, Sync::Auto).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new abc");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_pipe_gets_the_bytes_and_one_without_reader_is_told_apart() {
        let (mut reader, writer) = io::pipe().unwrap();
        let target = format!("/dev/fd/{}", writer.as_raw_fd());
        let target = Path::new(&target);
        let big = Rope { pieces: vec![Piece::New(vec![b'x'; 3 << 20].into())] };
        let reading = std::thread::spawn(move || {
            let mut first = [0; 7];
            reader.read_exact(&mut first).unwrap();
            first
        });
        write(&rope("new "), &abc(), target, Sync::Auto).unwrap();
        assert_eq!(&reading.join().unwrap(), b"new abc");
        let error = write(&big, &abc(), target, Sync::Auto).unwrap_err();
        assert!(matches!(error, WireError::ReaderGone), "{error}");
    }
}
