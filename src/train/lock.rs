//! One process a run folder: who trains in it holds a lock on a file in it.

use crate::error::{Result, usage};
use std::fs::{File, TryLockError};
use std::path::Path;

/// The file stays where it is: to remove it would race with who opens it next.
const NAME: &str = ".lock";

/// A run folder that is this process's alone, until it is dropped. The system lets go of it where
/// the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a folder that is there.
    ///
    /// # Errors
    /// `Usage` where another process has it, or its file cannot be made.
    pub fn take(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(NAME))
            .map_err(|e| usage(format!("--out {shown}: cannot be written to: {e}")))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(usage(format!(
                    "--out {shown}: in use by another alexnet-mp; wait until that has ended, or choose another folder"
                )));
            }
            // Some file systems of networks know no locks; they are no reason not to train.
            Err(TryLockError::Error(e)) => tracing::warn!(
                "{shown}: cannot be locked ({e}); let no second run use this folder at the same time"
            ),
        }
        Ok(Lock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_the_lock_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(
            refused.to_string().contains("in use by another alexnet-mp"),
            "{refused}"
        );
        drop(held);
        Lock::take(folder.path()).unwrap();
    }
}
