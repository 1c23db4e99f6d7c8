//! What is said where a model does not run.

use per_inject::engine::{Arrays, Device, Engine, Fill, LoadOptions, Runtime, Search, Source, Tensor};
use per_inject::wire::Model;

use crate::{environment, model, runtime};

fn run(feeds: &[(&str, &Tensor)], wanted: Option<&[&str]>) -> String {
    let model = model("mlp_relu.ts17");
    let mut program = runtime().load(Source::of(&model), &LoadOptions::default()).unwrap();
    program.run(feeds, wanted).unwrap_err().to_string()
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::new(shape.to_vec(), vec![0f32; shape.iter().product()]).unwrap()
}

#[test]
fn every_mistake_in_inputs_and_outputs_says_what_is_wanted() {
    let (x, y) = (zeros(&[2, 64]), Tensor::new(vec![2], vec![0i64, 1]).unwrap());
    let all = "it wants x float[N, 64], y int64[N]";
    for (message, words) in [
        (run(&[("x", &x)], None), format!("wants an input \"y\", int64[N], and no value is given for it; {all}")),
        (run(&[("x", &x), ("y", &y), ("z", &y)], None), format!("has no input \"z\"; {all}")),
        (
            run(&[("x", &zeros(&[2, 65])), ("y", &y)], None),
            "is float[N, 64], and the value given for it is float[2, 65]; axis 1 must have 64 elements".into(),
        ),
        (run(&[("x", &zeros(&[64])), ("y", &y)], None), "float[64]; its rank must be 2".into()),
        (
            run(&[("x", &x), ("y", &zeros(&[2]))], None),
            "float[2]; convert it, in NumPy with .astype(numpy.int64)".into(),
        ),
        (run(&[("x", &x), ("y", &y)], Some(&["loss", "nope"])), "has no output \"nope\"; it has loss, logits".into()),
        (run(&[("x", &x), ("y", &Tensor::new(vec![3], vec![0i64; 3]).unwrap())], None), "running".into()),
        (run(&[("x", &x), ("y", &Tensor::new(vec![2], vec![0i64, 10]).unwrap())], None), "running".into()),
    ] {
        assert!(message.contains("mlp_relu.ts17.onnx") && message.contains(&words), "{message:?} lacks {words:?}");
        assert!(!message.contains('\n'), "{message:?}");
    }
}

#[test]
fn a_model_that_the_runtime_does_not_take_is_refused_with_its_words() {
    let bytes = &model("mlp_relu.ts17").file.bytes;
    let load = |bytes: &[u8]| {
        let source = Source::Memory { bytes, folder: None, name: "bad.onnx".as_ref() };
        match runtime().load(source, &LoadOptions::default()) {
            Ok(_) => panic!("it is taken"),
            Err(e) => e.to_string(),
        }
    };
    // An operator of the same length that there is not.
    let at = bytes.windows(6).position(|w| w == b"\x22\x04Gemm").unwrap();
    let mut unknown = bytes.to_vec();
    unknown[at + 2..at + 6].copy_from_slice(b"Gomm");
    for (message, words) in
        [(load(&unknown), "Gomm"), (load(&bytes[..bytes.len() / 2]), ""), (load(b""), ""), (load(b"hello"), "")]
    {
        assert!(message.starts_with("ONNX Runtime 1."), "{message}");
        assert!(message.contains(" refuses bad.onnx: ") && message.contains(words), "{message}");
    }
    let missing = runtime().load(Source::File("nowhere.onnx".as_ref()), &LoadOptions::default());
    assert!(missing.is_err_and(|e| e.to_string().contains("nowhere.onnx")));
}

#[test]
fn cuda_with_a_build_for_the_cpu_says_which_wheel_has_it() {
    let model = model("mlp_relu.ts17");
    let options = LoadOptions { device: Device::Cuda { index: 0 }, ..LoadOptions::default() };
    let Err(error) = runtime().load(Source::of(&model), &options) else { panic!("there is no CUDA in this wheel") };
    let message = error.to_string();
    for words in ["the device cuda:0 cannot be had", "libonnxruntime_providers_cuda.so", "pip install onnxruntime-gpu"]
    {
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn a_second_runtime_in_one_process_is_refused() {
    let first = runtime();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libonnxruntime.so");
    std::fs::copy(&first.found().path, &copy).unwrap();
    let second = Runtime::open(&Search { option: Some(copy.clone()), ..Search::default() }).unwrap_err().to_string();
    assert!(second.contains(&copy.display().to_string()) && second.contains("already"), "{second}");
    assert!(Runtime::open(&Search { option: Some(environment(".venv")), ..Search::default() }).is_ok());
}

#[test]
fn files_of_arrays_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("text.npz"), "hello").unwrap();
    std::fs::write(at("cut.npz"), &std::fs::read("models/mlp_relu.inputs.npz").unwrap()[..1000]).unwrap();
    std::fs::write(at("cut.npy"), b"\x93NUMPY\x01\0").unwrap();
    std::fs::create_dir(at("empty")).unwrap();
    for (name, words) in [
        ("text.npz", "neither a NumPy archive (.npz) nor an array"),
        ("cut.npz", "no archive that can be read"),
        ("cut.npy", "cut off"),
        ("empty", "no .npy file is in this folder"),
        ("missing.npz", "No such file"),
    ] {
        let message = Arrays::read(&at(name)).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn dimensions_that_would_fill_memory_are_refused() {
    let model = Model::open("models/mlp_relu.ts17.onnx").unwrap();
    let fill = Fill { dims: [("N".to_owned(), 1 << 40)].into(), ..Fill::default() };
    let message = fill.random(&model).unwrap_err().to_string();
    assert!(message.contains("\"x\"") && message.contains("--dim NAME=N"), "{message}");
}
