//! Whether a file is a shared library of ONNX Runtime, and which version: asked of the library itself, before `ort` loads it.
//!
//! `ort` checks as well, but panics at some of the answers.

use std::ffi::CStr;
use std::path::Path;

/// The oldest minor version of ONNX Runtime 1 that is taken: the API version that `ort` is built for.
pub const OLDEST: u32 = ort::MINOR_VERSION;

/// Version of the ONNX Runtime at `path`, a file or a name for the system's loader; else why it is none that can be used.
pub fn probe(path: &Path) -> Result<String, String> {
    if path.components().count() > 1 {
        let kind = path.metadata().map_err(|e| e.to_string())?;
        if !kind.is_file() {
            return Err("it is no regular file".into());
        }
        if cfg!(target_os = "linux") {
            whole(path)?;
        }
    }
    if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(PYTHON_MODULE)) {
        return Err(format!("it is the module that Python loads, which lets no other program in; {NO_LIBRARY}"));
    }
    let version = ask(path)?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    match (parts.next(), parts.next()) {
        (Some(1), Some(minor)) if minor >= OLDEST => Ok(version),
        (Some(1), Some(_)) => Err(format!(
            "it is version {version}, and the oldest that can be used is 1.{OLDEST}; update it with 'pip install -U onnxruntime'"
        )),
        _ => Err(format!(
            "it calls itself version {version:?}, and only 1.{OLDEST} and later ones of version 1 are known"
        )),
    }
}

/// How Python's extension module of ONNX Runtime is called.
pub const PYTHON_MODULE: &str = "onnxruntime_pybind11_state";

/// What to say of a wheel without a library.
pub const NO_LIBRARY: &str = "wheels of onnxruntime before 1.19 and all of onnxruntime-training hold only that; \
     'pip install -U onnxruntime', in another environment if need be, brings a library";

/// Loads the library, asks for its version and for the API that `ort` will ask for, and lets it go.
#[allow(unsafe_code)]
fn ask(path: &Path) -> Result<String, String> {
    // SAFETY: loading runs the initialisers of a library that the user chose, or that is installed as ONNX Runtime.
    let library = unsafe { libloading::Library::new(path) }.map_err(|e| legible(&e))?;
    // SAFETY: a library that exports this name declares it so; it is ONNX Runtime's C API, the same in all versions.
    let base = unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0") }
        .map_err(|_| "it is a shared library, but not ONNX Runtime: it has no OrtGetApiBase".to_owned())?;
    // SAFETY: it takes no arguments, and what it gives is null or points to a static structure of the library.
    let Some(base) = (unsafe { base().as_ref() }) else {
        return Err("its OrtGetApiBase gives nothing".into());
    };
    // SAFETY: the two functions of that structure never change, and the string is static in the library, which is loaded still.
    let version = unsafe {
        let version = (base.GetVersionString)();
        if version.is_null() {
            return Err("it does not tell its version".into());
        }
        CStr::from_ptr(version).to_string_lossy().into_owned()
    };
    let minor = version.split('.').nth(1).and_then(|m| m.parse::<u32>().ok());
    // SAFETY: as above. Older ones write to stderr when asked for an API that they lack, so those are not asked.
    if minor.is_some_and(|m| m >= OLDEST) && unsafe { (base.GetApi)(OLDEST).is_null() } {
        return Err(format!("it is version {version} and yet lacks the API of 1.{OLDEST}"));
    }
    Ok(version)
}

/// What the loader said, without the words around it.
fn legible(error: &libloading::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        if !text.contains(&e.to_string()) {
            text = format!("{text}: {e}");
        }
        cause = e.source();
    }
    format!("it cannot be loaded ({})", text.trim_start_matches("dlopen failed: "))
}

/// Refuses an ELF file that was cut off: the loader would map what is not there, and the process die of SIGBUS.
fn whole(path: &Path) -> Result<(), String> {
    use std::io::{Read, Seek, SeekFrom};
    let failed = |e: std::io::Error| e.to_string();
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut head = [0; 64];
    if file.read_exact(&mut head).is_err() || !head.starts_with(b"\x7fELF") {
        return Err("it is no shared library".into());
    }
    // 64 bits, little-endian; the loader says what is wrong with others.
    if head[4] != 2 || head[5] != 1 {
        return Ok(());
    }
    let table = u64_at(&head, 32);
    let (entry, count) = (u16_at(&head, 54), u16_at(&head, 56));
    let mut headers = vec![0; usize::from(entry) * usize::from(count)];
    file.seek(SeekFrom::Start(table)).map_err(failed)?;
    let end = match file.read_exact(&mut headers) {
        Err(_) => u64::MAX,
        Ok(()) => headers
            .chunks_exact(usize::from(entry).max(56))
            .map(|h| u64_at(h, 8).saturating_add(u64_at(h, 32)))
            .max()
            .unwrap_or(0),
    };
    if end > size { Err("it is cut off; fetch or install it again".into()) } else { Ok(()) }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}
