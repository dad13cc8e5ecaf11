from __future__ import annotations

import importlib.util
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asr.training.kneser_ney import discounts, estimate, model_words
from asr.training.lm_counts import count_ngrams
from asr.training.lm_mix import mix, with_unseen
from asr.training.lm_prune import prune, removal_costs
from asr.training.lm_tables import NgramModel, read_arpa, write_arpa
from asr.training.lm_text import (
    Exclusion,
    frequent_words,
    is_held_out,
    lexicon_words,
    read_sentences,
    training_sentences,
)
from asr.training.word_frequencies import word_frequencies, words_among

REPOSITORY = Path(__file__).parents[1]


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


reference = _module(REPOSITORY / "tests" / "reference" / "kneser_ney.py")
VOCABULARY = ["a", "b", "c", "d", "e", "f", "g"]
EVENTS = ["<unk>", "</s>", *VOCABULARY, "never"]


def _sentences(seed: int, weights: tuple[int, ...] = (9, 7, 5, 3, 2, 1, 1, 1), count: int = 300) -> list[str]:
    rng = random.Random(seed)
    words = [*VOCABULARY, "outsider"]
    return [" ".join(rng.choices(words, weights, k=rng.randint(1, 9))) for _ in range(count)]


def _estimate(seed: int, order: int, weights: tuple[int, ...] = (9, 7, 5, 3, 2, 1, 1, 1)) -> NgramModel:
    return estimate(_sentences(seed, weights), [*VOCABULARY, "never"], order)


def _ngrams(model: NgramModel) -> dict[tuple[str, ...], float]:
    """n-gram -> probability, from the tables."""
    texts: list[list[tuple[str, ...]]] = [[()]]
    found: dict[tuple[str, ...], float] = {}
    for n in range(1, model.order + 1):
        rows = zip(model.contexts(n).tolist(), model.last_words(n).tolist(), strict=True)
        texts.append([(*texts[-1][context], model.words[word]) for context, word in rows])
        found |= dict(zip(texts[-1], model.tables[n - 1].prob.tolist(), strict=True))
    return found


def _kenlm(model: NgramModel, folder: Path, decimals: int = 8):
    kenlm = pytest.importorskip("kenlm")
    write_arpa(model, folder / "lm.arpa", decimals)
    options = kenlm.Config()
    options.show_progress = False
    return kenlm.Model(str(folder / "lm.arpa"), options)


def _kenlm_prob(judge, word: str, history: tuple[str, ...]) -> float:
    import kenlm

    state, after = kenlm.State(), kenlm.State()
    judge.BeginSentenceWrite(state) if history[:1] == ("<s>",) else judge.NullContextWrite(state)
    for old in history[history[:1] == ("<s>",) :]:
        judge.BaseScore(state, old, after)
        state, after = after, state
    return 10 ** judge.BaseScore(state, word, after)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_estimate_equals_reference_in_kenlm(order: int, tmp_path: Path) -> None:
    judge = _kenlm(_estimate(1, order), tmp_path)
    slow = reference.ReferenceModel(_sentences(1), [*VOCABULARY, "never"], order)
    rng = random.Random(order)
    for _ in range(40):
        words = rng.choices([*VOCABULARY, "never", "outsider"], k=rng.randint(0, 7))
        scores = [log_prob for log_prob, _, _ in judge.full_scores(" ".join(words))]
        history = ["<s>"]
        for word, log_prob in zip([*words, "</s>"], scores, strict=True):
            word = "<unk>" if word == "outsider" else word
            assert log_prob == pytest.approx(math.log10(slow.prob(word, tuple(history))), abs=2e-6)
            history.append(word)


@pytest.mark.parametrize("max_ngrams", [0, 150])
def test_probabilities_sum_to_one_in_kenlm(max_ngrams: int, tmp_path: Path) -> None:
    model = mix([_estimate(1, 3), _estimate(2, 3, (1, 1, 2, 3, 5, 7, 9, 1))], [0.3, 0.7])
    judge = _kenlm(prune(model, max_ngrams) if max_ngrams else model, tmp_path)
    rng = random.Random(0)
    for _ in range(30):
        history = ("<s>", *rng.choices([*VOCABULARY, "never"], k=rng.randint(0, 3)))[rng.randint(0, 1) :]
        assert sum(_kenlm_prob(judge, word, history) for word in EVENTS) == pytest.approx(1, abs=1e-5)


