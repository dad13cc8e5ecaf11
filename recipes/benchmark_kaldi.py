"""Kaldi's decoder for benchmark.py: CTC topology, lexicon and language model compiled into one transducer.

The recipe is Kaldi's (Mohri, Pereira, Riley 2008, "Speech recognition with weighted finite-state
transducers"): lexicon and language model are composed, with a symbol of its own behind every pronunciation
that is not unique, then determinised, minimised, and composed with a CTC topology. kaldifst does all but the
first composition: where every arc of the language model becomes a chain of a word's sounds, numpy is enough.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoder.ngram import NgramModel
from asr.lexicon import Entry, Lexicon
from asr.paths import cache_folder
from asr.phones import PhoneSet

Heard = tuple[tuple[str, ...], tuple[str, ...]]
Decode = Callable[[np.ndarray, np.ndarray], list[Heard]]
Add = Callable[[Sequence[Entry]], Decode]

FORMAT = 1  # of the graph: another one is not taken from the cache
ARC = np.dtype([("input", "<i4"), ("output", "<i4"), ("cost", "<f4"), ("to", "<i4")])
STATE = np.dtype(
    [("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("no_input", "<u4"), ("no_output", "<u4")]
)
MAGIC, UNALIGNED, EXPANDED = 2125659606, 2, 1


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A transducer with start state 0: `arcs` (ARC) in the order of their `source` states; `final` float32
    (states,), infinite where a state is not final. Costs are negative natural logs, label 0 is none."""

    arcs: np.ndarray
    source: np.ndarray
    final: np.ndarray

    @classmethod
    def of(cls, source: np.ndarray, arcs: np.ndarray, final: np.ndarray) -> Graph:
        place = np.lexsort((arcs["input"], source))
        return cls(arcs=arcs[place], source=source[place], final=final.astype(np.float32))

    @classmethod
    def read(cls, path: Path) -> Graph:
        """An OpenFst file of type const."""
        with path.open("rb") as file:
            head = file.read(65)
            start, num_states, num_arcs = np.frombuffer(head[-24:], "<i8")
            assert head[8:13] == b"const" and start == 0
            states = np.fromfile(file, STATE, num_states)
            arcs = np.fromfile(file, ARC, num_arcs)
        source = np.repeat(np.arange(num_states, dtype=np.int32), states["arcs"])
        return cls(arcs=arcs, source=source, final=states["final"])

    def write(self, path: Path) -> None:
        counts = np.bincount(self.source, minlength=len(self.final))
        states = np.zeros(len(self.final), STATE)
        states["final"], states["arcs"] = self.final, counts
        states["first"] = np.cumsum(counts) - counts
        for count, label in (("no_input", "input"), ("no_output", "output")):
            states[count] = np.bincount(self.source[self.arcs[label] == 0], minlength=len(self.final))
        with path.open("wb") as file:
            file.write(np.array([MAGIC, 5], "<i4").tobytes() + b"const")
            file.write(np.array([8], "<i4").tobytes() + b"standard")
            file.write(np.array([UNALIGNED, 0], "<i4").tobytes())
            file.write(np.array([EXPANDED, 0, len(self.final), len(self.arcs)], "<i8").tobytes())
            states.tofile(file)
            self.arcs.tofile(file)


def arcs_of(inputs: np.ndarray, outputs: np.ndarray, costs: np.ndarray, to: np.ndarray) -> np.ndarray:
    arcs = np.zeros(len(to), ARC)
    arcs["input"], arcs["output"], arcs["cost"], arcs["to"] = inputs, outputs, costs, to
    return arcs


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The language model as an acceptor: a word leads from state `source` to state `to`; -1 is no word but
    backoff. State 0 is the empty history."""

    source: np.ndarray
    word: np.ndarray
    cost: np.ndarray
    to: np.ndarray
    final: np.ndarray
    start: int


def grammar(lm: NgramModel, lm_weight: float, word_score: float, words: int, unknown_score: float) -> Grammar:
    """Of `words` words those that the model does not have follow the empty history, with `unknown_score`."""
    goes_on = np.diff(lm.first) > 0
    state = np.where(goes_on, np.cumsum(goes_on), 0)

    def longest(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The longest suffix that is a state, and the backoff weights passed on the way there."""
        gram, passed = gram.copy(), np.zeros(len(gram), np.float32)
        while (rest := np.flatnonzero((gram >= 0) & ~goes_on[gram])).size:
            passed[rest] += lm.backoff[gram[rest]]
            gram[rest] = lm.suffix[gram[rest]]
        return np.where(gram >= 0, state[gram], 0), passed

    grams = np.arange(len(lm.word))
    context = np.full(len(grams), -1)
    context[lm.first[0] :] = np.repeat(grams, np.diff(lm.first))
    source = np.where(context >= 0, state[context], 0)
    to, passed = longest(grams)
    cost = -lm_weight * (lm.log_prob + passed) - word_score
    final = np.full(goes_on.sum() + 1, np.inf, np.float32)
    ends = lm.word == lm.end
    final[source[ends]] = -lm_weight * lm.log_prob[ends]
    said = ~ends & (lm.word != lm.begin) & (lm.word != 0)
    states = np.flatnonzero(goes_on)
    new = np.arange(len(lm.words), words)
    unknown = np.full(len(new), -lm_weight * unknown_score - word_score)
    none = np.zeros(len(new), int)
    return Grammar(
        source=np.concatenate([source[said], none, state[states]]),
        word=np.concatenate([lm.word[said], new, np.full(len(states), -1)]),
        cost=np.concatenate([cost[said], unknown, -lm_weight * lm.backoff[states]]).astype(np.float32),
        to=np.concatenate([to[said], none, longest(lm.suffix[states])[0]]),
        final=final,
        start=int(state[lm.begin]),
    )


