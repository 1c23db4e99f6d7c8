//! What a training run needs around its steps: data, schedules and logs.

pub mod data;
pub mod log;
pub mod schedule;