def test_blocks_make_no_difference() -> None:
    ids = {word: i for i, word in enumerate(model_words(VOCABULARY))}
    for order in (1, 3, 5):
        whole = count_ngrams(_sentences(3), ids, order)
        blocks = count_ngrams(_sentences(3), ids, order, block_size=100)
        assert np.array_equal(whole.ngrams, blocks.ngrams) and np.array_equal(whole.counts, blocks.counts)
        assert whole.counts.sum() == sum(len(s.split()) + 1 for s in _sentences(3))


def test_rare_ngrams_are_backed_off_from(tmp_path: Path) -> None:
    model = estimate(_sentences(1), [*VOCABULARY, "never"], 3, min_count=3)
    slow = reference.ReferenceModel(_sentences(1), [*VOCABULARY, "never"], 3)
    whole, cut = _ngrams(_estimate(1, 3)), _ngrams(model)
    counts = {ngram: count for ngram, count in slow.raw[3].items() if count >= 3}
    assert cut.keys() == {ngram for ngram in whole if len(ngram) < 3} | counts.keys()
    assert all(cut[ngram] == whole[ngram] for ngram in cut if len(ngram) < 3)
    for ngram in counts:
        total = sum(c for other, c in slow.raw[3].items() if other[:2] == ngram[:2])
        own = {g: (c - slow.discount[3][3]) / total for g, c in counts.items() if g[:2] == ngram[:2]}
        backed_off = (1 - sum(own.values())) * slow.prob(ngram[2], ngram[1:2])
        assert cut[ngram] == pytest.approx(own[ngram] + backed_off, rel=1e-9)
    judge = _kenlm(model, tmp_path)
    for history in (("a", "b"), ("<s>", "g"), ("e", "f"), ("never", "a")):
        assert sum(_kenlm_prob(judge, word, history) for word in EVENTS) == pytest.approx(1, abs=1e-5)


def test_mixture_is_the_weighted_mean() -> None:
    models = [_estimate(1, 3), _estimate(2, 3, (1, 1, 2, 3, 5, 7, 9, 1))]
    backoffs = [reference.BackoffModel(_ngrams(model), EVENTS) for model in models]
    mixed = _ngrams(mix(models, [0.3, 0.7]))
    assert set(mixed) == set(_ngrams(models[0])) | set(_ngrams(models[1]))
    for ngram, prob in mixed.items():
        if ngram[-1] != "<s>":
            first, second = (backoff.prob(ngram[-1], ngram[:-1]) for backoff in backoffs)
            assert prob == pytest.approx(0.3 * first + 0.7 * second, rel=1e-9)


def test_mixture_of_a_large_vocabulary() -> None:
    """Its keys need more than 32 bits."""
    words = [f"w{i}" for i in range(70_000)]
    rng = random.Random(4)
    last = words[-6:]
    models = [
        estimate([" ".join(rng.choices(last, weights, k=5)) for _ in range(60)], words, 3)
        for weights in ((5, 4, 3, 2, 1, 1), (1, 1, 2, 3, 4, 5))
    ]
    mixed, texts = mix(models, [0.5, 0.5]), [_ngrams(model) for model in models]
    events = ["</s>", *words]
    backoffs = [reference.BackoffModel(ngrams, events) for ngrams in texts]
    table = mixed.tables[2]
    assert np.array_equal(mixed.tables[1].keys[table.suffix] & 0x1FFFF, mixed.last_words(3))
    for ngram, prob in _ngrams(mixed).items():
        if len(ngram) == 3:
            first, second = (backoff.prob(ngram[-1], ngram[:-1]) for backoff in backoffs)
            assert prob == pytest.approx((first + second) / 2, rel=1e-9)
    assert (mixed.lower_probs(3) > 1e-3).all()


