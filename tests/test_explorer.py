"""The interactive panel: what it is given, and that a browser computes what Python does."""

# Greek letters are meant:

import dataclasses
import json
import re

import numpy as np
import pytest

from raysplit.budget.config import BudgetConfig
from raysplit.report import write_report
from raysplit.report.explorer import Script, content
from tests.explorer_page import (
    KINDS,
    TOLERANCE,
    case,
    difference,
    opened,
    positions,
    shown,
    why_not,
)
from tests.test_report import MINIMAL, Page

pytestmark = pytest.mark.slow

BROWSER = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
DRAWS = 12


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory):
    """A case and the folder of its report."""
    one, folder = case(request.param), tmp_path_factory.mktemp(request.param)
    write_report(one.report(), folder)
    return one, folder


def block(html):
    """The JSON block of a page."""
    found = re.search(
        r'<script type="application/json" id="explorer-content">(.*?)</script>', html, re.DOTALL
    )
    return json.loads(found[1])


def test_the_page_has_every_row_of_the_measured_table():
    one = case("analogue")
    given = json.loads(json.dumps(content(one.explorer)))
    table = one.oracles.table
    noise, loss = (axis["values"] for axis in given["link"])
    for p, state_K, log_ppl, stderr in zip(
        table.split_points_N, table.link_states_NK, table.log_ppl_N, table.stderr_N, strict=True
    ):
        index = noise.index(state_K[0]) * len(loss) + loss.index(state_K[1])
        assert given["log_ppl"][0][p - 1][index] == log_ppl
        assert given["stderr"][0][p - 1][index] == stderr
    assert given["clean_log_ppl"] == table.clean_log_ppl


def test_a_preset_that_the_run_changes_stands_beside_the_others():
    given = content(case("budget").explorer)
    own = case("budget").experiment.budget
    phones = given["presets"]["phone"]
    assert set(phones) == {"flagship", "mid-range", "sustained", "mid-range, as in this run"}
    assert given["start"]["phone"] == "mid-range, as in this run"
    assert phones["mid-range, as in this run"] == own.setup().phone.model_dump()
    assert phones["flagship"] == BudgetConfig(phone="flagship").setup().phone.model_dump()
    assert given["start"]["edge"] == "h100"


def test_a_page_stays_small_and_lets_its_own_scripts_run_alone(written):
    _, folder = written
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert len(html.encode()) <= 3e6
    page = Page(html)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    running = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(running) == 2
    for text in running:
        assert Script(text).permit in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'sha256-" in policy
    assert not any({"src", "href"} & a.keys() for tag, a in page.tags if tag in ("script", "link"))


def test_every_field_has_a_label(written):
    _, folder = written
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    labelled = {a["for"] for tag, a in page.tags if tag == "label" and "for" in a}
    for tag, attributes in page.tags:
        if tag in ("input", "select") and attributes.get("type") != "checkbox":
            named = attributes.get("id") in labelled or "aria-label" in attributes
            assert named or attributes["name"] == "cost"  # which stands inside its label
    assert "This panel needs JavaScript." in page.text


