"""Tokenizers that do not fit are refused in a line, before anything heavy is loaded."""

import json
import shutil
from pathlib import Path

import pytest

from raysplit.base.errors import UserError
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.measure.config import MeasuringConfig
from raysplit.measure.prepare import prepare_job
from raysplit.model.config import ModelConfig
from tests import fault_driver
from tests.tiny_models import VOCABULARY


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    fault_driver.save_model(folder)
    return folder


def prepare(folder):
    return prepare_job(
        model=ModelConfig(name=str(folder)),
        corpus=CorpusConfig(source="file", path=folder / "text.txt"),
        protocol=ProtocolConfig(context=24),
        link=LinkConfig(),
        measuring=MeasuringConfig(),
        split_points=(1, 5),
        device="cpu",
    )


def with_config(**changes):
    def edit(folder):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def with_a_large_id(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["w5"] = VOCABULARY
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_config(tokenizer_class="ByT5Tokenizer"), r"ByT5Tokenizer has no fast form .*put"),
        (with_config(bos_token={"content": "<s>"}), "no tokenizer that loads .*bos_token"),
        (with_config(bos_token="<zz>"), r"token id 97, .* embedding has 97 rows: .*put this"),
        (with_a_large_id, r"token id 97, .* embedding has 97 rows"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "no tokenizer that loads .*put the"),
        (lambda f: (f / "tokenizer.json").write_text(""), "no tokenizer that loads"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer that loads"),
        (lambda f: (f / "tokenizer_config.json").write_text("[]"), "no tokenizer that loads"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(llama, tmp_path, edit, message):
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    edit(folder)
    with pytest.raises(UserError, match=message) as caught:
        prepare(folder)
    assert str(caught.value).count("\n") <= 1