def test_unseen_words_share_what_is_asked(tmp_path: Path) -> None:
    words = [*VOCABULARY, "never", "seldom", "unheard"]
    model = estimate(_sentences(1), words, 3)
    frequencies = {"never": 3e-6, "seldom": 1e-6, "a": 0.5, "elsewhere": 0.1}
    shared = with_unseen(model, frequencies, 0.1)
    before, after = _ngrams(model), _ngrams(shared)
    # Words that the text has keep their proportions, and what is listed in a context keeps all.
    assert after["never",] == pytest.approx(0.075) and after["seldom",] == pytest.approx(0.025)
    # 0.9 of what the others had; <unk> and a word without a frequency, too.
    scale = 0.9 / (1 - before["never",] - before["seldom",])
    for word in (*VOCABULARY, "unheard", "<unk>", "</s>"):
        assert after[word,] == pytest.approx(scale * before[word,])
    assert all(after[ngram] == before[ngram] for ngram in before if len(ngram) > 1)
    judge = _kenlm(shared, tmp_path)
    rng = random.Random(0)
    for _ in range(20):
        history = ("<s>", *rng.choices([*VOCABULARY, "never"], k=rng.randint(0, 3)))[rng.randint(0, 1) :]
        every = [_kenlm_prob(judge, word, history) for word in ["<unk>", "</s>", *words]]
        assert sum(every) == pytest.approx(1, abs=1e-5)
    assert with_unseen(model, {"a": 0.5}, 0.1) is model and with_unseen(model, frequencies, 0) is model
    with pytest.raises(ValueError, match="from 0 to below 1, not 1"):
        with_unseen(model, frequencies, 1.0)


def test_words_of_other_sources_are_words() -> None:
    counted = {
        "stockton": 3e-7, "barista's": 2e-7, "bbc": 9e-6, "ok": 8e-6, "42nd": 7e-6, "café": 6e-6,
        "merengue": 3e-7, "rare": 1e-9, "o'clock": 5e-6,
    }  # fmt: skip
    assert list(words_among(counted, 1e-7)) == ["o'clock", "merengue", "stockton", "barista's"]
    # What lacks its apostrophe is no word, where it is rarer than what has it.
    counted |= {"didn't": 1e-4, "didnt": 1e-5, "herve": 2e-7, "her've": 1e-7}
    assert next(iter(words_among(counted, 1.5e-7))) == "didn't"
    assert not {"didnt", "her've"} & set(words_among(counted, 1.5e-7)) and "herve" in words_among(counted, 0)


def test_without_wordfreq_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(ValueError, match=r"pip install 'phonebook-asr\[train\]'"):
        word_frequencies(1e-7)


def test_removal_cost_is_the_relative_entropy() -> None:
    model = _estimate(1, 3)
    probs = _ngrams(model)
    full = reference.BackoffModel(probs, EVENTS)
    trigrams = [ngram for ngram in probs if len(ngram) == 3]
    history = model.tables[1].history[model.contexts(3)]
    costs = removal_costs(model, 3)
    assert costs.min() >= -1e-12
    for row in random.Random(0).sample(range(len(trigrams)), 25):
        without = {ngram: prob for ngram, prob in probs.items() if ngram != trigrams[row]}
        divergence = full.divergence(reference.BackoffModel(without, EVENTS), trigrams[row][:2])
        assert costs[row] == pytest.approx(history[row] * divergence, rel=1e-6, abs=1e-12)


