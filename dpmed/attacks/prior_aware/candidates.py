"""The prior-aware attack: which of the candidates is the record used in training?

The attacker holds m equally likely candidates, one of which is the target, and knows everything else about the
training: all other records, which of them took part in which step, and the weights. Subtracting all of that from each
noisy sum leaves the residual r = b·g + noise, where g is the target's clipped gradient and b says whether the target
took part (with probability q; the attacker does not know when). Over the steps, the attacker accumulates how much
better each candidate explains the residuals than no candidate does, and names the best one.

The worst-case attacker knows each candidate's gradient. The relaxed one does not know its sign, which changes at random
from step to step.

Source: Hayes, Mahloujifar & Balle (2023), "Bounding training data reconstruction in DP-SGD", the prior-aware attack;
the relaxed adversary is that of Ziller et al. (2024).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from scipy.linalg.blas import dsyrk

from dpmed.dpsgd.clipped_sum import clip_and_sum
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.gradients import per_sample_gradients
from dpmed.privacy.loss.losses import Adversary

Gradients = Float[np.ndarray, "candidate parameter"]
Evidence = Float[np.ndarray, "trial candidate"]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """How a step hides a record: noise and sampling.

    Attributes:
        noise_std: σ·C > 0, in the gradients' unit.
        sampling_rate: q in (0, 1].
    """

    noise_std: float
    sampling_rate: float

    def __post_init__(self) -> None:
        if not 0 < self.noise_std < np.inf:
            raise ValueError(f"Expected finite {self.noise_std=} > 0.")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"Expected {self.sampling_rate=} in (0, 1].")


def clipped_gradients(
    loss: Callable[[PyTree[Array], PyTree[Array]], Float[Array, ""]],
    trainable: PyTree[Float[Array, "..."]],
    records: PyTree[Array],
    *,
    mask: Bool[Array, " record"],
    clipping: FlatClipping,
) -> Float[Array, "record parameter"]:
    """Each record's gradient as the training would clip it, flattened.

    Args:
        loss: the loss of one record.
        trainable: the leaves to differentiate with respect to.
        records: records along the leading axis of every leaf.
        mask: true for real records; padding gives zeros.
        clipping: the training's own clipping, done by the same code.
    """
    _, gradients = per_sample_gradients(loss, trainable, records)

    def alone(gradient: PyTree[Array], is_real: Bool[Array, ""]) -> PyTree[Array]:
        single = jax.tree.map(lambda leaf: leaf[None], gradient)
        return clip_and_sum(single, is_real[None], clipping=clipping).gradients

    clipped = jax.vmap(alone)(gradients, mask)
    flat = [leaf.reshape(len(mask), -1).astype(jnp.float32) for leaf in jax.tree.leaves(clipped)]
    return jnp.concatenate(flat, axis=1)


class Contest:
    """Many trials of the attack along one training.

    Each trial has its own target, drawn uniformly from the candidates, and its own participation and noise in each
    step. The trials share the weights at which gradients are taken: those of one real training. Given the weights, the
    steps are T Poisson-subsampled Gaussian mechanisms, each of sensitivity at most C, whatever the weights. The bound
    on T compositions therefore holds for the success rate along any training, and trials along one training are
    independent.

    Such an attacker uses only the inner products of a residual with the candidates' gradients. These are sampled
    directly, from their exact joint Gaussian distribution, whose covariance is the gradients' Gram matrix.

    Attributes:
        targets: each trial's target.
        evidence: for each adversary and trial the log-likelihood ratio of each candidate against none, so far.

    Args:
        candidates: number of candidates, at least 2.
        trials: number of trials, at least 1.
        channel: noise and sampling.
        adversaries: the adversaries that attack; all see the same residuals.
        generator: draws targets, participation and noise.
    """

    def __init__(
        self,
        candidates: int,
        trials: int,
        *,
        channel: Channel,
        adversaries: tuple[Adversary, ...],
        generator: np.random.Generator,
    ) -> None:
        if candidates < 2 or trials < 1:  # noqa: PLR2004 one candidate leaves nothing to choose
            raise ValueError(f"Expected {candidates=} >= 2 and {trials=} >= 1.")
        self._channel = channel
        self._generator = generator
        self.targets: Int[np.ndarray, " trial"] = generator.integers(candidates, size=trials)
        self.evidence: dict[Adversary, Evidence] = {name: np.zeros((trials, candidates)) for name in adversaries}

    def step(self, gradients: Gradients) -> None:
        """Carry out one step in every trial.

        Args:
            gradients: the candidates' clipped gradients at the weights of this step.
        """
        gram = gram_matrix(gradients)
        self._play(gram, gram_root(gram))

    def play_ideal(self, clipping_norm: float, *, steps: int) -> None:
        """Carry out steps in which the candidates' gradients are orthogonal and as long as clipping allows.

        No training has such gradients in every step; they show what the attack achieves in the best case.

        Args:
            clipping_norm: C.
            steps: number of steps.
        """
        unit = np.eye(next(iter(self.evidence.values())).shape[1])
        for _ in range(steps):
            self._play(clipping_norm**2 * unit, clipping_norm * unit)

    def _play(
        self, gram: Float[np.ndarray, "candidate candidate"], root: Float[np.ndarray, "candidate candidate"]
    ) -> None:
        inner = self._residuals(gram, root)
        for adversary in self.evidence:
            self.evidence[adversary] += step_evidence(inner, np.diag(gram), adversary=adversary, channel=self._channel)

    def successes(self, adversary: Adversary) -> int:
        """The number of trials in which the candidate with the most evidence is the target."""
        # Ties go to the first candidate, which equals a random choice, since the target is drawn uniformly.
        return int((self.evidence[adversary].argmax(axis=1) == self.targets).sum())

    def _residuals(
        self, gram: Float[np.ndarray, "candidate candidate"], root: Float[np.ndarray, "candidate candidate"]
    ) -> Evidence:
        joined = self._generator.random(len(self.targets)) < self._channel.sampling_rate
        noise = self._generator.standard_normal((len(self.targets), len(gram)))
        signal = np.where(joined[:, None], gram[self.targets], 0.0)
        return signal + self._channel.noise_std * (noise @ root.T)


def gram_matrix(gradients: Gradients) -> Float[np.ndarray, "candidate candidate"]:
    """All inner products, in double precision: at tiny noise the evidence is a small difference of huge numbers."""
    # BLAS gives the upper triangle; the transpose of a C-ordered matrix is in Fortran order, so nothing is copied.
    upper = np.triu(dsyrk(1.0, gradients.astype(np.float64, order="C").T, trans=1))
    return upper + np.triu(upper, 1).T


def gram_root(gram: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """A matrix A with A·Aᵀ = `gram`, which may be singular, as that of equal or vanishing gradients is.

    By Cholesky decomposition. To handle singular matrices, 1e-12 of the largest square is added to all of them, a
    millionth of the standard deviation.
    """
    largest = float(gram.diagonal().max())
    return np.linalg.cholesky(gram + max(1e-12 * largest, 1e-300) * np.eye(len(gram)))


def step_evidence(
    inner: Evidence, squares: Float[np.ndarray, " candidate"], *, adversary: Adversary, channel: Channel
) -> Evidence:
    """One step's log-likelihood ratio of each candidate against none.

    With s = noise_std, for a candidate with gradient g and the residual r: in the worst case
    log(1 − q + q·exp(⟨g, r⟩/s² − ‖g‖²/2s²)), the optimal decoder's; relaxed, the mean over both signs,
    log(1 − q + q·exp(−‖g‖²/2s²)·cosh(⟨g, r⟩/s²)). The relaxed evidence is the same for r and −r, and so is the noise's
    distribution, so that it makes no difference whether the sign is really drawn anew in each step.

    Args:
        inner: ⟨g, r⟩ of each trial's residual with each candidate's gradient.
        squares: ‖g‖² of each candidate.
        adversary: the adversary.
        channel: noise and sampling.

    Source: Hayes, Mahloujifar & Balle (2023); Mironov, Talwar & Zhang (2019), the sampled Gaussian mechanism.
    """
    variance = channel.noise_std**2
    match adversary:
        case "worst-case":
            exponent = (inner - 0.5 * squares) / variance
        case "relaxed":
            size = np.abs(inner) / variance
            exponent = (np.abs(inner) - 0.5 * squares) / variance + np.log1p(np.exp(-2.0 * size)) - np.log(2.0)
    rate = channel.sampling_rate
    return exponent if rate >= 1 else np.logaddexp(np.log1p(-rate), np.log(rate) + exponent)
