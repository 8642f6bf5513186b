"""Codecs as a part of what is measured: plans, rows, anchors, stages."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.codec import IDENTITY, Codec
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.anchors import choose_anchors
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.prepare import prepare_job
from raysplit.measure.service import MeasuringService, as_table
from raysplit.measure.setting import Setting, with_each_codec
from raysplit.measure.table import Measurements
from raysplit.model.config import ModelConfig
from raysplit.pipeline import oracles
from raysplit.pipeline.experiment import load_experiment
from raysplit.pipeline.preflight import refuse_early
from raysplit.pipeline.problem import measured_problem
from raysplit.pipeline.rewards import RewardSources
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.stages import evaluate, measure
from raysplit.pipeline.views.panels import perplexity_panels
from tests import fault_driver
from tests.test_stage_settings import Service
from tuning.settings import TrainConfig

CODECS = (Codec("int8"), Codec("int3/16"))
LINKS = (LinkState(), LinkState(noise_std=0.3), LinkState(loss_probability=0.1))
SETTINGS = [Setting(p, link) for p in (1, 4) for link in LINKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fault_driver.save_model(folder)
    return folder


def prepared(folder, codecs=(), anchors=None):
    return prepare_job(
        model=ModelConfig(name=str(folder)),
        corpus=CorpusConfig(source="file", path=folder / "text.txt"),
        protocol=ProtocolConfig(unit="sentence", context=24),
        link=LinkConfig(),
        measuring=MeasuringConfig(target_stderr=0.05),
        split_points=(1, 5),
        device="cpu",
        codecs=codecs,
        anchors=anchors,
    )


def measured(folder, settings, path, anchors=None):
    job, card = prepared(folder, anchors=anchors)
    backend = BackendConfig(kind="inprocess")
    with Ledger(path) as ledger, MeasuringService(job, card, ledger, backend) as service:
        return service.measure(settings), service.reference()


# --- plans --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sobol", "grid"])
def test_every_setting_of_a_plan_is_measured_with_every_codec(kind):
    overrides = [f"plan.kind={kind}", "plan.settings=16", "plan.grid_points=3"]
    plain = load_experiment("demo", overrides).planned_settings()
    coded = load_experiment("demo", [*overrides, "problem.codecs=[int8, identity]"])
    settings = coded.planned_settings()
    assert settings == with_each_codec(plain, (Codec("int8"), IDENTITY))
    assert settings[1::2] == plain
    assert {s.codec.name for s in settings[::2]} == {"int8"}


def test_a_codec_is_part_of_the_key_and_identity_is_not():
    """Recorded before there were codecs: what a ledger holds under this key still counts."""
    setting = Setting(3, LinkState(noise_std=0.5), 7)
    known = "b60bdbe5efe2099cf43fc350804d335a4246a7bf4db9ca7e9e404aed1497978e"
    assert setting.key("card") == Setting(3, setting.link, 7, IDENTITY).key("card") == known
    keys = {Setting(3, setting.link, 7, codec).key("card") for codec in (IDENTITY, *CODECS)}
    assert len(keys) == 3


def test_a_codec_that_cannot_serve_the_model_is_refused_before_anything_runs(folder):
    with pytest.raises(UserError, match="int4/100 cannot serve a vector of 160 elements"):
        refuse_early(load_experiment("demo", ["problem.codecs=[int8, int4/100]"]))
    refuse_early(load_experiment("demo", ["problem.codecs=[int8, int4-rotated/32]"]))
    with pytest.raises(UserError, match="int4/64 cannot serve a vector of 32 elements"):
        prepared(folder, codecs=(Codec("int8"), Codec("int4/64")))


def test_an_experiment_with_codecs_is_checked_without_torch():
    code = (
        "import sys; from raysplit.pipeline.experiment import load_experiment; "
        "load_experiment('demo', ['problem.codecs=[int4-rotated/32]']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- rows ---------------------------------------------------------------------------------


def test_rows_with_a_codec_stand_beside_those_without(folder, tmp_path):
    settings = with_each_codec(SETTINGS, (IDENTITY, *CODECS))
    rows, reference = measured(folder, settings, tmp_path / "l.sqlite")
    plain, _ = measured(folder, SETTINGS, tmp_path / "plain.sqlite")
    for setting in SETTINGS:
        assert rows[setting].log_ppl == plain[setting].log_ppl
        fine, coarse = (rows[Setting(setting.split_point, setting.link, 0, c)] for c in CODECS)
        assert len({rows[setting].log_ppl, fine.log_ppl, coarse.log_ppl}) == 3
        assert fine.recomputed == fine.sequences  # all of them are sent in other bits
        assert abs(fine.log_ppl - rows[setting].log_ppl) < 1e-3
    table = as_table(rows, ("noise_std",), reference.corpus.log_ppl, (IDENTITY, *CODECS))
    assert table.codecs_N.tolist() == [0, 1, 2] * len(SETTINGS)
    error = [
        np.abs(part.log_ppl_N - table.log_ppl_N[::3]).max() for part in table.by_codec().values()
    ]
    assert error[0] == 0 < error[1] < error[2]


def test_anchors_have_the_first_codec_and_serve_the_others(folder, tmp_path):
    ranges = {"noise_std": (0.0, 1.0)}
    plain = choose_anchors((1, 5), ranges, 40)
    anchors = choose_anchors((1, 5), ranges, 40, codec=CODECS[1])
    assert all(
        line == f"{other}, codec=int3/16"
        for line, other in zip(anchors.describe(), plain.describe(), strict=True)
    )
    (first, *_) = anchors.with_seed(3)
    assert first.codec == CODECS[1]
    assert anchors.holds(first)
    assert not anchors.holds(Setting(first.split_point, first.link, 3))
    settings = with_each_codec([Setting(2, LinkState(noise_std=0.7))], CODECS)
    rows, _ = measured(folder, settings, tmp_path / "l.sqlite", anchors=anchors)
    full, _ = measured(folder, settings, tmp_path / "full.sqlite")
    for setting in settings:
        assert rows[setting].log_ppl == pytest.approx(full[setting].log_ppl, abs=0.02)


# --- stages -------------------------------------------------------------------------------


class CodedService(Service):
    """Answers by the stages' formula; the second codec costs a tenth of log PPL."""

    def row(self, setting):
        row = super().row(setting)
        return replace(row, log_ppl=row.log_ppl + 0.1 * (setting.codec.name != "int8"))


