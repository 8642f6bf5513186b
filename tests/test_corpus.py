"""Corpus: what is held out, how sentences are cut, how sequences become blocks and batches."""

import ast
import random
import re
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from raysplit.base.errors import UserError
from raysplit.corpus import cpython_docs
from raysplit.corpus.batches import BATCH_SEQUENCES, BLOCK_SEQUENCES, TokenCorpus
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sentences import split_into_sentences
from raysplit.corpus.sequences import sentence_sequences, window_sequences
from raysplit.corpus.texts import draw_sentences, read_paragraphs


@pytest.mark.slow
def test_held_out_part_is_stable_and_near_its_share():
    paragraphs = cpython_docs.paragraphs()
    held_out = [p for p in paragraphs if cpython_docs.is_held_out(p)]
    assert len(paragraphs) == len(set(paragraphs)) > 3000
    assert 0.03 < len(held_out) / len(paragraphs) < 0.07
    # A fixed text keeps its side on every machine and in every version.
    assert not cpython_docs.is_held_out("The quick brown fox jumps over the lazy dog.")
    decided = [i for i in range(60) if cpython_docs.is_held_out(f"paragraph {i}")]
    assert decided == [5, 21, 25, 29, 33, 47]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of one module, an empty cache, and how often the library was parsed."""
    module = tmp_path / "lib" / "module.py"
    module.parent.mkdir()
    monkeypatch.setenv("RAYSPLIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cpython_docs.sysconfig, "get_path", lambda _: str(module.parent))
    monkeypatch.setattr(cpython_docs, "is_held_out", lambda paragraph: "held out" in paragraph)
    monkeypatch.setitem(sys.modules, "pydoc_data", None)  # some distributions leave it out
    parsed = []
    docstrings = cpython_docs._docstrings
    monkeypatch.setattr(cpython_docs, "_docstrings", lambda p: parsed.append(p) or docstrings(p))

    def read(text=None):
        if text is not None:
            words = " and so it goes on with words, so that it is long enough"
            module.write_text(f'"""Here {text}{words}.\n\nOf the other part{words}."""')
        cpython_docs.held_out_paragraphs.cache_clear()
        return [p.split(" and ")[0] for p in cpython_docs.held_out_paragraphs()]

    yield SimpleNamespace(read=read, parsed=parsed, cache=tmp_path / "cache", module=module)
    cpython_docs.held_out_paragraphs.cache_clear()


def test_a_library_is_parsed_once_until_it_changes(library):
    assert library.read("held out") == library.read() == ["Here held out"]
    assert len(library.parsed) == 1
    assert library.read("held out, and otherwise") == ["Here held out,"]
    assert len(library.parsed) == 2


def test_what_is_kept_of_the_library_is_read_again_where_it_is_damaged_or_cannot_be(library):
    library.read("held out")
    (kept,) = library.cache.iterdir()
    kept.write_text(kept.read_text().replace("Here", "There"))
    assert library.read() == ["Here held out"]
    kept.unlink()
    kept.mkdir()
    assert library.read() == library.read() == ["Here held out"]
    assert len(library.parsed) == 4


def test_without_a_home_nothing_is_kept(library, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYSPLIT_CACHE", "~nobody-of-this-name/cache")
    assert library.read("held out") == library.read() == ["Here held out"]
    assert len(library.parsed) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["lib"]


def test_a_link_to_nothing_in_the_library_is_passed_over(library):
    (library.module.parent / "gone.py").symlink_to("nowhere.py")
    assert library.read("held out") == ["Here held out"]


def test_docstrings_come_in_the_order_of_asts_own_walk(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        '''"""The module."""
if True:
    def deep(): """Deep in an if."""
else:
    class Other:
        """Other."""
        async def method(self):
            """A method."""
            try:
                def tried(): """In a try."""
            except* OSError:
                def caught(): """In a handler."""
            else:
                def fine(): """In an else."""
            finally:
                def last(): """In a finally."""
        match 1:
            case 1:
                def matched(): """In a case."""
def shallow(f=lambda: 0):
    """Shallow."""
    for _ in ():
        def looped(): """In a loop."""
'''
    )
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    walked = ast.walk(ast.parse(source.read_text()))
    wanted = [ast.get_docstring(node) for node in walked if isinstance(node, documented)]
    assert list(cpython_docs._docstrings(source)) == wanted
    assert len(wanted) == 11


def test_sentences_are_cut_at_their_ends_only():
    text = (
        'He came at 5 p.m. to see it, i.e. the house. "Why?" she said. '
        "It was 3.5 m high . Then he left."
    )
    assert split_into_sentences(text, "embedded") == [
        "He came at 5 p.m. to see it, i.e. the house.",
        '"Why?" she said.',
        "It was 3.5 m high .",
        "Then he left.",
    ]


def test_sentences_outside_the_word_range_are_left_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("One two. One two three. Three more words. One two three four five six.")
    config = CorpusConfig(source="file", path=path, min_words=3, max_words=5)
    assert sorted(draw_sentences(config).texts) == ["One two three.", "Three more words."]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("= Heading =", False),
        ("= = Section = =", False),
        ("= 1 + 1 =", False),
        ("= =", True),
        ("a = b =", True),
        ("= begins like one", True),
    ],
)
def test_headings_of_wikitext_are_no_text(tmp_path, line, kept):
    path = tmp_path / "text.txt"
    path.write_text(f"{line}\nSome text .\n")
    config = CorpusConfig(source="wikitext-2", path=path)
    assert read_paragraphs(config) == [line] * kept + ["Some text ."]


def test_a_line_of_nothing_but_marks_of_headings_is_read_at_once(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("= " * 200_000 + "x\n")
    started = time.perf_counter()
    assert len(read_paragraphs(CorpusConfig(source="wikitext-2", path=path))) == 1
    assert time.perf_counter() - started < 2


def test_file_corpus_drops_headings_and_draws_in_a_seeded_order(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(
        " = Heading of the text here = \n\n"
        + "\n".join(f"This is sentence number {i} of them ." for i in range(30))
    )
    config = CorpusConfig(source="file", path=path)
    sentences = draw_sentences(config).texts
    assert len(sentences) == 30
    assert not any("Heading" in s for s in sentences)
    assert sentences == draw_sentences(config).texts
    assert sentences != draw_sentences(config.model_copy(update={"seed": 1})).texts
    capped = draw_sentences(config.model_copy(update={"max_sentences": 7})).texts
    assert capped == sentences[:7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Short.\n", "holds 0 sentences of 5-60 words"),
        (b"\xff\xfe\x00", "is UTF-16 or UTF-32 text: convert it, .*iconv -f UTF-16 -t UTF-8"),
        ("Some text.".encode("utf-16-be"), "holds NUL bytes"),
        ("Some text.".encode("utf-32"), "is UTF-16 or UTF-32 text"),
        ("Dvořák".encode("iso-8859-2"), "is not UTF-8 text"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        draw_sentences(CorpusConfig(source="file", path=path))


def test_the_command_that_converts_a_file_can_be_pasted(tmp_path):
    path = tmp_path / "my text.txt"
    path.write_text("This is a sentence of it .", encoding="utf-16")
    with pytest.raises(UserError, match=re.escape(f"-t UTF-8 '{path}' > utf8.txt`")):
        draw_sentences(CorpusConfig(source="file", path=path))


def test_byte_order_marks_are_no_text(tmp_path):
    """Not before the text, nor within, where files were joined (`cat a.txt b.txt`)."""
    path = tmp_path / "text.txt"
    lines = [
        "This is the first sentence .",
        "This is the second sentence .",
        "And one more of it .",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    plain = draw_sentences(CorpusConfig(source="file", path=path)).texts
    path.write_text("".join(f"\ufeff{line}\n" for line in lines), encoding="utf-8")
    assert draw_sentences(CorpusConfig(source="file", path=path)).texts == plain


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt cannot be read"):
        draw_sentences(CorpusConfig(source="file", path=tmp_path / "nowhere.txt"))


def _corpus(count=150):
    rng = random.Random(3)
    lists = [[rng.randrange(2, 50) for _ in range(rng.randrange(5, 40))] for _ in range(count)]
    return lists, TokenCorpus(tuple(sentence_sequences(lists, 1, 256)))


def test_batches_hold_every_sequence_once_and_in_its_block():
    lists, corpus = _corpus()
    seen = []
    for number, block in enumerate(corpus.blocks):
        members = np.concatenate([batch.sequence_indices_B for batch in block])
        low = number * BLOCK_SEQUENCES
        assert sorted(members) == list(range(low, min(low + BLOCK_SEQUENCES, len(lists))))
        lengths = [int(n) for batch in block for n in batch.lengths_B]
        assert lengths == sorted(lengths)  # similar lengths share a batch
        seen += [batch.index for batch in block]
        assert all(len(batch.lengths_B) <= BATCH_SEQUENCES for batch in block)
    assert seen == list(range(len(seen)))


def test_the_device_runs_every_input_scored_or_not():
    windows = window_sequences(range(2, 100), 1, context=12, stride=4)
    corpus = TokenCorpus(tuple(windows))
    assert corpus.inputs_N.tolist() == [11] * len(windows)
    assert corpus.tokens_N[1] == 4
    fed = sum(int(batch.lengths_B.sum()) for block in corpus.blocks for batch in block)
    assert corpus.inputs_N.sum() == fed
    for bos in (1, None):  # a sentence is scored as far as it is fed
        sentences = TokenCorpus(tuple(sentence_sequences([[5, 6, 7], [8, 9]], bos, 8)))
        assert sentences.inputs_N.tolist() == sentences.tokens_N.tolist()


def test_batches_feed_each_token_and_score_its_successor():
    lists, corpus = _corpus(40)
    for block in corpus.blocks:
        for batch in block:
            for b, index in enumerate(batch.sequence_indices_B):
                tokens = [1, *lists[index]]
                n = batch.lengths_B[b]
                assert batch.inputs_BT[b, :n].tolist() == tokens[:-1]
                assert batch.targets_BT[b, :n].tolist() == tokens[1:]
                assert batch.scored_BT[b, :n].all()
                assert not batch.scored_BT[b, n:].any()


def test_the_corpus_hash_sees_tokens_order_and_scoring():
    lists, corpus = _corpus(20)
    same = TokenCorpus(tuple(sentence_sequences(lists, 1, 256)))
    other_order = TokenCorpus(tuple(sentence_sequences(lists[::-1], 1, 256)))
    without_bos = TokenCorpus(tuple(sentence_sequences(lists, None, 256)))
    assert corpus.sha256 == same.sha256
    assert len({corpus.sha256, other_order.sha256, without_bos.sha256}) == 3
