"""What the decoder benchmark measured, as Markdown tables and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark_measure import Result


def curve_table(results: Sequence[Result]) -> str:
    lines = [
        "| decoder | threads | beam | main: WER % | PER % | RTFx | by process time | zs: WER % | load s "
        "| by process time | peak MB | private MB |",
        "|" + "---|" * 12,
    ]
    for r in results:
        main, zs = (f"{100 * r.word_error_rate[s]:.1f}" if r.word_error_rate else "" for s in ("main", "zs"))
        phones, rtfx, process = (rates["main"] for rates in (r.phone_error_rate, r.rtfx, r.rtfx_process))
        lines.append(
            f"| {r.job.engine} | {r.job.threads} | {r.job.beam[0]:g} / {r.job.beam[1]} | {main} "
            f"| {100 * phones:.1f} | {rtfx:.0f} | {process:.0f} | {zs} | {r.load_s:.2f} "
            f"| {r.load_process_s:.2f} | {r.peak_mb:.0f} | {r.private_mb:.0f} |"
        )
    return "\n".join(lines)


def names_table(results: Sequence[Result]) -> str:
    lines = [
        "| decoder | score of an added word | recall % before | after | false before | after "
        "| WER % before | after | ms to add all |",
        "|" + "---|" * 9,
    ]
    for r in results:
        n = r.names
        assert n is not None
        found, rates = (100 * f / max(n.said, 1) for f in n.found), (100 * e for e in n.word_error_rate)
        cells = [f"{x:.0f}" for x in (*found, *n.false)] + [f"{x:.1f}" for x in (*rates, n.add_ms)]
        lines.append(f"| {r.job.engine} | {r.job.unknown_score:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: Sequence[Result], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for engine, threads in dict.fromkeys((r.job.engine, r.job.threads) for r in results):
        points = [r for r in results if (r.job.engine, r.job.threads) == (engine, threads)]
        x, y = [r.rtfx["main"] for r in points], [100 * r.word_error_rate["main"] for r in points]
        axes.plot(x, y, "o-", label=f"{engine}, {threads} thread{'s' * (threads > 1)}")
    axes.set(xscale="log", xlabel="RTFx (seconds of speech by second)", ylabel="WER %, main")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
