//! How a learning rate or a coefficient changes during training.
//!
//! | written | value |
//! |---|---|
//! | `0.05` | always 0.05 |
//! | `step:0.1@30,60` | 0.1, times 0.1 from epoch 30 on and again from epoch 60 on; `step:0.1*0.5@30,60` halves |
//! | `linear:0..3e-5@5` | from 0 to 3e-5 in 5 epochs, then 3e-5 |
//! | `cosine:0.05..0.001@20` | half a cosine from 0.05 to 0.001 in 20 epochs (Loshchilov and Hutter 2017, eq. 5), then 0.001 |
//! | `plateau:0.05@3` | 0.05, times 0.1 whenever 3 evaluations in a row brought nothing better; `plateau:0.05*0.5@3` halves |
//! | `warmup:2,…` | in front of any of these: up to its first value in equal parts during the first 2 epochs |
//!
//! Times are epochs, with decimals where wanted, and steps with an `s` behind them: `warmup:500s,cosine:0.05..0`. They count from the
//! beginning of training; `linear` and `cosine` begin where a warm-up ends, and without `@` they end with the run.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

/// A number that depends on how far training is.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    warmup: Option<Time>,
    shape: Shape,
    /// Epochs of the run.
    run: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Time {
    Epochs(f64),
    Steps(u64),
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Constant(f64),
    Step { start: f64, factor: f64, at: Vec<Time> },
    Ramp { cosine: bool, from: f64, to: f64, until: Option<Time> },
    Plateau { start: f64, factor: f64, patience: u64 },
}

/// The syntax, for messages.
const SYNTAX: &str = "write a number such as 0.05, step:0.1@30,60, linear:0..0.1@5, cosine:0.1..0.001 or plateau:0.1@3, each with \
                      warmup:2, in front if wanted; times are epochs, or steps as in 500s";

/// An evaluation is better when it is below the best so far by this share of it, as PyTorch's `ReduceLROnPlateau` has it.
const BETTER: f64 = 1e-4;

