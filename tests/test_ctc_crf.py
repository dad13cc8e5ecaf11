"""CTC-CRF against the enumeration of all paths, its gradient, and the phone n-gram."""

import itertools

import numpy as np
import pytest
import torch
from reference.ctc_crf import loss as loss_by_enumeration
from reference.ctc_crf import shares_of_tokens, weights_of_strings

from asr.training.ctc_crf import PhoneNgram, all_paths, ctc_crf_loss, estimate_phone_ngram


def random_ngram(num_tokens: int, seed: int) -> PhoneNgram:
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn((num_tokens,) * 3, dtype=torch.float64, generator=generator)
    return PhoneNgram(scores.softmax(2))


def random_logits(*shape: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("num_tokens", "frames", "target"),
    [
        (2, 5, [1, 1]),
        (3, 1, [2]),
        (3, 6, [1, 2, 2]),
        (3, 5, []),
        (4, 5, [3, 1, 3, 2, 1]),
        (4, 5, [2, 2, 2]),
        (5, 4, [4, 3]),
    ],
)
def test_loss_equals_the_enumeration_of_all_paths(num_tokens: int, frames: int, target: list[int]) -> None:
    ngram = random_ngram(num_tokens, seed=frames)
    logits = random_logits(1, frames, num_tokens, seed=num_tokens)
    found = ctc_crf_loss(
        logits, torch.tensor([frames]), torch.tensor([target], dtype=torch.int64),
        torch.tensor([len(target)]), ngram,
    )  # fmt: skip
    assert found.item() == pytest.approx(loss_by_enumeration(logits[0].numpy(), target, ngram.probs.numpy()))


def test_shares_equal_the_enumeration_of_all_paths() -> None:
    ngram = random_ngram(4, seed=0)
    logits = random_logits(2, 5, 4, seed=1)
    lengths = torch.tensor([5, 3])
    inside = torch.arange(5) < lengths[:, None]
    log_z, shares = all_paths(logits, inside, ngram.probs)
    for row, length in enumerate(lengths.tolist()):
        scores = logits[row, :length].numpy()
        weights = weights_of_strings(scores, ngram.probs.numpy())
        assert log_z[row].item() == pytest.approx(np.log(sum(weights.values())))
        np.testing.assert_allclose(shares[row, :length], shares_of_tokens(scores, ngram.probs.numpy()))


