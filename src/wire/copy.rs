//! The pieces of a rope → an open file, with the kernel copying what it can by itself.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;

use super::file::ModelFile;
use super::splice::{Piece, Rope};

/// Original ranges below this are gathered with the new bytes around them: one large write beats many small calls.
const KERNEL_COPY_FROM: usize = 64 << 10;

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Longest single write from the mapping.
const CHUNK: usize = 8 << 20;

/// Appends all bytes of `rope` to `out`, from its current position on. Anonymous memory stays near 1 MiB, whatever the size.
pub fn copy_rope(rope: &Rope, source: &ModelFile, out: &mut File) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    for piece in &rope.pieces {
        match piece {
            Piece::New(bytes) => append(&mut buffer, bytes, out)?,
            Piece::Original(range) => {
                let bytes = source.bytes.get(range.clone()).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidInput, "a piece of the output lies outside the original file")
                })?;
                if bytes.len() < KERNEL_COPY_FROM {
                    append(&mut buffer, bytes, out)?;
                } else {
                    out.write_all(&buffer)?;
                    buffer.clear();
                    copy_range(source, range, out)?;
                }
            }
        }
    }
    out.write_all(&buffer)
}

fn append(buffer: &mut Vec<u8>, bytes: &[u8], out: &mut File) -> io::Result<()> {
    if buffer.len() + bytes.len() > BUFFER {
        out.write_all(buffer)?;
        buffer.clear();
    }
    if bytes.len() > BUFFER {
        return out.write_all(bytes);
    }
    buffer.extend_from_slice(bytes);
    Ok(())
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
    use bytes::Bytes;

    use super::*;
    use std::fs;

    /// Pieces of every kind: small and large, originals out of order and touching both ends.
    fn rope(len: usize) -> Rope {
        Rope {
            pieces: vec![
                Piece::New(Bytes::from_static(b"head")),
                Piece::Original(len / 2..len),
                Piece::Original(3..40),
                Piece::New(vec![7; BUFFER + 5].into()),
                Piece::Original(10..10),
                Piece::New(Bytes::new()),
                Piece::Original(0..len / 2 + 1),
                Piece::New(Bytes::from_static(b"tail")),
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
