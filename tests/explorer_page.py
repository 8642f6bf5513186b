"""The interactive panel in a real browser, beside the same values from Python.

Used by the tests and by the benchmark `users`, which records the largest difference.

Shape suffixes: N places (split points, the chosen codecs of each side by side), P split points.
"""

import dataclasses
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.grid_sources import TableSource
from envs.sources import ask
from raysplit.budget.config import BudgetConfig
from raysplit.budget.costs import split_costs
from raysplit.budget.moving import moving_costs
from raysplit.link.state import LOWER_IS_WORSE
from raysplit.measure.table import Measurements
from raysplit.model.sizes import Sizes, sizes_of
from raysplit.pipeline.budget import setup_at
from raysplit.pipeline.experiment import Experiment, load_experiment
from raysplit.pipeline.oracles import Oracles, measured_oracle
from raysplit.pipeline.over_radio import per_codec
from raysplit.pipeline.problem import problem_of, ue_computation
from raysplit.pipeline.views.answer import answer_map
from raysplit.pipeline.views.budget import pareto_front
from raysplit.pipeline.views.explorer import explorer
from raysplit.radio.transport import late_probability
from raysplit.report import ReportData, write_report

CLEAN_LOG_PPL = float(np.log(16.0))
CARD = {"clean_log_ppl": CLEAN_LOG_PPL, "tokens_per_sequence": 24.0}
TOLERANCE = 1e-9
_LEAST = 1e-3  # differences of smaller values count as if these were so large

_KINDS = {
    # Two link coordinates, no budget section: seconds and joules weigh nothing at first.
    "analogue": [
        "problem.link={noise_std: {low: 0, high: 6, grid_points: 4},"
        " loss_probability: {low: 0, high: 0.2, grid_points: 3}}",
        "problem.switching.per_layer=0.01",
    ],
    "still": [],  # whose moves cost nothing
    "raw": ["problem.raw=true", "problem.lambda=1e-9", "problem.switching.per_layer=0.3"],
    "authors": ["problem.reward=authors", "problem.switching.per_layer=0.1"],
    "budget": [
        "problem.reward=budget",
        "problem.percent_per_second=5",
        "problem.percent_per_joule=1",
        "problem.percent_per_miss=20",
        "problem.codecs=[int8, int4]",
        "budget={phone: mid-range, network: lte, prompt_tokens: 700, deadline_s: 1.1}",
        "budget.overrides.phone.memory_gb=2.5",
        "problem.switching.context_tokens=500",
    ],
    "digital": [
        "link.mode=digital",
        "radio={cell: lte, packet_deadline_ms: 12}",
        "problem.link={snr_db: {low: -4, high: 8, grid_points: 4}}",
        "problem.codecs=[int8, int4-rotated/32]",
        "problem.actions=split_and_codec",
        "problem.reward=budget",
        "problem.percent_per_joule=1",
        "problem.percent_per_miss=40",
        "budget={phone: mid-range, prompt_tokens: 600, output_tokens: 16, deadline_s: 0.35}",
        "budget.overrides.phone.compute_tflops=0.05",
        "problem.switching.context_tokens=90",
    ],
}
KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Case:
    """A run that was never measured: its experiment, and tables of invented perplexities."""

    experiment: Experiment
    sizes: Sizes
    oracles: Oracles

    @property
    def explorer(self):
        return explorer(self.experiment, CARD, self.sizes, self.oracles)

    def report(self, **changes):
        """Return a report with the panel."""
        data = ReportData(
            title="demo", model="a model", corpus="a corpus", link="a link", created="2026-01-02",
            clean_ppl=16.0, objective="minimises PPL", description="",
            answer=answer_map(self.oracles), explorer=self.explorer,
        )  # fmt: skip
        return dataclasses.replace(data, **changes)


