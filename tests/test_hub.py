"""Models from the hub, by the real download path, against a stand-in on loopback."""

import os
import socket
import threading

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from raysplit.base.errors import UserError
from raysplit.base.proxies import PROXY_VARIABLES
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.texts import read_paragraphs
from raysplit.model.checkpoint import open_checkpoint
from raysplit.model.load import load_span
from raysplit.model.tokenizer import load_tokenizer
from tests import fault_driver
from tests.commands import raysplit
from tests.hub_stand_in import COMMIT, serving
from tests.tiny_models import LAYERS

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    fault_driver.save_model(folder)
    (folder / "text.txt").unlink()
    return folder


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
    """The stand-in, an empty cache, and nothing of this machine's own network settings."""
    for name in [*PROXY_VARIABLES, "no_proxy", "NO_PROXY", "HF_TOKEN"]:
        monkeypatch.delenv(name, raising=False)
    with serving(model) as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no_token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "DOWNLOAD_CHUNK_SIZE": 4096,  # the model is small
        }.items():
            monkeypatch.setattr(constants, name, value)
        huggingface_hub.close_session()

        yield hub
    huggingface_hub.close_session()


def usable(checkpoint):
    load_span(checkpoint, 0, LAYERS)
    return load_tokenizer(checkpoint)("w3 w4")["input_ids"] == [3, 4]


def starts(hub):
    """The byte from which each request wanted the weights."""
    return [int((given or "bytes=0-")[6:-1]) for _, given in hub.bytes_of(WEIGHTS)]


def refusal(*arguments):
    with pytest.raises(UserError) as refused:
        open_checkpoint(*arguments)
    message = str(refused.value)
    assert message.count("\n") <= 1
    return message


def test_a_model_is_downloaded_once(hub):
    assert usable(open_checkpoint("org/tiny"))
    assert len(hub.bytes_of(WEIGHTS)) == 1
    asked = len(hub.log)
    assert open_checkpoint("org/tiny").folder.name == COMMIT
    assert len(hub.bytes_of(WEIGHTS)) == 1
    assert open_checkpoint("org/tiny", COMMIT).folder.name == COMMIT
    assert len(hub.log) <= asked + 2  # what `main` stands for, twice: config and weights


def test_a_gated_model_is_refused_with_the_way_in_and_given_with_a_token(hub, monkeypatch):
    hub.gated = True
    message = refusal("org/tiny")
    assert "'org/tiny'" in message
    assert "hf auth login" in message
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    assert usable(open_checkpoint("org/tiny"))


def test_what_the_hub_does_not_have_is_refused(hub):
    assert "model.revision" in refusal("org/tiny", "v9")
    assert "check the id" in refusal("org/other")
    assert "'org/tiny'" in refusal("org/tiny", "f" * 40)


def test_a_line_that_is_cut_is_taken_up_where_it_broke(hub):
    size = (hub.folder / WEIGHTS).stat().st_size
    hub.cut_after[WEIGHTS] = [size // 3, size // 2]
    assert usable(open_checkpoint("org/tiny"))
    first, second, third = starts(hub)
    assert first == 0 < second <= size // 3 < third <= size // 2


def test_a_hub_that_is_down_is_said_in_one_line(hub, monkeypatch):
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between its tries
    hub.down = 500
    assert "'org/tiny'" in refusal("org/tiny")
    hub.down = None
    assert usable(open_checkpoint("org/tiny"))
    hub.down = 503
    assert usable(open_checkpoint("org/tiny"))  # from the cache


@pytest.fixture
def impatient(monkeypatch):
    """A user who allows the hub half a second, and no pause between huggingface_hub's tries."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.5)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


@pytest.mark.parametrize("answered", [0, 1, 2, 8])
def test_a_hub_that_never_answers_is_not_waited_for(hub, impatient, answered):
    """From the first request on, in the list of files, and in the files."""
    hub.silent_after = answered
    message = refusal("org/tiny")
    assert "'org/tiny' (revision main) is not in the local Hugging Face cache" in message
    assert "check the network" in message
    assert len(hub.log) > answered
    if answered < 2:
        assert "gave no answer within 0.5 s (HF_HUB_ETAG_TIMEOUT)" in message


def test_a_cached_model_is_used_where_the_hub_never_answers(hub, impatient):
    assert usable(open_checkpoint("org/tiny"))
    hub.silent_after = len(hub.log)
    assert usable(open_checkpoint("org/tiny"))


def test_a_data_set_is_not_waited_for_either(hub, impatient, monkeypatch, capfd):
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    hub.silent_after = 0
    with pytest.raises(UserError, match="check the network, or give a local copy"):
        read_paragraphs(CorpusConfig(source="wikitext-2", revision="main"))
    assert hub.log
    assert "Retrying" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_command_ends_where_the_hub_never_answers(hub, tmp_path):
    hub.silent_after = 0
    given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    timeouts = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    done = raysplit(
        "measure", "demo", "--set=model.name=org/tiny", "--out", tmp_path / "out",
        env=os.environ | given | timeouts,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'org/tiny'")
    assert done.stderr.count("\n") == 1
    assert "gave no answer within 1 s" in done.stderr


def test_a_download_that_was_given_up_needs_only_what_is_missing(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    size = (hub.folder / WEIGHTS).stat().st_size
    hub.cut_after[WEIGHTS] = [size // 2] + [0] * 8  # what it gives, and then nothing any more
    message = refusal("org/tiny")
    assert "start again" in message
    hub.cut_after.clear()
    asked = len(hub.log)
    assert usable(open_checkpoint("org/tiny"))
    got = [path for method, path, _ in hub.log[asked:] if method == "GET" and "/resolve/" in path]
    assert [path.rpartition("/")[2] for path in got] == [WEIGHTS]  # whole files are not got again


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("all_proxy", "socks5://127.0.0.1:9"),
        ("ALL_PROXY", "socks5h://127.0.0.1:9"),
        ("http_proxy", "socks4://127.0.0.1:9"),
        ("HTTPS_PROXY", "socks5://127.0.0.1:9"),
        ("all_proxy", "http://127.0.0.1:9"),
        ("http_proxy", "http://user:secret@127.0.0.1:port"),
        ("http_proxy", "ftp://127.0.0.1:9"),
        ("http_proxy", "http://[::1"),
        ("http_proxy", "://"),
        ("no_proxy", "[::1"),
    ],
)
def test_a_proxy_that_cannot_be_used(hub, monkeypatch, variable, value):
    """A model in the cache is used all the same; one that is not is refused in a line."""
    assert usable(open_checkpoint("org/tiny"))
    monkeypatch.setenv(variable, value)
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        huggingface_hub.close_session()
        assert usable(open_checkpoint("org/tiny"))
        message = refusal("org/other")
        assert "secret" not in message


def test_the_proxy_is_named_where_it_is_in_the_way(hub, monkeypatch):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    huggingface_hub.close_session()
    message = refusal("org/tiny")
    assert "socks" in message.lower()
    assert "mend or unset all_proxy" in message


def test_a_proxy_that_wants_a_password(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse():
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    line.recv(4096)
                    line.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
        huggingface_hub.close_session()
        assert "mend or unset https_proxy" in refusal("org/tiny")
        server.shutdown(socket.SHUT_RDWR)


def test_a_closed_cache_folder_is_named(hub, tmp_path, monkeypatch):
    folder = tmp_path / "closed"
    folder.write_text("a file where the folder should be")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    assert str(folder) in refusal("org/tiny")
