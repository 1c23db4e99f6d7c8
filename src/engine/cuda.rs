//! CUDA: what must be there, and what to say of what is not.
//!
//! What is said was tried with the wheels onnxruntime and onnxruntime-gpu 1.31 on a machine without a GPU. On a GPU it is untried.

use std::fs;
use std::path::{Path, PathBuf};

use ort::ep;
use serde::{Deserialize, Serialize};

use super::find::Found;

/// The library that holds the CUDA provider; it lies beside the runtime's own.
const PROVIDER: &str =
    if cfg!(windows) { "onnxruntime_providers_cuda.dll" } else { "libonnxruntime_providers_cuda.so" };

/// What the CUDA provider lets one choose. The defaults are the exact and predictable ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CudaOptions {
    /// Let matrix products and convolutions of float32 round their operands to TF32, with 10 bits of fraction instead of 23. Off: PER's
    /// gradients are small numbers beside large ones.
    pub tf32: bool,
    /// How cuDNN's algorithm for a convolution is chosen.
    pub search: ConvolutionSearch,
    /// Record the step once as a CUDA graph and replay it, which saves launching kernels one by one. Off: it wants batches of one size
    /// and every node on the GPU.
    pub graph: bool,
    /// How the provider's memory grows.
    pub arena: Arena,
    /// Bytes that the provider's memory may grow to; `None` is all there is.
    pub memory_limit: Option<usize>,
}

/// How cuDNN's algorithm for a convolution is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvolutionSearch {
    /// Every algorithm is timed when a shape is seen first: ONNX Runtime's own default. The winner may differ from run to run.
    #[default]
    Exhaustive,
    /// cuDNN's guess, the same in every run.
    Heuristic,
    /// The algorithm that is there for every shape.
    Default,
}

/// How the provider's memory grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arena {
    /// By powers of two, which asks the driver rarely.
    #[default]
    Doubling,
    /// By what is needed, which wastes none.
    Exact,
}

/// The provider with its options.
pub fn provider(device: i32, options: &CudaOptions) -> ep::CUDA {
    let search = match options.search {
        ConvolutionSearch::Exhaustive => ep::cuda::ConvAlgorithmSearch::Exhaustive,
        ConvolutionSearch::Heuristic => ep::cuda::ConvAlgorithmSearch::Heuristic,
        ConvolutionSearch::Default => ep::cuda::ConvAlgorithmSearch::Default,
    };
    let arena = match options.arena {
        Arena::Doubling => ep::ArenaExtendStrategy::NextPowerOfTwo,
        Arena::Exact => ep::ArenaExtendStrategy::SameAsRequested,
    };
    let provider = ep::CUDA::default()
        .with_device_id(device)
        .with_tf32(options.tf32)
        .with_conv_algorithm_search(search)
        .with_cuda_graph(options.graph)
        .with_arena_extend_strategy(arena);
    match options.memory_limit {
        Some(limit) => provider.with_memory_limit(limit),
        None => provider,
    }
}

/// Why the runtime that was found cannot use CUDA, as far as its files show.
pub fn refuse_without_provider(found: &Found) -> Result<(), String> {
    if cfg!(target_os = "macos") {
        return Err("there is no CUDA on macOS".into());
    }
    // Of a library that the system's loader found, nobody knows the folder.
    let Some(folder) = found.path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    // The provider lies beside the file that a link in another folder may point to.
    let real = fs::canonicalize(&found.path).ok();
    let folders = [Some(folder), real.as_deref().and_then(Path::parent)];
    if folders.into_iter().flatten().any(|f| f.join(PROVIDER).exists()) {
        return Ok(());
    }
    Err(format!(
        "{} is a build for the CPU: {PROVIDER} is not beside it; the wheel onnxruntime-gpu holds both \
         ('pip install onnxruntime-gpu', in place of onnxruntime)",
        found.path.display()
    ))
}

