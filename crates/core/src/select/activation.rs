//! The activations that can be chosen by name.

use std::fmt;
use std::str::FromStr;

use super::error::ParseError;

/// An activation: a function that stands behind a layer, whatever nodes compute it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x where x ≥ 0, αx elsewhere, α fixed
    LeakyRelu,
    /// x where x ≥ 0, αx elsewhere, α learned
    PRelu,
    /// x where x > 0, α(eˣ − 1) elsewhere
    Elu,
    /// γ·ELU with α = 1.67326…, γ = 1.05070…
    Selu,
    /// max(x, 0) + min(0, α(e^(x/α) − 1))
    Celu,
    /// x·Φ(x), through erf or through its tanh approximation
    Gelu,
    /// x·σ(x), also called Swish
    Silu,
    /// x·tanh(ln(1 + eˣ))
    Mish,
    /// x·min(max(x + 3, 0), 6)/6
    HardSwish,
    /// min(max(αx + β, 0), 1)
    HardSigmoid,
    /// 1/(1 + e⁻ˣ)
    Sigmoid,
    /// tanh x
    Tanh,
    /// ln(1 + eˣ)
    Softplus,
    /// x/(1 + |x|)
    Softsign,
    /// x where x > α, 0 elsewhere
    ThresholdedRelu,
    /// The hidden states of an LSTM, as an operator or as an exported cell
    Lstm,
    /// The hidden states of a GRU, as an operator or as an exported cell
    Gru,
    /// The hidden states of a plain recurrent operator
    Rnn,
}

/// Every activation with its name and its other names.
const NAMES: [(Activation, &str, &[&str]); 20] = [
    (Activation::Relu, "relu", &[]),
    (Activation::Relu6, "relu6", &[]),
    (Activation::LeakyRelu, "leakyrelu", &["lrelu"]),
    (Activation::PRelu, "prelu", &[]),
    (Activation::Elu, "elu", &[]),
    (Activation::Selu, "selu", &[]),
    (Activation::Celu, "celu", &[]),
    (Activation::Gelu, "gelu", &[]),
    (Activation::Silu, "silu", &["swish"]),
    (Activation::Mish, "mish", &[]),
    (Activation::HardSwish, "hardswish", &["hswish", "hardsilu"]),
    (Activation::HardSigmoid, "hardsigmoid", &["hsigmoid"]),
    (Activation::Sigmoid, "sigmoid", &["logistic"]),
    (Activation::Tanh, "tanh", &[]),
    (Activation::Softplus, "softplus", &[]),
    (Activation::Softsign, "softsign", &[]),
    (Activation::ThresholdedRelu, "thresholdedrelu", &[]),
    (Activation::Lstm, "lstm", &[]),
    (Activation::Gru, "gru", &[]),
    (Activation::Rnn, "rnn", &[]),
];

impl Activation {
    /// Every activation, in the order in which reports list them.
    pub fn all() -> impl Iterator<Item = Activation> {
        NAMES.iter().map(|(activation, ..)| *activation)
    }

    /// Its name in selectors and reports, lower case.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(a, ..)| *a == self).map_or("", |(_, name, _)| name)
    }

    /// Other names that selectors accept.
    pub fn aliases(self) -> &'static [&'static str] {
        NAMES.iter().find(|(a, ..)| *a == self).map_or(&[], |(.., aliases)| aliases)
    }

    /// Whether it is a recurrent layer, whose output has a time axis and whose pre-activation is no tensor of the graph.
    pub fn is_recurrent(self) -> bool {
        matches!(self, Activation::Lstm | Activation::Gru | Activation::Rnn)
    }

    /// Every name and alias, for suggestions.
    pub(super) fn spellings() -> impl Iterator<Item = &'static str> {
        NAMES.iter().flat_map(|(_, name, aliases)| std::iter::once(*name).chain(aliases.iter().copied()))
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Activation {
    type Err = ParseError;

    /// Whatever the case, and with or without `_` and `-`: `LeakyReLU`, `leaky_relu` and `leaky-relu` are one.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let plain: String = text.chars().filter(|c| !matches!(c, '_' | '-')).collect::<String>().to_ascii_lowercase();
        let is_it = |(_, name, aliases): &&(Activation, &str, &[&str])| *name == plain || aliases.contains(&&*plain);
        let found = NAMES.iter().find(is_it).map(|(activation, ..)| *activation);
        found.ok_or_else(|| ParseError::unknown_activation(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_leads_back_to_its_activation() {
        for activation in Activation::all() {
            for name in std::iter::once(activation.name()).chain(activation.aliases().iter().copied()) {
                assert_eq!(name.to_uppercase().parse::<Activation>().unwrap(), activation);
            }
        }
        assert_eq!("Leaky_ReLU".parse::<Activation>().unwrap(), Activation::LeakyRelu);
    }

    #[test]
    fn a_misspelt_activation_gets_the_nearest_name_and_other_kinds_of_item() {
        let message = "rely".parse::<Activation>().unwrap_err().to_string();
        assert!(message.contains("did you mean `relu`"), "{message}");
        let message = "Conv".parse::<Activation>().unwrap_err().to_string();
        assert!(message.contains("op:Conv"), "{message}");
        assert!("softmax".parse::<Activation>().is_err());
    }
}
