//! What a training run is, so that no other run goes on from its checkpoints: options as they are typed, the model and the data.

use std::collections::BTreeMap;

use clap::ValueEnum;
use per_inject::autodiff::{Clip, LossScale};
use per_inject::train::data::{Augment, Normalize};
use per_inject::train::graphs::Recipe;
use per_inject::train::rows::Rows;
use per_inject::wire::{Model, structure_digest};

use super::train_args::{Coefficient, TrainArgs};

impl TrainArgs {
    /// What a checkpoint must have been made with for this run to go on from it. An option that is not given is left out; one without a value
    /// has an empty one.
    pub fn identity(
        &self,
        model: &Model,
        recipe: &Recipe,
        data: &Rows,
        evaluation: Option<&Rows>,
    ) -> BTreeMap<String, String> {
        let flag = |is_given: bool| is_given.then(String::new);
        let (clip_norm, clip_value) = match recipe.clip {
            Some(Clip::Norm(most)) => (Some(most.to_string()), None),
            Some(Clip::Value(most)) => (None, Some(most.to_string())),
            None => (None, None),
        };
        let ends_with_the_run =
            self.lr.ends_with_the_run() || self.term.coef.iter().any(|c| c.schedule.ends_with_the_run());
        let given = [
            ("the model", Some(structure_digest(model))),
            ("the regulariser", recipe.regularizer.as_ref().map(|options| options.arguments().join(" "))),
            ("--optimizer", Some(recipe.optimizer.to_string())),
            ("--group", joined(&recipe.groups, ";")),
            ("--clip-norm", clip_norm),
            ("--clip-value", clip_value),
            ("--accumulate", Some(self.accumulate.to_string())),
            (
                "--loss-scale",
                if let LossScale::Fixed(scale) = recipe.loss_scale { Some(scale.to_string()) } else { None },
            ),
            ("--loss", recipe.loss.clone()),
            ("--wrt", recipe.wrt.clone()),
            ("--freeze", recipe.freeze.clone()),
            ("--metric", self.course.metric.to_possible_value().map(|value| value.get_name().to_owned())),
            ("--lr", Some(self.lr.to_string())),
            ("--epochs", ends_with_the_run.then(|| format!("{} (where a schedule ends)", self.epochs))),
            ("--coef", joined(&self.term.coef.iter().map(coefficient).collect::<Vec<_>>(), " ")),
            ("--seed", Some(self.seed.to_string())),
            ("--batch-size", Some(data.plan.batch.to_string())),
            ("--no-shuffle", flag(self.no_shuffle)),
            ("--augment", augment(data.plan.augment)),
            ("--normalize", joined(&self.normalize.iter().map(normalize).collect::<Vec<_>>(), " ")),
            ("the data", Some(data.data.fingerprint())),
            ("the evaluation data", evaluation.map(|rows| rows.data.fingerprint())),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// What was given several times; `None` for nothing.
fn joined(items: &[impl ToString], separator: &str) -> Option<String> {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    (!items.is_empty()).then(|| items.join(separator))
}

fn coefficient(given: &Coefficient) -> String {
    format!("{}{}", given.item.as_ref().map_or(String::new(), |item| format!("{item}=")), given.schedule)
}

fn augment(given: Augment) -> Option<String> {
    let crop = (given.pad_crop > 0).then(|| format!("pad-crop:{}", given.pad_crop));
    let parts: Vec<String> = crop.into_iter().chain(given.flip.then(|| "flip".to_owned())).collect();
    joined(&parts, ",")
}

fn normalize(given: &Normalize) -> String {
    let numbers = given.mean.iter().chain(&given.std).map(ToString::to_string).collect::<Vec<_>>().join(",");
    given.input.as_ref().map_or(numbers.clone(), |input| format!("{input}={numbers}"))
}