/// CUDA's and cuDNN's libraries where NVIDIA's wheels put them: `site-packages/nvidia/*/lib`, beside the package that holds the runtime.
///
/// The loader does not look there, so they are loaded beforehand; each may need others of them, hence several rounds. What fails is
/// left to the provider, whose own message says what it lacks.
pub fn preload(found: &Found) {
    let Some(packages) = found.path.ancestors().nth(3) else { return };
    let mut left: Vec<PathBuf> = entries(&packages.join("nvidia"))
        .flat_map(|package| entries(&package.join(if cfg!(windows) { "bin" } else { "lib" })))
        .filter(|file| is_needed(file))
        .collect();
    left.sort_unstable();
    loop {
        let before = left.len();
        left.retain(|file| ort::util::preload_dylib(file).is_err());
        if left.is_empty() || left.len() == before {
            return;
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).ok().into_iter().flatten().flatten().map(|entry| entry.path())
}

/// What the CUDA provider links to, and what cuDNN loads by itself.
fn is_needed(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_prefix("lib").unwrap_or(&name);
    let is_library = name.contains(".so.") || name.ends_with(".dll");
    is_library
        && ["cudart", "cublas", "cufft", "curand", "nvrtc", "cudnn", "nvJitLink"].iter().any(|p| name.starts_with(p))
}

/// What lies behind the words with which the provider refused, as a sentence with what to do.
pub fn explain(message: &str, index: u32) -> String {
    let advice = if let Some(library) = missing_library(message) {
        Some(match library {
            l if l.contains("cudnn") => format!(
                "{l} is missing: it is cuDNN; install the version that this onnxruntime-gpu is built for \
                 ('pip install nvidia-cudnn-cu12' or -cu13, or NVIDIA's packages)"
            ),
            l if l.starts_with("libcuda.so") || l == "nvcuda.dll" => {
                format!("{l} is missing: it comes with NVIDIA's driver, which is not installed")
            }
            l => format!(
                "{l} is missing: it is part of the CUDA toolkit; 'pip install onnxruntime-gpu[cuda,cudnn]' brings it as wheels, \
                 or install the toolkit whose version is in that name"
            ),
        })
    } else {
        let lower = message.to_lowercase();
        let has = |words: &str| lower.contains(words);
        if has("not enabled in this build") {
            Some("this ONNX Runtime was built without CUDA; the wheel onnxruntime-gpu has it".to_owned())
        } else if has("driver version is insufficient") {
            Some(
                "NVIDIA's driver is older than the CUDA version that this ONNX Runtime is built for; update the driver"
                    .into(),
            )
        } else if has("no cuda-capable device") {
            Some("there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it".into())
        } else if has("invalid device ordinal") || has("invalid device id") {
            Some(format!("there is no GPU {index}; they count from 0, and 'nvidia-smi -L' lists them"))
        } else if has("out of memory") || has("failed to allocate memory") {
            Some(
                "the GPU's memory is full: take smaller batches, or end what else fills it ('nvidia-smi' lists that)"
                    .into(),
            )
        } else {
            None
        }
    };
    match advice {
        Some(advice) => format!("{advice} (ONNX Runtime says: {message})"),
        None => message.to_owned(),
    }
}

/// The library of which a loader's message says that it is not there.
fn missing_library(message: &str) -> Option<&str> {
    let (before, _) = message.split_once(": cannot open shared object file")?;
    before.rsplit(|c: char| c.is_whitespace() || c == ':' || c == '/').next().filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_where_it_comes_from() {
        let failed = "Failed to load library libonnxruntime_providers_cuda.so with error: ";
        for (message, words) in [
            (format!("{failed}libcudnn.so.9: cannot open shared object file: No such file"), "it is cuDNN"),
            (
                format!("{failed}libcublasLt.so.13: cannot open shared object file: No such file"),
                "part of the CUDA toolkit",
            ),
            (format!("{failed}libcuda.so.1: cannot open shared object file: No such file"), "NVIDIA's driver"),
            ("CUDA execution provider is not enabled in this build. ".into(), "the wheel onnxruntime-gpu has it"),
            ("CUDA failure 100: no CUDA-capable device is detected".into(), "there is no NVIDIA GPU"),
            ("CUDA failure 101: invalid device ordinal".into(), "there is no GPU 7"),
            (
                "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version".into(),
                "update the driver",
            ),
            ("CUDA failure 2: out of memory".into(), "the GPU's memory is full: take smaller batches"),
            (
                "Failed to allocate memory for requested buffer of size 4294967296".into(),
                "the GPU's memory is full: take smaller batches",
            ),
        ] {
            let text = explain(&message, 7);
            assert!(text.contains(words) && text.contains(message.trim()), "{text}");
        }
        assert_eq!(explain("something new", 0), "something new");
    }
}
