//! Parameters with settings of their own: `--group 'name:*.bias=lr:0.1,decay:0'`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Clip, LossScale, Optimizer};
use crate::autodiff::{DifferentiateError, Options};
use crate::select::{nearest, select_names};

/// What a group can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// A factor of the learning rate.
    Rate,
    /// λ.
    Decay,
    /// μ.
    Momentum,
    /// β₁.
    Beta1,
    /// β₂.
    Beta2,
    /// α.
    Alpha,
    /// ε.
    Epsilon,
}

impl Setting {
    const ALL: [Setting; 7] = [
        Setting::Rate,
        Setting::Decay,
        Setting::Momentum,
        Setting::Beta1,
        Setting::Beta2,
        Setting::Alpha,
        Setting::Epsilon,
    ];

    /// Its name in a group.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Rate => "lr",
            Setting::Decay => "decay",
            Setting::Momentum => "momentum",
            Setting::Beta1 => "beta1",
            Setting::Beta2 => "beta2",
            Setting::Alpha => "alpha",
            Setting::Epsilon => "epsilon",
        }
    }

    /// What it has to be, where a number is not.
    pub fn refusal(self, value: f64) -> Option<&'static str> {
        let is_share = matches!(self, Setting::Momentum | Setting::Beta1 | Setting::Beta2 | Setting::Alpha);
        match (value >= 0.0 && value.is_finite(), is_share && value >= 1.0) {
            (true, false) => None,
            (_, _) if is_share => Some("a number from 0 up to 1, without 1"),
            (_, _) => Some("a number that is not negative"),
        }
    }
}

/// Parameters and what is set for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Which parameters: a selector over their names.
    pub selector: String,
    /// What is set. Where groups share a parameter, each sets its own, and the last one counts for what several set.
    pub values: Vec<(Setting, f64)>,
}

/// Text that is no group.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum GroupError {
    /// No selector, or nothing set.
    #[error("{text:?} is no group: write a selector, = and what is set for it, as in 'name:*.bias=lr:0.1,decay:0'")]
    Shape {
        /// The text.
        text: String,
    },
    /// A name that nothing has.
    #[error(
        "{name:?} cannot be set for a group{hint} (there are lr, decay, momentum, beta1, beta2, alpha and epsilon)"
    )]
    Unknown {
        /// The name.
        name: String,
        /// `: did you mean …?`, or empty.
        hint: String,
    },
    /// What is no number, or none that makes sense.
    #[error("{name} is {value}, and has to be {expected}")]
    Value {
        /// What is set.
        name: &'static str,
        /// To what.
        value: String,
        /// What it could be.
        expected: &'static str,
    },
}

/// As it is read.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(|(set, value)| format!("{}:{value}", set.name())).collect();
        write!(f, "{}={}", self.selector, values.join(","))
    }
}

impl FromStr for Group {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        let shape = || GroupError::Shape { text: text.to_owned() };
        // Names and patterns may hold an equals sign; settings do not.
        let (selector, list) = text.rsplit_once('=').ok_or_else(shape)?;
        if selector.trim().is_empty() || list.trim().is_empty() {
            return Err(shape());
        }
        let mut values = Vec::new();
        for item in list.split(',') {
            let (name, value) = item.split_once(':').ok_or_else(shape)?;
            let (name, value) = (name.trim(), value.trim());
            let setting = Setting::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
                let near = nearest(name, Setting::ALL.into_iter().map(Setting::name));
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                GroupError::Unknown { name: name.to_owned(), hint }
            })?;
            let number = value.parse().unwrap_or(f64::NAN);
            if let Some(expected) = setting.refusal(number) {
                return Err(GroupError::Value { name: setting.name(), value: format!("{value:?}"), expected });
            }
            values.push((setting, number));
        }
        Ok(Group { selector: selector.trim().to_owned(), values })
    }
}

/// What one parameter is updated with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A factor of the learning rate.
    pub rate: f64,
    /// The optimiser with this parameter's constants.
    pub optimizer: Optimizer,
}

impl Settings {
    /// What is set, by name.
    pub fn by_name(&self) -> BTreeMap<&'static str, f64> {
        let mut copy = self.clone();
        Setting::ALL.into_iter().filter_map(|s| copy.place(s).map(|value| (s.name(), *value))).collect()
    }

    /// Where a setting stands; `None` where the optimiser has no such.
    fn place(&mut self, setting: Setting) -> Option<&mut f64> {
        let Settings { rate, optimizer } = self;
        match (setting, optimizer) {
            (_, Optimizer::None) => None,
            (Setting::Rate, _) => Some(rate),
            (
                Setting::Decay,
                Optimizer::Sgd { decay }
                | Optimizer::Momentum { decay, .. }
                | Optimizer::Adam { decay, .. }
                | Optimizer::RmsProp { decay, .. },
            ) => Some(decay),
            (Setting::Momentum, Optimizer::Momentum { momentum, .. }) => Some(momentum),
            (Setting::Beta1, Optimizer::Adam { betas, .. }) => Some(&mut betas[0]),
            (Setting::Beta2, Optimizer::Adam { betas, .. }) => Some(&mut betas[1]),
            (Setting::Alpha, Optimizer::RmsProp { alpha, .. }) => Some(alpha),
            (Setting::Epsilon, Optimizer::Adam { epsilon, .. } | Optimizer::RmsProp { epsilon, .. }) => Some(epsilon),
            _ => None,
        }
    }
}

