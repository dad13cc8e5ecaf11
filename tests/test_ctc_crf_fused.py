"""The kernels of CTC-CRF sum what the frame-by-frame form sums; without a GPU, in Triton's interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from asr.training.ctc_crf import PhoneNgram, all_paths, ctc_crf_loss, estimate_phone_ngram

pytest.importorskip("triton")

# In a process of its own: Triton decides once whether it interprets.
INTERPRETED = """
import torch
from asr.training import ctc_crf, ctc_crf_fused

generator = torch.Generator().manual_seed(1)
for tokens, frames in ((2, 4), (5, 7), (9, 12)):
    probs = (2 * torch.randn((tokens,) * 3, generator=generator)).softmax(2)
    scores = (3 * torch.randn(3, frames, tokens, generator=generator)).log_softmax(2)
    scores += 20 * torch.randn(3, frames, 1, generator=generator)
    lengths = torch.tensor([frames, frames - 2, 1])
    inside = torch.arange(frames) < lengths[:, None]
    log_z, shares = ctc_crf.all_paths(scores.double(), inside, probs.double())
    fused_log_z, fused_shares = ctc_crf_fused.all_paths(scores, lengths, probs)
    torch.testing.assert_close(fused_log_z.double(), log_z, rtol=1e-6, atol=1e-5)
    expected = torch.where(inside[..., None], shares, 0).float()
    torch.testing.assert_close(fused_shares, expected, rtol=0, atol=1e-6)
    assert (fused_shares.sum(2)[inside] - 1).abs().max() < 1e-6
"""

COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from asr.training import ctc_crf_fused

for kernel, result in ((ctc_crf_fused._forward, "log_z"), (ctc_crf_fused._backward, "shares")):
    types = dict.fromkeys(("emitted", "steps", "alphas", result), "*fp32")
    types |= {"lengths": "*i64", "frames": "i32", "TOKENS": "constexpr", "SIZE": "constexpr"}
    source = ASTSource(fn=kernel, signature=types, constexprs={"TOKENS": 47, "SIZE": 64})
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": ctc_crf_fused._WARPS})
    assert compiled.asm["cubin"] and compiled.metadata.shared < 48_000
"""


@pytest.mark.parametrize("program", [INTERPRETED, COMPILED], ids=["interpreted", "compiled"])
def test_without_a_gpu(program: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1" if program is INTERPRETED else "0")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator = torch.Generator().manual_seed(2)
    strings = [torch.randint(1, 47, (30,), generator=generator).tolist() for _ in range(200)]
    ngram = estimate_phone_ngram(strings, 47)
    logits = 4 * torch.randn(40, 400, 47, generator=generator)
    lengths = torch.randint(60, 401, (40,), generator=generator)
    inside = torch.arange(400) < lengths[:, None]
    log_z, shares = all_paths(logits.double(), inside, ngram.probs.double())
    from asr.training import ctc_crf_fused

    fused_log_z, fused_shares = ctc_crf_fused.all_paths(logits.cuda(), lengths.cuda(), ngram.probs.cuda())
    torch.testing.assert_close(fused_log_z.cpu().double(), log_z, rtol=1e-5, atol=1e-3)
    expected = torch.where(inside[..., None], shares, 0).float()
    torch.testing.assert_close(fused_shares.cpu(), expected, rtol=0, atol=1e-4)
    targets = torch.tensor(strings[:40])
    numbers = torch.full((40,), 30)
    double, single = logits.double().requires_grad_(), logits.cuda().requires_grad_()
    expected = ctc_crf_loss(double, lengths, targets, numbers, PhoneNgram(ngram.probs.double()))
    found = ctc_crf_loss(single, lengths.cuda(), targets.cuda(), numbers.cuda(), ngram)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-4, atol=1e-2)
    assert double.grad is not None and single.grad is not None
    torch.testing.assert_close(single.grad.cpu().double(), double.grad, rtol=0, atol=1e-3)