def case(kind):
    """Return one of `KINDS`."""
    experiment = load_experiment("demo", _KINDS[kind])
    rng = np.random.default_rng(KINDS.index(kind))
    tables = {codec: _table(experiment, codec, rng) for codec in experiment.problem.codecs}
    losses = experiment.losses()
    params = problem_of(experiment, CLEAN_LOG_PPL, CARD["tokens_per_sequence"])
    measured = measured_oracle(params, tables, losses)
    oracles = Oracles(
        params=params, trained_params=params, table=tables[experiment.problem.codecs[0]],
        table_by_codec=tables, surrogate=measured, measured=measured, agents={}, losses=losses,
    )  # fmt: skip
    # The budget's formulas on something that does not fit everywhere.
    sizes = sizes_of("llama2-7b" if kind == "budget" else "embedded")
    return Case(experiment, sizes, oracles)


def _table(experiment, codec, rng):
    """Perplexity that falls with p and rises as the link gets worse, with errors."""
    ranges, problem = experiment.measured_ranges(), experiment.problem
    points = [problem.link[name].grid_points if name in problem.link else 4 for name in ranges]
    axes = [np.linspace(*ends, count) for ends, count in zip(ranges.values(), points, strict=True)]
    p_N, *states = (
        x.ravel()
        for x in np.meshgrid(
            np.arange(problem.min_split_point, problem.max_split_point + 1), *axes, indexing="ij"
        )
    )
    worse_N = sum(
        (1 - s / s.max() if name in LOWER_IS_WORSE else s / s.max())
        for name, s in zip(ranges, states, strict=True)
    )
    order = rng.permutation(len(p_N))  # a table's rows have no order
    return Measurements(
        split_points_N=p_N[order],
        link_names=tuple(ranges),
        link_states_NK=np.stack(states, axis=1)[order],
        log_ppl_N=(CLEAN_LOG_PPL + worse_N * (0.02 + 0.3 / p_N) + rng.normal(0, 0.002, len(p_N)))[
            order
        ],
        stderr_N=rng.uniform(0.001, 0.01, len(p_N)),
        clean_log_ppl=CLEAN_LOG_PPL,
        codecs=(codec,),
    )


