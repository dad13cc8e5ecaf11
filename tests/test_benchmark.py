"""The benchmark says what is true: of a task where everything is known, and of the real one in small."""

import itertools
import json
import lzma
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

RECIPES = Path(__file__).parents[1] / "recipes"
sys.path.insert(0, str(RECIPES))
from benchmark import (  # noqa: E402
    Config,
    Job,
    cli,
    parse_beam,
    run_all,
    write_plain_arpa,
)
from benchmark_kaldi import (  # noqa: E402
    Graph,
    compose_lexicon,
    ctc_topology,
    distinct,
    grammar,
    without_symbols,
)
from benchmark_measure import error_rate, measure, read_set, tiled  # noqa: E402
from typer import BadParameter  # noqa: E402

from asr.decoder.ngram import NgramModel  # noqa: E402

PHONES = ("<blk>", "p", "t", "k", "s")
LEXICON = {"pat": "p t", "cat": "k t", "sack": "s k"}
NAME = ("tapsk", "t p s k")
ARPA = """\\data\\
ngram 1=6
ngram 2=2

\\1-grams:
-2.0\t<unk>\t0
0\t<s>\t-0.1
-1.0\t</s>\t0
-1.0\tpat\t0
-1.0\tcat\t-0.1
-1.0\tsack\t-0.2

\\2-grams:
-0.9\t<s> pat
-0.5\tcat sack

\\end\\
"""


