//! The pieces of a rope → an open file, with the kernel copying what it can by itself.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::mpsc::{SendError, SyncSender, sync_channel};

use bytes::Bytes;

use super::file::ModelFile;
use super::splice::{Piece, Rope};

/// Original ranges below this are gathered with the new bytes around them: one large write beats many small calls.
const KERNEL_COPY_FROM: usize = 64 << 10;

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Longest single write from the mapping.
const CHUNK: usize = 8 << 20;

/// Appends all bytes of `rope` to `out`, from its current position on. Anonymous memory stays at a few MiB, whatever the size.
///
/// New bytes are gathered, and made where they have to be, by another thread while the ones before them are written.
pub fn copy_rope(rope: &Rope, source: &ModelFile, out: &mut File) -> io::Result<()> {
    std::thread::scope(|scope| {
        let (sender, steps) = sync_channel(2);
        // It ends early where the writer gave up and nobody receives any more.
        scope.spawn(move || gather(rope, source, &sender));
        for step in steps {
            match step? {
                Step::Write(bytes) => out.write_all(&bytes)?,
                Step::Copy(range) => copy_range(source, &range, out)?,
            }
        }
        Ok(())
    })
}

/// What is done to the output next.
enum Step {
    Write(Bytes),
    Copy(Range<usize>),
}

fn gather(
    rope: &Rope,
    source: &ModelFile,
    steps: &SyncSender<io::Result<Step>>,
) -> Result<(), SendError<io::Result<Step>>> {
    let mut buffer = Vec::with_capacity(BUFFER);
    for piece in &rope.pieces {
        let small = match piece {
            Piece::New(content) => content.len() <= BUFFER || content.ready().is_none(),
            Piece::Original(range) => range.len() < KERNEL_COPY_FROM,
        };
        if !buffer.is_empty() && (!small || buffer.len() + piece.len() > BUFFER) {
            let full = std::mem::replace(&mut buffer, Vec::with_capacity(BUFFER));
            steps.send(Ok(Step::Write(full.into())))?;
        }
        match piece {
            Piece::New(content) if small => content.append_to(&mut buffer),
            Piece::New(content) => steps.send(Ok(Step::Write(content.bytes())))?,
            Piece::Original(range) => match source.bytes.get(range.clone()) {
                Some(bytes) if small => buffer.extend_from_slice(bytes),
                Some(_) => steps.send(Ok(Step::Copy(range.clone())))?,
                None => {
                    return steps.send(Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "a piece of the output lies outside the original file",
                    )));
                }
            },
        }
    }
    steps.send(Ok(Step::Write(buffer.into())))
}

fn copy_range(source: &ModelFile, range: &Range<usize>, out: &mut File) -> io::Result<()> {
    let copied = match &source.file {
        Some(file) => kernel_copy(file, range, out)?,
        None => 0,
    };
    for chunk in source.bytes[range.start + copied..range.end].chunks(CHUNK) {
        out.write_all(chunk)?;
    }
    Ok(())
}

/// How many bytes of `range` the kernel copied; fewer than all where it cannot copy between these two files.
#[cfg(target_os = "linux")]
fn kernel_copy(file: &File, range: &Range<usize>, out: &File) -> io::Result<usize> {
    use rustix::io::Errno;
    let mut from = range.start as u64;
    let mut copied = 0;
    while copied < range.len() {
        match rustix::fs::copy_file_range(file, Some(&mut from), out, None, range.len() - copied) {
            Ok(0) if file.metadata()?.len() < range.end as u64 => {
                // The mapping has no bytes there either, and says so by SIGBUS.
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the input was shortened while it was copied",
                ));
            }
            // Some file systems (FUSE, /proc) answer 0 for "not like this".
            Ok(0) => break,
            Ok(n) => copied += n,
            Err(Errno::INTR) => {}
            // Another file system, an old kernel, a pipe or a file opened to append, a sandbox.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(copied)
}

#[cfg(not(target_os = "linux"))]
fn kernel_copy(_: &File, _: &Range<usize>, _: &File) -> io::Result<usize> {
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Content, Make};
    use std::fs;

    struct Nines(usize);

    impl Make for Nines {
        fn length(&self) -> usize {
            self.0
        }

        fn append_to(&self, out: &mut Vec<u8>) {
            out.resize(out.len() + self.0, 9);
        }
    }

    /// Pieces of every kind: small and large, originals out of order and touching both ends.
    fn rope(len: usize) -> Rope {
        Rope {
            pieces: vec![
                Piece::New(Bytes::from_static(b"head").into()),
                Piece::Original(len / 2..len),
                Piece::Original(3..40),
                Piece::New(vec![7; BUFFER + 5].into()),
                Piece::Original(10..10),
                Piece::New(Bytes::new().into()),
                Piece::New(Content::made(Nines(BUFFER - 1))),
                Piece::New(Content::made(Nines(2 * BUFFER))),
                Piece::New(Content::made(Nines(1))),
                Piece::Original(0..len / 2 + 1),
                Piece::New(Bytes::from_static(b"tail").into()),
            ],
        }
    }

    #[test]
    fn every_way_of_copying_gives_the_bytes_of_the_rope() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in");
        let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(&input, &bytes).unwrap();
        let rope = rope(bytes.len());
        let expected = rope.to_vec(&bytes);
        let mapped = ModelFile::open(&input).unwrap();
        let in_memory = ModelFile::from_bytes(bytes);
        // A file opened to append refuses copy_file_range, as a pipe would.
        for (source, append) in [(&mapped, false), (&mapped, true), (&in_memory, false)] {
            let path = folder.path().join("out");
            let mut out = fs::OpenOptions::new().create(true).write(true).append(append).open(&path).unwrap();
            copy_rope(&rope, source, &mut out).unwrap();
            assert!(fs::read(&path).unwrap() == expected);
            fs::remove_file(path).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_input_that_got_shorter_is_an_error_and_no_crash() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in");
        fs::write(&input, vec![1; 1 << 20]).unwrap();
        let source = ModelFile::open(&input).unwrap();
        File::options().write(true).open(&input).unwrap().set_len(1000).unwrap();
        let rope = Rope { pieces: vec![Piece::Original(0..1 << 20)] };
        let error = copy_rope(&rope, &source, &mut File::create(folder.path().join("out")).unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_rope_that_reaches_outside_the_original_is_an_error() {
        let rope = Rope { pieces: vec![Piece::Original(0..5)] };
        let mut out = tempfile::tempfile().unwrap();
        assert!(copy_rope(&rope, &ModelFile::from_bytes(vec![0; 4]), &mut out).is_err());
    }
}
