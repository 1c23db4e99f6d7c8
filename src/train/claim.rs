//! One run at a time in a folder.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use super::error::{TrainError, TrainResult};

/// Claims the folder of a run, which is made if it is not there, for as long as the file is open: the system gives it back when the process
/// ends, however it ends. `None` where the file system has no locks, and nothing is claimed.
///
/// # Errors
/// When another run has it, or it cannot be made.
pub fn claim(out: &Path) -> TrainResult<Option<File>> {
    fs::create_dir_all(out).map_err(|source| TrainError::Io { path: out.to_owned(), source })?;
    let path = out.join(".lock");
    let file = File::create(&path).map_err(|source| TrainError::Io { path, source })?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(TrainError::Options(format!(
            "another run is writing in {}; wait until it is over, or choose another folder with --out",
            out.display()
        ))),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_once_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(&folder.path().join("run")).unwrap();
        assert!(first.is_some());
        let message = claim(&folder.path().join("run")).unwrap_err().to_string();
        assert!(message.contains("another run is writing in"), "{message}");
        drop(first);
        assert!(claim(&folder.path().join("run")).unwrap().is_some());
    }
}
