//! The ONNX Runtime of a process that has one already: Python's extension module, which lets nobody in from outside.
//!
//! `SessionOptions.register_custom_ops_library(PATH)` of Python loads any shared library and hands its `RegisterCustomOps` the table of the
//! runtime's C API. From there on this process has a runtime, with the training API where the wheel is onnxruntime-training.
//!
//! A runtime has one environment, and the module of onnxruntime-training makes it when it is imported and keeps it to itself: whoever asks
//! the C API for it is refused. A second image of the same file has an environment to give. The loader makes one of a copy of the file, and
//! the table is as far from its beginning as it is from that of the first.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::sys::{OrtApi, OrtApiBase, OrtLoggingLevel};

use super::error::{EngineError, EngineResult};
use super::find::{Found, FoundBy};
use super::library::OLDEST;
use super::onnx_runtime::{guarded, one_line};

/// The one that was handed over.
static ADOPTED: Mutex<Option<Found>> = Mutex::new(None);

/// What has the process hand over its runtime, where it has one: it calls [`adopt`], or says why not.
pub type Host = fn() -> Result<(), String>;

/// Whom to ask for a runtime.
static HOST: OnceLock<Host> = OnceLock::new();

/// The folder that the runtime of this process looks for its providers in, and the process that made it.
static FOLDER: Mutex<Option<(u32, PathBuf)>> = Mutex::new(None);

/// The runtime that this process was handed, if any.
pub(super) fn adopted() -> Option<Found> {
    ADOPTED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Says whom to ask for the runtime of this process when one with the training API is wanted. The first one that is named counts.
pub fn set_host(host: Host) {
    let _ = HOST.set(host);
}

/// Asks for the runtime of this process; nothing where nobody can be asked.
///
/// # Errors
/// What stands in its way, in words.
pub(super) fn ask_host() -> Result<(), String> {
    HOST.get().map_or(Ok(()), |host| host())
}

/// Removes what [`adopt`] left on disk, if anything: for a process that is about to end. A child that fork made leaves it to its parent.
pub fn tidy() {
    let mut folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, path)) = folder.take_if(|(process, _)| *process == std::process::id()) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Takes over the runtime of this process, for [`Runtime::open`](super::Runtime::open). A second time nothing happens.
///
/// # Safety
/// `base` is null, or points to the OrtApiBase that ONNX Runtime passes to `RegisterCustomOps`; the library that it lies in stays loaded.
///
/// # Errors
/// When it is older than what can be used, or another runtime runs already.
pub unsafe fn adopt(base: *const c_void) -> EngineResult<()> {
    let base = base.cast::<OrtApiBase>();
    let mut adopted = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
    if adopted.is_some() {
        return Ok(());
    }
    let path = file_at(base.addr()).unwrap_or_else(|| "the runtime of this process".into());
    let bad = |problem: String| EngineError::BadLibrary { path: path.clone(), origin: "this process", problem };
    // SAFETY: the caller says so.
    let Some(first) = (unsafe { base.as_ref() }) else { return Err(bad("it hands over nothing".into())) };
    let version = version(first);
    let minor = version.strip_prefix("1.").and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < OLDEST) {
        return Err(bad(format!("it is version {version:?}, and the oldest that can be used is 1.{OLDEST}")));
    }
    let api = match try_out(first) {
        Ok(api) => api,
        Err(refusal) => {
            let second = second_image(first, &path).map_err(|e| bad(format!("{refusal}; {e}")))?;
            try_out(second).map_err(bad)?
        }
    };
    let is_first = guarded(|| Ok(ort::set_api(api))).map_err(bad)?;
    if !is_first {
        return Err(bad("another ONNX Runtime runs in this process already".into()));
    }
    *adopted = Some(Found { path, version, by: FoundBy::Process });
    Ok(())
}

fn version(base: &OrtApiBase) -> String {
    // SAFETY: the two functions of the table never change, and the string is static in a library that stays loaded.
    unsafe {
        let version = (base.GetVersionString)();
        if version.is_null() { String::new() } else { CStr::from_ptr(version).to_string_lossy().into_owned() }
    }
}

/// The API behind a table, if it gives an environment.
fn try_out(base: &OrtApiBase) -> Result<OrtApi, String> {
    // SAFETY: the table that it gives is static, and that of a later version begins with those of all earlier ones.
    let api = unsafe { (base.GetApi)(OLDEST).as_ref().map(|api| ptr::read(api)) };
    let api = api.ok_or_else(|| format!("it lacks the API of 1.{OLDEST}"))?;
    let mut environment = ptr::null_mut();
    // SAFETY: the functions are those of the runtime, the name ends with 0, and what is made is released, the message after it was copied.
    unsafe {
        let level = OrtLoggingLevel::ORT_LOGGING_LEVEL_ERROR;
        let status = (api.CreateEnv)(level, c"per-inject".as_ptr(), &raw mut environment);
        if status.0.is_null() {
            (api.ReleaseEnv)(environment);
            return Ok(api);
        }
        let message = CStr::from_ptr((api.GetErrorMessage)(status.0)).to_string_lossy().into_owned();
        (api.ReleaseStatus)(status.0);
        Err(format!("it gives no environment ({})", one_line(&message)))
    }
}