def distinct(pronunciations: Sequence[tuple[int, ...]], first_symbol: int) -> list[tuple[int, ...]]:
    """With `first_symbol`, the next one, ... behind those that sound the same or begin a longer one."""
    counts = Counter(pronunciations)
    begins = {p[:n] for p in counts for n in range(1, len(p))}
    used: Counter[tuple[int, ...]] = Counter()
    marked = []
    for p in pronunciations:
        if counts[p] > 1 or p in begins:
            used[p] += 1
            p = (*p, first_symbol + used[p] - 1)
        marked.append(p)
    return marked


def compose_lexicon(
    pronunciations: Sequence[tuple[int, ...]], words: np.ndarray, g: Grammar, backoff: int
) -> Graph:
    """Every arc of the grammar becomes the pronunciations of its word, with word and cost at the first sound;
    arcs to the same state share what follows. `words` int (pronunciations,): the word of each. `backoff`: the
    input label of backoff arcs."""
    order = np.argsort(words, kind="stable")
    counts = np.bincount(words, minlength=g.word.max() + 1)
    begin = np.cumsum(counts) - counts
    # One arc for each pronunciation of each word.
    heard = np.flatnonzero((g.word >= 0) & (counts[g.word] > 0))
    times = counts[g.word[heard]]
    arc = np.repeat(heard, times)
    nth = np.arange(len(arc)) - np.repeat(np.cumsum(times) - times, times)
    spoken = order[begin[g.word[arc]] + nth]
    # The rest of a pronunciation is a chain of states of its own for each state in which it ends.
    lengths = np.array([len(p) for p in pronunciations])
    sounds = np.concatenate([np.array(p, np.int32) for p in pronunciations])
    starts = np.cumsum(lengths) - lengths
    chains, chain = np.unique(spoken * len(g.final) + g.to[arc], return_inverse=True)
    chain_spoken, chain_to = np.divmod(chains, len(g.final))
    inside = lengths[chain_spoken] - 1
    first = len(g.final) + np.cumsum(inside) - inside
    k = np.arange(inside.sum()) - np.repeat(np.cumsum(inside) - inside, inside)
    of = np.repeat(np.arange(len(chains)), inside)
    chain_source = first[of] + k
    chain_arcs = arcs_of(
        sounds[starts[chain_spoken[of]] + k + 1], 0, 0,
        np.where(k + 1 < inside[of], chain_source + 1, chain_to[of]),
    )  # fmt: skip
    entering = arcs_of(
        sounds[starts[spoken]],
        g.word[arc],
        g.cost[arc],
        np.where(inside[chain] > 0, first[chain], chain_to[chain]),
    )
    backs = np.flatnonzero(g.word < 0)
    backing = arcs_of(backoff, 0, g.cost[backs], g.to[backs])
    source = np.concatenate([g.source[arc], g.source[backs], chain_source])
    arcs = np.concatenate([entering, backing, chain_arcs])
    final = np.concatenate([g.final, np.full(inside.sum(), np.inf, np.float32)])
    # The start has to be state 0.
    swap = np.arange(len(final))
    swap[[0, g.start]] = g.start, 0
    arcs["to"] = swap[arcs["to"]]
    return Graph.of(swap[source], arcs, final[swap])


def without_symbols(graph: Graph, first_symbol: int) -> Graph:
    """The symbols taken away again, and with them the states from which nothing but such an arc leads on."""
    arcs, source = graph.arcs.copy(), graph.source
    arcs["input"][arcs["input"] >= first_symbol] = 0
    counts = np.bincount(source, minlength=len(graph.final))
    only = np.where(counts == 1, np.cumsum(counts) - counts, -1)  # the arc of a state that has one
    passed = (only >= 0) & np.isinf(graph.final) & (arcs["input"][only] == 0)
    while True:
        after = only[arcs["to"]]
        skip = passed[arcs["to"]] & ((arcs["output"] == 0) | (arcs["output"][after] == 0))
        if not skip.any():
            return Graph(arcs=arcs, source=source, final=graph.final)
        arcs["output"][skip] |= arcs["output"][after[skip]]
        arcs["cost"][skip] += arcs["cost"][after[skip]]
        arcs["to"][skip] = arcs["to"][after[skip]]


