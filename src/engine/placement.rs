//! Which provider took which nodes of a model, as ONNX Runtime says in its log while it loads one.

use std::sync::{Mutex, PoisonError};

/// Nodes that one provider runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The provider, such as `CUDAExecutionProvider`.
    pub provider: String,
    /// How many nodes it runs, after the runtime's fusions.
    pub count: usize,
    /// These nodes, each as `operator (name)`. Left out where one provider runs all of them.
    pub nodes: Vec<String>,
}

impl Placed {
    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.provider == "CPUExecutionProvider"
    }
}

/// What the log said since [`listen`]; `None` while nobody listens.
static HEARD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Starts to take down what the log says of placements.
pub fn listen() {
    *HEARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// A line of the log.
pub fn hear(message: &str) {
    // Lines about placement are indented, and nearly all others are not.
    if !message.starts_with(' ') {
        return;
    }
    if let Some(heard) = HEARD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        heard.push(message.trim_end().to_owned());
    }
}

/// What was said since [`listen`].
pub fn heard() -> Vec<Placed> {
    let lines = HEARD.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    parse(&lines)
}

fn parse(lines: &[String]) -> Vec<Placed> {
    let mut found: Vec<Placed> = Vec::new();
    let mut missing = 0;
    for line in lines {
        let head = line.split_once("placed on [").and_then(|(_, rest)| rest.split_once(']'));
        if let Some((provider, rest)) = head {
            let count = rest.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default();
            found.push(Placed { provider: provider.to_owned(), count, nodes: Vec::new() });
            missing = if line.contains("All nodes") { 0 } else { count };
        } else if let (Some(last), Some(node), 1..) = (found.last_mut(), line.strip_prefix("  "), missing) {
            last.nodes.push(node.trim_end_matches(" ()").to_owned());
            missing -= 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_and_their_nodes_are_read_from_the_log() {
        let lines = [
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2",
            "  Shape (per_inject/a)",
            "  Gather ()",
            " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 1",
            "  Gemm (fc)",
            "  something else that is indented",
        ];
        let found = parse(&lines.map(str::to_owned));
        let names: Vec<_> = found.iter().map(|p| (p.provider.as_str(), p.count, p.nodes.join(", "))).collect();
        assert_eq!(
            names,
            [
                ("CPUExecutionProvider", 2, "Shape (per_inject/a), Gather".to_owned()),
                ("CUDAExecutionProvider", 1, "Gemm (fc)".to_owned())
            ]
        );
        assert!(found[0].is_cpu() && !found[1].is_cpu());
        let all = parse(&[" All nodes placed on [CPUExecutionProvider]. Number of nodes: 7".to_owned()]);
        assert_eq!((all[0].count, all[0].nodes.len()), (7, 0));
    }
}
