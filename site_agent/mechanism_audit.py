"""Evidence that a training step is the mechanism it is said to be: run the real step on probes, measure, recompute.

Design of differential privacy, section 6. The trainer is a black box here: a spec and records go in, a round's update
comes out. Records are made up (one record that nobody can overlook, or none), so no patient is read and no budget is
spent; nothing that is measured leaves a step of real training.

| probe | measured | what it would show |
|---|---|---|
| nobody in the cohort | deviation and shape of the noise; that a step is taken at all | noise off, or less of it |
| the same, a whole round | steps in a round, from the variance | more steps than are counted |
| n patients that all stand out | how many fall into a step: the rate, and its variance | shuffled batches |
| n, n + 1 and 3n patients | the same rate, one patient worth the same | a rate or divisor that was counted |
| one patient that stands out | how far the sum moves: at most the clip norm | clipping off |
| a record of NaN | nothing moves | one record that breaks a sum |
| two trainers, every seed the same | noise unrelated | noise that can be searched, or cancels |
| a round that breaks off | steps taken are counted, nothing is left over | half a sum in the next step |

From what was measured, epsilon of the whole study is computed again and compared with the claim. Bounds hold each with
an error below ERROR, all together with CONFIDENCE. The healthy trainer fails a check once in 1 / (1 - CONFIDENCE)
audits at the most (`mechanism_findings.py`).

Does not show: what the trainer would do with other records than these, or at another time.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.dropout import _DropoutNd

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import NOISE_MULTIPLIER_MIN, PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.errors import LocalProtocolError
from site_agent.cohort import Records
from site_agent.gradients.losses import loss_of
from site_agent.local_steps import FRESH, LocalStart
from site_agent.mechanism_findings import Finding, MechanismAudit
from site_agent.networks import build_from
from site_agent.networks.drawing import generator_alone
from site_agent.training_spec import OptimizerSpec, TrainingSpec
from site_agent.update import load_vector, named_parameters

ERROR = 1e-7
"""Chance that one bound does not hold although the trainer is healthy."""

_Z = 5.33  # two-sided normal deviate for ERROR
_Z_WIDE = 7.0  # for statistics that are only nearly normal

EXPECTED_IN_A_STEP = 12  # patients, of the smallest probe cohort
QUIET_NOISE = 0.1  # noise multiplier of probes in which patients are counted: one stands 10 deviations out


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long an audit takes, and so how close its bounds are. It changes neither what is looked at nor CONFIDENCE."""

    noise_samples: int  # coordinates of noise
    sampling_rounds: int  # for each cohort
    rounds_max: int  # of any one probe


AT_ADMISSION = Effort(noise_samples=4_000, sampling_rounds=80, rounds_max=600)
"""Noise and rate to about 6 and 10 %, in half a second for a small network."""
THOROUGH = Effort(noise_samples=100_000, sampling_rounds=800, rounds_max=8_000)
"""Noise and rate to about 1 and 3 %."""


class Trained(Protocol):
    """What a round gives."""

    @property
    def update(self) -> NDArray[Any]:
        """float[d]: a model difference, or a noisy sum of gradients under shared noise."""

    @property
    def events(self) -> tuple[DpEvent, ...]:
        """What the round cost."""


class Trainer(Protocol):
    """What is audited: `trainer.DpTrainer`, or something that only looks like it."""

    engine: Any

    @property
    def events(self) -> tuple[DpEvent, ...]:
        """What every round so far has cost."""

    def train_round(self, model: NDArray[np.float32], start: LocalStart = FRESH) -> Trained:
        """Take a round's steps from a model, and from what the hospital brings besides."""


Factory = Callable[[TrainingSpec, Records], Trainer]


