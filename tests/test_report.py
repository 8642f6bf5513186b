"""The report: the answer in words, the page's parts, and that it asks nothing from anybody."""

# Greek letters, dashes and the minus sign are meant:
# ruff: noqa: RUF001

import base64
import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from raysplit.base.statistics import Interval
from raysplit.figures import (
    AnswerLine,
    AnswerPlane,
    Band,
    Decisions,
    EpisodeReturns,
    EvaluationCurves,
    LearningPanel,
)
from raysplit.pipeline.oracles import read_evaluation
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages import report as stage
from raysplit.report import (
    MemberRow,
    Performance,
    PolicyResult,
    ReportData,
    SurrogateCheck,
    TrainingCostRow,
    write_report,
)
from raysplit.report.answer import does_learning_pay, sentence
from raysplit.surrogate import ErrorStatistics, FitReport

pytestmark = pytest.mark.slow

X = np.linspace(0, 1.2, 5)


def line(optimum, coordinate="noise_std"):
    return AnswerLine(
        coordinate=coordinate,
        values_X=X,
        split_points=(1, 10),
        optimum_X=np.array(optimum),
        optimal_objective_X=1 + X,
    )


def performance(mean, share, width=0.01):
    score = Interval(value=mean, low=mean - width, high=mean + width)
    return Performance(episode_return=score, regret=2.99 - mean, share_of_gap=share)


MINIMAL = ReportData(
    title="demo",
    model="a model of 16 layers",
    corpus="a corpus",
    link="AWGN",
    created="2026-01-02",
    clean_ppl=16.3,
    objective="minimises PPL",
    description="A reason.",
    answer=line([1, 1, 2, 7, 10]),
)

FULL = dataclasses.replace(
    MINIMAL,
    policies=[
        PolicyResult(name="optimum", measured=performance(2.99, 1.0, 0.0)),
        PolicyResult(
            name="PPO",
            detail="tuned, 3 seeds",
            kind="agent",
            surrogate=performance(2.985, 0.995),
            measured=performance(2.96, 0.8761),
        ),
        PolicyResult(name="DQN", kind="agent", measured=performance(2.9, 0.7)),
        PolicyResult(name="best fixed p = 7", kind="fixed", measured=performance(2.91, 0.7333)),
        PolicyResult(name="best fixed p = 2", kind="fixed", measured=performance(2.7, 0.1)),
        PolicyResult(name="random", measured=performance(2.69, -1e-9)),
    ],
    learning=[
        LearningPanel(
            title="Case A",
            curves={"PPO": Band(x=X, centre=X, low=X, high=X)},
            random_return=0.0,
            optimal_return=1.0,
        )
    ],
    fidelity=SurrogateCheck(
        rank_correlation=0.8, planned_share_of_gap=0.5, warning="beware of p = 3"
    ),
    episodes=EpisodeReturns(
        returns={"PPO": np.tile(X, 2), "untrained PPO": np.tile(X - 0.5, 2), "random": X - 1},
        optimal_return=1.0,
        optimum_N=X,
    ),
    decisions=Decisions(
        coordinate="noise_std",
        agent="PPO",
        seeds=2,
        x_N=X,
        split_points_N=np.arange(1, 6),
        split_points=(1, 10),
    ),
    training_costs=[
        TrainingCostRow(
            agent="PPO",
            rewards="algorithm_1",
            llm_evaluations=96.0,
            worker_seconds=131.0,
            first_seed_seconds=1.9,
            peak_resident_bytes=612_000_000,
            measured=Interval(value=2.96, low=2.95, high=2.97),
        )
    ],
    active=EvaluationCurves(curves={"expected": Band(x=X, centre=X, low=X, high=X)}, target=0.99),
    settings=(1234, 2),
    protocol={"dtype": "float32"},
    versions={"torch": "2.13.0"},
    seconds={"measure": 75.0},
    reproduce=["raysplit run demo", "raysplit report runs/demo"],
)