@pytest.fixture
def service(monkeypatch):
    fake = CodedService()

    @contextmanager
    def opened(folder):
        yield fake

    for module, name in ((measure, "measuring_service"), (evaluate, "same_measuring_service")):
        monkeypatch.setattr(module, name, opened)
    return fake


def test_decisions_are_made_for_the_first_codec(tmp_path, service, capsys):
    overrides = ["problem.codecs=[int8, int3-rotated/32]", "plan.settings=32"]
    folder = RunFolder(tmp_path, load_experiment("demo", overrides))
    measure.run(folder)
    planned = Measurements.from_parquet(tmp_path / "measurements.parquet")
    assert planned.codecs == ("int8", "int3-rotated/32")
    assert len(planned) == 64
    evaluate._measure_grid(folder)
    assert (
        "decisions are made for int8; shown beside it: int3-rotated/32" in capsys.readouterr().err
    )
    table = Measurements.from_parquet(tmp_path / oracles.EVALUATION_TABLE)
    parts = table.by_codec()
    np.testing.assert_allclose(parts["int3-rotated/32"].log_ppl_N - parts["int8"].log_ppl_N, 0.1)
    panels = perplexity_panels(parts)
    assert [panel.title for panel in panels] == ["int8", "int3-rotated/32"]
    service.asked.clear()
    params, _ = measured_problem(folder)
    sources = RewardSources(folder, params, service)
    source = sources.source_of(TrainConfig(rewards="measured"), 0, tmp_path)
    source(np.array([1]), np.array([[0.5]]))
    assert {setting.codec.name for setting in service.asked} == {"int8"}