/// The table of a second image of the file that `first` lies in.
#[cfg(target_os = "linux")]
fn second_image(first: &OrtApiBase, file: &Path) -> Result<&'static OrtApiBase, String> {
    use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

    let failed = |e: std::io::Error| format!("no copy of it can be made: {e}");
    let folder = tempfile::Builder::new().prefix("per-inject-").tempdir().map_err(failed)?;
    let folder_path = folder.path().canonicalize().map_err(failed)?;
    let name = file.file_name().ok_or("its file is not known")?;
    let copy = folder_path.join(name);
    std::fs::copy(file, &copy).map_err(failed)?;
    // It looks for its providers where it lies itself, when they are wanted.
    let mut has_providers = false;
    for entry in std::fs::read_dir(file.parent().unwrap_or(Path::new("."))).map_err(failed)?.flatten() {
        let (name, beside) = (entry.file_name(), folder_path.join(entry.file_name()));
        if name.to_string_lossy().contains("onnxruntime_providers") && !beside.exists() {
            std::os::unix::fs::symlink(entry.path(), beside).map_err(failed)?;
            // What providers share is read for one of them, and a build for the CPU has none.
            has_providers |= !name.to_string_lossy().contains("onnxruntime_providers_shared");
        }
    }
    // SAFETY: loading runs the initialisers of a library that this process has loaded once already.
    let library = unsafe { Library::open(Some(&copy), RTLD_LAZY | RTLD_LOCAL) }.map_err(|e| e.to_string())?;
    // It stays to the end of the process.
    std::mem::forget(library);
    let (old, new) = (start_of(file), start_of(&copy));
    let (Some(old), Some(new)) = (old, new) else { return Err("where it lies in memory is not known".into()) };
    let at = ptr::from_ref(first).addr().checked_sub(old).and_then(|offset| new.checked_add(offset));
    let is_inside = |address: usize| file_at(address).is_some_and(|f| f == copy);
    let at = at.filter(|at| is_inside(*at)).ok_or("its copy is laid out in another way")?;
    // What is loaded needs no name any more.
    let _ = std::fs::remove_file(&copy);
    if has_providers {
        *FOLDER.lock().unwrap_or_else(PoisonError::into_inner) = Some((std::process::id(), folder.keep()));
    }
    // SAFETY: the address lies in the copy, which was made of the same file and is laid out the same way; that the functions lie as far from its
    // beginning as in the first image shows that the table is there.
    let second = unsafe { &*ptr::with_exposed_provenance::<OrtApiBase>(at) };
    let offsets = |base: &OrtApiBase, start: usize| {
        [(base.GetApi as *const ()).addr(), (base.GetVersionString as *const ()).addr()].map(|f| f.wrapping_sub(start))
    };
    if offsets(first, old) != offsets(second, new) {
        return Err("its copy has no such table".into());
    }
    Ok(second)
}

/// Elsewhere nobody tells where a library lies in memory.
#[cfg(not(target_os = "linux"))]
fn second_image(_: &OrtApiBase, _: &Path) -> Result<&'static OrtApiBase, String> {
    Err("on this system it takes a library that was built with the training API (--ort PATH)".into())
}

/// The file that is mapped at an address, where the system tells.
fn file_at(address: usize) -> Option<PathBuf> {
    mappings().into_iter().find(|(range, _)| range.contains(&address)).map(|(_, path)| path)
}

/// Where the image of a file begins.
#[cfg(target_os = "linux")]
fn start_of(file: &Path) -> Option<usize> {
    mappings().into_iter().filter(|(_, path)| path == file).map(|(range, _)| range.start).min()
}

/// The files that are mapped, and where.
fn mappings() -> Vec<(std::ops::Range<usize>, PathBuf)> {
    let each = |line: &str| {
        // "7f…-7f… r-xp 00000000 08:01 1234    /path/of the/file"
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?..number(end)?, PathBuf::from(&rest[rest.find('/')?..])))
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(each).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_at_an_address_is_found() {
        let here = file_at((file_at as *const ()).addr()).unwrap();
        assert_eq!(here, std::fs::read_link("/proc/self/exe").unwrap());
        assert_eq!(file_at(0), None);
    }
}
