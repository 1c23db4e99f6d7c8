//! Local functions: which of them are activations.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::{Scan, scan};
use crate::graph::{Attributes, Graph};
use crate::onnx::{FunctionProto, NodeProto};
use crate::select::Activation;

/// The domain of the functions that PyTorch's dynamo exporter calls.
pub const TORCH_LIB: &str = "pkg.onnxscript.torch_lib";

/// Functions that call functions deeper than this are taken for no activations.
const DEPTH: u32 = 32;

/// The local functions of a model, looked into when first called.
pub struct Functions<'m> {
    protos: &'m [FunctionProto],
    by_key: HashMap<[&'m str; 3], u32>,
    known: RefCell<Vec<Knowledge>>,
    depth: Cell<u32>,
}

#[derive(Clone)]
enum Knowledge {
    Nothing,
    /// Being looked into: a function that calls itself is no activation.
    Underway,
    Scanned(Rc<Scanned>),
}

/// What the body of a function holds.
#[derive(Default)]
pub struct Scanned {
    /// What the whole function is.
    pub activation: Option<Activation>,
    pub scan: Scan,
}

impl<'m> Functions<'m> {
    pub fn of(protos: &'m [FunctionProto]) -> Self {
        let mut by_key = HashMap::new();
        for (i, f) in (0u32..).zip(protos) {
            by_key.entry([standard(f.domain()), f.name(), f.overload()]).or_insert(i);
        }
        Functions { protos, by_key, known: RefCell::new(vec![Knowledge::Nothing; protos.len()]), depth: Cell::new(0) }
    }

    pub fn count(&self) -> usize {
        self.protos.len()
    }

    pub fn proto(&self, function: u32) -> &'m FunctionProto {
        &self.protos[function as usize]
    }

    /// The function that a node calls.
    pub fn find(&self, node: &NodeProto) -> Option<u32> {
        if self.protos.is_empty() {
            return None;
        }
        self.by_key.get(&[standard(node.domain()), node.op_type(), node.overload()]).copied()
    }

    /// What the call of a function is: what its body computes, else what torch_lib's name says.
    pub fn activation_of_call(&self, function: u32, call: &NodeProto) -> Option<Activation> {
        let by_body = self.scanned(function).and_then(|s| s.activation);
        by_body.or_else(|| by_name(self.proto(function), call))
    }

    /// The body's activations; `None` while that is being found out, and for a body that is no graph.
    pub fn scanned(&self, function: u32) -> Option<Rc<Scanned>> {
        match self.known.borrow()[function as usize].clone() {
            Knowledge::Scanned(scanned) => return Some(scanned),
            Knowledge::Underway => return None,
            Knowledge::Nothing if self.depth.get() >= DEPTH => return None,
            Knowledge::Nothing => {}
        }
        self.known.borrow_mut()[function as usize] = Knowledge::Underway;
        self.depth.set(self.depth.get() + 1);
        let scanned = Rc::new(self.look_into(self.proto(function)));
        self.depth.set(self.depth.get() - 1);
        self.known.borrow_mut()[function as usize] = Knowledge::Scanned(scanned.clone());
        Some(scanned)
    }

    fn look_into(&self, function: &FunctionProto) -> Scanned {
        let Ok(graph) = Graph::of_function(function) else { return Scanned::default() };
        let scan = scan(&graph, self, &|_| None);
        let activation = match (graph.outputs.as_slice(), graph.inputs.first()) {
            ([output], Some(x)) => {
                scan.found.iter().find(|f| f.value == *output && f.input == Some(*x)).map(|f| f.activation)
            }
            _ => None,
        };
        Scanned { activation, scan }
    }
}

/// What a function of torch_lib computes by its name, for bodies that choose by attribute what they compute.
fn by_name(function: &FunctionProto, call: &NodeProto) -> Option<Activation> {
    if !function.domain().starts_with(TORCH_LIB) || function.output.len() != 1 {
        return None;
    }
    let name = function.name().trim_start_matches('_');
    let name = name.strip_prefix("aten_").unwrap_or(name).trim_start_matches('_');
    let name = name.split_once("_approximate_").map_or(name, |(before, _)| before);
    let name = name.strip_suffix("_type_promoted").unwrap_or(name);
    // Parameters that would make it another function; each is 1 unless the call or the function says otherwise.
    let (activation, must_be_one): (_, &[&str]) = match name {
        "relu" => (Activation::Relu, &[]),
        "relu6" => (Activation::Relu6, &[]),
        "gelu" | "Gelu" => (Activation::Gelu, &[]),
        "silu" => (Activation::Silu, &[]),
        "elu" => (Activation::Elu, &["scale", "input_scale"]),
        "selu" => (Activation::Selu, &[]),
        "celu" => (Activation::Celu, &[]),
        "mish" => (Activation::Mish, &[]),
        "hardswish" => (Activation::HardSwish, &[]),
        "hardsigmoid" => (Activation::HardSigmoid, &[]),
        "leaky_relu" => (Activation::LeakyRelu, &[]),
        "prelu" | "prelu_kernel" => (Activation::PRelu, &[]),
        "tanh" => (Activation::Tanh, &[]),
        "sigmoid" => (Activation::Sigmoid, &[]),
        "softplus" => (Activation::Softplus, &["beta"]),
        "softsign" => (Activation::Softsign, &[]),
        _ => return None,
    };
    let is_one = |name: &&str| {
        let default = || function.attribute_proto.iter().find(|a| a.name() == *name);
        call.attribute(name).or_else(default).is_none_or(|a| {
            let is_reference = a.ref_attr_name.as_ref().is_some_and(|r| !r.is_empty());
            let value = if a.f.is_some() { f64::from(a.f()) } else { a.i() as f64 };
            !is_reference && value == 1.0
        })
    };
    // Given as inputs instead, they are not known.
    let as_inputs = must_be_one.iter().any(|name| function.input.iter().any(|i| i == name));
    (!as_inputs && must_be_one.iter().all(is_one)).then_some(activation)
}

fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{found_in, function, model_with};
    use crate::graph::Graph;
    use crate::onnx::{AttributeProto, GraphProto, ValueInfoProto};
    use crate::select::Catalog;
    use crate::wire::Model;

    const GELU: &str = "a=Div(x,1.41421356); b=Erf(a); c=Add(b,1); d=Mul(x,c); y=Mul(d,0.5)";

    fn hidden_in(model: &Model) -> Vec<String> {
        let graph = Graph::of(model).unwrap();
        let hidden = Catalog::of(&graph, model).hidden;
        hidden.iter().map(|h| format!("{} {}: {}", h.activation, h.description, h.reason)).collect()
    }

    #[test]
    fn a_function_that_computes_an_activation_is_one_also_through_others() {
        let functions = vec![
            function("MyGelu", GELU),
            function("Outer", "y=local::MyGelu(x)"),
            function("Shadow", "a=Relu(x); y=Neg(a)"),
        ];
        let model = model_with("a=local::MyGelu(x); b=local::Outer(a); y=local::Shadow(b)", functions, |_| {});
        assert_eq!(found_in(&model), ["a: gelu of x", "b: gelu of a"]);
        assert_eq!(
            hidden_in(&model),
            [
                "relu \"a\" (Relu): it is inside the function local.Shadow, which \"y\" (Shadow) calls, and only nodes of the \
                 main graph can be tapped"
            ]
        );
    }

    #[test]
    fn torch_lib_is_known_by_name_unless_a_parameter_makes_it_another_function() {
        let opaque = "y=Neg(x)";
        let lib = "pkg.onnxscript.torch_lib";
        for (name, call, expected) in [
            ("aten_gelu", "aten_gelu", vec!["y: gelu of x"]),
            ("_aten_gelu_approximate_tanh", "_aten_gelu_approximate_tanh", vec!["y: gelu of x"]),
            ("aten_elu", "aten_elu[alpha=0.5 scale=1]", vec!["y: elu of x"]),
            ("aten_elu", "aten_elu[alpha=0.5 scale=1.05]", vec![]),
            ("aten_softplus", "aten_softplus[beta=2]", vec![]),
            ("aten_softmax", "aten_softmax", vec![]),
        ] {
            let functions = vec![function(&format!("{lib}::{name}"), opaque)];
            let model = model_with(&format!("y={lib}::{call}(x)"), functions, |_| {});
            assert_eq!(found_in(&model), expected, "{call}");
        }
    }

    #[test]
    fn functions_that_call_themselves_or_name_attributes_end_in_nothing() {
        let functions = vec![
            function("Loop", "y=local::Loop(x)"),
            function("Sloped", "a=Mul(x,0.5); y=Max(x,a)"),
            function("Silu2", "s=Swish[alpha=@a](x); y=Neg(s)"),
        ];
        let model = model_with("a=local::Loop(x); b=local::Sloped(a); y=local::Silu2(b)", functions, |_| {});
        assert_eq!(found_in(&model), ["b: leakyrelu of a"]);
    }

    #[test]
    fn activations_in_bodies_are_hidden_and_named() {
        let (node, initializer) = super::super::testing::nodes("m=Max(x,0); k=Mul(m,2)");
        let output = vec![ValueInfoProto { name: Some("k".into()), ..Default::default() }];
        let body = GraphProto { node, initializer, output, ..Default::default() };
        let attribute =
            AttributeProto { name: Some("then_branch".into()), g: Some(Box::new(body)), ..Default::default() };
        let model = model_with("y=If(u)", Vec::new(), |g| g.node[0].attribute.push(attribute));
        assert_eq!(
            hidden_in(&model),
            [
                "relu \"m\" (Max): it is inside the then_branch of \"y\" (If), and only nodes of the main graph can be tapped"
            ]
        );
    }
}