def write_set(bench: Path, name: str, sentences: list[str]) -> None:
    """Sentences said so clearly that every phone has a frame of its own and a blank behind it."""
    sounds = LEXICON | dict([NAME])
    rows, frames, offsets = [], [], [0]
    for i, sentence in enumerate(sentences):
        phones = [phone for word in sentence.split() for phone in sounds[word].split()]
        tokens = [token for phone in phones for token in (PHONES.index(phone), 0)]
        frames += [np.where(np.arange(len(PHONES)) == token, 0.96, 0.01) for token in tokens]
        offsets.append(len(frames))
        rows.append(f"{name}{i}\t{len(tokens) / 50:.2f}\t{sentence.upper()}\t{' '.join(phones)}\t\n")
    (bench / f"{name}.tsv").write_text("".join(rows), encoding="utf-8")
    log_probs = np.log(frames).astype(np.float16)
    np.savez(bench / f"{name}.npz", log_probs=log_probs, offsets=np.array(offsets), frame_hz=50)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "tokens.txt").write_text("\n".join(PHONES) + "\n", encoding="utf-8")
    lines = [f"{word}\t{phones}\n" for word, phones in LEXICON.items()]
    (folder / "lexicon.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "names_lexicon.txt").write_text("\t".join(NAME) + "\n", encoding="utf-8")
    (folder / "3gram.arpa.xz").write_bytes(lzma.compress(ARPA.encode()))
    write_set(folder, "main_dev", ["cat sack", "pat cat pat"])
    write_set(folder, "zs_dev", ["cat tapsk", "tapsk pat tapsk", "sack"])
    return folder


def test_one_command_from_files_to_tables(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(RECIPES / "benchmark.py"), "--bench", str(tiny), "--out", str(out)]
    command += ["--engine", "phonebook", "--threads", "1", "--repeats", "1"]
    command += ["--beam", "30/100", "--unknown-score", "-5"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    first, point, names = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert first["job"]["load_only"] and first["load_process_s"] > point["load_process_s"] > 0
    assert point["word_error_rate"]["main"] == point["phone_error_rate"]["main"] == 0
    assert point["rtfx"]["main"] > 1 and point["rtfx_process"]["zs"] > 1
    # A process with numpy and numba takes no less, and these three words no more.
    assert 50 < point["private_mb"] <= point["peak_mb"] < 600
    assert names["names"]["said"] == 3
    assert (names["names"]["found"], names["names"]["false"]) == ([0, 3], [0, 0])
    assert names["names"]["word_error_rate"][0] > names["names"]["word_error_rate"][1] == 0
    rows = [line for line in done.stdout.splitlines() if line.startswith("| phonebook | ")]
    assert [len(row.split("|")) - 2 for row in rows] == [12, 9]
    assert rows[0].startswith("| phonebook | 1 | 30 / 100 | 0.0 | 0.0 | ")
    assert rows[1].startswith("| phonebook | -5 | 0 | 100 | 0 | 0 | ")


def test_a_set_is_padded_and_its_references_in_normal_form(tiny: Path) -> None:
    utterances = read_set(tiny, "main_dev")
    assert utterances.words == [["cat", "sack"], ["pat", "cat", "pat"]]
    assert utterances.lengths.tolist() == [8, 12]
    assert utterances.log_probs.shape == (2, 12, len(PHONES))
    assert utterances.log_probs[0, 0].argmax() == PHONES.index("k")
    assert not utterances.log_probs[0, 8:].any()
    assert utterances.seconds == 20 / 50
    assert read_set(tiny, "main_dev", limit=1).seconds == 8 / 50


def test_the_same_utterances_again_and_again(tiny: Path) -> None:
    once = read_set(tiny, "main_dev")
    five = tiled(once, 5)
    assert five.words == [once.words[i] for i in (0, 1, 0, 1, 0)]
    assert five.lengths.tolist() == [8, 12, 8, 12, 8]
    assert (five.log_probs[4] == once.log_probs[0]).all()
    assert five.seconds == pytest.approx(48 / 50)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_its_engine_is_refused_or_left_out(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadParameter, match="no CUDA device"):
        cli(bench=tiny, engine=["phonebook-gpu"])
    assert list(run_all(Config(bench=tiny, out=tmp_path, engines=("phonebook-gpu",)), tmp_path)) == []
    assert "phonebook-gpu is left out" in capsys.readouterr().err


def test_the_unknown_score_reaches_the_language_model(tiny: Path, tmp_path: Path) -> None:
    plain = tmp_path / "lm.arpa"
    write_plain_arpa(tiny / "3gram.arpa.xz", plain, None)
    assert plain.read_text() == ARPA
    write_plain_arpa(tiny / "3gram.arpa.xz", plain, -3 * math.log(10))
    assert plain.read_text() == ARPA.replace("-2.0\t<unk>", "-3.0000\t<unk>")


def test_beams_are_a_threshold_and_a_size() -> None:
    assert parse_beam("12.5/1000") == (12.5, 1000)
    with pytest.raises(BadParameter, match="THRESHOLD/SIZE"):
        parse_beam("12")


def test_rates_count_all_utterances_together() -> None:
    assert error_rate([["a", "b"], ["c"]], [["a"], ["c", "d"]]) == pytest.approx(2 / 3)


def test_flashlight_hears_the_names_too(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("flashlight", reason="pip install flashlight-text kenlm")
    write_plain_arpa(tiny / "3gram.arpa.xz", tmp_path / "lm.arpa", -5.0)
    job = Job(
        engine="flashlight", bench=str(tiny), beam=(50.0, 100), arpa=str(tmp_path / "lm.arpa"), repeats=1
    )
    assert measure(job).word_error_rate["main"] == 0
    names = measure(Job(**vars(job) | {"unknown_score": -5.0})).names
    assert names is not None
    assert (names.found, names.false) == ((0, 3), (0, 0))


def outcomes(graph: Graph, inputs: tuple[int, ...]) -> list[tuple[float, tuple[int, ...]]]:
    """Cost and outputs of every path that reads `inputs` and ends in a final state."""
    found, paths = [], [(0, 0, 0.0, ())]
    while paths:
        state, read, cost, said = paths.pop()
        if read == len(inputs) and graph.final[state] < math.inf:
            found.append((cost + float(graph.final[state]), said))
        for arc in graph.arcs[graph.source == state]:
            label, output = int(arc["input"]), int(arc["output"])
            if label == 0 or inputs[read : read + 1] == (label,):
                words = (*said, output) if output else said
                paths.append((int(arc["to"]), read + (label > 0), cost + float(arc["cost"]), words))
    return sorted(found)


def test_a_path_through_kaldis_graph_costs_what_the_language_model_says(tiny: Path) -> None:
    lm = NgramModel.read(tiny / "3gram.arpa.xz")
    ids, label = lm.ids(), {phone: token + 1 for token, phone in enumerate(PHONES)}
    # Homophones, and words that begin others.
    sounds = LEXICON | {"kat": "k t", "ca": "k", "tapsk": "t p s k"}
    for word in sounds:
        ids.setdefault(word, len(ids))
    spoken = [tuple(label[phone] for phone in phones.split()) for phones in sounds.values()]
    symbol = len(PHONES) + 1
    marked = distinct(spoken, symbol + 1)
    assert all(a == b[: len(a)] for a, b in zip(spoken, marked, strict=True))
    assert not any(a == b[: len(a)] for a, b in itertools.permutations(marked, 2))
    words = np.array([ids[word] for word in sounds])
    graph = compose_lexicon(marked, words, grammar(lm, 0.8, 3.5, len(ids), -6.0), symbol)
    shorter = without_symbols(graph, symbol)
    assert shorter.arcs["input"].max() < symbol
    for said in itertools.product(sounds, repeat=2):
        inputs = tuple(label[phone] for word in said for phone in sounds[word].split())
        costs = {tuple(found): cost for cost, found in reversed(outcomes(shorter, inputs))}
        expected = -0.8 * sum(lm.score(said)) - 7.0
        expected += sum(0.8 * (float(lm.log_prob[0]) + 6.0) for word in said if word not in lm.ids())
        assert costs[tuple(ids[word] for word in said)] == pytest.approx(expected, abs=1e-4)


def test_the_ctc_topology_reads_every_alignment_once() -> None:
    graph = ctc_topology(3)
    for alignment in itertools.product(range(3), repeat=5):
        phones = [v for v, last in zip(alignment, (0, *alignment), strict=False) if v not in (0, last)]
        found = outcomes(graph, tuple(v + 1 for v in alignment))
        assert found == [(0.0, tuple(v + 1 for v in phones))]


def test_a_graph_comes_back_from_its_file(tmp_path: Path) -> None:
    graph = ctc_topology(3)
    graph.write(tmp_path / "graph.fst")
    again = Graph.read(tmp_path / "graph.fst")
    assert (again.arcs == graph.arcs).all() and (again.source == graph.source).all()
    assert (again.final == graph.final).all()


def test_kaldi_hears_the_names_too(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kaldi_decoder", reason="pip install kaldi-decoder kaldifst")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    job = Job(engine="kaldi", bench=str(tiny), beam=(50.0, 1000), repeats=1)
    first, second = measure(job), measure(Job(**vars(job) | {"engine": "kaldi-20"}))
    assert first.word_error_rate["main"] == first.phone_error_rate["main"] == 0
    assert second.word_error_rate == first.word_error_rate  # from the cache
    assert len(list((tmp_path / "cache").glob("phonebook/kaldi-*.fst"))) == 1
    names = measure(Job(**vars(job) | {"unknown_score": -5.0})).names
    assert names is not None
    assert (names.found, names.false) == ((0, 3), (0, 0))


def test_an_engine_that_is_not_installed_is_left_out_with_the_way_to_install_it(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(run_all(Config(bench=tiny, out=tmp_path, engines=("kaldi",)), tmp_path)) == []
    assert capsys.readouterr().err == (
        "kaldi is not installed and left out: pip install kaldi-decoder kaldifst\n"
    )


def test_the_real_task_in_small(bench: Path) -> None:
    wide, narrow = (
        measure(Job(engine="phonebook", bench=str(bench), beam=beam, limit=6, repeats=1))
        for beam in ((12.0, 1000), (3.0, 10))
    )
    assert wide.word_error_rate["main"] < 0.2 < narrow.word_error_rate["main"]
    assert wide.phone_error_rate["main"] < narrow.phone_error_rate["main"]
    assert wide.rtfx_process["main"] < narrow.rtfx_process["main"]


def test_added_names_of_the_real_task_are_heard(bench: Path) -> None:
    job = Job(engine="phonebook", bench=str(bench), beam=(12.0, 1000), limit=12, unknown_score=-9.0)
    names = measure(job).names
    assert names is not None
    assert names.said >= 12 and names.found[0] == 0
    assert names.found[1] > 0.5 * names.said
    assert names.word_error_rate[1] < names.word_error_rate[0]