def test_pruning_keeps_the_size_the_words_and_the_parts() -> None:
    model = _estimate(1, 4)
    for size in (60, 200, 700):
        pruned = prune(model, size)
        kept, full = _ngrams(pruned), _ngrams(model)
        assert size - 40 <= len(kept) <= size
        assert all(kept[ngram] == full[ngram] for ngram in kept)
        assert all(ngram[1:] in kept and ngram[:-1] in kept for ngram in kept if len(ngram) > 1)
    assert prune(model, 10**6) is model
    assert prune(model, 0).sizes == (len(model.words), 0, 0, 0)


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "lm.arpa.xz"])
def test_arpa_comes_back(name: str, tmp_path: Path) -> None:
    model = _estimate(1, 3)
    write_arpa(model, tmp_path / name, 7)
    back = read_arpa(tmp_path / name, model.words)
    assert back.sizes == model.sizes
    for mine, its in zip(model.tables, back.tables, strict=True):
        assert np.array_equal(mine.keys, its.keys) and np.array_equal(mine.suffix, its.suffix)
        assert np.allclose(mine.prob, its.prob, rtol=1e-6)
        assert np.allclose(mine.backoff, its.backoff, rtol=1e-6)


def test_bad_input_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sentence"):
        estimate([], VOCABULARY)
    with pytest.raises(ValueError, match="repeats a word"):
        estimate(["a b"], ["a", "<s>"])
    with pytest.raises(ValueError, match="weight for each model"):
        mix([_estimate(1, 2)], [0.5])
    with pytest.raises(ValueError, match="share their words"):
        mix([_estimate(1, 2), _estimate(1, 3)], [0.5, 0.5])
    (tmp_path / "no.arpa").write_text("hello\n")
    with pytest.raises(ValueError, match="not an ARPA file"):
        read_arpa(tmp_path / "no.arpa", model_words(VOCABULARY))
    write_arpa(_estimate(1, 2), tmp_path / "lm.arpa")
    with pytest.raises(ValueError, match=r"lm\.arpa:\d+: unknown word"):
        read_arpa(tmp_path / "lm.arpa", model_words(VOCABULARY[:3]))
    (tmp_path / "dev.tsv").write_text("path\tduration\nx\t1\n")
    with pytest.raises(ValueError, match="column 'text'"):
        Exclusion.read([tmp_path / "dev.tsv"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="UTF-8"):
        list(read_sentences(tmp_path / "latin.txt"))


def test_discounts_fall_back_on_small_texts() -> None:
    assert discounts(np.array([1, 1, 2])).tolist() == [0, 0.5, 1, 1.5]
    counts = np.repeat([1, 2, 3, 4], [100, 40, 20, 10])
    y = 100 / 180
    expected = [0, 1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.5]
    assert discounts(counts) == pytest.approx(expected)


def test_sentences_are_normalised_and_forbidden_ones_found(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "IT'S OK MR 'TIS\n\nTwenty-one e-mails!\nA B C D E F G H\nB C D E F G\n", encoding="utf-8"
    )
    sentences = list(read_sentences(text))
    assert sentences == ["it's okay mister tis", "twenty one e mails", "a b c d e f g h", "b c d e f g"]
    (tmp_path / "dev.tsv").write_text("path\ttext\nx\tZ B C D E F G H Z\ny\tTWENTY ONE E MAILS\n")
    exclusion = Exclusion.read([tmp_path / "dev.tsv"])
    assert [s for s in sentences if exclusion(s)] == ["twenty one e mails", "a b c d e f g h"]
    assert exclusion.dropped == 2
    assert frequent_words([sentences], min_count=3) == ["e"]
    (tmp_path / "en.txt").write_text("# words\nthe\tð ə\nthe\tð i\nNew York\tn uː  # two\n", encoding="utf-8")
    assert lexicon_words(tmp_path / "en.txt") == ["the", "new", "york"]


def test_held_out_share() -> None:
    held_out = sum(is_held_out(f"sentence {i}", 200) for i in range(100_000))
    assert 400 < held_out < 600


def test_recipe_mixes_prunes_and_reports(tmp_path: Path) -> None:
    for seed, name in ((1, "left"), (2, "right")):
        weights = (9, 7, 5, 3, 2, 1, 1, 1)[:: 1 if seed == 1 else -1]
        (tmp_path / f"{name}.txt").write_text("\n".join(_sentences(seed, weights, 2000)).upper() + "\n")
    command = [
        sys.executable,
        str(REPOSITORY / "recipes" / "train_lm.py"),
        "--out",
        str(tmp_path / "lm.arpa.xz"),
    ]
    command += ["--text", str(tmp_path / "left.txt"), "--text", str(tmp_path / "right.txt"), "--no-lmplz"]
    command += ["--held-out-every", "10", "--max-ngrams", "300"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 0, done.stderr
    rows = {
        line.split("|")[1].strip(): line.split("|") for line in done.stdout.splitlines() if line[:1] == "|"
    }
    left, right, mixed = rows["left alone"], rows["right alone"], rows["0.5 left + 0.5 right"]
    assert float(left[2]) < float(mixed[2]) < float(right[2])
    assert float(right[3]) < float(mixed[3]) < float(left[3])
    words = frequent_words([map(str.lower, _sentences(1))])
    model = read_arpa(tmp_path / "lm.arpa.xz", model_words(sorted(words)))
    assert 200 < sum(model.sizes) <= 300


def test_transcripts_have_their_share(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(_sentences(1)) + "\n")
    said = ["G F G", "e f g", "never a b", "never a b", "outsider c d e f g a b", "a b c d e f g"]
    (tmp_path / "train.tsv").write_text("path\ttext\n" + "".join(f"x\t{s}\n" for s in said))
    (tmp_path / "dev.tsv").write_text("path\ttext\nx\tE F G\ny\tc d e f g a b never\n")
    (tmp_path / "words.txt").write_text("".join(f"{word}\tə\n" for word in [*VOCABULARY, "never"]))
    train_lm = _module(REPOSITORY / "recipes" / "train_lm.py")
    config = train_lm.Config(
        texts=(tmp_path / "text.txt",), out=tmp_path / "lm.arpa", lexicon=tmp_path / "words.txt",
        exclude=(tmp_path / "dev.tsv",), transcripts=(tmp_path / "train.tsv",), transcripts_share=0.25,
        max_ngrams=0, held_out_every=20, decimals=8, use_lmplz=False,
    )  # fmt: skip
    train_lm.main(config)
    words = [*VOCABULARY, "never"]
    # Each once, without those of the development set and those that share seven words with it.
    text = training_sentences(config.texts[0], 20, Exclusion.read(config.exclude))
    parts = estimate(text, words), estimate(["g f g", "never a b", "a b c d e f g"], words)
    wanted = _ngrams(mix(parts, [0.75, 0.25]))
    found = _ngrams(read_arpa(config.out, model_words(words)))
    assert found.keys() == wanted.keys()
    assert all(found[ngram] == pytest.approx(prob, rel=1e-6) for ngram, prob in wanted.items() if prob > 0)


@pytest.mark.skipif(shutil.which("lmplz") is None, reason="lmplz is not installed")
def test_agrees_with_lmplz(tmp_path: Path) -> None:
    recipe = _module(REPOSITORY / "recipes" / "train_lm.py")
    sentences = [s for s in _sentences(1) if "outsider" not in s]
    own = estimate(sentences, VOCABULARY, 3)
    its = recipe.estimate_with_lmplz(iter(sentences), VOCABULARY, 3)
    assert own.sizes == its.sizes
    for mine, other in zip(own.tables, its.tables, strict=True):
        assert np.array_equal(mine.keys, other.keys)
        assert np.allclose(mine.prob[mine.prob > 0], other.prob[mine.prob > 0], rtol=1e-5)


def test_what_is_missing_is_told_before_the_long_work(tmp_path: Path) -> None:
    train_lm = _module(REPOSITORY / "recipes" / "train_lm.py")
    text, out = tmp_path / "text.txt", tmp_path / "lm.arpa"
    text.write_text("a short text\nof two lines\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.txt: too short to hold out one in 100000: lower --held-out"):
        train_lm.main(train_lm.Config(texts=(text,), out=out, held_out_every=100_000))
    text.write_text("\n".join(f"line {'a' * i}" for i in range(1, 200)), encoding="utf-8")
    config = train_lm.Config(texts=(text,), out=out, held_out_every=2, transcripts=(tmp_path / "none.tsv",))
    with pytest.raises(FileNotFoundError, match=r"none\.tsv"):
        train_lm.main(config)
    assert not out.exists()