class Page(HTMLParser):
    """Collects a page's text, tags and attributes, and checks that tags are closed in order."""

    VOID = ("meta", "img", "br", "link", "hr", "input")

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.images, self.words = [], [], [], []
        self.feed(html)
        assert self.open == []

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(FULL, folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


class TestSentence:
    @pytest.mark.parametrize(
        ("optimum", "expected"),
        [
            ([3] * 5, "Keep 3 layers on the phone, whatever the link."),
            (
                [1, 1, 1, 1, 10],
                "Keep 1 layer on the phone up to noise σ = 0.9, then move the split up to "
                "10 layers at noise σ = 1.2.",
            ),
            (
                [1, 1, 5, 10, 10],
                "Keep 1 layer on the phone up to noise σ = 0.3, then move the split up through 5 "
                "to 10 layers from noise σ = 0.9 on.",
            ),
            (
                [1, 1, 2, 7, 10],
                "Keep 1 layer on the phone up to noise σ = 0.3, then move the split up through "
                "2 and 7 to 10 layers at noise σ = 1.2.",
            ),
            (
                [10, 7, 5, 2, 1],
                "Keep 10 layers on the phone at noise σ = 0, then move the split down through "
                "7, 5 and 2 to 1 layer at noise σ = 1.2.",
            ),
            (
                [1, 5, 2, 7, 10],
                "Between 1 and 10 layers belong on the phone, but not in step with noise σ: "
                "see the map.",
            ),
            (
                [1, 5, 1, 5, 5],
                "Between 1 and 5 layers belong on the phone, but not in step with noise σ: "
                "see the map.",
            ),
        ],
    )
    def test_along_a_line(self, optimum, expected):
        assert sentence(line(optimum)) == expected

    def test_over_a_plane(self):
        answer = AnswerPlane(
            coordinates=("noise_std", "fading_scale"),
            values_X=np.arange(4.0),
            values_Y=np.arange(2.0),
            split_points=(1, 10),
            optimum_YX=np.array([[1, 2, 7, 7], [2, 7, 7, 7]]),
        )
        assert sentence(answer) == (
            "Between 1 and 7 layers belong on the phone, depending on the link: 3 different split "
            "points are best somewhere, and p = 7 in 62 % of the states."
        )


class TestPage:
    def test_the_answer_comes_first(self, page):
        assert page.text.index("Keep 1 layer on the phone") < page.text.index("Agents and")
        headings = [tag for tag, _ in page.tags if tag in ("h1", "h2")]
        assert headings[0] == "h1"
        assert headings.count("h1") == 1

    def test_it_asks_nothing_from_any_server(self, folder, page):
        html = (folder / "report.html").read_text(encoding="utf-8")
        assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe", html)
        assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.images)
        policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
        assert policy.startswith("default-src 'none'")

    def test_each_figure_is_inlined_and_saved(self, folder, page):
        names = {"answer", "returns", "episodes", "decisions", "learning", "active"}
        assert {path.stem for path in (folder / "figures").iterdir()} == names
        for image in page.images:
            assert image["alt"]
            assert b"<svg" in base64.b64decode(image["src"].split(",")[1])
        assert len(page.images) == len(names)

    def test_the_key_figures_are_those_of_measured_perplexity(self, page):
        assert "closed by PPO, on measured perplexity 87.6 %" in page.text
        assert "closed by the best fixed split point (p = 7) 73.3 %" in page.text
        assert "settings measured; 2 more gave no value 1,234" in page.text

    def test_the_table_shows_both_scores_and_their_difference(self, page):
        row = page.text[page.text.index("PPO tuned, 3 seeds") :]
        assert row.startswith(
            "PPO tuned, 3 seeds 2.985 2.975 to 2.995 0.005 99.5 % "
            "2.960 2.950 to 2.970 0.030 87.6 % −0.025"
        )

    def test_scores_that_were_not_taken_are_dashes(self, page):
        assert "DQN – – – 2.900" in page.text

    def test_an_interval_of_no_width_is_left_out(self, page):
        assert "optimum – – – 2.990 0.000 100.0 %" in page.text

    def test_there_is_no_negative_zero(self, page):
        assert "random – – – 2.690 2.680 to 2.700 0.300 0.0 %" in page.text

    def test_a_misleading_surrogate_is_announced(self, page):
        assert "Check of the surrogate: beware of p = 3." in page.text

    def test_what_was_played_and_decided_is_said(self, page):
        assert "all policies played the same 5 episodes" in page.text
        assert "in 5 random link states (its 2 seeds take turns)" in page.text

    def test_what_training_costs_is_said(self, page):
        row = page.text[page.text.index("PPO rewards: algorithm 1") :]
        assert row.startswith(
            "PPO rewards: algorithm 1 2.960 2.950 to 2.970 1.9 s 0.61 GB 96 2 min 11 s"
        )

    def test_an_active_plan_says_what_it_expected(self, page):
        assert "The plan was active" in page.text

    def test_provenance_is_on_the_page(self, page):
        for words in ("dtype float32", "torch 2.13.0", "measure 1 min 15 s", "raysplit run demo"):
            assert words in page.text


def test_the_surrogate_is_judged_where_it_was_fitted(tmp_path):
    measured = np.linspace(3, 4, 20)
    statistics = ErrorStatistics.of(measured, measured + 0.01)
    fit = FitReport(
        rows=20,
        folds=5,
        seconds=2.0,
        log_ppl=statistics,
        noise_mse=5e-5,
        gain=None,
        measured_log_ppl_N=measured,
        predicted_log_ppl_N=measured + 0.01,
        measured_gain_G=np.empty(0),
        predicted_gain_G=np.empty(0),
    )
    html = write_report(dataclasses.replace(FULL, fit=fit), tmp_path).read_text(encoding="utf-8")
    text = Page(html).text
    assert "20 measured rows, 5 folds, fitted in 2.0 s." in text
    assert "The mean squared error is 0.0001 in log PPL" in text
    assert "error bars of the measurements average 5e-05" in text
    assert "closes 50.0 % of the gap" in text