/// The settings of every parameter, by their names in order.
///
/// # Errors
///
/// A group that matches nothing or sets what the optimiser lacks, options that need an optimiser, and numbers that make no sense.
pub fn resolve(options: &Options, names: &[&str]) -> Result<Vec<Settings>, DifferentiateError> {
    check(options)?;
    let mut settings = vec![Settings { rate: 1.0, optimizer: options.optimizer }; names.len()];
    for group in &options.groups {
        let chosen = select_names(&group.selector, names)
            .map_err(|source| DifferentiateError::Group { source, parameters: listed(names) })?;
        for settings in settings.iter_mut().zip(chosen).filter(|(_, is_chosen)| *is_chosen).map(|(s, _)| s) {
            let known = settings.by_name().into_keys().collect::<Vec<_>>().join(", ");
            for (setting, value) in &group.values {
                let missing = || DifferentiateError::NoSuchSetting {
                    setting: setting.name(),
                    optimizer: options.optimizer.name(),
                    known: known.clone(),
                };
                *settings.place(*setting).ok_or_else(missing)? = *value;
                refuse(setting.name(), *value, setting.refusal(*value))?;
            }
        }
    }
    Ok(settings)
}

fn check(options: &Options) -> Result<(), DifferentiateError> {
    if options.optimizer == Optimizer::None {
        let asked = [(!options.groups.is_empty(), "--group"), (options.accumulate, "--accumulate")];
        if let Some((_, option)) = asked.into_iter().find(|(is_asked, _)| *is_asked) {
            return Err(DifferentiateError::NoStep { option });
        }
    }
    let mut general = Settings { rate: 1.0, optimizer: options.optimizer };
    for setting in Setting::ALL {
        if let Some(value) = general.place(setting) {
            let option = if setting == Setting::Decay { "weight-decay" } else { setting.name() };
            refuse(&format!("--{option}"), *value, setting.refusal(*value))?;
        }
    }
    let numbers = [
        ("--clip-norm", if let Some(Clip::Norm(most)) = options.clip { most } else { 1.0 }),
        ("--clip-value", if let Some(Clip::Value(most)) = options.clip { most } else { 1.0 }),
        ("--loss-scale", if let LossScale::Fixed(scale) = options.loss_scale { scale } else { 1.0 }),
    ];
    for (option, value) in numbers {
        let is_wrong = value <= 0.0 || !value.is_finite();
        refuse(option, value, is_wrong.then_some("a number above 0"))?;
    }
    Ok(())
}

fn refuse(what: &str, value: f64, expected: Option<&'static str>) -> Result<(), DifferentiateError> {
    expected.map_or(Ok(()), |expected| {
        Err(DifferentiateError::Number { what: what.to_owned(), value: value.to_string(), expected })
    })
}

/// The first few names.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_selector_and_what_is_set() {
        let group: Group = "re:^a=b,!c=lr:0.1, decay:0".parse().unwrap();
        assert_eq!(group.selector, "re:^a=b,!c");
        assert_eq!(group.values, [(Setting::Rate, 0.1), (Setting::Decay, 0.0)]);
        assert_eq!(group.to_string().parse::<Group>().unwrap(), group);
        let message = "fc=momentum:1".parse::<Group>().unwrap_err().to_string();
        assert!(message.contains("has to be a number from 0 up to 1, without 1"), "{message}");
    }

    #[test]
    fn where_groups_share_a_parameter_the_last_one_counts_for_what_both_set() {
        let group = |text: &str| text.parse::<Group>().unwrap();
        let options = Options {
            optimizer: Optimizer::Sgd { decay: 0.5 },
            groups: vec![group("*.bias=lr:0.1,decay:0"), group("fc.*=lr:3"), group("fc.bias=decay:2")],
            ..Options::default()
        };
        let settings = resolve(&options, &["fc.weight", "fc.bias", "head.bias"]).unwrap();
        let found: Vec<(f64, f64)> = settings.iter().map(|s| (s.by_name()["lr"], s.by_name()["decay"])).collect();
        assert_eq!(found, [(3.0, 0.5), (3.0, 2.0), (0.1, 0.0)]);
    }
}