def test_probabilities_of_all_strings_sum_to_one() -> None:
    ngram = random_ngram(3, seed=3)
    logits = random_logits(1, 4, 3, seed=4)
    strings = [list(s) for n in range(5) for s in itertools.product((1, 2), repeat=n)]
    total = 0.0
    for string in strings:
        target = torch.tensor([string], dtype=torch.int64)
        found = ctc_crf_loss(logits, torch.tensor([4]), target, torch.tensor([len(string)]), ngram).item()
        needed = len(string) + sum(a == b for a, b in itertools.pairwise(string))
        if needed <= 4:
            total += np.exp(-found)
        else:
            assert found == 0  # no path: left out of the training
    assert total == pytest.approx(1)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lengths, targets, target lengths; the last utterance is too short for its phones."""
    targets = torch.tensor([[1, 3, 3, 2], [2, 1, 0, 0], [0, 0, 0, 0], [3, 3, 0, 0]])
    return torch.tensor([7, 4, 3, 2]), targets, torch.tensor([4, 2, 0, 2])


def test_gradient() -> None:
    ngram = random_ngram(4, seed=5)
    lengths, targets, target_lengths = batch()
    logits = random_logits(4, 7, 4, seed=6).requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def weighted(x: torch.Tensor) -> torch.Tensor:
        return ctc_crf_loss(x, lengths, targets, target_lengths, ngram) * weights

    assert torch.autograd.gradcheck(weighted, (logits,))


def test_batch_equals_single() -> None:
    ngram = random_ngram(4, seed=7)
    lengths, targets, target_lengths = batch()
    logits = random_logits(4, 7, 4, seed=8).requires_grad_()
    together = ctc_crf_loss(logits, lengths, targets, target_lengths, ngram)
    together.sum().backward()
    assert logits.grad is not None
    for i, (length, phones) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        one = logits[i : i + 1, :length].detach().requires_grad_()
        alone = ctc_crf_loss(
            one, lengths[i : i + 1], targets[i : i + 1, :phones], target_lengths[i : i + 1], ngram
        )
        torch.testing.assert_close(alone[0], together[i])
        alone.sum().backward()
        torch.testing.assert_close(one.grad[0], logits.grad[i, :length])
        assert not logits.grad[i, length:].any()


def test_an_utterance_too_short_for_its_phones_teaches_nothing() -> None:
    lengths, targets, target_lengths = batch()
    logits = random_logits(4, 7, 4, seed=9).requires_grad_()
    losses = ctc_crf_loss(logits, lengths, targets, target_lengths, random_ngram(4, seed=9))
    losses.sum().backward()
    assert losses[3] == 0 and logits.grad is not None and not logits.grad[3].any()
    assert losses[0] > 0 and logits.grad[0].any()


def test_long_and_sure_utterances_in_single_precision() -> None:
    # Scores of hundreds a frame, 1000 frames: only scaling frame by frame keeps this in range.
    ngram = random_ngram(12, seed=10)
    scores = 30 * random_logits(2, 1_000, 12, seed=11)
    inside = torch.arange(1_000) < torch.tensor([1_000, 900])[:, None]
    log_z, shares = all_paths(scores, inside, ngram.probs)
    single_log_z, single_shares = all_paths(scores.float(), inside, ngram.probs.float())
    torch.testing.assert_close(single_log_z.double(), log_z, rtol=1e-6, atol=0)
    torch.testing.assert_close(single_shares[inside].double(), shares[inside], rtol=0, atol=1e-4)


def test_denormal_numbers_are_as_before_outside() -> None:
    smallest = torch.full((1,), 1e-40)
    for flush in (True, False):
        torch.set_flush_denormal(flush)
        all_paths(
            random_logits(1, 3, 3, seed=0), torch.ones(1, 3, dtype=torch.bool), random_ngram(3, 0).probs
        )
        assert (smallest * 1 == 0).item() == flush


def test_a_level_added_to_a_frame_changes_nothing() -> None:
    ngram = random_ngram(4, seed=13)
    lengths, targets, target_lengths = batch()
    logits = random_logits(4, 7, 4, seed=14)
    levels = 50 * random_logits(4, 7, 1, seed=15)
    torch.testing.assert_close(
        ctc_crf_loss(logits, lengths, targets, target_lengths, ngram),
        ctc_crf_loss(logits + levels, lengths, targets, target_lengths, ngram),
    )


def test_learns_a_string() -> None:
    torch.manual_seed(0)
    ngram = estimate_phone_ngram([[1, 2, 3, 1], [3, 2, 1]], 4)
    logits = torch.zeros(1, 12, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = ctc_crf_loss(logits, torch.tensor([12]), torch.tensor([[2, 1, 1]]), torch.tensor([3]), ngram)
        loss.sum().backward()
        optimizer.step()
    assert loss.item() < 0.1
    best = [token for token, _ in itertools.groupby(logits[0].argmax(1).tolist()) if token]
    assert best == [2, 1, 1]


def test_trigram_by_hand() -> None:
    # Strings 1 2, 1 2 and 1 1: successors of the beginning: 1 three times, one kind.
    ngram = estimate_phone_ngram([[1, 2], [1, 2], [1, 1]], 3)
    # Unigram: end 3, phone 1 four times, phone 2 twice: 9 in all, 3 kinds, beside 1/3 each.
    one = [(3 + 3 / 3) / 12, (4 + 3 / 3) / 12, (2 + 3 / 3) / 12]
    # After 1: end once, 1 once, 2 twice.
    two = [(1 + 3 * one[0]) / 7, (1 + 3 * one[1]) / 7, (2 + 3 * one[2]) / 7]
    # After the beginning and 1: 1 once, 2 twice.
    three = [2 * two[0] / 5, (1 + 2 * two[1]) / 5, (2 + 2 * two[2]) / 5]
    torch.testing.assert_close(ngram.probs[0, 1], torch.tensor(three))
    # 2 2 never came: what came after 2, which was the end twice.
    assert ngram.probs[2, 2, 0].item() == pytest.approx((2 + 1 * one[0]) / 3)
    assert ngram.log_prob(torch.tensor([[1]]), torch.tensor([1])).item() == pytest.approx(
        np.log(ngram.probs[0, 0, 1] * ngram.probs[0, 1, 0])
    )


@pytest.mark.parametrize("order", [2, 3])
def test_every_history_has_a_distribution_without_zeros(order: int) -> None:
    rng = np.random.default_rng(0)
    ngram = estimate_phone_ngram([rng.integers(1, 7, 9) for _ in range(30)], 8, order)
    torch.testing.assert_close(ngram.probs.sum(2), torch.ones(8, 8))
    assert (ngram.probs > 0).all()
    alike = torch.equal(ngram.probs[1], ngram.probs[2])
    assert alike == (order == 2)


def test_log_prob_ignores_padding() -> None:
    ngram = random_ngram(5, seed=16)
    padded = ngram.log_prob(torch.tensor([[4, 2, 0, 0], [1, 2, 3, 4]]), torch.tensor([2, 4]))
    alone = ngram.log_prob(torch.tensor([[4, 2]]), torch.tensor([2]))
    torch.testing.assert_close(padded[0], alone[0])


def test_errors_of_the_ngram() -> None:
    with pytest.raises(ValueError, match="phone ids must be 1 to 3, not 0 to 2"):
        estimate_phone_ngram([[1, 0, 2]], 4)
    with pytest.raises(ValueError, match="no phone strings"):
        estimate_phone_ngram([], 4)
