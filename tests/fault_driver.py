"""A small measuring run that can be broken: a tiny model, its text, and actors made slow or deadly.

As a program it measures with Ray, waiting for a kill: `python -m tests.fault_driver FOLDER LEDGER`.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sequences import ProtocolConfig
from raysplit.link.config import LinkConfig
from raysplit.link.state import LinkState
from raysplit.measure.config import BackendConfig, MeasuringConfig
from raysplit.measure.ledger import Ledger
from raysplit.measure.prepare import prepare_job
from raysplit.measure.service import MeasuringService
from raysplit.measure.setting import Setting
from raysplit.measure.shards.edge import EdgeShard
from raysplit.model.config import ModelConfig
from tests.tiny_models import VOCABULARY, save_tiny

INPROCESS = BackendConfig(kind="inprocess")
POISON_SEED = 666


def settings(count=12):
    """Different split points, noises and seeds."""
    return [Setting(1 + i % 5, LinkState(noise_std=0.2 + 0.1 * i), i) for i in range(count)]


def save_model(folder):
    """A tiny Llama with a word tokenizer and a text of 200 sentences."""
    save_tiny(folder, "llama", tie_word_embeddings=False)
    words = {"<s>": 1} | {f"w{i}": i for i in range(VOCABULARY) if i != 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    rng = random.Random(0)
    lines = [
        " ".join(f"w{rng.randrange(2, VOCABULARY)}" for _ in range(rng.randrange(5, 20))) + " w2"
        for _ in range(200)
    ]
    (folder / "text.txt").write_text("\n".join(lines))


def prepared(folder):
    return prepare_job(
        model=ModelConfig(name=str(folder)),
        corpus=CorpusConfig(source="file", path=folder / "text.txt"),
        protocol=ProtocolConfig(context=24),
        link=LinkConfig(),
        measuring=MeasuringConfig(target_stderr=0.0),
        split_points=(1, 5),
        device="cpu",
    )


def measure(folder, ledger_path, wanted, backend=INPROCESS):
    """Rows by setting."""
    job, card = prepared(folder)
    with (
        Ledger(ledger_path) as ledger,
        MeasuringService(job, card, ledger, backend) as service,
    ):
        return service.measure(wanted)


def facts(rows):
    """What has to be equal, whatever happened on the way: all but who, when and how often."""
    plain = {"attempts": 0, "seconds": 0.0, "worker": "", "finished": 0.0}
    return [astuple(replace(row, **plain)) for row in rows.values()]


def rows_in(ledger_path):
    """Rows that a ledger in use holds, and their workers' process ids."""
    return _column(ledger_path, "SELECT worker FROM settings ORDER BY rowid")


def clean_blocks_in(ledger_path):
    """Blocks of the clean pass that a ledger in use holds."""
    return _column(ledger_path, "SELECT block FROM clean_blocks ORDER BY rowid")


def _column(ledger_path, query):
    try:
        reader = sqlite3.connect(f"file:{ledger_path}?mode=ro", uri=True, timeout=5)
        try:
            return [row[0] for row in reader.execute(query)]
        finally:
            reader.close()
    except sqlite3.OperationalError:  # not there yet
        return []


def when_rows(ledger_path, count, act: Callable[[list[str]], None]):
    """Start a thread that acts once the ledger holds so many rows."""

    def watch():
        while len(workers := rows_in(ledger_path)) < count:
            time.sleep(0.02)
        act(workers)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def _plain(actor_class):
    """The class that `ray.remote` wrapped."""
    return actor_class.__ray_metadata__.modified_class


def faulty_actors(folder, seconds=0.25):
    """UE and edge actors that take their time and note in `folder` where they run.

    A setting with the seed `POISON_SEED` kills its actor; while there is a file `hold`, settings
    wait. The classes are made here, inside a function, so that Ray carries them to the actors
    whole.
    """
    import ray

    from raysplit.measure.on_ray.actors import EdgeActor, UEActor

    poison = POISON_SEED

    def note(name):
        context = ray.get_runtime_context()
        text = f"{os.getpid()} {context.get_node_id()}"
        (Path(folder) / f"{name}-{os.getpid()}").write_text(text)

    class SlowUE(_plain(UEActor)):
        def begin_clean_pass(self, *arguments):
            note("ue")
            time.sleep(seconds)
            return super().begin_clean_pass(*arguments)

        def clean_hidden(self, *arguments):
            note("ue")
            time.sleep(seconds)
            return super().clean_hidden(*arguments)

    class FaultyEdge(_plain(EdgeActor)):
        def ready(self, *arguments):
            note("edge")
            return super().ready(*arguments)

        def clean_block(self, shared, block, *arguments):
            with (Path(folder) / "clean-blocks").open("a") as file:
                file.write(f"{block} {os.getpid()}\n")
            time.sleep(seconds)
            return super().clean_block(shared, block, *arguments)

        def measure(self, shared, setting, *arguments):
            if setting.seed == poison:
                os._exit(1)
            time.sleep(seconds)
            while (Path(folder) / "hold").exists():
                time.sleep(0.05)
            return super().measure(shared, setting, *arguments)

    return ray.remote(SlowUE), ray.remote(FaultyEdge)


def drive_clean_pass_slowly(folder, ledger_path, journal):
    """Run the clean pass in this process, noting each start of a block in a journal."""
    plain = EdgeShard.clean_nll

    def noted(self, block, *arguments):
        with open(journal, "a") as file:
            file.write(f"{block}\n")
        time.sleep(0.2)
        return plain(self, block, *arguments)

    EdgeShard.clean_nll = noted
    measure(folder, ledger_path, settings(1))


def drive_slowly(folder, ledger_path, journal, count):
    """Measure in this process, noting each start of a setting in a journal."""
    plain = EdgeShard.measure

    def noted(self, setting, *arguments):
        with open(journal, "a") as file:
            file.write(f"{setting.seed}\n")
        time.sleep(0.02)
        return plain(self, setting, *arguments)

    EdgeShard.measure = noted
    measure(folder, ledger_path, settings(count))


def measure_with_ray(folder, ledger_path):
    """Measure with a Ray that this process starts."""
    from raysplit.measure.on_ray import backend as room

    room.UEActor, room.EdgeActor = faulty_actors(folder)
    measure(folder, ledger_path, settings(), BackendConfig(edge_shards=2))


if __name__ == "__main__":
    measure_with_ray(Path(sys.argv[1]), Path(sys.argv[2]))
