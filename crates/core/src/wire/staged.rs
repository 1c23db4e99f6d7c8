//! A file that is being written and has not got its name yet.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// How many random names are tried before giving up.
const NAME_ATTEMPTS: u32 = 64;

/// A new file in the folder of its target. Dropped before [`Staged::publish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    folder: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Linux `O_TMPFILE`: even a killed process leaves nothing.
    #[cfg(target_os = "linux")]
    Unnamed(File),
    /// Removed when dropped, but not when the process is killed.
    Named(NamedTempFile),
}

impl Staged {
    /// An empty file in `folder`, with the permissions and the owner of `like`, else those of any new file.
    pub fn new(folder: &Path, like: Option<&Metadata>) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(file) = unnamed(folder) {
            return Self::finish(folder, Kind::Unnamed(file), like);
        }
        Self::named(folder, like)
    }

    /// As [`Staged::new`], for systems and file systems without unnamed files.
    fn named(folder: &Path, like: Option<&Metadata>) -> io::Result<Self> {
        let mut builder = Builder::new();
        builder.prefix(".per-inject-").suffix(".tmp");
        #[cfg(unix)]
        if like.is_none() {
            // The umask still takes its part of it; where there is a file to imitate, tempfile's 0600 holds until then.
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        }
        Self::finish(folder, Kind::Named(builder.tempfile_in(folder)?), like)
    }

    fn finish(folder: &Path, kind: Kind, like: Option<&Metadata>) -> io::Result<Self> {
        let mut staged = Staged { folder: folder.to_owned(), kind };
        if let Some(like) = like {
            imitate(staged.file_mut(), like)?;
        }
        Ok(staged)
    }

    /// The file to write to.
    pub fn file_mut(&mut self) -> &mut File {
        match &mut self.kind {
            #[cfg(target_os = "linux")]
            Kind::Unnamed(file) => file,
            Kind::Named(file) => file.as_file_mut(),
        }
    }

    /// Takes the space for `bytes` bytes now; fails when there is not so much, and does nothing where that cannot be done.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            use rustix::io::Errno;
            if let Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) =
                fallocate(self.file_mut(), FallocateFlags::empty(), 0, bytes)
            {
                return Err(e.into());
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
        Ok(())
    }

    /// Gives the file the name `target`, a path in its folder, in place of what has that name now.
    pub fn publish(self, target: &Path) -> io::Result<()> {
        match self.kind {
            #[cfg(target_os = "linux")]
            Kind::Unnamed(file) => match link(&file, target) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let name = link_at_any_name(&file, &self.folder)?;
                    fs::rename(&name, target).inspect_err(|_| {
                        let _ = fs::remove_file(&name);
                    })
                }
                linked => linked,
            },
            Kind::Named(file) => file.persist(target).map(drop).map_err(|e| e.error),
        }
    }

    /// Gives the file the name `target`, a path in its folder; fails with `AlreadyExists` when something has that name.
    pub fn publish_new(self, target: &Path) -> io::Result<()> {
        match self.kind {
            #[cfg(target_os = "linux")]
            Kind::Unnamed(file) => link(&file, target),
            Kind::Named(file) => file.persist_noclobber(target).map(drop).map_err(|e| e.error),
        }
    }
}

/// The permissions of `like`, and its owner and group where the system lets us.
fn imitate(file: &File, like: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            let _ = fchown(file, Some(like.uid()), Some(like.gid()));
        }
        file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o777))
    }
    #[cfg(not(unix))]
    file.set_permissions(like.permissions())
}

/// `None` where the kernel or the file system has no unnamed files, or no /proc through which they get a name.
///
/// A folder that nobody may write to is `None` as well: the named file meets the same obstacle and reports it.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    // The kernel applies the umask and the folder's default ACL to these permissions.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    fs::symlink_metadata(descriptor(&file)).is_ok().then_some(file)
}

#[cfg(target_os = "linux")]
fn descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, descriptor(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(target_os = "linux")]
fn link_at_any_name(file: &File, folder: &Path) -> io::Result<PathBuf> {
    use std::hash::{BuildHasher, RandomState};
    for attempt in 0..NAME_ATTEMPTS {
        let name = folder.join(format!(".per-inject-{:016x}.tmp", RandomState::new().hash_one(attempt)));
        match link(file, &name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            linked => return linked.map(|()| name),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a temporary file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Both ways to stage a file, which must not differ in anything but what a kill leaves.
    fn both(folder: &Path, like: Option<&Metadata>) -> [Staged; 2] {
        [Staged::new(folder, like).unwrap(), Staged::named(folder, like).unwrap()]
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_staged_file_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(both(folder.path(), None));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_published_file_replaces_what_was_there_or_refuses_to() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("t");
        for (i, mut staged) in both(folder.path(), None).into_iter().enumerate() {
            fs::write(&target, "old").unwrap();
            write!(staged.file_mut(), "new {i}").unwrap();
            staged.publish(&target).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), format!("new {i}"));
        }
        for staged in both(folder.path(), None) {
            let error = staged.publish_new(&target).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(names(folder.path()), ["t"]);
    }

    #[test]
    fn a_file_that_cannot_be_published_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a folder");
        fs::create_dir(&target).unwrap();
        for staged in both(folder.path(), None) {
            assert!(staged.publish(&target).is_err());
        }
        assert_eq!(names(folder.path()), ["a folder"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file_or_of_the_one_that_is_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |file: &File| file.metadata().unwrap().permissions().mode() & 0o7777;
        let plain = mode(&File::create(folder.path().join("plain")).unwrap());
        let private = File::create(folder.path().join("private")).unwrap();
        private.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        for mut staged in both(folder.path(), None) {
            assert_eq!(mode(staged.file_mut()), plain);
        }
        for mut staged in both(folder.path(), Some(&private.metadata().unwrap())) {
            assert_eq!(mode(staged.file_mut()), 0o640);
        }
    }
}
