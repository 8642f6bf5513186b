"""Put the answer into words: the map of split points, and what they cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from raysplit.figures import AnswerLine, AnswerPlane, CodecMap, coordinate_label, coordinate_value
from raysplit.report.data import BudgetPart, BudgetRow, PolicyResult

_AS_GOOD = 0.005  # of the gap: what a baseline may be below the best agent
_SELDOM = 0.005  # a rounded per cent
_MOST_RUNS = 4  # of one codec each, that a sentence names


def sentence(answer: AnswerLine | AnswerPlane) -> str:
    """Say how many layers belong on the phone, depending on the link."""
    if isinstance(answer, AnswerLine):
        return _along_a_line(answer)
    return _over_a_plane(answer)


def _along_a_line(answer: AnswerLine) -> str:
    name = answer.coordinate
    pairs = zip(answer.optimum_X.tolist(), answer.values_X.tolist(), strict=True)
    runs = [
        (split_point, [value for _, value in group])
        for split_point, group in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]
    if len(runs) == 1:
        return f"Keep {_layers(runs[0][0])} on the phone, whatever the link."
    split_points = [split_point for split_point, _ in runs]
    if sorted(set(split_points)) not in (split_points, split_points[::-1]):
        return (
            f"Between {min(split_points)} and {max(split_points)} layers belong on the phone, "
            f"but not in step with {coordinate_label(name)}: see the map."
        )
    (first, first_values), (last, last_values) = runs[0], runs[-1]
    direction = "up" if last > first else "down"
    until, since = _at(name, first_values[-1]), _at(name, last_values[0])
    until = f"at {until}" if len(first_values) == 1 else f"up to {until}"
    since = f"at {since}" if len(last_values) == 1 else f"from {since} on"
    return (
        f"Keep {_layers(first)} on the phone {until}, then move the "
        f"split {direction}{_through(split_points[1:-1])} to {_layers(last)} {since}."
    )


def _at(coordinate: str, value: float) -> str:
    return coordinate_value(coordinate, f"{value:.3g}")


def _through(split_points: list[int]) -> str:
    if not split_points:
        return ""
    *others, last = (str(split_point) for split_point in split_points)
    return f" through {', '.join(others)} and {last}" if others else f" through {last}"


def _over_a_plane(answer: AnswerPlane) -> str:
    split_points, counts = np.unique(answer.optimum_YX, return_counts=True)
    if len(split_points) == 1:
        return f"Keep {_layers(int(split_points[0]))} on the phone, whatever the link."
    usual = int(counts.argmax())
    percent = 100 * counts[usual] / counts.sum()
    return (
        f"Between {split_points[0]} and {split_points[-1]} layers belong on the phone, depending "
        f"on the link: {len(split_points)} different split points are best somewhere, "
        f"and p = {split_points[usual]} in {percent:.0f} % of the states."
    )


def budget_sentence(budget: BudgetPart) -> str:
    """Say what the best split costs where the link is best and where it is worst.

    Of several link states with one cost and perplexity, or of one alone, it is said once.
    """
    mild, harsh = budget.rows[0], budget.rows[-1]
    own = budget.codec == "identity" or mild.codec != ""  # else each phrase names its own
    with_states = "" if own else f" with {budget.codec} states"
    phrases = [f"at {row.state}, {_costs(row, budget.output_tokens)}" for row in (mild, harsh)]
    return f"On {budget.network}{with_states}: {'; '.join(dict.fromkeys(phrases))}."


def codec_sentence(drawn: CodecMap) -> str:
    """Say which codec belongs where, with how many layers on the phone."""
    label, best_X = coordinate_label(drawn.coordinate), drawn.best_X
    changes = (np.flatnonzero(np.diff(best_X)) + 1).tolist()
    if len(changes) >= _MOST_RUNS:
        shares = ", ".join(
            f"{curve.codec} over {np.mean(best_X == index):.0%}"
            for index, curve in enumerate(drawn.curves)
        )
        return f"With the codec free, the best one changes often over {label}: {shares} of it."
    phrases: list[str] = []
    for start, end in itertools.pairwise([0, *changes, len(best_X)]):
        curve = drawn.curves[int(best_X[start])]
        last = float(drawn.values_X[end - 1])
        until = f" up to {_at(drawn.coordinate, last)}" if end < len(best_X) else ""
        layers = _layers_along(curve.split_points_X[start:end].tolist())
        phrases.append(f"{curve.codec} with {layers}{until}")
    return f"With the codec free: {', then '.join(phrases)}{_never(drawn, label)}."


def _never(drawn: CodecMap, label: str) -> str:
    """Say what the codecs cost that are the best one nowhere."""
    unused = [c for i, c in enumerate(drawn.curves) if not (drawn.best_X == i).any()]
    phrases = [f"{c.codec} costs at least {c.percent_X.min():.2g} % more" for c in unused]
    return f", whatever {label}; {', '.join(phrases)}" if phrases else ""


def _layers_along(split_points: list[int]) -> str:
    first, last = split_points[0], split_points[-1]
    least, most = min(split_points), max(split_points)
    if least == most:
        return _layers(first)
    if {first, last} == {least, most}:
        return f"{first} to {_layers(last)}" if first < last else f"{first} down to {_layers(last)}"
    return f"between {least} and {_layers(most)}"


def _costs(row: BudgetRow, output_tokens: int) -> str:
    is_late = row.late is not None and row.late >= _SELDOM
    late = f", too late in {row.late:.0%} of requests" if is_late else ""
    excess = round(100 * row.perplexity_excess, 1) + 0.0  # no negative zero
    states = f" and {row.codec} states" if row.codec else ""
    return (
        f"{_layers(row.split_point)}{states}, first token after {row.first_token_s:.2g} s{late}, "
        f"{row.energy_j / output_tokens:.2g} J a token, "
        f"perplexity {excess:+.1f} %"
    )


def does_learning_pay(policies: Sequence[PolicyResult]) -> str:
    """Say whether a baseline does as well as the best agent on measured perplexity."""
    judged = [
        (policy.measured.share_of_gap, policy.kind == "agent", policy.name)
        for policy in policies
        if policy.measured
        and math.isfinite(policy.measured.share_of_gap)  # it is not where random is optimal
        and (policy.kind == "agent" or policy.name not in ("optimum", "random"))
    ]
    agents = [one for one in judged if one[1]]
    others = [one for one in judged if not one[1]]
    if not agents or not others:
        return ""
    (best, _, agent), (other, _, baseline) = max(agents), max(others)
    if other >= best - _AS_GOOD:
        return (
            f"No agent is needed here: {baseline} closes {other:.1%} of the gap between random "
            f"moves and the optimum, the best agent ({agent}) {best:.1%}."
        )
    return (
        f"Learning pays here: {agent} closes {best:.1%} of the gap between random moves and the "
        f"optimum, the best baseline ({baseline}) {other:.1%}."
    )


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"