def why_not():
    """Return why no browser can be driven here, None where one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "needs playwright: pip install 'raysplit[dev]'"
    return None if _chromium() else "needs Chromium: no chromium or google-chrome on the path"


def _chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def opened(folder, **options):
    """Open FOLDER/report.html; `page.faults` collects errors, warnings and requests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        page = browser.new_page(**options)
        page.set_default_timeout(120_000)  # machines are busy at times
        page.faults = []
        page.on("console", lambda message: page.faults.append(message.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        own = (Path(folder) / "report.html").as_uri()
        page.on(
            "request",
            lambda request: (
                None
                if request.url == own or request.url.startswith("data:")
                else page.faults.append(request.url)
            ),
        )
        page.goto(own)
        try:
            yield page
        finally:
            browser.close()


_SET = """async (values) => {
  const panel = document.getElementById("explorer");
  for (const [name, value] of Object.entries(values)) {
    for (const field of panel.querySelectorAll(`[name="${name}"]`)) {
      if (field.type === "checkbox") field.checked = [value].flat().includes(field.value);
      else field.value = String(value);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }
  for (let i = 0; i < 2; i += 1) await new Promise(requestAnimationFrame);
  const names = Object.fromEntries(["phone", "edge", "network"].map(
    (kind) => [kind, panel.querySelector(`[name="${kind}"]`).value]));
  return { ...window.raysplitExplorer, names };
}"""


def shown(page, **values):
    """Set fields of the panel by name, as a reader would, and return what it computed."""
    return page.evaluate(_SET, values)


def positions(panel, rng):
    """Draw positions of every control."""
    start = panel.start
    chosen = {f"{name}-slider": int(rng.integers(0, 101)) for name in start.weights}
    if start.deadline_s is None:
        del chosen["percent_per_miss-slider"]
    else:
        chosen["deadline_s"] = float(np.round(start.deadline_s * rng.uniform(0.3, 2), 3))
    chosen |= {f"link-{k}": int(rng.integers(len(axis))) for k, axis in enumerate(panel.axes)}
    chosen |= {kind: str(rng.choice(list(names))) for kind, names in panel.presets.items()}
    chosen["prompt_tokens"] = int(rng.choice([1, 37, 600, 8192]))
    chosen["output_tokens"] = int(rng.choice([1, 2, 128, 8000]))
    chosen["only_fitting"] = ["on"] if rng.random() < 0.5 else []
    if panel.moving:
        chosen["current"] = int(rng.integers(panel.split_points[0], panel.split_points[1] + 1))
    if panel.moving and panel.moving.context_tokens:
        chosen["context_tokens"] = int(rng.choice([1, 90, 4000, 100_000]))
    chosen["cost"] = str(rng.choice(["first_s", "joules", "computation"]))
    codecs = [codec for codec in panel.codecs if rng.random() < 0.5]
    return chosen | {"codec": codecs or [panel.codecs[-1]]}


def expected(case, found):
    """Return what Python gives for the controls that the page reports, by name, (N,)."""
    controls, problem = found["controls"], case.experiment.problem
    weights, tables = controls["weights"], case.oracles.table_by_codec
    changed = case.experiment.model_copy(update={"budget": _budget(case, found)})
    panel = case.explorer
    state_K = [axis[i] for axis, i in zip(panel.axes, controls["state"], strict=True)]
    snr_db = state_K[0] if case.experiment.radio else None
    setup = setup_at(changed, snr_db)
    split_points_P = np.arange(problem.min_split_point, problem.max_split_point + 1)

    def of_codec(name):
        table = tables[name]
        return TableSource.from_rows(
            table.split_points_N, table.link_states_NK, table.log_ppl_N, table.link_names
        )

    columns = []
    for codec in controls["codecs"]:
        source = per_codec((codec,), case.oracles.losses, of_codec)
        ppl_P = ask(source, split_points_P, np.tile(state_K, (len(split_points_P), 1)))
        ppl_P = ppl_P / np.exp(CLEAN_LOG_PPL)
        costs = split_costs(case.sizes, setup, codec, split_points_P.tolist())
        late_P = _late(changed, costs, snr_db)
        if problem.reward == "authors":
            computation_P = ppl_P[0] * split_points_P / problem.max_split_point
            compared_P = split_points_P / problem.max_split_point
        else:
            computation_P = np.array(ue_computation(case.experiment, 24))
            computation_P = computation_P / (np.exp(CLEAN_LOG_PPL) if problem.raw else 1)
            compared_P = computation_P
        paid_P = (
            weights["percent_per_second"] * costs.ttft_s_P
            + weights["percent_per_joule"] * costs.ue_energy_j_P
            + weights["percent_per_miss"] * late_P
        )
        columns.append(
            {
                "p": split_points_P,
                "codec": np.array([codec] * len(split_points_P)),
                "fits": costs.fits_P,
                "ppl": ppl_P,
                "first_s": costs.ttft_s_P,
                "next_s": costs.tpot_s_P,
                "joules": costs.ue_energy_j_P,
                "memory_bytes": costs.ue_memory_bytes_P,
                "late": late_P,
                "computation": compared_P,
                "objective": ppl_P + weights["lambda"] * computation_P + paid_P / 100,
            }
        )
        if panel.moving:
            columns[-1] |= _moving(case, setup, codec, controls, ppl_P[0])
    rows = {name: np.stack([c[name] for c in columns], axis=1).ravel() for name in columns[0]}
    kept_N = rows["fits"] | np.array(not controls["only_fitting"])
    rows = {name: values_N[kept_N] for name, values_N in rows.items()}
    if panel.moving:
        here_N = rows["objective"][rows["p"] == controls["current"]]
        gain_N = (here_N.min() if here_N.size else -np.inf) - rows["objective"]
        pays_N = np.full(len(gain_N), np.nan)
        rows["pays_after"] = np.divide(rows["moving"], gain_N, where=gain_N > 0, out=pays_N)
    return rows


def _moving(case, setup, codec, controls, first_ppl):
    """What moving to each split point costs, in seconds and joules where the budget says it."""
    problem, current = case.experiment.problem, controls["current"]
    split_points_P = np.arange(problem.min_split_point, problem.max_split_point + 1)
    layers_P = np.abs(split_points_P - current)
    if problem.switching.per_layer:
        unit = first_ppl / 10 if problem.reward == "authors" else 1
        unit = np.exp(-CLEAN_LOG_PPL) if problem.raw else unit
        return {"moving": problem.switching.per_layer * layers_P * unit}
    tokens, weights = controls["context_tokens"], controls["weights"]
    seconds_P, joules_P = np.zeros(len(layers_P)), np.zeros(len(layers_P))
    for i, layers in enumerate(layers_P.tolist()):
        if layers:
            costs = moving_costs(case.sizes, setup, codec, tokens, layers)
            move = costs.up if split_points_P[i] > current else costs.down
            seconds_P[i], joules_P[i] = move.seconds, move.ue_energy_j
    paid_P = weights["percent_per_second"] * seconds_P + weights["percent_per_joule"] * joules_P
    return {"moving_s": seconds_P, "moving_j": joules_P, "moving": paid_P / 100}


def _budget(case, found):
    own = case.experiment.budget
    names = {kind: name.removesuffix(", as in this run") for kind, name in found["names"].items()}
    overrides = own.overrides if own else {}
    controls = found["controls"]
    return BudgetConfig(
        **names,
        overrides={k: v for k, v in overrides.items() if found["names"][k] != names[k]},
        prompt_tokens=controls["prompt_tokens"],
        output_tokens=controls["output_tokens"],
        deadline_s=controls["deadline_s"],
    )


def _late(experiment, costs, snr_db):
    deadline_s = experiment.budget.deadline_s
    if deadline_s is None:
        return np.zeros(len(costs.ttft_s_P))
    if experiment.radio is None:
        return (costs.ttft_s_P > deadline_s).astype(float)
    left_s_P = deadline_s - (costs.ttft_s_P - costs.prefill.air_s_P)
    return late_probability(experiment.radio, snr_db, float(costs.prefill.bits_P[0]), left_s_P)


def difference(case, found):
    """Return the largest relative difference between the page's values and Python's.

    Infinite where the two differ in what is best, on the front, or shown at all.
    """
    rows = expected(case, found)
    places = [(int(p), str(c)) for p, c in zip(rows["p"], rows["codec"], strict=True)]

    def named(chosen):
        return [(one["p"], one["codec"]) for one in chosen]

    if named(found["places"]) != places:
        return float("inf")
    if not places:
        return 0.0 if found["best"] is None else float("inf")
    front_N = pareto_front(rows[found["controls"]["cost"]], rows["ppl"])
    on_front = {place for place, on in zip(places, front_N, strict=True) if on}
    if named([found["best"]]) != [places[int(rows["objective"].argmin())]]:
        return float("inf")
    if set(named(found["front"])) != on_front:
        return float("inf")
    differences = []
    for name in set(rows) - {"p", "codec", "fits"}:
        page_N = np.array([one[name] for one in found["places"]], dtype=float)  # null: NaN
        if (np.isnan(page_N) != np.isnan(rows[name])).any():
            return float("inf")
        scale_N = np.maximum(np.abs(rows[name]), _LEAST)
        differences.append(np.nan_to_num(np.abs(page_N - rows[name]) / scale_N).max())
    return float(max(differences))


def report_difference(folder, draws):
    """Return the largest difference over all kinds of runs and random positions of the controls."""
    found = 0.0
    for kind in KINDS:
        one = case(kind)
        home = Path(folder) / kind
        home.mkdir()
        write_report(one.report(), home)
        rng = np.random.default_rng(0)
        with opened(home) as page:
            for _ in range(draws):
                positions_ = positions(one.explorer, rng)
                found = max(found, difference(one, shown(page, **positions_)))
    return found