def audit_mechanism(spec: TrainingSpec, factory: Factory, effort: Effort = AT_ADMISSION) -> MechanismAudit:
    """Measure a trainer and hold it against its spec.

    Args:
        spec: Of the study. Its network, clip norm, noise, rate, divisor and steps are what is measured.
        factory: Makes the trainer that will run; called for several made-up cohorts.
        effort: How much is measured.

    Raises:
        NotMeasurable: See there.
        LocalProtocolError: The probes' constants do not fit the study's grid.
    """
    return _Audit(spec, factory, effort).run()


class _Audit:
    """One audit. Mutable: it collects findings."""

    def __init__(self, spec: TrainingSpec, factory: Factory, effort: Effort) -> None:
        # What a hospital keeps is clipped and noised with the rest; here everything is looked at.
        self._spec = replace(spec, network=replace(spec.network, site_kept=None))
        self._effort = effort
        self._factory = factory
        self._findings: list[Finding] = []
        self._figures: dict[str, float | None] = {}
        mechanism = spec.privacy.mechanism
        self._rate = mechanism.sampling_rate
        # Of the noise in what this hospital hands out, in units of the clip norm.
        shared = isinstance(mechanism, PoissonSampledDiscreteGaussian)
        self._shares = mechanism.shares if isinstance(mechanism, PoissonSampledDiscreteGaussian) else 1
        self._noise = mechanism.noise_multiplier / math.sqrt(self._shares)
        self._is_shared = shared
        self._module = build_from(self._spec.network)
        if any(isinstance(part, _DropoutNd) and part.p > 0 for part in self._module.modules()):
            raise NotMeasurable
        vector = torch.cat([p.detach().flatten() for _, p in named_parameters(self._module)]).numpy()
        # Probe weights of our own: at a study's first model a network may not tell one record from another.
        wobble = np.random.default_rng(0).normal(size=vector.size) * 0.1
        self._model: NDArray[np.float32] = (vector + wobble).astype(np.float32)
        load_vector(self._module, self._model)
        self._quiet_noise = max(QUIET_NOISE, NOISE_MULTIPLIER_MIN)
        norm, self._record, self._label, self._direction = self._outlier()
        # Where no gradient of this network is long, a shorter clip norm is looked at: the outlier must be clipped.
        self._quiet_clip = min(mechanism.clip_norm_l2, norm / 4)

    def run(self) -> MechanismAudit:
        noise = self._check_noise()
        self._check_steps()
        self._check_seeds()
        rate, contribution = self._check_sampling()
        self._check_sensitivity()
        self._check_broken_record()
        self._check_early_break()
        self._check_epsilon(noise, rate, contribution)
        return MechanismAudit(findings=tuple(self._findings), figures=tuple(sorted(self._figures.items())))

    # --- probes ----------------------------------------------------------------------------------------------------

    def _probe(self, *, local_steps: int = 1, quiet: bool = True, rate: float | None = None) -> TrainingSpec:
        """The study's spec with a plain optimizer, so that an update can be read as a sum, and what a probe needs."""
        privacy = self._spec.privacy
        mechanism = privacy.mechanism if rate is None else replace(privacy.mechanism, sampling_rate=rate)
        if quiet:  # the same step with other constants: patients can be counted through this noise
            multiplier = self._quiet_noise * math.sqrt(self._shares)
            mechanism = replace(mechanism, noise_multiplier=multiplier, clip_norm_l2=self._quiet_clip)
        optimizer = None if self._is_shared else OptimizerSpec(learning_rate=self._speed(local_steps))
        # Whoever stands out must not be cut by the box of the lane: that would hide how many there are.
        bound = None if privacy.sum_bound is None else max(privacy.sum_bound, 1e4 * mechanism.clip_norm_l2)
        return replace(
            self._spec,
            optimizer=optimizer,
            views=None,  # probes are seen as they are, so that what comes out can be told from what went in
            privacy=replace(privacy, mechanism=mechanism, local_steps=local_steps, sum_bound=bound),
        )

    def _rounds(self, samples: int) -> int:
        """Rounds that give so many coordinates, within reason."""
        return min(self._effort.rounds_max, max(3, math.ceil(samples / self._model.size)))

    @staticmethod
    def _speed(local_steps: int) -> float:
        """With several steps the weights must hardly move, or the outlier stops being one."""
        return 1.0 if local_steps == 1 else 1e-3

    def _trainer(self, spec: TrainingSpec, patients: int, *, broken: bool = False) -> Trainer:
        record = np.full_like(self._record, np.nan) if broken else self._record
        return self._factory(
            spec,
            Records(
                features=np.repeat(record[None], patients, axis=0).astype(np.float32),
                labels=np.repeat(self._label[None], patients, axis=0),
                patients=np.arange(patients, dtype=np.int64),
                patient_count=patients,
            ),
        )

    def _sums(self, trainer: Trainer, spec: TrainingSpec, rounds: int) -> NDArray[np.float64]:
        """float64[rounds, d]: each round's noisy sum over its steps, in units of the clip norm."""
        privacy = spec.privacy
        rows = [np.asarray(trainer.train_round(self._model).update, dtype=np.float64) for _ in range(rounds)]
        values: NDArray[np.float64] = np.stack(rows) / privacy.mechanism.clip_norm_l2
        if spec.optimizer is not None:
            values *= -privacy.denominator / spec.optimizer.learning_rate
        return values

    def _outlier(self) -> tuple[float, NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """A made-up record with a huge gradient: the gradient's length, features, label, and its direction.

        The label is what the network holds to be the least likely, at every place that has one.

        By plain autograd, so that what the trainer's engine does is compared with something else.
        """
        clip = self._spec.privacy.mechanism.clip_norm_l2
        rng = np.random.default_rng(1)
        loss = loss_of(self._spec.network)
        best: tuple[float, NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]] | None = None
        for scale in (1e2, 1e3, 1e4):
            for _ in range(4):
                record = (rng.normal(size=self._spec.network.input_shape) * scale * max(1.0, clip)).astype(np.float32)
                outputs = self._module(torch.from_numpy(record[None]))
                label = (outputs[:, 0] <= 0).float() if outputs.shape[1] == 1 else outputs.argmin(1).float()
                value = loss(outputs, label).sum()
                parts = torch.autograd.grad(value, [p for _, p in named_parameters(self._module)])
                gradient = torch.cat([part.flatten() for part in parts]).double().numpy()
                norm = float(np.linalg.norm(gradient))
                if math.isfinite(norm) and norm > (best[0] if best else 0.0):
                    best = (norm, record, label[0].numpy(), gradient / norm)
            if best is not None and best[0] > 100 * clip:
                break
        if best is None:
            raise NotMeasurable
        return best

    def _record_finding(self, check: str, *, passed: bool, found: str, allowed: str) -> None:
        self._findings.append(Finding(check=check, passed=bool(passed), found=found, allowed=allowed))

    # --- checks ----------------------------------------------------------------------------------------------------

    def _check_noise(self) -> tuple[float, float]:
        """Noise of empty batches: its deviation between bounds, its shape, and that it is new in every round."""
        spec = self._probe(quiet=False)
        trainer = self._trainer(spec, 0)
        rounds = self._rounds(self._effort.noise_samples)
        sums = self._sums(trainer, spec, rounds)
        counted = sum(event.mechanism.steps for event in trainer.events)
        low, high = _deviation_bounds(sums)
        self._figures |= {"noise_claimed": self._noise, "noise_low": low, "noise_high": high}
        self._record_finding(
            "noise", passed=low <= self._noise <= high, found=_between(low, high), allowed=f"{self._noise:g}"
        )
        values = sums.ravel()
        spread = values.std()
        kurtosis = float(((values / spread) ** 4).mean()) if spread > 0 else 0.0
        self._record_finding(
            "noise-shape",
            passed=spread > 0
            and abs(kurtosis - 3) <= _Z_WIDE * math.sqrt(24 / values.size) + 0.01
            and abs(values.mean()) <= _Z * spread / math.sqrt(values.size),
            found=f"fourth moment {kurtosis:.3f}, mean {values.mean():.4f}",
            allowed="3 and 0, as of a Gaussian",
        )
        related = _correlation(sums[:-1].ravel(), sums[1:].ravel())
        limit = _Z / math.sqrt(sums[1:].size)
        self._record_finding(
            "noise-fresh", passed=abs(related) <= limit, found=f"correlation {related:.4f}", allowed=f"{limit:.4f}"
        )
        self._record_finding(
            "empty-batches", passed=counted == rounds, found=f"{counted} steps counted", allowed=f"{rounds}"
        )
        return low, high

    def _check_steps(self) -> None:
        """Steps in a round: from the variance of a whole round, and as the trainer counts them, over several rounds."""
        steps = self._spec.privacy.local_steps
        spec = self._probe(local_steps=steps, quiet=False)
        trainer = self._trainer(spec, 0)
        rounds = max(3, min(self._rounds(self._effort.noise_samples // 3), self._effort.rounds_max // steps))
        sums = self._sums(trainer, spec, rounds)
        low, high = (value**2 / self._noise**2 for value in _deviation_bounds(sums))
        counted = sum(event.mechanism.steps for event in trainer.events)
        self._figures |= {"steps_claimed": float(steps), "steps_low": low, "steps_high": high}
        self._record_finding("steps", passed=low <= steps <= high, found=_between(low, high), allowed=f"{steps}")
        self._record_finding(
            "steps-counted",
            passed=counted == rounds * steps,
            found=f"{counted} after {rounds} rounds",
            allowed=f"{rounds * steps}",
        )

    def _check_seeds(self) -> None:
        """Two trainers whose every seed is the same: their noise must have nothing in common."""
        spec = self._probe(quiet=False)
        rounds = self._rounds(self._effort.noise_samples // 6)
        sums = []
        with generator_alone(), _global_generators_kept():
            for _ in range(2):
                torch.manual_seed(0)
                np.random.seed(0)  # noqa: NPY002 - the global generator is what is looked for
                random.seed(0)
                sums.append(self._sums(self._trainer(spec, 0), spec, rounds).ravel())
        related = _correlation(*sums)
        limit = _Z / math.sqrt(sums[0].size)
        self._record_finding(
            "seeds", passed=abs(related) <= limit, found=f"correlation {related:.4f}", allowed=f"{limit:.4f}"
        )

    def _check_sampling(self) -> tuple[tuple[float, float], float]:
        """How many patients fall into a step: the rate, its variance, and what each is worth, for three cohorts."""
        spec = self._probe()
        noise = self._quiet_noise
        size = min(4_000, max(8, math.ceil(EXPECTED_IN_A_STEP / self._rate)))
        rates: list[tuple[float, float]] = []
        worths: list[tuple[float, float]] = []
        spread_found, binomial, strays = [], True, 0.0
        for patients in (size, size + 1, 3 * size):
            rounds = self._effort.sampling_rounds // (1 if patients <= size + 1 else 2)
            sums = self._sums(self._trainer(spec, patients), spec, rounds)
            along = sums @ self._direction
            counts = np.rint(along)
            trials = patients * rounds
            inside = (counts >= 0) & (counts <= patients)
            binomial &= bool(inside.all())
            total = int(np.clip(counts, 0, patients).sum())
            rates.append(_rate_bounds(total, trials))
            squares = float((counts**2).sum())
            worth, error = (float(along @ counts) / squares, _Z * noise / math.sqrt(squares)) if squares else (1.0, 1.0)
            worths.append((worth - error, worth + error))
            dispersion, limits = _dispersion(counts, patients, self._rate)
            spread_found.append(dispersion)
            binomial &= limits[0] <= dispersion <= limits[1]
            beside = float((sums**2).sum() - (along**2).sum())
            strays = max(strays, beside / (_chi_square(rounds * (self._model.size - 1)) * noise**2))
        low, high = max(low for low, _ in rates), min(high for _, high in rates)
        self._figures |= {"rate_claimed": self._rate, "rate_low": low, "rate_high": high}
        self._record_finding(
            "sampling-rate",
            passed=all(a <= self._rate <= b for a, b in rates),
            found=", ".join(_between(a, b) for a, b in rates) + f" for {size}, {size + 1} and {3 * size} patients",
            allowed=f"{self._rate:g} for each",
        )
        self._record_finding(
            "poisson",
            passed=binomial,
            found="variance over binomial variance " + ", ".join(f"{one:.2f}" for one in spread_found),
            allowed="1, and no more patients than there are",
        )
        worth_low, worth_high = max(a for a, _ in worths), min(b for _, b in worths)
        self._figures |= {"contribution_low": worth_low, "contribution_high": worth_high}
        self._record_finding(
            "divisor",
            passed=all(a <= 1.0 <= b for a, b in worths) and strays <= 1,
            found=", ".join(_between(a, b) for a, b in worths) + " clip norms each",
            allowed="1 clip norm each, whatever their number",
        )
        return (low, high), max(b for _, b in worths)

    def _check_sensitivity(self) -> None:
        """One patient that stands out, in every step: the sum moves by at most the clip norm."""
        spec = self._probe(rate=1.0)
        rounds = 40
        sums = self._sums(self._trainer(spec, 1), spec, rounds)
        length = float(np.linalg.norm(sums.mean(axis=0)))
        # The mean of the noise has a length of its own.
        room = self._quiet_noise * math.sqrt(_chi_square(self._model.size) / rounds)
        low = max(0.0, length - room)
        self._figures |= {"sensitivity_low": low}
        self._record_finding(
            "sensitivity", passed=low <= 1.0, found=f"at least {low:.3f} clip norms", allowed="at most 1 clip norm"
        )

    def _check_broken_record(self) -> None:
        """A patient whose record is NaN counts as zero."""
        spec = self._probe(rate=1.0)
        rounds = 5
        try:
            sums = self._sums(self._trainer(spec, 1, broken=True), spec, rounds)
            squares = float((sums**2).sum())
        except Exception as error:  # noqa: BLE001 - of whatever trainer is audited
            self._record_finding("broken-record", passed=False, found=type(error).__name__, allowed="a sum of noise")
            return
        most = _chi_square(rounds * self._model.size) * self._quiet_noise**2
        self._record_finding(
            "broken-record",
            passed=math.isfinite(squares) and squares <= most,
            found=f"squares of {squares:.3g}",
            allowed=f"noise alone, up to {most:.3g}",
        )

    def _check_early_break(self) -> None:
        """A round breaks off before its last step: what was executed is counted, and nothing is left for the next."""
        steps = 1 if self._is_shared else 2
        spec = self._probe(rate=1.0, local_steps=steps)
        trainer = self._trainer(spec, 1)
        engine = trainer.engine
        trainer.engine = _Breaking(engine, after=steps - 1)
        refused = False
        try:
            trainer.train_round(self._model)
        except _Broken:
            refused = True
        finally:
            trainer.engine = engine
        counted = sum(event.mechanism.steps for event in trainer.events)
        along = float((self._sums(trainer, spec, 1) @ self._direction)[0])
        slack = _Z * self._quiet_noise * math.sqrt(steps) + 0.02
        self._record_finding(
            "early-break",
            passed=refused and counted >= steps - 1 and abs(along - steps) <= slack,
            found=f"{'refused' if refused else 'went on'}, {counted} steps counted, then {along:.2f} contributions",
            allowed=f"refused, {steps - 1} counted, then {steps}",
        )

    def _check_epsilon(self, noise: tuple[float, float], rate: tuple[float, float], contribution: float) -> None:
        """Epsilon of the whole study from what was measured, beside the claim."""
        privacy = self._spec.privacy
        claimed = accountant.epsilon([privacy.study_event()], delta=privacy.delta)
        together = math.sqrt(self._shares)
        low = self._epsilon(noise[1] * together, rate[0])
        high = self._epsilon(noise[0] * together / max(1.0, contribution), rate[1])
        self._figures |= {"epsilon_claimed": claimed, "epsilon_low": low, "epsilon_high": high}
        self._record_finding(
            "epsilon",
            passed=low is not None and high is not None and low <= claimed * (1 + 1e-3) + 1e-3,
            found="no finite epsilon" if low is None or high is None else _between(low, high),
            allowed=f"{claimed:.4f}",
        )

    def _epsilon(self, multiplier: float, rate: float) -> float | None:
        privacy = self._spec.privacy
        if not rate > 0:
            return 0.0
        try:
            mechanism = PoissonSampledGaussian(
                noise_multiplier=multiplier,
                sampling_rate=min(1.0, rate),
                steps=privacy.mechanism.steps,
                clip_norm_l2=privacy.mechanism.clip_norm_l2,
            )
        except LocalProtocolError:
            return None
        return accountant.epsilon([DpEvent(mechanism=mechanism)], delta=privacy.delta)


class NotMeasurable(Exception):
    """No made-up record has a gradient in this network, or none has the same one twice, so nothing can be counted."""


class _Broken(Exception):
    """What the breaking engine raises."""


class _Breaking:
    """An engine that fails after some calls."""

    def __init__(self, engine: Any, *, after: int) -> None:
        self._engine = engine
        self._left = after

    def clipped_sum(self, *arguments: Any) -> Any:
        """The engine's own, until it is not."""
        if self._left == 0:
            raise _Broken
        self._left -= 1
        return self._engine.clipped_sum(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _deviation_bounds(values: NDArray[np.float64]) -> tuple[float, float]:
    """Bounds of the standard deviation of normal values of mean 0, each failing with probability ERROR / 2."""
    from scipy.stats import chi2  # noqa: PLC0415 - slow to load, and the accountant has loaded it

    squares, count = float((values**2).sum()), values.size
    return math.sqrt(squares / chi2.isf(ERROR / 2, count)), math.sqrt(squares / chi2.ppf(ERROR / 2, count))


def _rate_bounds(successes: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson (1934)."""
    from scipy.stats import beta  # noqa: PLC0415 - see above

    low = 0.0 if successes == 0 else float(beta.ppf(ERROR / 2, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.isf(ERROR / 2, successes + 1, trials - successes))
    return low, high


def _chi_square(degrees: int) -> float:
    """What a chi-square with so many degrees of freedom exceeds with probability ERROR."""
    from scipy.stats import chi2  # noqa: PLC0415 - see above

    return float(chi2.isf(ERROR, max(1, degrees)))


def _dispersion(counts: NDArray[np.float64], patients: int, rate: float) -> tuple[float, tuple[float, float]]:
    """Variance of binomial counts about their mean over what it should be, and the limits for it.

    The fourth moment of a binomial gives the deviation of the ratio; it is nearly normal, so the limits are wide.
    """
    variance = patients * rate * (1 - rate)
    if variance == 0:
        return (1.0 if (counts == patients * rate).all() else math.inf), (1.0, 1.0)
    found = float(((counts - patients * rate) ** 2).mean() / variance)
    deviation = math.sqrt((2 + (1 - 6 * rate * (1 - rate)) / variance) / counts.size)
    return found, (1 - _Z * deviation, 1 + 1.5 * _Z_WIDE * deviation)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """1 for two series that do not vary at all: noise that is nothing is related to itself."""
    size = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / size if size > 0 else 1.0


def _between(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}"


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Whatever is done to the process's generators inside, they are as they were afterwards."""
    kept = (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002 - the global one
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002 - the global one
        random.setstate(kept[2])
