"""Sentences of any script: where they end, how long they are, and what is said about the rest."""

import random
import re
import time

import pytest
import regex

from raysplit.base.errors import UserError
from raysplit.corpus import texts
from raysplit.corpus.config import CorpusConfig
from raysplit.corpus.sentences import split_into_sentences, words_in
from raysplit.corpus.texts import draw_sentences, read_paragraphs
from raysplit.corpus.use import SentenceUse

RUSSIAN = [
    "Телефон считает первые слои модели.",
    "Остальные слои считает сервер, т. н. край сети!",
    "«Сколько бит уходит в эфир?»",
    "Это зависит от частоты — от 3.5 до 4.2 ГГц.",
]
CHINESE = [
    "手机计算模型的前几层。",
    "其余各层由边缘服务器计算!",
    "“信道变差时怎么办?”",
    "分割点随链路状态移动,困惑度因此保持不变。",
]
JAPANESE = ["電話は最初の層を計算する。", "残りはサーバーが計算します!", "リンクは悪くなりますか?"]
ARABIC = [
    "يحسب الهاتف الطبقات الأولى من النموذج.",
    "كم عدد البتات التي تعبر القناة؟",
    "تتحرك نقطة القطع مع حالة الوصلة!",
]
HINDI = ["फ़ोन मॉडल की पहली परतें चलाता है।", "बाकी परतें सर्वर चलाता है।"]
ENGLISH = [
    "The cell serves it at 3.5 GHz, i.e. in band n78.",
    "It is 5 p.m. in the U.S. or so...",
    '"Why?"',
    "(Nobody knows!)",
    "Then it ends .",
]


@pytest.mark.parametrize(
    ("sentences", "between"),
    [
        (RUSSIAN, " "),
        (CHINESE, ""),
        (JAPANESE, ""),
        (ARABIC, " "),
        (HINDI, " "),
        (ENGLISH, " "),
    ],
)
def test_a_paragraph_of_a_file_is_cut_at_the_ends_of_its_sentences(sentences, between):
    assert split_into_sentences(between.join(sentences), "file") == sentences


@pytest.mark.parametrize("source", ["embedded", "wikitext-2"])
def test_the_pinned_texts_keep_their_own_rule(source):
    text = f'"Why?" He asked. {" ".join(RUSSIAN)} He said "No." Then he left . It rained'
    assert split_into_sentences(text, source) == [
        f'"Why?" He asked. {" ".join(RUSSIAN)}',
        'He said "No." Then he left .',
        "It rained",
    ]
    assert words_in("手机计算模型的前几层。 Then", source) == 2


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("The phone sends it .", 5),  # as WikiText writes it, and as was always counted
        ("Телефон считает слои — первые.", 5),
        ("手机计算模型的前几层。", 10),
        ("用 Ray 测量 LLaMA2 模型!", 7),
        ("カメラの電話。", 6),
        ("ภาษาไทย", 2),  # of seven letters
        ("يحسب الهاتف الطبقات.", 3),
        ("전화는 첫 층을 계산한다.", 4),
        ("—", 1),
        ("", 0),
    ],
)
def test_words_are_counted_by_spaces_and_by_characters_where_there_are_none(sentence, words):
    assert words_in(sentence, "file") == words


def test_a_line_of_thai_is_one_sentence():
    """Thai marks no ends; docs/models.md says so."""
    line = "โทรศัพท์คำนวณชั้นแรก เซิร์ฟเวอร์คำนวณชั้นที่เหลือ"
    assert split_into_sentences(line, "file") == [line]
    assert 5 <= words_in(line, "file") <= 60


def sentence_ends(text):
    """The standard's rules one by one at every position (Unicode Standard Annex #29, SB1-SB998)."""
    # SB5: marks are looked through, so the rules see one class for each character with its marks.
    units = []
    for at, character in enumerate(text):
        # Ours: an opening bracket or quote before a letter opens.
        opens = regex.match(r"[\p{Ps}\p{Pi}]{1,4}[\p{L}\p{N}]", text[at:])
        kind = (
            "XX" if opens else next(k for k in CLASSES if regex.match(rf"\p{{SB={k}}}", character))
        )
        if kind in ("EX", "FO") and units:
            continue
        units.append((at, kind))
    kinds = [kind for _, kind in units]
    return [at for i, (at, _) in enumerate(units) if i and _ends(kinds, i)]


CLASSES = ["AT", "ST", "CL", "SP", "SC", "NU", "UP", "LO", "LE", "EX", "FO", "XX"]


