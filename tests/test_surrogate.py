"""The measurements table and the surrogate fitted on it."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raysplit.base.errors import UserError
from raysplit.base.sealed_json import read_sealed, write_sealed
from raysplit.measure.table import Measurements
from raysplit.surrogate import ErrorStatistics, FitReport, Surrogate, SurrogateConfig, fit
from raysplit.surrogate.quality import gain_pairs, report

CLEAN_LOG_PPL = np.log(16.3)
# Relative excess PPL at noise_std = 1 for split points 1-10: falls fast, then flattens.
EXCESS = np.array([25.6, 24.1, 23.5, 23.2, 21.9, 21.4, 20.9, 20.7, 20.4, 20.1]) / 16.3 - 1


def true_log_ppl(split_points, states, violent=()):
    excess = EXCESS[split_points - 1] * np.where(np.isin(split_points, violent), 2.0, 1.0)
    return CLEAN_LOG_PPL + np.log1p(excess * states[:, 0] ** 2 * 1.6 / (0.6 + states[:, 0] ** 1.2))


def grid(split_points, noise_stds):
    p, s = np.meshgrid(split_points, noise_stds)
    return p.ravel(), s.reshape(-1, 1)


def table(split_points, states, log_ppl, stderr=0.01):
    return Measurements(
        split_points_N=split_points,
        link_names=("noise_std",),
        link_states_NK=states,
        log_ppl_N=log_ppl,
        stderr_N=np.broadcast_to(stderr, log_ppl.shape).copy(),
        clean_log_ppl=CLEAN_LOG_PPL,
    )


def noisy_table(seed=0, violent=(), noise=0.01):
    p, x = grid(np.arange(1, 11), np.linspace(0, 1.2, 15))
    y = true_log_ppl(p, x, violent)
    return table(p, x, y + noise * np.random.default_rng(seed).normal(size=y.shape))


def coded_table():
    """Every second row with a codec that doubles the perplexity."""
    p, x = grid(np.arange(1, 11), np.linspace(0, 1.2, 15))
    codecs_N = np.arange(len(p)) % 2
    values = table(p, x, true_log_ppl(p, x) + np.log(2) * codecs_N)
    return replace(values, codecs=("int8", "int4"), codecs_N=codecs_N)


QUICK = SurrogateConfig(steps=400)
BEGUN = SurrogateConfig(steps=30)  # where any weights will do


@pytest.fixture(scope="module")
def fitted():
    return fit(noisy_table(), SurrogateConfig(), seed=0)


class TestMeasurements:
    def test_parquet_keeps_every_bit(self, tmp_path):
        original = noisy_table()
        original.to_parquet(tmp_path / "rows.parquet")
        again = Measurements.from_parquet(tmp_path / "rows.parquet")
        assert again.link_names == ("noise_std",)
        assert again.clean_log_ppl == original.clean_log_ppl
        for name in ("split_points_N", "link_states_NK", "log_ppl_N", "stderr_N"):
            ours, theirs = getattr(original, name), getattr(again, name)
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        assert [f.name for f in tmp_path.iterdir()] == ["rows.parquet"]

    def test_codecs_have_a_column_and_tables_of_their_own(self, tmp_path):
        original = coded_table()
        original.to_parquet(tmp_path / "rows.parquet")
        assert pq.read_table(tmp_path / "rows.parquet").column("codec").to_pylist()[:3] == [
            "int8", "int4", "int8",
        ]  # fmt: skip
        again = Measurements.from_parquet(tmp_path / "rows.parquet")
        assert again.codecs == original.codecs
        np.testing.assert_array_equal(again.codecs_N, original.codecs_N)
        parts = again.by_codec()
        assert list(parts) == ["int8", "int4"]
        for i, (name, part) in enumerate(parts.items()):
            assert part.codecs == (name,)
            assert not part.codec_indices_N.any()
            np.testing.assert_array_equal(part.log_ppl_N, original.log_ppl_N[i::2])

    def test_without_codecs_the_file_has_no_such_column(self, tmp_path):
        noisy_table().to_parquet(tmp_path / "rows.parquet")
        written = pq.read_table(tmp_path / "rows.parquet")
        assert "codec" not in written.column_names
        assert b"codec" not in written.schema.metadata[b"raysplit.measurements"]

    def test_a_table_without_link_coordinates_survives(self, tmp_path):
        original = Measurements(
            split_points_N=np.array([1, 2]),
            link_names=(),
            link_states_NK=np.empty((2, 0)),
            log_ppl_N=np.array([3.0, 2.5]),
            stderr_N=np.zeros(2),
            clean_log_ppl=2.0,
        )
        original.to_parquet(tmp_path / "rows.parquet")
        assert Measurements.from_parquet(tmp_path / "rows.parquet").link_states_NK.shape == (2, 0)

    def test_a_truncated_file_is_named(self, tmp_path):
        path = tmp_path / "rows.parquet"
        noisy_table().to_parquet(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UserError, match=r"rows\.parquet"):
            Measurements.from_parquet(path)

    def test_a_foreign_parquet_file_is_refused(self, tmp_path):
        import pandas

        pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
        with pytest.raises(UserError, match="not a table of measurements"):
            Measurements.from_parquet(tmp_path / "other.parquet")

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, bad):
        log_ppl = np.full(3, 2.0)
        log_ppl[1] = bad
        with pytest.raises(UserError, match="log_ppl_N"):
            table(np.array([1, 2, 3]), np.zeros((3, 1)), log_ppl)

    def test_columns_of_different_length_are_refused(self):
        with pytest.raises(UserError, match=r"link_states_NK has shape \(2, 1\)"):
            table(np.array([1, 2, 3]), np.zeros((2, 1)), np.zeros(3))

    def test_select_takes_whole_rows(self):
        whole = noisy_table()
        part = whole.select(whole.split_points_N == 3)
        assert len(part) == 15
        assert set(part.split_points_N) == {3}
        np.testing.assert_array_equal(part.ppl_N, whole.ppl_N[whole.split_points_N == 3])


@pytest.mark.slow
class TestFit:
    def test_150_noisy_rows_give_the_curve_and_the_optimum(self, fitted):
        surrogate, _ = fitted
        p, x = grid(np.arange(1, 11), np.linspace(0, 1.2, 61))
        predicted, _ = surrogate.predict_log_ppl(p, x)
        truth = true_log_ppl(p, x)
        assert np.sqrt(np.mean((predicted - truth) ** 2)) < 0.006  # the rows' noise is 0.01
        cost = 0.1 * p / 16

        def objective(log_ppl):
            return (np.exp(log_ppl - CLEAN_LOG_PPL) + cost).reshape(61, 10)

        true_objective = objective(truth)
        chosen = objective(predicted).argmin(axis=1)
        best, random = true_objective.min(axis=1), true_objective.mean(axis=1)
        regret = (true_objective[np.arange(61), chosen] - best).sum() / (random - best).sum()
        # Even least squares on the generating formula itself leaves 0.104 with this noise.
        assert regret < 0.12

    def test_layers_that_react_violently_are_learned_from_few_rows(self):
        """20 rows a split point: what single layers do can only be told apart by split point."""
        rng = np.random.default_rng(0)
        amplitudes = rng.uniform(0.3, 2.5, 10)

        def truth(p, x):
            return true_log_ppl(p, x, violent=(2, 4, 9)) + amplitudes[p - 1] * x[:, 1] ** 0.7

        def draw(count):
            return rng.integers(1, 11, count), rng.uniform(0, 1, (count, 2))

        p, x = draw(200)
        rows = Measurements(
            split_points_N=p,
            link_names=("noise_std", "loss_probability"),
            link_states_NK=x,
            log_ppl_N=truth(p, x) + rng.normal(0, 0.01, 200),
            stderr_N=np.full(200, 0.01),
            clean_log_ppl=CLEAN_LOG_PPL,
        )
        surrogate, _ = fit(rows, SurrogateConfig(), seed=0)
        p, x = draw(2000)
        error = surrogate.predict_log_ppl(p, x)[0] - truth(p, x)
        assert np.sqrt(np.mean(error**2)) < 0.04

    def test_held_out_errors_are_those_of_fresh_rows(self, fitted):
        _, report = fitted
        assert report.rows == 150
        assert report.log_ppl.mae < 0.012
        assert report.log_ppl.mse > 0.5 * report.noise_mse  # nothing can beat the rows' own noise
        assert report.log_ppl.r2 > 0.99
        assert report.log_ppl.rank_correlation > 0.98
        assert report.gain is not None
        assert report.gain.count == 135
        assert report.gain.mse < 5e-4
        assert report.gain.mae < 0.015

    def test_held_out_rows_do_not_leak(self):
        """Targets without any pattern cannot be predicted by a member that did not see them."""
        p, x = grid(np.arange(1, 11), np.linspace(0, 1, 20))
        noise = np.random.default_rng(3).normal(size=len(p))
        _, report = fit(table(p, x, noise), QUICK, seed=0)
        assert report.log_ppl.r2 < 0.1
        assert abs(report.log_ppl.rank_correlation) < 0.3

    def test_the_same_seed_gives_the_same_surrogate(self):
        rows = noisy_table()
        first, second, other = (fit(rows, BEGUN, seed)[0] for seed in (1, 1, 2))
        at = rows.split_points_N, rows.link_states_NK
        np.testing.assert_array_equal(first.predict_log_ppl(*at)[0], second.predict_log_ppl(*at)[0])
        assert not np.array_equal(first.predict_log_ppl(*at)[0], other.predict_log_ppl(*at)[0])

    def test_torch_draws_outside_are_left_alone(self):
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        fit(noisy_table(), SurrogateConfig(steps=5), seed=0)
        assert torch.rand(1) == expected

    def test_rows_with_wide_error_bars_weigh_less(self):
        clean = noisy_table(noise=0.0)
        wrong = np.random.default_rng(0).random(len(clean)) < 0.2
        log_ppl = clean.log_ppl_N + 0.5 * wrong

        def bias(stderr):
            rows = table(clean.split_points_N, clean.link_states_NK, log_ppl, stderr)
            surrogate, _ = fit(rows, QUICK, seed=0)
            predicted, _ = surrogate.predict_log_ppl(rows.split_points_N, rows.link_states_NK)
            return np.mean(predicted[~wrong] - clean.log_ppl_N[~wrong])

        assert bias(0.01) > 0.05
        assert abs(bias(np.where(wrong, 0.5, 0.01))) < 0.01

    def test_a_split_point_that_was_never_measured_lies_between_its_neighbours(self):
        rows = noisy_table(noise=0.0)
        surrogate, _ = fit(rows.select(rows.split_points_N != 2), QUICK, seed=0)
        states = np.full((3, 1), 1.0)
        at_1, at_2, at_3 = surrogate.predict_log_ppl(np.array([1, 2, 3]), states)[0]
        assert at_1 > at_2 > at_3

    def test_over_a_perfect_link_the_clean_perplexity_is_known(self):
        """Rows at a noise of half the range and more say nothing of a perfect link."""
        p, x = grid(np.arange(1, 11), np.linspace(0.6, 1.2, 5))
        rows = table(p, x, true_log_ppl(p, x))
        points, perfect = np.arange(1, 11), np.zeros((10, 1))
        guessed, _ = fit(rows, QUICK, seed=0)[0].predict_log_ppl(points, perfect)
        surrogate, report = fit(rows, QUICK, seed=0, perfect_link=(0.0,))
        known, _ = surrogate.predict_log_ppl(points, perfect)
        assert np.abs(guessed - CLEAN_LOG_PPL).max() > 0.2
        assert np.abs(known - CLEAN_LOG_PPL).max() < 0.02
        assert report.rows == report.log_ppl.count == 50  # those that were measured
        assert surrogate.scaling.low_K == 0.0

    def test_rows_measured_over_a_perfect_link_are_not_judged(self):
        """Every member has learned what they say."""
        _, report = fit(noisy_table(), BEGUN, seed=0, perfect_link=(0.0,))
        assert report.rows == len(report.measured_log_ppl_N) == 140

    def test_a_codec_is_not_exact_over_a_perfect_link(self):
        rows, quick = coded_table(), {"config": BEGUN, "seed": 0}
        for codecs, alike in ((("int8", "int4"), True), (("int4", "identity"), False)):
            coded = replace(rows, codecs=codecs)
            without, _ = fit(coded, **quick)
            known, _ = fit(coded, **quick, perfect_link=(0.0,))
            same = np.array_equal(without.weights.first_MIH, known.weights.first_MIH)
            assert same == alike

    def test_too_few_rows_are_refused(self):
        rows = noisy_table().select(np.arange(9))
        with pytest.raises(UserError, match="9 measured rows"):
            fit(rows, SurrogateConfig(), seed=0)

    def test_rows_that_do_not_vary_are_predicted(self):
        rows = table(np.full(20, 3), np.full((20, 1), 0.5), np.full(20, 2.0))
        surrogate, report = fit(rows, QUICK, seed=0)
        assert surrogate.predict_log_ppl(np.array([3]), np.array([[0.5]]))[0] == pytest.approx(2.0)
        assert report.log_ppl.r2 == 0.0


class TestSurrogate:
    def test_numpy_equals_torch(self, fitted):
        """An independent forward pass in torch float64, one member and one row at a time."""
        surrogate, _ = fitted
        split_point, noise_std = 7, 0.83
        weights = {
            name: torch.from_numpy(getattr(surrogate.weights, name)).double()
            for name in surrogate.weights.__dataclass_fields__
        }
        x = torch.tensor(
            [2 * (split_point - 1) / 9 - 1, 2 * noise_std / 1.2 - 1], dtype=torch.float64
        )
        outputs = []
        for member in range(5):
            hidden = x @ weights["first_MIH"][member] + weights["first_bias_M1H"][member, 0]
            hidden = torch.nn.functional.silu(hidden + weights["departure_MPH"][member, 6])
            hidden = hidden @ weights["second_MHH"][member] + weights["second_bias_M1H"][member, 0]
            hidden = torch.nn.functional.silu(hidden)
            last = hidden @ weights["last_MH1"][member] + weights["last_bias_M11"][member, 0]
            outputs.append(last.item())
        rows = noisy_table()
        expected = np.array(outputs) * rows.log_ppl_N.std() + rows.log_ppl_N.mean()
        mean, spread = surrogate.predict_log_ppl(np.array([split_point]), np.array([[noise_std]]))
        assert mean[0] == pytest.approx(expected.mean(), rel=1e-6)
        assert spread[0] == pytest.approx(expected.std(), rel=1e-3, abs=1e-6)

    def test_many_rows_equal_single_rows(self, fitted):
        surrogate, _ = fitted
        rng = np.random.default_rng(0)
        p, x = rng.integers(1, 11, 10_000), rng.uniform(0, 1.2, (10_000, 1))
        mean, _ = surrogate.predict_log_ppl(p, x)
        for row in (0, 4095, 4096, 9_999):
            single, _ = surrogate.predict_log_ppl(p[row : row + 1], x[row : row + 1])
            assert mean[row] == pytest.approx(single[0], rel=1e-6)
        assert mean.shape == (10_000,)
        assert surrogate.predict_log_ppl(p[:0], x[:0])[0].shape == (0,)

    def test_far_outside_the_trained_range_the_border_counts(self, fitted):
        surrogate, _ = fitted
        states = np.array([[1.26], [50.0]])
        border, far = surrogate.predict_log_ppl(np.array([5, 5]), states)[0]
        assert far == pytest.approx(border, rel=1e-6)

    @pytest.mark.parametrize("split_point", [0, 11])
    def test_a_split_point_outside_the_trained_range_is_refused(self, fitted, split_point):
        with pytest.raises(UserError, match=r"outside 1\.\.10"):
            fitted[0].predict_log_ppl(np.array([5, split_point]), np.zeros((2, 1)))

    def test_save_and_load_keep_every_bit(self, fitted, tmp_path):
        surrogate, report = fitted
        surrogate.save(tmp_path)
        report.save(tmp_path)
        again = Surrogate.load(tmp_path)
        at = grid(np.arange(1, 11), np.linspace(0, 1.2, 7))
        np.testing.assert_array_equal(again.predict_log_ppl(*at), surrogate.predict_log_ppl(*at))
        assert again.link_names == ("noise_std",)
        assert again.clean_log_ppl == surrogate.clean_log_ppl
        read = FitReport.load(tmp_path)
        assert (read.rows, read.log_ppl, read.gain) == (150, report.log_ppl, report.gain)
        np.testing.assert_array_equal(read.predicted_log_ppl_N, report.predicted_log_ppl_N)

    @pytest.mark.parametrize("name", ["surrogate.safetensors", "surrogate.json"])
    @pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
    def test_damage_is_always_detected(self, fitted, tmp_path, name, damage):
        fitted[0].save(tmp_path)
        path = tmp_path / name
        content = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(content[: len(content) // 2])
        else:
            content[-5] ^= 64
            path.write_bytes(content)
        with pytest.raises(UserError):
            Surrogate.load(tmp_path)

    def test_a_changed_description_is_refused(self, fitted, tmp_path):
        fitted[0].save(tmp_path)
        path = tmp_path / "surrogate.json"
        description = json.loads(path.read_text())
        path.write_text(json.dumps(description | {"clean_log_ppl": 2.0}))
        with pytest.raises(UserError, match="changed after it was saved"):
            Surrogate.load(tmp_path)

    def test_a_damaged_report_is_named(self, fitted, tmp_path):
        fitted[1].save(tmp_path)
        path = tmp_path / "fit.json"
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"rows": 150', b'"rows": 151'))
        with pytest.raises(UserError, match=r"fit\.json was changed .*; fit the surrogate again"):
            FitReport.load(tmp_path)
        path.write_bytes(whole[:-9])
        with pytest.raises(UserError, match=r"fit\.json is damaged"):
            FitReport.load(tmp_path)

    def test_a_report_of_another_version_is_named(self, fitted, tmp_path):
        fitted[1].save(tmp_path)
        plain = read_sealed(tmp_path / "fit.json", "")
        del plain["log_ppl"]
        write_sealed(tmp_path / "fit.json", plain)
        with pytest.raises(UserError, match=r"fit\.json: no complete report"):
            FitReport.load(tmp_path)

    def test_inference_needs_no_torch(self, fitted, tmp_path):
        fitted[0].save(tmp_path)
        code = (
            "import sys, pathlib, numpy as np\n"
            "from raysplit.surrogate import Surrogate\n"
            f"s = Surrogate.load(pathlib.Path({str(tmp_path)!r}))\n"
            "s.predict_log_ppl(np.array([1]), np.array([[0.5]]))\n"
            "assert 'torch' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestQuality:
    def test_statistics_by_hand(self):
        statistics = ErrorStatistics.of(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
        assert statistics.count == 3
        assert statistics.mse == pytest.approx(2 / 3)
        assert statistics.mae == pytest.approx(2 / 3)
        assert statistics.r2 == pytest.approx(0.0)
        assert statistics.rank_correlation == pytest.approx(0.5)

    def test_where_nothing_varies_there_is_no_rank_correlation(self):
        statistics = ErrorStatistics.of(np.array([1.0, 2.0, 3.0]), np.full(3, 2.0))
        assert statistics.rank_correlation == 0.0

    def test_pairs_share_the_link_state(self):
        p = np.array([2, 1, 3, 2, 1, 2])
        states = np.array([[0.1], [0.1], [0.1], [0.2], [0.3], [0.3]])
        later, first = gain_pairs(table(p, states, np.zeros(6)))
        assert list(zip(later, first, strict=True)) == [(0, 1), (2, 1), (5, 4)]

    def test_the_gain_is_relative_to_the_smallest_split_point(self):
        rows = table(np.array([1, 4]), np.zeros((2, 1)), np.log([50.0, 40.0]))
        judged = report(rows, np.log([50.0, 30.0]), folds=2, seconds=0.0)
        np.testing.assert_allclose(judged.measured_gain_G, [0.2])
        np.testing.assert_allclose(judged.predicted_gain_G, [0.4])

    def test_without_pairs_there_is_no_gain(self):
        rng = np.random.default_rng(0)
        p, x = np.tile(np.arange(1, 5), 10), rng.uniform(0, 1, (40, 1))
        _, report = fit(table(p, x, true_log_ppl(p, x)), SurrogateConfig(steps=20), seed=0)
        assert report.gain is None
        assert report.measured_gain_G.shape == (0,)


@pytest.mark.slow
def test_each_codec_has_its_own_predictions(tmp_path):
    surrogate, found = fit(coded_table(), QUICK, seed=0)
    assert found.log_ppl.r2 > 0.99
    p, x = grid(np.arange(2, 10), np.array([0.2, 0.5, 1.0]))
    first, _ = surrogate.predict_log_ppl(p, x)
    second, _ = surrogate.predict_log_ppl(p, x, np.ones(len(p), dtype=np.int64))
    np.testing.assert_allclose(first, true_log_ppl(p, x), atol=0.1)
    np.testing.assert_allclose(second - first, np.log(2), atol=0.1)
    surrogate.save(tmp_path)
    again = Surrogate.load(tmp_path)
    assert again.codecs == ("int8", "int4")
    np.testing.assert_array_equal(again.predict_log_ppl(p, x, np.ones(len(p), int))[0], second)


def test_one_codec_alone_is_no_input():
    """Whatever its name, the surrogate is that of a table that knows no codecs."""
    plain = noisy_table()
    named = replace(plain, codecs=("int4/64",), codecs_N=np.zeros(len(plain), dtype=np.int64))
    ours, theirs = (fit(rows, BEGUN, seed=0)[0] for rows in (plain, named))
    p, x = grid(np.arange(1, 11), np.array([0.3]))
    np.testing.assert_array_equal(ours.predict_log_ppl(p, x)[0], theirs.predict_log_ppl(p, x)[0])
    assert ours.weights.first_MIH.shape[1] == 2


def test_gains_compare_rows_of_one_codec():
    rows = table(
        np.array([1, 1, 2, 2, 2]), np.array([[0.5], [0.5], [0.5], [0.5], [0.7]]), np.arange(5.0)
    )
    rows = replace(rows, codecs=("int8", "int4"), codecs_N=np.array([0, 1, 1, 0, 0]))
    later, first = gain_pairs(rows)
    assert (later.tolist(), first.tolist()) == ([2, 3], [1, 0])
