//! Where a program runs.

use std::fmt;
use std::str::FromStr;

/// The processor that a program runs on. Whatever cannot be had is an error: nothing falls back to another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its index.
    Cuda {
        /// As the CUDA runtime counts them, from 0.
        index: u32,
    },
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda { index } => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    /// `cpu`, `cuda` (the first GPU) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("there is no device {text:?}; it is cpu, cuda or cuda:N");
        match text.trim().to_ascii_lowercase().as_str() {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda { index: 0 }),
            other => {
                let index = other.strip_prefix("cuda:").ok_or_else(unknown)?;
                // ONNX Runtime takes the index as a C int.
                let index: i32 = index.parse().map_err(|_| unknown())?;
                u32::try_from(index).map(|index| Device::Cuda { index }).map_err(|_| unknown())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_as_it_is_written() {
        for (text, device) in
            [("cpu", Device::Cpu), ("cuda", Device::Cuda { index: 0 }), ("CUDA:3", Device::Cuda { index: 3 })]
        {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for text in ["gpu", "cuda:", "cuda:-1", "cuda:4294967296", "", "cpu:0"] {
            assert!(text.parse::<Device>().unwrap_err().contains("cuda:N"), "{text}");
        }
    }
}
