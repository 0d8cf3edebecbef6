"""What the measured reconstructions say, in one conclusion and a sentence per level."""

from collections.abc import Sequence
from dataclasses import dataclass

from dpmed.matching.rero import Share
from dpmed.reconstructions.manifest import Level, Manifest
from dpmed.rounding import is_vacuous, odds, percent, percent_at_most, percent_interval

_FEW, _FEW_PERCENT = 0.05, "5 %"
NO_SIGN = "* No sign of success: for at least half of the originals, some other original is within this distance too."


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
        return self.level.title

    @property
    def share(self) -> Share:
        """The share recovered within the first threshold."""
        return self.shares[0][1]


def proves_nothing(threshold: float, unrelated: float | None) -> bool:
    """Whether at least half of the originals have another original within the threshold too."""
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
            f"Nothing can be concluded at a distance ({metric}) of {threshold:g}: for at least half of the originals, "
            f"some other original is as close as that (median {strangers:.3g}). Choose a smaller threshold."
        )
    private = sorted((one for one in results if one.level.is_private), key=lambda one: one.level.epsilon or 0.0)
    # Levels above one at which the attack succeeded prove nothing, whatever their results.
    succeeded = next((place for place, one in enumerate(private) if one.share.high > _FEW), len(private))
    held, rest = private[:succeeded], private[succeeded:]
    sentences = []
    if held:
        sentences.append(
            f"Up to {held[-1].name} the attack recovers fewer than {_FEW_PERCENT} of the images, with 95 % confidence "
            "at each level."
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


def proven(bounds: Sequence[tuple[str, float]], *, prior: float | None) -> str:
    """What holds for every attack, in addition to what one attack did.

    Args:
        bounds: names of levels, each with the largest chance of any attack there, in the order of ε.
        prior: κ, at which the bounds hold; None if there are none.
    """
    if not bounds or prior is None:
        return ""
    limits = _listed([f"{percent_at_most(bound)} at {name}" for name, bound in bounds if not is_vacuous(bound)])
    void = _listed([name for name, bound in bounds if is_vacuous(bound)])
    sentences = []
    if limits:
        whom = f"every attacker who would guess an image with a chance of {odds(prior)} without the model"
        sentences.append(f"Proven for {whom}: at most {limits}.")
    if void:
        sentences.append(f"No limit below 100 % is proven at {void}.")
    return " ".join(sentences)


def _listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(parts[:-1])] * (len(parts) > 1) + list(parts[-1:]))


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
                f" Half of the matches are closer than {result.median:.3g}, and half of the originals have another "
                f"original closer than {result.unrelated:.3g}: the matches are {'' if closer else 'not '}more alike "
                "than different originals are."
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
            f"are too few to say that it recovers fewer than {_FEW_PERCENT}."
        )
    return f"Even at {lowest.name}, the smallest ε tried, the attack recovered {_counts(share)}."


def _is_alike(result: LevelResult) -> bool:
    """Whether hardly any image counts as recovered, yet the matches are closer than other originals: grainy, say."""
    if result.median is None or result.unrelated is None:
        return False
    return result.share.share <= _FEW and result.median < result.unrelated


def _alike(result: LevelResult) -> str:
    return (
        f"Yet at {result.name} half of the matches are closer than {result.median:.3g}, while only half of the "
        f"originals have another original within {result.unrelated:.3g}: look at the pictures before trusting the "
        "count."
    )


def _counts(share: Share) -> str:
    return (
        f"{share.recovered} of {share.originals} images ({percent(share.share)}; 95 % interval "
        f"{percent_interval(share.low, share.high)})"
    )
