//! What runs, and that it runs as it should.

use std::num::NonZeroUsize;

use per_inject::engine::{Arrays, Data, Engine, Fill, LoadOptions, Optimisation, Source};
use per_inject::wire::Model;

use crate::{model, runtime};

#[test]
fn a_model_gives_the_same_from_its_file_and_from_memory() {
    let model = model("fixup_resnet20.dyn");
    let feeds = Fill::default().random(&model).unwrap();
    let memory = Source::Memory { bytes: &model.file.bytes, folder: None, name: &model.file.path };
    let options = LoadOptions { threads: NonZeroUsize::new(1), ..LoadOptions::default() };
    let of = |source| runtime().load(source, &options).unwrap().run(&feeds.tensors(), None).unwrap();
    let (a, b) = (of(Source::of(&model)), of(memory));
    assert!(matches!(Source::of(&model), Source::File(_)));
    assert_eq!(a, b);
    assert_eq!(a.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["loss", "logits"]);
}

#[test]
fn only_the_outputs_that_are_wanted_come_in_the_order_in_which_they_are() {
    let model = model("mlp_relu.ts17");
    let feeds = Fill::default().random(&model).unwrap();
    let mut program = runtime().load(Source::of(&model), &LoadOptions::default()).unwrap();
    let of = |outputs: Vec<(String, _)>| outputs.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(of(program.run(&feeds.tensors(), Some(&["logits", "loss"])).unwrap()), ["logits", "loss"]);
    assert_eq!(of(program.run(&feeds.tensors(), Some(&["loss"])).unwrap()), ["loss"]);
    assert_eq!(of(program.run(&feeds.tensors(), Some(&[])).unwrap()), [""; 0]);
}

#[test]
fn the_batches_of_models_give_a_loss_like_that_of_untrained_weights() {
    // Cross entropy of a guess among 10 classes is ln 10 = 2.30; fresh weights give something near.
    for name in ["mlp_relu.ts13", "mlp_relu.dyn", "cnn11_elu.ts17"] {
        let model = model(name);
        let family = name.split('.').next().unwrap();
        let arrays = Arrays::read(format!("models/{family}.inputs.npz").as_ref()).unwrap();
        let feeds = Fill::default().complete(&model, &arrays).unwrap();
        assert!(!feeds.any_random());
        for optimisation in [Optimisation::Disabled, Optimisation::All] {
            let options = LoadOptions { optimisation, ..LoadOptions::default() };
            let outputs = runtime().load(Source::of(&model), &options).unwrap().run(&feeds.tensors(), None).unwrap();
            let Data::Float(loss) = outputs[0].1.data() else { panic!("{name}: the loss is float") };
            assert!((1.8..3.0).contains(&loss[0]), "{name}: {loss:?}");
        }
    }
}

#[test]
fn an_output_added_by_a_patch_is_an_output_of_what_runs() {
    use per_inject::onnx::ValueInfoProto;
    use per_inject::patch::{Change, Patch};
    let model = model("mlp_relu.ts17");
    let hidden = model.graph.nodes.iter().find(|n| n.op_type() == "Relu").unwrap().output[0].clone();
    let output = ValueInfoProto { name: Some(hidden.clone()), ..ValueInfoProto::default() };
    let patch = Patch { changes: vec![Change { outputs: vec![output], ..Change::default() }], ..Patch::default() };
    let bytes = per_inject::wire::splice(&model, &patch).unwrap().to_vec(&model.file.bytes);
    let source = Source::Memory { bytes: &bytes, folder: None, name: "patched".as_ref() };
    let feeds = Fill::default().random(&Model::from_bytes(bytes.clone()).unwrap()).unwrap();
    let mut program = runtime().load(source, &LoadOptions::default()).unwrap();
    let outputs = program.run(&feeds.tensors(), Some(&[&hidden])).unwrap();
    let Data::Float(values) = outputs[0].1.data() else { panic!("activations are float") };
    assert_eq!(outputs[0].1.shape(), [2, 128]);
    assert!(values.iter().all(|v| *v >= 0.0) && values.iter().any(|v| *v > 0.0));
}
