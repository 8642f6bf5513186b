"""What a run says of its text, and keeps in the protocol card."""

import json

import pytest

from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.measure.config import MeasuringConfig
from raysplit.measure.prepare import prepare_job
from raysplit.model.config import ModelConfig
from tests import fault_driver
from tests.commands import SMALL, raysplit_here


def card_of(tmp_path, source, unit="sentence"):
    fault_driver.save_model(tmp_path)
    lines = [*(tmp_path / "text.txt").read_text().split("\n"), "w3 " * 40 + ".", "w2 w2"]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    job, card = prepare_job(
        model=ModelConfig(name=str(tmp_path)),
        corpus=CorpusConfig(source=source, path=tmp_path / "text.txt"),
        protocol=ProtocolConfig(unit=unit, context=24, stride=10),
        link=LinkConfig(),
        measuring=MeasuringConfig(),
        split_points=(1, 3),
        device="cpu",
    )
    return job, card["corpus"]


def test_the_card_of_a_users_text_holds_what_was_used(tmp_path):
    job, corpus = card_of(tmp_path, "file")
    assert corpus["sentence_rule"] == 2
    assert corpus["sentences"] == {
        "used": 201,
        "found": 202,
        "outside_length": 1,
        "duplicates": 0,
        "not_drawn": 0,
        "unscored": 0,
        "cut_at_context": 1,
    }
    assert corpus["sequences"] == len(job.corpus.sequences) == 201
    assert max(len(s.token_ids) for s in job.corpus.sequences) == 24


@pytest.mark.parametrize(
    ("source", "unit"), [("wikitext-2", "sentence"), ("file", "sliding_window")]
)
def test_other_cards_are_what_they_were(tmp_path, source, unit):
    """The card's hash is in the key of every row."""
    _, corpus = card_of(tmp_path, source, unit)
    assert "sentences" not in corpus
    assert corpus.get("sentence_rule") == (1 if unit == "sentence" else None)


@pytest.mark.slow
def test_a_run_says_what_of_a_text_it_uses(tmp_path):
    numbers = ["1.5", "2.5", "3.5", "4.5", "5.5", "6.5", "7.5", "8.5"]
    paragraph = " ".join(f"При частоте {n} ГГц телефон считает слои модели." for n in numbers)
    chinese = "手机计算模型的前几层。其余各层由服务器计算。信道变差时怎么办。分割点随链路移动。"
    text = tmp_path / "text.txt"
    text.write_text("\n".join([paragraph, chinese, paragraph, "Да."]), encoding="utf-8")
    done = raysplit_here(
        "measure",
        "demo",
        "--out",
        tmp_path / "run",
        *SMALL,
        f"--set=corpus={{source: file, path: {text}, max_words: 20}}",
    )
    assert done.returncode == 0, done.stderr
    assert "used 12 of 21 sentences, 1 left out by length, 8 duplicates\n" in done.stderr
    card = json.loads((tmp_path / "run/protocol_card.json").read_text())
    assert card["corpus"]["sentences"]["used"] == card["corpus"]["sequences"] == 12