def _ends(kinds, i):
    before = i - 1
    if kinds[before] == "AT" and kinds[i] == "NU":  # SB6
        return False
    if i > 1 and kinds[i - 2] in ("UP", "LO") and kinds[before] == "AT" and kinds[i] == "UP":  # SB7
        return False
    while before >= 0 and kinds[before] == "SP":
        before -= 1
    spaces = i - 1 - before
    while before >= 0 and kinds[before] == "CL":
        before -= 1
    if before < 0 or kinds[before] not in ("AT", "ST"):
        return False  # SB998
    letter = next((k for k in kinds[i:] if k in ("LE", "UP", "LO", "ST", "AT")), None)
    if kinds[before] == "AT" and letter == "LO":  # SB8
        return False
    if kinds[i] in ("SC", "AT", "ST"):  # SB8a
        return False
    return kinds[i] != "SP" and not (kinds[i] == "CL" and not spaces)  # SB9, SB10, else SB11


@pytest.mark.slow
def test_ends_are_those_of_the_standard():
    rng = random.Random(5)
    # Letters of each class, digits, marks, a soft hyphen, ends, closers, what goes on.
    letters = "aB1字я🙂. .!?,)(“\"'\u0301\u00ad。؟।»、:  ."
    for _ in range(4_000):
        text = "".join(rng.choice(letters) for _ in range(rng.randrange(1, 16)))
        expected, start = [], 0
        for end in [*sentence_ends(text), len(text)]:
            expected.append(text[start:end].strip())
            start = end
        assert split_into_sentences(text, "file") == [piece for piece in expected if piece], text


@pytest.mark.parametrize(
    "text", [". " * 100_000, "." * 200_000 + "a", "." + " " * 200_000 + "a", 'a.")' * 70_000]
)
def test_no_text_takes_long(text):
    started = time.process_time()
    split_into_sentences(text, "file")
    assert time.process_time() - started < 2


def written(tmp_path, *paragraphs, **options):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(paragraphs), encoding="utf-8")
    return CorpusConfig(source="file", path=path, **options)


def test_what_is_left_out_is_counted(tmp_path):
    config = written(
        tmp_path, " ".join(RUSSIAN), RUSSIAN[0], "Да.", "".join(CHINESE), max_sentences=5
    )
    drawn = draw_sentences(config)
    use = drawn.use
    # Four and four sentences, one of them twice, and one too short.
    assert (use.found, use.outside_length, use.duplicates, use.not_drawn) == (10, 1, 1, 3)
    assert use.used == len(drawn.texts) == 5
    assert set(drawn.texts) < {*RUSSIAN, *CHINESE}
    assert draw_sentences(config).texts == drawn.texts


def test_a_text_of_which_nothing_fits_is_refused_with_what_there_was(tmp_path):
    with pytest.raises(UserError, match=r"holds 1 sentences of 5-60 words \(and 2 of other"):
        draw_sentences(written(tmp_path, RUSSIAN[0], "Да.", "字" * 61))


def test_the_line_about_a_text_names_only_what_there_is():
    everything = SentenceUse(
        found=1200,
        outside_length=30,
        duplicates=20,
        not_drawn=100,
        unscored=2,
        cut_at_context=7,
    )
    assert everything.describe() == (
        "used 1,048 of 1,200 sentences, 30 left out by length, 20 duplicates, 100 not drawn, "
        "2 of a single token, 7 cut at the context"
    )
    assert SentenceUse(found=3).describe() == "used 3 of 3 sentences"


def test_sentences_of_wikitext_are_what_they_were(tmp_path, monkeypatch):
    """Cut by its own rule from either place: a file of the user's, and the data set."""
    lines = [' The tower ( " La Tour " ) is high . It was built in 1889 . ', " = Head = ", ""]
    path = tmp_path / "wiki.test.raw"
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = {'The tower ( " La Tour " ) is high .', "It was built in 1889 ."}
    config = CorpusConfig(source="wikitext-2", path=path)
    assert set(draw_sentences(config).texts) == expected
    monkeypatch.setattr(texts, "_download_wikitext", lambda config: lines)
    assert set(draw_sentences(config.model_copy(update={"path": None})).texts) == expected


@pytest.mark.slow
def test_sentences_of_the_embedded_corpus_are_what_they_were():
    """Rows in ledgers were measured on them: the rule of 0.1, written out once more."""
    rule = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?\s?[A-Z0-9])")
    pieces = [
        piece.strip() for text in read_paragraphs(CorpusConfig()) for piece in rule.split(text)
    ]
    expected = list(dict.fromkeys(p for p in pieces if 5 <= len(p.split()) <= 60))
    random.Random(0).shuffle(expected)
    assert draw_sentences(CorpusConfig()).texts == expected