impl Schedule {
    /// Reads a schedule as the [module](self) describes them.
    ///
    /// # Errors
    /// A sentence that says what is not understood and how schedules are written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (warmup, rest) = match text.strip_prefix("warmup:") {
            None => (None, text),
            Some(after) => {
                let (length, rest) = after
                    .split_once(',')
                    .ok_or_else(|| format!("{text:?} says nothing of what comes after the warm-up; {SYNTAX}"))?;
                (Some(time(length)?), rest.trim())
            }
        };
        let shape = match rest.split_once(':') {
            None => Shape::Constant(value(rest)?),
            Some(("step", rest)) => {
                let (start, times) = cut(rest, "@", "step:0.1@30,60")?;
                let (start, factor) = product(start)?;
                let at = times.split(',').map(time).collect::<Result<_, _>>()?;
                Shape::Step { start, factor, at }
            }
            Some((name @ ("cosine" | "linear"), rest)) => {
                let (range, until) = match rest.split_once('@') {
                    Some((range, until)) => (range, Some(time(until)?)),
                    None => (rest, None),
                };
                let (from, to) = cut(range, "..", "cosine:0.1..0.001")?;
                Shape::Ramp { cosine: name == "cosine", from: value(from)?, to: value(to)?, until }
            }
            Some(("plateau", rest)) => {
                let (start, patience) = cut(rest, "@", "plateau:0.1@3")?;
                let (start, factor) = product(start)?;
                let count = patience.trim().parse().ok().filter(|n| *n > 0);
                let patience =
                    count.ok_or_else(|| format!("{patience:?} is no number of evaluations, as 3 in plateau:0.1@3"))?;
                Shape::Plateau { start, factor, patience }
            }
            Some((name, _)) => {
                let known = ["step", "linear", "cosine", "plateau", "warmup", "constant"];
                let near =
                    known.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
                let near = near.filter(|k| strsim::jaro_winkler(k, name) > 0.7);
                let hint = near.map(|k| format!("; is {k} meant?")).unwrap_or_default();
                return Err(format!("{name:?} is no kind of schedule{hint} {SYNTAX}"));
            }
        };
        Ok(Schedule { warmup, shape, run: None })
    }

    /// Says how many epochs the run has: there end `linear` and `cosine` that do not say where. Without it these stay at their first value.
    #[must_use]
    pub fn over(self, epochs: f64) -> Self {
        Schedule { run: Some(epochs), ..self }
    }

    /// Whether it never changes.
    pub fn is_constant(&self) -> bool {
        self.warmup.is_none() && matches!(self.shape, Shape::Constant(_))
    }

    /// Whether it depends on evaluations, so that there must be data for them.
    pub fn needs_metric(&self) -> bool {
        matches!(self.shape, Shape::Plateau { .. })
    }

    /// Whether it goes by the number of epochs of the run, and is another one where these are others.
    pub fn ends_with_the_run(&self) -> bool {
        matches!(self.shape, Shape::Ramp { until: None, .. })
    }

    /// The greatest value among those that it is written with.
    pub fn highest(&self) -> f64 {
        match self.shape {
            Shape::Ramp { from, to, .. } => from.max(to),
            _ => self.first(),
        }
    }

    /// The value for step `step`, counted from 0, where an epoch has `steps_per_epoch`. `metrics` are all evaluations so far, oldest first;
    /// lower is better, and NaN is never better.
    pub fn at(&self, step: u64, steps_per_epoch: u64, metrics: &[f64]) -> f64 {
        let start = self.warmup.map_or(0.0, |t| t.steps(steps_per_epoch));
        let step = step as f64;
        if step < start {
            return self.first() * (step + 1.0) / start.max(1.0);
        }
        match &self.shape {
            Shape::Constant(value) => *value,
            Shape::Step { start, factor, at } => {
                let passed = at.iter().filter(|t| t.steps(steps_per_epoch) <= step).count();
                (0..passed).fold(*start, |value, _| value * factor)
            }
            Shape::Ramp { cosine, from, to, until } => {
                let end = until.or(self.run.map(Time::Epochs)).map_or(f64::INFINITY, |t| t.steps(steps_per_epoch));
                let done = if step >= end { 1.0 } else { (step - start) / (end - start) };
                let share = if *cosine { (1.0 - libm::cos(PI * done)) / 2.0 } else { done };
                if done == 1.0 { *to } else { from + (to - from) * share }
            }
            Shape::Plateau { start, factor, patience } => {
                let (mut value, mut best, mut worse) = (*start, f64::INFINITY, 0);
                for metric in metrics {
                    if *metric < best - BETTER * best.abs() || best == f64::INFINITY && metric.is_finite() {
                        (best, worse) = (*metric, 0);
                    } else {
                        worse += 1;
                    }
                    if worse >= *patience {
                        (value, worse) = (value * factor, 0);
                    }
                }
                value
            }
        }
    }

    /// What a warm-up leads to.
    fn first(&self) -> f64 {
        match self.shape {
            Shape::Constant(value) => value,
            Shape::Step { start, .. } | Shape::Plateau { start, .. } => start,
            Shape::Ramp { from, .. } => from,
        }
    }
}

impl Time {
    /// Steps, counted from the beginning of training.
    fn steps(self, steps_per_epoch: u64) -> f64 {
        match self {
            Time::Epochs(epochs) => (epochs * steps_per_epoch as f64).round(),
            Time::Steps(steps) => steps as f64,
        }
    }
}

/// The two sides of `separator`.
fn cut<'a>(text: &'a str, separator: &str, example: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once(separator).ok_or_else(|| format!("{text:?} lacks a {separator:?}; write it as in {example}"))
}

fn value(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(value) if f64::is_finite(value) && value >= 0.0 => Ok(value),
        Ok(value) => Err(format!("{value} is no value to train with; it must be 0 or above")),
        Err(_) => Err(format!("{text:?} is no number; {SYNTAX}")),
    }
}

