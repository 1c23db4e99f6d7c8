//! Opening a model file: mapped when it is a regular file, read when it is a pipe. Standard input may be either.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;

use super::error::{WireError, WireResult};

/// The bytes of a model and where they came from.
#[derive(Debug)]
pub struct ModelFile {
    /// The whole file. Slices of it are free.
    pub bytes: Bytes,
    /// Where it was read from; `-` for standard input, empty for memory.
    pub path: PathBuf,
    /// The open file, when there is one whose contents `bytes` maps: lets the kernel copy ranges by itself.
    pub file: Option<File>,
}

impl ModelFile {
    /// Opens `path`, or standard input for `-`.
    ///
    /// A regular file is memory-mapped. Another process that truncates it meanwhile would make reads of the mapping fail with
    /// SIGBUS, as with every program that maps files; replacing it by rename, as this tool does, is safe.
    pub fn open(path: &Path) -> WireResult<Self> {
        let failed = |source| WireError::Read { path: path.to_owned(), source };
        let opened = if path.as_os_str() == "-" { standard_input() } else { File::open(path) };
        let mut file = opened.map_err(failed)?;
        let kind = file.metadata().map_err(failed)?;
        if kind.is_dir() {
            return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
        }
        // Of standard input somebody may have read a part already: the model is the rest.
        if !kind.is_file() || file.stream_position().map_err(failed)? > 0 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(failed)?;
            return Ok(ModelFile { bytes: bytes.into(), path: path.to_owned(), file: None });
        }
        if kind.len() == 0 {
            return Ok(ModelFile { bytes: Bytes::new(), path: path.to_owned(), file: None });
        }
        // SAFETY: the mapping is read-only and private to this struct; see the note on truncation above.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(ModelFile { bytes: Bytes::from_owner(map), path: path.to_owned(), file: Some(file) })
    }

    /// A model that is in memory already.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        ModelFile { bytes: bytes.into(), path: PathBuf::new(), file: None }
    }

    /// The folder that external data is relative to; `None` for pipes and memory.
    pub fn folder(&self) -> Option<&Path> {
        if self.path.as_os_str().is_empty() || self.path.as_os_str() == "-" {
            return None;
        }
        Some(self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }

    /// How messages name the file.
    pub fn display_name(&self) -> PathBuf {
        match self.path.as_os_str().to_str() {
            Some("") => "the model".into(),
            Some("-") => "standard input".into(),
            _ => self.path.clone(),
        }
    }
}

/// Standard input as a file of its own.
fn standard_input() -> io::Result<File> {
    #[cfg(unix)]
    let owned = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned();
    #[cfg(windows)]
    let owned = std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned();
    owned.map(File::from)
}

/// What a file that is no ONNX model probably is, and what to do; `None` when nothing is recognised.
pub fn recognise_other_format(bytes: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let at_four = bytes.get(4..8);
    if bytes.is_empty() {
        return Some("it is empty (0 bytes)");
    }
    if starts(b"PK\x03\x04") {
        return Some(
            "it is a zip archive, as PyTorch's .pt and .pth files are; export the model first: \
             torch.onnx.export(model, inputs, \"model.onnx\", training=torch.onnx.TrainingMode.TRAINING)",
        );
    }
    if starts(b"\x80\x02") || starts(b"\x80\x04") || starts(b"\x80\x05") {
        return Some("it is a Python pickle; load it where it was made and export it with torch.onnx.export");
    }
    if at_four == Some(b"TFL3") {
        return Some("it is a TensorFlow Lite model; convert it with tf2onnx (--tflite)");
    }
    if at_four == Some(b"ORTM") {
        return Some(
            "it is an ONNX Runtime .ort model, which holds no training graph; use the .onnx file that it was made from",
        );
    }
    if starts(b"\x1f\x8b") {
        return Some("it is gzip-compressed; unpack it first");
    }
    if starts(b"\x89HDF") {
        return Some("it is an HDF5 file, as Keras's .h5 files are; convert it with tf2onnx");
    }
    if starts(b"\x93NUMPY") {
        return Some("it is a NumPy array");
    }
    if bytes.get(8) == Some(&b'{') && bytes.get(..8).is_some_and(|n| n[4..] == [0; 4]) {
        return Some("it is a safetensors file, which holds weights without a graph");
    }
    if starts(b"version https://git-lfs.github.com/spec/") {
        return Some("it is the pointer that Git LFS keeps in its place; fetch the file itself with git lfs pull");
    }
    let head = &bytes[..bytes.len().min(512)];
    let printable = |b: &u8| (0x20..0x7f).contains(b) || matches!(b, b'\n' | b'\r' | b'\t') || *b >= 0x80;
    if head.iter().all(printable) && std::str::from_utf8(head).map_or_else(|e| e.error_len().is_none(), |_| true) {
        return Some(
            "it is a text file; a model in ONNX's text syntax is read with onnx.parser and saved with onnx.save",
        );
    }
    None
}