def test_a_page_without_the_panel_has_no_script(tmp_path):
    html = write_report(MINIMAL, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "script-src" not in html
    assert "explorer" not in html


HOSTILE = "</script><script>document.title='taken'</script><!--"


def hostile_report():
    one = case("budget")
    sizes = dataclasses.replace(one.sizes, name=HOSTILE)
    codecs = [HOSTILE, "int4"]
    start = dataclasses.replace(one.explorer.start, codecs=codecs[:1])
    panel = dataclasses.replace(one.explorer, sizes=sizes, codecs=codecs, start=start)
    return one.report(explorer=panel, title=HOSTILE)


def test_a_name_cannot_end_the_block_that_it_stands_in(tmp_path):
    html = write_report(hostile_report(), tmp_path).read_text(encoding="utf-8")
    assert HOSTILE not in html
    assert block(html)["sizes"]["name"] == HOSTILE
    assert block(html)["codecs"][0] == HOSTILE


@BROWSER
def test_a_name_is_text_in_the_browser_too(tmp_path):
    write_report(hostile_report(), tmp_path)
    with opened(tmp_path) as page:
        page.wait_for_selector("#explorer-front svg")
        assert page.title() == f"{HOSTILE} · raysplit report"
        assert HOSTILE in page.text_content("#explorer-table")
        assert page.faults == []


@BROWSER
def test_the_browser_computes_what_python_does(written):
    one, folder = written
    rng = np.random.default_rng(0)
    with opened(folder) as page:
        bests = set()
        for _ in range(DRAWS):
            found = shown(page, **positions(one.explorer, rng))
            assert difference(one, found) <= TOLERANCE
            bests.add(found["best"] and (found["best"]["p"], found["best"]["codec"]))
        assert len(bests) > 1
        assert page.faults == []


@BROWSER
def test_it_begins_at_the_answer_of_the_run(written):
    one, folder = written
    measured, params = one.oracles.measured, one.oracles.params
    with opened(folder) as page:
        for g, state_K in enumerate(measured.link_states_GK):
            if not all(
                np.isin(x, axis) for x, axis in zip(state_K, one.explorer.axes, strict=True)
            ):
                continue  # a digital run's grid is another one
            indices = [
                int(np.flatnonzero(axis == x)[0])
                for x, axis in zip(state_K, one.explorer.axes, strict=True)
            ]
            found = shown(page, **{f"link-{k}": i for k, i in enumerate(indices)})
            if one.experiment.problem.reward == "budget" and one.sizes.name != "embedded":
                continue  # the run's own model is another one
            place = int(measured.optimal_static_places()[g])
            assert found["best"]["p"] == params.split_points_P[place]
            rewards_P = measured.static_rewards_PG[:, g]
            objective_P = np.array([row["objective"] for row in found["places"]])
            match one.experiment.problem:
                case problem if problem.reward == "authors":
                    first = found["places"][0]["ppl"]
                    np.testing.assert_allclose(11 - 10 * objective_P / first, rewards_P, atol=1e-9)
                case problem if problem.raw:
                    np.testing.assert_allclose(-16 * objective_P, rewards_P, rtol=1e-9)
                case _:
                    np.testing.assert_allclose(-objective_P, rewards_P, rtol=1e-9)


def test_what_moves_cost_is_given_as_the_problem_counts_it():
    raw, authors, budget = (content(case(kind).explorer) for kind in ("raw", "authors", "budget"))
    assert raw["moving"]["per_layer"] == pytest.approx(0.3 / 16)
    assert authors["moving"]["per_layer"] == pytest.approx(
        0.1 / 10
    )  # of the relative gain, which weighs 10
    assert (budget["moving"]["per_layer"], budget["moving"]["context_tokens"]) == (0, 500)
    assert budget["start"]["current"] == 1
    assert content(case("still").explorer)["moving"] is None


@BROWSER
def test_a_move_pays_when_its_gain_over_the_decisions_outweighs_it(tmp_path):
    """By trying: staying for so many decisions against moving first, as the environment counts."""
    one = case("analogue")
    write_report(one.report(), tmp_path)
    with opened(tmp_path) as page:
        found = shown(page, **{"current": 1, "lambda": 0, "link-0": 3})
        here, best = found["places"][0], found["best"]
        assert best["p"] != here["p"]
        assert best["moving"] == pytest.approx(0.01 * (best["p"] - 1))
        pays = next(
            k
            for k in range(1, 1000)
            if k * best["objective"] + best["moving"] <= k * here["objective"]
        )
        said = page.text_content("#explorer-table")
        assert f"moving pays from{pays} decision" in said
        assert "Moving the split is taken to cost nothing" not in page.text_content("body")
        assert "it is there" in shown_table(page, current=best["p"])
        assert shown(page, current=best["p"])["best"]["pays_after"] is None


@BROWSER
def test_seconds_and_joules_of_a_move_are_said(tmp_path):
    write_report(case("budget").report(), tmp_path)
    with opened(tmp_path) as page:
        few, many = (shown_table(page, current=3, context_tokens=n) for n in (10, 100_000))
        assert few != many
        assert re.search(r"moving there, once[\d.]+ s, [\d.]+ J: [\d.]+ % of PPL", many)


def shown_table(page, **values):
    shown(page, **values)
    return page.text_content("#explorer-table")


@BROWSER
def test_sliders_numbers_and_reset_agree(tmp_path):
    one = case("analogue")
    write_report(one.report(), tmp_path)
    with opened(tmp_path) as page:
        own = shown(page)
        page.focus('[name="lambda-slider"]')
        page.keyboard.press("ArrowRight")
        more = shown(page)["controls"]["weights"]["lambda"]
        assert more == pytest.approx(0.2 * 10**0.05, rel=0.01)
        assert float(page.input_value('[name="lambda"]')) == more
        page.fill('[name="lambda"]', "2000")
        assert shown(page)["best"]["p"] == 1  # computing costs more than any perplexity
        assert page.input_value('[name="lambda-slider"]') == "100"
        page.fill('[name="lambda"]', "")
        page.wait_for_selector('[name="problem"]:not([hidden])')
        assert shown(page)["controls"]["weights"]["lambda"] == 2000  # the last that was a number
        page.click('[name="reset"]')
        assert shown(page)["controls"] == own["controls"]
        assert page.is_hidden('[name="problem"]')


@BROWSER
def test_one_codec_is_always_left(tmp_path):
    one = case("budget")
    write_report(one.report(), tmp_path)
    with opened(tmp_path) as page:
        both = page.locator('[name="codec"]')
        assert [both.nth(i).is_checked() for i in range(2)] == [True, False]
        assert both.nth(0).is_disabled()
        both.nth(1).check()
        assert shown(page)["controls"]["codecs"] == ["int8", "int4"]
        assert both.nth(0).is_enabled()


@BROWSER
def test_without_scripts_a_line_says_so(tmp_path):
    write_report(case("analogue").report(), tmp_path)
    with opened(tmp_path, java_script_enabled=False) as page:
        assert page.is_visible("#explorer-off")
        assert page.is_hidden("#explorer")


@BROWSER
def test_charts_are_drawn_and_follow(tmp_path):
    write_report(case("digital").report(), tmp_path)
    with opened(tmp_path) as page:
        for name in ("map", "objective", "front"):
            page.wait_for_selector(f"#explorer-{name} svg")
        ring = "#explorer-objective .mark-symbol[aria-roledescription] >> nth=-1"
        shown(page, **{"percent_per_joule": "0", "percent_per_miss": "0"})
        before = page.inner_html("#explorer-objective svg")
        shown(page, **{"percent_per_joule": "1000"})
        page.wait_for_timeout(300)
        assert page.inner_html("#explorer-objective svg") != before
        assert page.query_selector(ring) is not None
        assert page.is_hidden("#explorer-off")
        assert page.faults == []
