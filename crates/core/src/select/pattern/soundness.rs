//! Whatever is found computes what it is found as: graphs near to real composites are evaluated on numbers and compared.

use std::collections::HashMap;

use proptest::prelude::*;

use super::testing::model;
use crate::graph::{Attributes, Graph};
use crate::onnx::NodeProto;
use crate::select::{Activation, Catalog, Found};

/// Composites to start from; every statement's name is its place in the alphabet, so that replacing an operand keeps the order.
const SEEDS: [&str; 16] = [
    "a=Div(x,1.41421356); b=Erf(a); c=Add(b,1); d=Mul(x,c); e=Mul(d,0.5)",
    "a=Pow(x,3); b=Mul(a,0.044715); c=Add(x,b); d=Mul(c,0.79788456); e=Tanh(d); f=Add(e,1); g=Mul(x,0.5); h=Mul(g,f)",
    "a=Sigmoid(x); b=Mul(x,a); c=Sigmoid(u); d=Mul(b,c)",
    "a=Neg(x); b=Exp(a); c=Add(1,b); d=Div(x,c)",
    "a=Mul(x,-1); b=Exp(a); c=Add(1,b); d=Div(1,c); e=Mul(x,d)",
    "a=Mul(-1,x); b=Exp(a); c=Add(1,b); d=Div(x,c)",
    "a=Exp(x); b=Add(a,1); c=Log(b); d=Tanh(c); e=Mul(x,d)",
    "a=Add(x,3); b=Clip(a,0,6); c=Mul(x,b); d=Div(c,6)",
    "a=Add(x,3); b=Relu(a); c=Min(b,6); d=Mul(c,0.16666667); e=Mul(d,x)",
    "a=Exp(x); b=Sub(a,1); c=Mul(b,1.6732632); d=Greater(x,0); e=Where(d,x,c); f=Mul(e,1.050701)",
    "a=Relu(x); b=Neg(x); c=Relu(b); d=Neg(c); e=Exp(d); f=Sub(e,1); g=Mul(f,2); h=Add(a,g)",
    "a=Div(x,2); b=Exp(a); c=Sub(b,1); d=Mul(c,2); e=Min(0,d); f=Max(0,x); g=Add(f,e)",
    "a=Mul(x,0.1); b=Max(x,a); c=Abs(b); d=Add(c,1); e=Div(b,d)",
    "a=Relu(x); b=Abs(x); c=Neg(b); d=Exp(c); e=Add(1,d); f=Log(e); g=Add(a,f)",
    "a=Mul(x,0.16666667); b=Add(a,0.5); c=Clip(b,0,1); d=Mul(x,c)",
    "a=Less(x,0); b=Mul(x,0.2); c=Where(a,b,x); d=Max(c,0); e=Min(d,6)",
];

const OPERATORS: [&str; 20] = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Pow",
    "Greater",
    "Less",
    "GreaterOrEqual",
    "Neg",
    "Exp",
    "Log",
    "Erf",
    "Tanh",
    "Sigmoid",
    "Relu",
    "Abs",
    "Sqrt",
    "Softplus",
];

const OPERANDS: [&str; 15] =
    ["x", "u", "v", "0", "1", "2", "3", "6", "0.5", "-1", "0.16666667", "1.41421356", "0.2", "1.6732632", "1.050701"];

fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    // Its Maclaurin series in the form with positive terms: 2/√π · e^(−x²) · Σ 2ⁿx²ⁿ⁺¹/(2n+1)!!.
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
}

