//! Files mapped into memory, without filling it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::Mmap;

/// As many bytes may stay in memory after they were read. Files that are smaller all together are never let go.
const KEPT: u64 = 512 << 20;

/// What one touch may bring into memory besides the bytes touched: where Linux has a file in large pages, it maps one of 2 MiB.
const AROUND: u64 = 2 << 20;

/// All files of a data set. A file must not be made shorter while it is mapped: the system ends programs that read behind its end.
#[derive(Debug, Default)]
pub(super) struct Maps {
    maps: Vec<Arc<Mmap>>,
    bytes: u64,
    touched: AtomicU64,
}

/// Lets [`Bytes`] hold a map that is also held elsewhere.
struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Maps {
    /// Maps a file.
    pub fn open(&mut self, path: &Path) -> io::Result<Bytes> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file that could be mapped into memory"));
        }
        if about.len() == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: the mapping is read-only; see the note on truncation above.
        #[allow(unsafe_code)]
        let map = Arc::new(unsafe { Mmap::map(&file) }?);
        self.bytes = self.bytes.saturating_add(about.len());
        self.maps.push(Arc::clone(&map));
        Ok(Bytes::from_owner(Shared(map)))
    }

    /// Notes that `rows` rows of `bytes` each were read, and now and then hands the memory back.
    pub fn touched(&self, rows: usize, bytes: usize) {
        if self.bytes <= KEPT {
            return;
        }
        let more = (bytes as u64).saturating_add(AROUND).saturating_mul(rows as u64);
        if self.touched.fetch_add(more, Ordering::Relaxed).saturating_add(more) > KEPT {
            self.touched.store(0, Ordering::Relaxed);
            self.let_go();
        }
    }

    #[cfg(unix)]
    fn let_go(&self) {
        for map in &self.maps {
            // SAFETY: nothing writes to the map, so the system reads the pages from the file again when they are wanted.
            // Advice that is not taken only costs memory.
            #[allow(unsafe_code)]
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }

    #[cfg(not(unix))]
    fn let_go(&self) {}
}
