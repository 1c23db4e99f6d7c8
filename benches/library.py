"""The table of the last `cargo bench --bench library`, from what criterion kept.

    python3 benches/library.py > benches/results/library.md
"""

import json
import os
import pathlib
import platform

CRITERION = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"), "criterion")
STEPS = ["decode", "graph", "types", "roles", "activations", "select", "inspect", "plan exact", "plan sampled", "splice", "strip"]


def time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def main() -> None:
    nodes: dict[str, int] = {}
    medians: dict[tuple[str, str], float] = {}
    for path in CRITERION.glob("*/*/new/benchmark.json"):
        benchmark = json.loads(path.read_text())
        model = benchmark["value_str"]
        nodes[model] = benchmark["throughput"]["Elements"]
        estimates = json.loads((path.parent / "estimates.json").read_text())
        medians[model, benchmark["group_id"]] = estimates["median"]["point_estimate"] / 1e9
    print(f"# Steps of the library\n\n{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; medians of ten samples. ", end="")
    print(f"Load when the table was made: {os.getloadavg()[0]:.1f}.")
    for title, cell in {
        "Time": lambda model, step: time(medians[model, step]),
        "Thousand nodes per second": lambda model, step: f"{nodes[model] / medians[model, step] / 1e3:,.0f}",
    }.items():
        print(f"\n## {title}\n\n| model | nodes | {' | '.join(STEPS)} |\n|{'---|' * (len(STEPS) + 2)}")
        for model in sorted(nodes, key=lambda m: (not m.startswith("residual,"), nodes[m])):
            print(f"| {model} | {nodes[model]:,} | {' | '.join(cell(model, step) for step in STEPS)} |")


if __name__ == "__main__":
    main()