def test_parts_that_are_missing_are_left_out(tmp_path):
    html = write_report(MINIMAL, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    for words in (
        "Agents and",
        "training costs",
        "Learning",
        "surrogate",
        "Protocol",
        "Versions",
        "moves with",
        "The plan was active",
    ):
        assert words not in page.text
    assert [path.name for path in (tmp_path / "figures").glob("*.svg")] == ["answer.svg"]


def test_an_agent_that_nobody_should_use_is_said_at_the_top(tmp_path):
    harmful = dataclasses.replace(MINIMAL, not_usable=["ppo does worse than random moves"])
    text = Page(write_report(harmful, tmp_path).read_text(encoding="utf-8")).text
    assert "Not usable: ppo does worse than random moves." in " ".join(text.split())


def test_the_stage_says_which_agents_of_its_run_are_not_usable(finished_run, monkeypatch):
    folder = RunFolder.read(finished_run)
    found = read_evaluation(folder)
    for share, count in ((-0.2, 1), (0.2, 0)):
        found["agents"]["ppo"]["measured"]["share_of_gap"] = share
        monkeypatch.setattr(stage, "read_evaluation", lambda _: found)
        assert len(stage.report_data(folder).not_usable) == count


def test_a_faithful_surrogate_raises_no_alarm(tmp_path):
    fidelity = SurrogateCheck(rank_correlation=0.99, planned_share_of_gap=0.99)
    data = dataclasses.replace(MINIMAL, fidelity=fidelity)
    assert "Check of the surrogate" not in write_report(data, tmp_path).read_text(encoding="utf-8")


def test_text_from_outside_is_escaped(tmp_path):
    data = dataclasses.replace(
        MINIMAL, title="<script>alert(1)</script>", protocol={"a<b": '"><img src=x>'}
    )
    html = write_report(data, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;" in html


def test_an_agent_with_fixed_in_its_name_is_no_fixed_split_point(tmp_path):
    agent = PolicyResult(name="ppo-fixed-lr", kind="agent", measured=performance(2.96, 0.9))
    data = dataclasses.replace(FULL, policies=[agent, *FULL.policies])
    text = Page(write_report(data, tmp_path).read_text(encoding="utf-8")).text
    assert "closed by ppo-fixed-lr, on measured perplexity 90.0 %" in text
    assert "closed by the best fixed split point (p = 7) 73.3 %" in text


def test_the_page_appears_only_when_it_is_complete(tmp_path, monkeypatch):
    write_report(MINIMAL, tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr("raysplit.report.render.sentence", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(MINIMAL, tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def policies(agent, **baselines):
    rows = [PolicyResult(name="ppo", kind="agent", measured=performance(1.0, agent))]
    rows += [PolicyResult(name=n, measured=performance(1.0, s)) for n, s in baselines.items()]
    return [*rows, PolicyResult(name="optimum", measured=performance(1.0, 1.0))]


def test_the_first_lines_say_whether_a_baseline_does_as_well():
    as_good = does_learning_pay(policies(0.99, greedy=0.987, stay=0.1))
    assert as_good.startswith("No agent is needed here: greedy closes 98.7%")
    better = does_learning_pay(policies(0.99, greedy=0.97, stay=0.1))
    assert better.startswith("Learning pays here: ppo closes 99.0%")
    assert "(greedy) 97.0%" in better
    assert does_learning_pay(policies(0.99)) == ""  # nothing to compare with


def test_what_a_policy_takes_stands_in_its_row(tmp_path):
    row = PolicyResult(
        name="greedy", measured=performance(1.0, 0.9), decision_us=12.3, llm_evaluations=96
    )
    data = dataclasses.replace(FULL, policies=[row, *FULL.policies])
    text = Page(write_report(data, tmp_path).read_text(encoding="utf-8")).text
    assert "96 12.3 µs" in text


def test_what_moves_cost_stands_below_the_return(tmp_path):
    paid = dataclasses.replace(performance(1.0, 0.9), moving_cost=0.25)
    data = dataclasses.replace(FULL, policies=[PolicyResult(name="greedy", measured=paid)])
    text = Page(write_report(data, tmp_path).read_text(encoding="utf-8")).text
    assert "moves: −0.250" in text
    free = dataclasses.replace(
        FULL, policies=[PolicyResult(name="stay", measured=performance(1.0, 0.1))]
    )
    assert "moves:" not in Page(write_report(free, tmp_path).read_text(encoding="utf-8")).text


def test_members_of_a_family_have_their_shares(tmp_path):
    rows = [MemberRow(values={"correlation": 0.5, "lambda": 0.25}, shares={"ppo": 0.971})]
    data = dataclasses.replace(FULL, members=rows)
    text = Page(write_report(data, tmp_path).read_text(encoding="utf-8")).text
    assert "correlation 0.5, lambda 0.25 97.1" in text
