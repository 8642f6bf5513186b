"""The experiments that come with the package, by name; apart, so that `--help` can list them."""

PRESETS = (
    "demo", "smollm2", "lte-driving", "5g-cell-edge", "true-reward", "algorithms", "paper",
    "authors",
)  # fmt: skip
