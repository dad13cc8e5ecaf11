"""What a user may turn on the decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Scores are natural logs. The defaults suit sharp phone posteriors, as a simulator or a large model
    gives.

    A token survives a frame if it is within `beam_threshold` of the best one and among the `beam_size` best.
    A hypothesis scores acoustic + lm_weight * lm + word_score * words. A word that the language model
    does not know scores `unknown_word_score` there; fewer than `unknown_words` of them score more, each
    its share of what so many would have. Such a word, and a word with `like=`, may lack any one of its
    phones if they are six or more, which scores `missing_phone_score` (None: may not). With
    `added_at_least_unknown` a word that is added and that the language model knows scores there what an
    unknown one does, if that is more, and may lack a phone like it: who adds a word expects it more than the
    texts did. Frames whose blank is likelier than `blank_skip_threshold` are passed in one step. `nbest`
    hypotheses come out; `num_threads` utterances are decoded at a time, 0: one a core.

    `unknown`: "off", every sound belongs to a word of the lexicon; "mark", a word that is not in it may be
    written as its phones, `<sɜːʃə>`; it scores `unknown_score` beside what a phone bigram makes of it;
    "spell", the same, and a Recognizer writes the word as such sounds are usually written.

    A decoder with a second language model lets it choose among the `rescored` best hypotheses (`nbest`, if
    that is more), as far as they are within `rescoring_beam` of the best one: its score counts
    `rescoring_weight`, the first one's the rest.

    `engine`: "cpu", or "gpu": whole batches on a CUDA device with the same results. It finds one hypothesis
    and no unknown words; streams are searched on the CPU all the same.
    """

    beam_size: int = 1000
    beam_threshold: float = 14.0
    lm_weight: float = 1.0
    word_score: float = 3.0
    unknown_word_score: float = -10.5
    unknown_words: int = 100
    missing_phone_score: float | None = -2.0
    added_at_least_unknown: bool = False
    blank_skip_threshold: float = 0.999
    unknown: str = "off"
    unknown_score: float = -4.0
    nbest: int = 1
    rescored: int = 300
    rescoring_beam: float = 5.0
    rescoring_weight: float = 0.5
    num_threads: int = 0
    engine: str = "cpu"

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, not {self.beam_size}")
        if self.unknown_words < 1:
            raise ValueError(f"unknown_words must be at least 1, not {self.unknown_words}")
        if self.beam_threshold <= 0:
            raise ValueError(f"beam_threshold must be above 0, not {self.beam_threshold}")
        if self.unknown not in ("off", "mark", "spell"):
            raise ValueError(f"unknown must be off, mark or spell, not {self.unknown!r}")
        if self.nbest < 1:
            raise ValueError(f"nbest must be at least 1, not {self.nbest}")
        if self.rescored < 1:
            raise ValueError(f"rescored must be at least 1, not {self.rescored}")
        if self.rescoring_beam <= 0:
            raise ValueError(f"rescoring_beam must be above 0, not {self.rescoring_beam}")
        if not 0 <= self.rescoring_weight <= 1:
            raise ValueError(f"rescoring_weight must be from 0 to 1, not {self.rescoring_weight}")
        if self.engine not in ("cpu", "gpu"):
            raise ValueError(f"engine must be cpu or gpu, not {self.engine!r}")
        if self.engine == "gpu" and (self.nbest > 1 or self.unknown != "off"):
            raise ValueError("engine gpu: nbest above 1 and unknown words are found by engine cpu alone")
        if not 0 < self.blank_skip_threshold <= 1:
            raise ValueError(f"blank_skip_threshold must be in (0, 1], not {self.blank_skip_threshold}")


def for_embedded_model(**changes: object) -> DecoderOptions:
    """What suits the embedded acoustic model: the weights belong to a model, and are tuned anew for
    another. Its posteriors are less sharp than the defaults expect: a phone that is missing there is more
    often another word, and few new words are worth more false alarms."""
    tuned = DecoderOptions(
        lm_weight=1.1,
        word_score=-1.0,
        unknown_word_score=-10.0,
        rescoring_weight=0.75,
        rescoring_beam=4.0,
        missing_phone_score=-4.0,
        added_at_least_unknown=True,
        unknown_words=800,
    )
    return replace(tuned, **changes)  # type: ignore[arg-type]