def ctc_topology(tokens: int) -> Graph:
    """State 0 is behind a blank, state v behind phone v, which goes on, or is said again after a blank."""
    state, v = np.divmod(np.arange(tokens * tokens), tokens)
    outputs = np.where((v == 0) | (v == state), 0, v + 1)
    return Graph.of(state, arcs_of(v + 1, outputs, 0, v), np.zeros(tokens))


def build_graph(
    entries: Sequence[Entry],
    lm: NgramModel,
    phones: PhoneSet,
    weights: tuple[float, float],
    unknown_score: float,
    target: Path,
) -> list[str]:
    """Writes the graph, with `weights` (of the LM, score of a word) in it; its output label i is the i-th of
    the words returned."""
    import kaldifst

    ids = lm.ids()
    for entry in entries:
        ids.setdefault(entry.word, len(ids))
    first_symbol = len(phones) + 1  # a token's label is one more than the token
    pronunciations = distinct(
        [tuple(phones.ids[phone] + 1 for phone in entry.phones) for entry in entries], first_symbol + 1
    )
    words = np.array([ids[entry.word] for entry in entries])
    g = grammar(lm, *weights, len(ids), unknown_score)
    # Some hundred MB lie beside the target for a minute.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        passed = Path(folder) / "graph.fst"

        def to_kaldi(graph: Graph) -> Any:
            graph.write(passed)
            return kaldifst.StdVectorFst(kaldifst.StdConstFst.read(str(passed)))

        def from_kaldi(fst: Any) -> Graph:
            kaldifst.StdConstFst(fst).write(str(passed))
            return Graph.read(passed)

        fst = to_kaldi(compose_lexicon(pronunciations, words, g, first_symbol))
        stopped_early = kaldifst.determinize_star(fst)
        assert not stopped_early
        kaldifst.minimize_encoded(fst)
        fst = to_kaldi(without_symbols(from_kaldi(fst), first_symbol))
        kaldifst.connect(fst)
        kaldifst.minimize_encoded(fst)
        kaldifst.arcsort(fst, "ilabel")
        topology = to_kaldi(ctc_topology(len(phones)))
        kaldifst.arcsort(topology, "olabel")
        fst = kaldifst.compose(topology, fst)
        kaldifst.StdConstFst(fst).write(str(passed))
        os.replace(passed, target)
    return list(ids)


def load(
    bench: Path,
    phones: PhoneSet,
    beam: tuple[float, int, int],
    weights: tuple[float, float],
    unknown_score: float | None,
) -> tuple[Decode, Add]:
    """`beam`: a threshold, and the most and the least tokens in a frame. The graph is built once and kept in
    the cache, known by what it is made of. With added words, which score `unknown_score`, it is built anew
    and not kept.
    """
    import kaldi_decoder
    import kaldifst

    arpa, lexicon = bench / "3gram.arpa.xz", bench / "lexicon.txt"
    lm = NgramModel.read(arpa)
    entries = Lexicon.read([lexicon], phones).entries

    def decoder_of(path: Path, words: Sequence[str]) -> Decode:
        options = kaldi_decoder.FasterDecoderOptions(beam=beam[0], max_active=beam[1], min_active=beam[2])
        graph = kaldifst.StdConstFst.read(str(path))

        def decode(log_probs: np.ndarray, lengths: np.ndarray) -> list[Heard]:
            decoder = kaldi_decoder.FasterDecoder(graph, options)
            heard = []
            for row, length in zip(log_probs, lengths, strict=True):
                frames = row[:length]
                decoder.decode(kaldi_decoder.DecodableCtc(frames))
                best = decoder.get_best_path()[1]
                _, inputs, outputs, _ = kaldifst.get_linear_symbol_sequence(best)
                tokens = [v - 1 for v, last in zip(inputs, [0, *inputs], strict=False) if v != last]
                heard.append(
                    (tuple(words[i] for i in outputs), tuple(phones.symbols[v] for v in tokens if v))
                )
            return heard

        return decode

    def add(names: Sequence[Entry]) -> Decode:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.fst"
            assert unknown_score is not None
            words = build_graph([*entries, *names], lm, phones, weights, unknown_score, path)
            return decoder_of(path, words)

    content = [
        lexicon.read_bytes(),
        arpa.read_bytes(),
        repr((FORMAT, phones, weights)).encode(),
    ]
    identity = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in content)).hexdigest()
    cached = cache_folder() / f"kaldi-{identity[:32]}.fst"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        build_graph(entries, lm, phones, weights, float(lm.log_prob[0]), cached)
    words = dict.fromkeys([*lm.words, *(entry.word for entry in entries)])
    return decoder_of(cached, list(words)), add