/// `START*FACTOR`, or `START` and a factor of 0.1.
fn product(text: &str) -> Result<(f64, f64), String> {
    match text.split_once('*') {
        Some((start, factor)) => Ok((value(start)?, value(factor)?)),
        None => Ok((value(text)?, 0.1)),
    }
}

fn time(text: &str) -> Result<Time, String> {
    let text = text.trim();
    let epochs = || text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0).map(Time::Epochs);
    let time = match text.strip_suffix('s') {
        Some(steps) => steps.parse().ok().map(Time::Steps),
        None => epochs(),
    };
    time.ok_or_else(|| format!("{text:?} is no time; write epochs such as 30 or 2.5, or steps such as 500s"))
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Schedule::parse(text)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Time::Epochs(epochs) => write!(f, "{epochs}"),
            Time::Steps(steps) => write!(f, "{steps}s"),
        }
    }
}

/// As [`Schedule::parse`] reads it.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(length) = &self.warmup {
            write!(f, "warmup:{length},")?;
        }
        match &self.shape {
            Shape::Constant(value) => write!(f, "{value}"),
            Shape::Step { start, factor, at } => {
                let at: Vec<String> = at.iter().map(ToString::to_string).collect();
                write!(f, "step:{start}*{factor}@{}", at.join(","))
            }
            Shape::Ramp { cosine, from, to, until } => {
                write!(f, "{}:{from}..{to}", if *cosine { "cosine" } else { "linear" })?;
                until.iter().try_for_each(|t| write!(f, "@{t}"))
            }
            Shape::Plateau { start, factor, patience } => write!(f, "plateau:{start}*{factor}@{patience}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str, steps: &[u64]) -> Vec<f64> {
        let schedule = Schedule::parse(text).unwrap().over(10.0);
        steps.iter().map(|s| schedule.at(*s, 100, &[])).collect()
    }

    fn near(found: &[f64], expected: &[f64]) {
        // A dozen roundings of numbers of order 1.
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-15);
        assert!(close && found.len() == expected.len(), "{found:?} {expected:?}");
    }

    #[test]
    fn steps_and_lines_are_where_they_are_written() {
        near(&at("0.05", &[0, 999_999]), &[0.05, 0.05]);
        near(&at("step:0.1@3,6", &[0, 299, 300, 599, 600, 10_000]), &[0.1, 0.1, 0.01, 0.01, 0.001, 0.001]);
        near(&at("step:0.8*0.5@50s,0.75", &[49, 50, 74, 75]), &[0.8, 0.4, 0.4, 0.2]);
        near(&at("linear:0..0.3@3", &[0, 1, 150, 299, 300, 900]), &[0.0, 0.001, 0.15, 0.299, 0.3, 0.3]);
        near(&at("linear:1..0", &[0, 250, 1000]), &[1.0, 0.75, 0.0]);
        near(&at("linear:1..0.5@200s", &[0, 100, 200]), &[1.0, 0.75, 0.5]);
    }

    #[test]
    fn a_cosine_is_that_of_sgdr() {
        // η = η_min + (η_max − η_min)(1 + cos(π t / T)) / 2: cos(π/3) = 1/2, cos(π/2) = 0.
        let thirds = at("cosine:0.9..0.1@300s", &[0, 100, 150, 200, 300, 301]);
        near(&thirds, &[0.9, 0.7, 0.5, 0.3, 0.1, 0.1]);
        near(&at("cosine:0.9..0.1", &[0, 500, 1000]), &[0.9, 0.5, 0.1]);
        // The recurrence of PyTorch's CosineAnnealingLR is the same function.
        let all = at("cosine:0.5..0.02", &(0..1000).collect::<Vec<_>>());
        for (t, pair) in all.windows(2).enumerate() {
            let t = t as f64;
            let ratio = (1.0 + libm::cos(PI * (t + 1.0) / 1000.0)) / (1.0 + libm::cos(PI * t / 1000.0));
            assert!((pair[1] - (ratio * (pair[0] - 0.02) + 0.02)).abs() < 1e-15);
        }
    }

    #[test]
    fn a_warm_up_leads_to_the_first_value() {
        near(&at("warmup:4s,0.8", &[0, 1, 2, 3, 4]), &[0.2, 0.4, 0.6, 0.8, 0.8]);
        near(&at("warmup:1,cosine:0.4..0", &[49, 99, 100, 550, 1000]), &[0.2, 0.4, 0.4, 0.2, 0.0]);
        near(&at("warmup:2,step:0.1@1,3", &[99, 199, 200, 300]), &[0.05, 0.1, 0.01, 0.001]);
        near(&at("warmup:0,0.5", &[0]), &[0.5]);
    }

    #[test]
    fn a_plateau_counts_evaluations_that_brought_nothing() {
        let schedule = Schedule::parse("plateau:0.8*0.5@2").unwrap();
        assert!(schedule.needs_metric());
        // What ReduceLROnPlateau(factor=0.5, patience=1), which waits for one more than its patience, has after each.
        let metrics = [1.0, 0.9, 0.95, 0.9, 0.89995, 0.8, f64::NAN, 0.9, 0.7, 0.71, 0.7];
        let expected = [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1];
        for n in 0..metrics.len() {
            near(&[schedule.at(7, 100, &metrics[..=n])], &expected[n..=n]);
        }
        near(&[schedule.at(0, 100, &[])], &[0.8]);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (text, words) in [
            ("", "is no number"),
            ("fast", "is no number"),
            ("-0.1", "must be 0 or above"),
            ("inf", "must be 0 or above"),
            ("cosin:1..0", "is cosine meant?"),
            ("exponential:1", "is no kind of schedule"),
            ("step:0.1", "lacks a \"@\"; write it as in step:0.1@30,60"),
            ("step:0.1@soon", "\"soon\" is no time"),
            ("step:0.1@1.5s", "\"1.5s\" is no time"),
            ("cosine:0.1", "lacks a \"..\""),
            ("cosine:0.1..x", "\"x\" is no number"),
            ("plateau:0.1@0", "is no number of evaluations"),
            ("warmup:3", "says nothing of what comes after"),
            ("warmup:3,warmup:2,1", "is no kind of schedule"),
        ] {
            let message = Schedule::parse(text).unwrap_err();
            assert!(message.contains(words), "{message:?} lacks {words:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(warmup:)?[0-9a-z:@.,*s-]{0,20}", step: u64, epoch in 0u64..1000) {
            if let Ok(schedule) = Schedule::parse(&text) {
                let _ = schedule.at(step, epoch, &[0.5, f64::NAN]);
            }
        }

        #[test]
        fn what_is_shown_is_read_again(
            warm in "(warmup:[0-9]{1,3}s?,)?",
            shape in "[0-9]\\.[0-9]{1,4}|step:0\\.[0-9](\\*0\\.[1-9])?@[0-9]{1,3}(,[0-9]{1,3}s)?|(cosine|linear):[0-9]\\.\\.0\\.[0-9](@[0-9]{1,2})?|plateau:1(\\*0\\.5)?@[1-9]",
        ) {
            let schedule = Schedule::parse(&format!("{warm}{shape}")).unwrap();
            prop_assert_eq!(&schedule, &Schedule::parse(&schedule.to_string()).unwrap());
        }

        #[test]
        fn values_stay_between_their_ends(step in 0u64..5000, steps in 1u64..400) {
            for text in ["warmup:2,cosine:0.9..0.1@7", "linear:0.1..0.9@3", "warmup:30s,step:0.9*0.5@1,2,3"] {
                let value = Schedule::parse(text).unwrap().at(step, steps, &[]);
                prop_assert!((0.0..=0.9).contains(&value), "{}: {}", text, value);
            }
        }
    }
}
