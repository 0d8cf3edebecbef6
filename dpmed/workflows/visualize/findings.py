"""What the measured reconstructions say, in one conclusion and a sentence per level."""

from collections.abc import Sequence
from dataclasses import dataclass

from dpmed.figures.gallery import level_title
from dpmed.matching.rero import Share
from dpmed.reconstructions.manifest import Level, Manifest

_FEW = 0.05
# From here on a percentage with one decimal shows certainty.
_CERTAIN = 0.9995


@dataclass(frozen=True, kw_only=True)
class LevelResult:
    """The results of one level.

    Attributes:
        level: the level.
        shares: thresholds with the share recovered within each.
        median: median distance; None if nothing was matched.
        unrelated: median distance between an original and its nearest other original; None if unknown.
        note: how the metric differs from its published definition.
    """

    level: Level
    shares: tuple[tuple[float, Share], ...]
    median: float | None
    unrelated: float | None
    note: str

    @property
    def name(self) -> str:
        """How the page calls the level: `ε = 8`, or `no privacy`."""
        return level_title(self.level.epsilon)

    @property
    def share(self) -> Share:
        """The share recovered within the first threshold."""
        return self.shares[0][1]


def proves_nothing(threshold: float, unrelated: float | None) -> bool:
    """Whether unrelated images are mostly within the threshold too."""
    return unrelated is not None and threshold >= unrelated


def conclude(results: Sequence[LevelResult], *, metric: str) -> str:
    """The main conclusion, which claims no more than was measured.

    Args:
        results: one per level, each with at least one threshold; the conclusion is about the first threshold.
        metric: the distance.
    """
    threshold, strangers = results[0].shares[0][0], results[0].unrelated
    if proves_nothing(threshold, strangers):
        return (
            f"Nothing can be concluded at a distance ({metric}) of {threshold:g}: unrelated images are as close as "
            f"that (median {strangers:.3g}). Choose a smaller threshold."
        )
    private = sorted((one for one in results if one.level.is_private), key=lambda one: one.level.epsilon or 0.0)
    # Levels above one at which the attack succeeded prove nothing, whatever their results.
    succeeded = next((place for place, one in enumerate(private) if one.share.high > _FEW), len(private))
    held, rest = private[:succeeded], private[succeeded:]
    sentences = []
    if held:
        sentences.append(
            f"Up to {held[-1].name} the attack recovers fewer than {_FEW:.0%} of the images, with 95 % confidence at "
            "each level."
        )
    elif private:
        sentences.append(_of_the_lowest(private[0]))
    sentences += [_alike(one) for one in private if _is_alike(one)][:1]
    loudest = [one for one in (*rest, *(one for one in results if not one.level.is_private)) if one not in private[:1]]
    if loudest:
        most = max(loudest, key=lambda one: one.share.share)
        where = f"At {most.name}" if most.level.is_private else "Without privacy"
        sentences.append(f"{where} it recovered {_counts(most.share)}.")
    return " ".join(sentences) or f"The attack recovered {_counts(results[0].share)}."


def proven(bounds: Sequence[tuple[str, float]]) -> str:
    """What holds for every attack, in addition to what one attack did.

    Args:
        bounds: names of levels, each with the largest chance of any attack there, in the order of ε.
    """
    if not bounds:
        return ""
    limits = ", ".join(f"{percent(bound)} at {name}" for name, bound in bounds if not is_vacuous(bound))
    void = ", ".join(name for name, bound in bounds if is_vacuous(bound))
    told = "; ".join([f"at most {limits}"] * bool(limits) + [f"nothing at {void}"] * bool(void))
    return f"Proven for every attack on one image: {told}."


def is_vacuous(bound: float) -> bool:
    """Whether a bound on a chance, as a percentage, would be shown as 100 %: it rules nothing out."""
    return bound >= _CERTAIN


def percent(share: float) -> str:
    """A share as a percentage; very small ones as a plain number."""
    return f"{share:.1%}" if share >= 1e-3 else f"{share:.2g}"  # noqa: PLR2004 below this, a percentage would show zero


def explain_levels(manifest: Manifest, results: Sequence[LevelResult], *, metric: str) -> list[str]:
    """A sentence per level, and a caveat about all of them."""
    sentences = []
    for result in results:
        threshold, share = result.shares[0]
        sentence = (
            f"{result.name if result.level.is_private else 'No privacy'}: {_counts(share)} within a distance "
            f"({metric}) of {threshold:g}."
        )
        if result.median is not None and result.unrelated is not None:
            closer = result.median < result.unrelated
            sentence += (
                f" Half of the matches are closer than {result.median:.3g}; unrelated images are at "
                f"{result.unrelated:.3g}, so the matches are {'' if closer else 'not '}more alike than chance."
            )
        sentences.append(sentence)
    sentences.append(
        f"This is what one attack ({manifest.attack}) achieved. A better one may achieve more; only the bounds hold "
        "for every attack."
    )
    return sentences


def _of_the_lowest(lowest: LevelResult) -> str:
    share = lowest.share
    if share.share <= _FEW:
        return (
            f"At {lowest.name}, the smallest ε tried, the attack recovered {_counts(share)}: {share.originals} images "
            f"are too few to say that it recovers fewer than {_FEW:.0%}."
        )
    return f"Even at {lowest.name}, the smallest ε tried, the attack recovered {_counts(share)}."


def _is_alike(result: LevelResult) -> bool:
    """Whether hardly any image counts as recovered, yet half of them are closer than unrelated ones: grainy, say."""
    if result.median is None or result.unrelated is None:
        return False
    return result.share.share <= _FEW and result.median < result.unrelated


def _alike(result: LevelResult) -> str:
    return (
        f"Yet at {result.name} half of the matches are closer than {result.median:.3g}, while unrelated images are at "
        f"{result.unrelated:.3g}: look at the pictures before trusting the count."
    )


def _counts(share: Share) -> str:
    return (
        f"{share.recovered} of {share.originals} images ({share.share:.1%}; 95 % interval {share.low:.1%} to "
        f"{share.high:.1%})"
    )