fn evaluate(nodes: &[NodeProto], numbers: [f64; 3]) -> HashMap<String, f64> {
    let mut values: HashMap<String, f64> = ["x", "u", "v"].map(str::to_owned).into_iter().zip(numbers).collect();
    for node in nodes {
        let get = |i: usize| {
            let name = node.input.get(i).map_or("", String::as_str);
            let constant = || name.parse::<f64>().ok().map(|c| f64::from(c as f32));
            values.get(name).copied().or_else(constant).unwrap_or(f64::NAN)
        };
        let (a, b) = (get(0), get(1));
        let truth = |t: bool| f64::from(u8::from(t));
        let max = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
        let min = |a: f64, b: f64| -max(-a, -b);
        let result = match node.op_type() {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            "Div" => a / b,
            "Pow" => a.powf(b),
            "Neg" => -a,
            "Exp" => a.exp(),
            "Log" => a.ln(),
            "Sqrt" => a.sqrt(),
            "Abs" => a.abs(),
            "Erf" => erf(a),
            "Tanh" => a.tanh(),
            "Sigmoid" => 1.0 / (1.0 + (-a).exp()),
            "Softplus" => softplus(a),
            "Relu" => max(a, 0.0),
            "Max" => max(a, b),
            "Min" => min(a, b),
            "Clip" => min(max(a, b), get(2)),
            "Greater" => truth(a > b),
            "GreaterOrEqual" => truth(a >= b),
            "Less" => truth(a < b),
            "Where" => {
                if a == 0.0 {
                    get(2)
                } else {
                    b
                }
            }
            _ => f64::NAN,
        };
        values.insert(node.output[0].clone(), result);
    }
    values
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// What the activation makes of x; `None` where that depends on a parameter that this test does not know.
fn formula(found: &Found, node: &NodeProto, x: f64) -> Option<f64> {
    use Activation::*;
    let sixth = (x + 3.0).clamp(0.0, 6.0) / 6.0;
    Some(match found.activation {
        Relu => x.max(0.0),
        Relu6 => x.clamp(0.0, 6.0),
        // Both forms, told apart by what the composite is made of.
        Gelu => return None,
        Silu => x / (1.0 + (-x).exp()),
        Mish => x * softplus(x).tanh(),
        HardSwish => x * sixth,
        HardSigmoid if node.float("alpha").is_none() => sixth,
        Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Tanh => x.tanh(),
        Softplus => softplus(x),
        Softsign => x / (1.0 + x.abs()),
        Selu => 1.050_700_987 * if x > 0.0 { x } else { 1.673_263_242 * x.exp_m1() },
        LeakyRelu | PRelu | Elu | Celu if x >= 0.0 => x,
        _ => return None,
    })
}

/// For a GELU, the two values that it may have.
fn gelus(x: f64) -> [f64; 2] {
    let inner = 0.797_884_560_8 * (x + 0.044_715 * x.powi(3));
    [0.5 * x * (1.0 + erf(x / 2f64.sqrt())), 0.5 * x * (1.0 + inner.tanh())]
}

fn check(text: &str) -> Result<usize, TestCaseError> {
    let model = model(text);
    let graph = Graph::of(&model).unwrap();
    let catalog = Catalog::of(&graph, &model);
    let mut parameters = HashMap::new();
    for numbers in
        [[-7.3, 0.4, 2.0], [-2.2, -1.5, 0.3], [-0.4, 3.0, -0.7], [0.0, 1.0, 1.0], [0.6, -0.2, 5.0], [4.1, 2.5, -3.0]]
    {
        let values = evaluate(graph.nodes, numbers);
        let at = |value| {
            let name = graph.name(value);
            values.get(name).copied().or_else(|| name.parse().ok()).unwrap_or(f64::NAN)
        };
        for found in &catalog.found {
            let (Some(x), y) = (found.input.map(at), at(found.value)) else { continue };
            let activation = found.activation;
            let near = |wanted: f64| (y - wanted).abs() <= 1e-4 * (1.0 + wanted.abs());
            if !x.is_finite() || !y.is_finite() || x.abs() > 30.0 {
                continue;
            }
            let fits = match formula(found, graph.node(found.node), x) {
                Some(wanted) => near(wanted),
                None if found.activation == Activation::Gelu => gelus(x).into_iter().any(near),
                None => true,
            };
            // A parameter below zero: the same at every x.
            let shape = match activation {
                Activation::Elu => x.exp_m1(),
                Activation::LeakyRelu => x,
                _ => f64::NAN,
            };
            if x < 0.0 && shape.is_finite() {
                let parameter = y / shape;
                let first = *parameters.entry(found.node).or_insert(parameter);
                let within = parameter > 0.0 && (activation == Activation::Elu || parameter < 1.0);
                let same = (parameter - first).abs() <= 1e-4 * first.abs();
                prop_assert!(within && same, "{text}: {activation} with {parameter} at {x}, {first} elsewhere");
            }
            prop_assert!(fits, "{text}: {} is no {activation} of {x}: {y}", graph.name(found.value));
        }
    }
    Ok(catalog.found.len())
}

/// Replaces an operand or an operator of the text.
fn mutate(text: &str, statement: usize, slot: usize, replacement: usize) -> String {
    let mut statements: Vec<String> = text.split("; ").map(str::to_owned).collect();
    let at = statement % statements.len();
    let (head, arguments) = statements[at].split_once('(').unwrap();
    let (name, operator) = head.split_once('=').unwrap();
    let mut arguments: Vec<&str> = arguments.trim_end_matches(')').split(',').collect();
    let slot = slot % (arguments.len() + 1);
    let mut operator = operator;
    let earlier: Vec<&str> = text.split("; ").take(at).map(|s| s.split_once('=').unwrap().0).collect();
    if slot < arguments.len() {
        let all: Vec<&str> = OPERANDS.iter().copied().chain(earlier).collect();
        arguments[slot] = all[replacement % all.len()];
    } else {
        // The first ten take two operands, the others one.
        let same: Vec<&str> = match arguments.len() {
            1 => OPERATORS[10..].to_vec(),
            2 => OPERATORS[..10].to_vec(),
            _ => vec![operator],
        };
        operator = same[replacement % same.len()];
    }
    statements[at] = format!("{name}={operator}({})", arguments.join(","));
    statements.join("; ")
}

#[test]
fn every_seed_is_found_and_right() {
    for seed in SEEDS {
        assert!(check(seed).unwrap() > 0, "{seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_is_found_near_a_composite_computes_it(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec((0..64usize, 0..64usize, 0..64usize), 1..4),
    ) {
        let text = changes.iter().fold(SEEDS[seed].to_owned(), |t, (a, b, c)| mutate(&t, *a, *b, *c));
        check(&text)?;
    }
}
