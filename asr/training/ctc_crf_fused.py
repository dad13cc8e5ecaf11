"""The sums over all paths of CTC-CRF on a GPU: a program for each utterance that goes through its frames.

What `asr.training.ctc_crf.all_paths` does with a dozen small kernels a frame, here with two for everything;
the same states in the same order, and the same scaling of each frame. The tables of an utterance stay in
registers, the phone n-gram in the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS = 16


def all_paths(scores: Tensor, lengths: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
    """As `asr.training.ctc_crf.all_paths`, in float32, with lengths (batch,) for `inside`; the shares of
    frames beyond them are 0."""
    num, frames, tokens = scores.shape
    top = scores.amax(2)
    emitted = (scores - top[..., None]).exp().float().contiguous()
    steps = probs.permute(2, 1, 0).float().contiguous()  # [c, b, a]; c = 0 is the end
    alphas = emitted.new_empty(num, frames, 2, tokens, tokens)  # blank's half, phone's half; [b, a]
    shares = torch.zeros_like(emitted)
    log_z = emitted.new_empty(num)
    sizes = {"TOKENS": tokens, "SIZE": triton.next_power_of_2(tokens)}
    _forward[(num,)](emitted, steps, lengths, alphas, log_z, frames, **sizes, num_warps=_WARPS)
    _backward[(num,)](emitted, steps, lengths, alphas, shares, frames, **sizes, num_warps=_WARPS)
    inside = torch.arange(frames, device=scores.device) < lengths[:, None]
    return log_z + torch.where(inside, top, 0).sum(1), shares


@triton.jit
def _forward(emitted, steps, lengths, alphas, log_z, frames, TOKENS: tl.constexpr, SIZE: tl.constexpr):
    utterance = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + utterance)
    index = tl.arange(0, SIZE)
    b, a = index[:, None], index[None, :]
    inside, place = (b < TOKENS) & (a < TOKENS), b * TOKENS + a
    emitted += utterance * frames * TOKENS
    alphas += utterance * frames * 2 * TOKENS * TOKENS
    blank = tl.where((b == 0) & (a == 0), 1.0, 0.0)
    phone = tl.zeros((SIZE, SIZE), tl.float32)
    log_scale = 0.0
    t = 0
    while t < length:
        every = blank + phone
        entered = tl.zeros((SIZE, SIZE), tl.float32)  # [c, b]
        for c in range(1, TOKENS):
            step = tl.load(steps + c * TOKENS * TOKENS + place, mask=inside, other=0.0)
            # A phone that comes again needs a blank between.
            following = tl.sum(tl.where(b == c, blank, every) * step, 1)
            entered = tl.where(b == c, following[None, :], entered)
        says = tl.load(emitted + t * TOKENS + index, mask=index < TOKENS, other=0.0)
        silent = tl.load(emitted + t * TOKENS)
        blank = every * silent
        phone = (entered + phone) * says[:, None]
        total = tl.sum(tl.sum(blank + phone, 1), 0)
        blank /= total
        phone /= total
        log_scale += tl.log(total)
        tl.store(alphas + place, blank, mask=inside)
        tl.store(alphas + TOKENS * TOKENS + place, phone, mask=inside)
        alphas += 2 * TOKENS * TOKENS
        t += 1
    ends = tl.load(steps + place, mask=inside, other=0.0)
    last = tl.sum(tl.sum((blank + phone) * ends, 1), 0)
    tl.store(log_z + utterance, tl.log(last) + log_scale)


@triton.jit
def _backward(emitted, steps, lengths, alphas, shares, frames, TOKENS: tl.constexpr, SIZE: tl.constexpr):
    utterance = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + utterance)
    index = tl.arange(0, SIZE)
    b, a = index[:, None], index[None, :]
    inside, place = (b < TOKENS) & (a < TOKENS), b * TOKENS + a
    emitted += utterance * frames * TOKENS
    shares += utterance * frames * TOKENS
    alphas += utterance * frames * 2 * TOKENS * TOKENS
    blank = tl.load(steps + place, mask=inside, other=0.0)
    phone = blank
    t = length - 1
    while t >= 0:
        here = alphas + t * 2 * TOKENS * TOKENS + place
        through_blank = tl.load(here, mask=inside, other=0.0) * blank
        through_phone = tl.load(here + TOKENS * TOKENS, mask=inside, other=0.0) * phone
        of_blank = tl.sum(tl.sum(through_blank, 1), 0)
        of_phones = tl.sum(through_phone, 1)
        # No path ends in phone 0: its place is the blank's.
        share = tl.where(index == 0, of_blank, of_phones) / (of_blank + tl.sum(of_phones, 0))
        tl.store(shares + t * TOKENS + index, share, mask=index < TOKENS)
        scale = 1 / tl.sum(tl.sum(blank + phone, 1), 0)
        says = tl.load(emitted + t * TOKENS + index, mask=index < TOKENS, other=0.0)
        silent = blank * tl.load(emitted + t * TOKENS) * scale
        said = phone * says[:, None] * scale  # phone b in this frame, after a; the same as c after b
        blank = silent
        phone = silent + said
        for c in range(1, TOKENS):
            step = tl.load(steps + c * TOKENS * TOKENS + place, mask=inside, other=0.0)
            after = tl.sum(tl.where(b == c, said, 0.0), 0)  # [b]
            entered = after[:, None] * step
            blank += entered
            phone += tl.where(b == c, 0.0, entered)
        t -= 1
