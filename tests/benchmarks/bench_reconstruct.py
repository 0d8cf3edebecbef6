"""Attacks: what share of real images comes back, beside what combinatorics predicts; time and memory at full size.

Recovered: an SSIM of at least 0.95, non-private, two rows per image, the quickstart's fresh model behind the block.
"""

import json
import subprocess
import sys
from typing import Any

import numpy as np

from dpmed.attacks.malicious_server.attack import BLOCK_ATTACKS
from dpmed.attacks.malicious_server.predict import predicted_share
from dpmed.attacks.malicious_server.recover import recover
from dpmed.attacks.malicious_server.server import MaliciousServer
from dpmed.config.load import load_config
from dpmed.matching.ssim import pairwise_ssim
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.reconstructions.images import image_files
from dpmed.reconstructions.manifest import Level
from tests.benchmarks.record import measurement

_BATCHES = 5
_NONE = Level(
    name="non-private",
    folder="non-private",
    epsilon=None,
    epsilon_pld=None,
    epsilon_rdp=None,
    noise_multiplier=0.0,
    counts=(),
)
# HAM10000's setting but for the model behind the block: 2048 images of 224 × 224 × 3, 4096 rows.
_FULL = """
import json, resource, time
import numpy as np
from dpmed.attacks.malicious_server.blocks import make_block
from dpmed.attacks.malicious_server.recover import recover
from dpmed.attacks.malicious_server.update import Responses, clipped_update

def pictures(count, seed):
    random = np.random.default_rng(seed)
    images = np.empty((count, 224 * 224 * 3), np.float32)
    for image in images:
        coarse = np.kron(random.standard_normal((14, 14, 3), np.float32), np.ones((16, 16, 1), np.float32))
        image[:] = (coarse + 0.2 * random.standard_normal((224, 224, 3), np.float32)).ravel()
    return images

clock = [time.perf_counter()]
def lap():
    clock.append(time.perf_counter())
    return clock[-1] - clock[-2]

block = make_block("peeling", pictures(445, 1), rows=4096, batch_size=2048, seed=1)
images, random = pictures(2048, 2), np.random.default_rng(0)
lap()
activations = block.activate(images)
responses = Responses(slopes=1e3 * random.standard_normal(2048), norms=np.ones(2048))
update = clipped_update(images, activations, responses, scale=4096.0, clipping_norm=9.0)
prepared = lap()
rows = update.send(noise_std=9e-8, generator=random)
sent = lap()
found = recover(block, rows, noise_std=9e-8, batch_size=2048)
recovered = lap()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([prepared, sent, recovered, memory, found.single]))
"""


def run() -> list[dict[str, Any]]:
    """All measurements."""
    results = [one for name in ("digits", "patches") for size in (64, 256) for one in _shares(name, size)]
    return [*results, *_full_size()]


def _shares(name: str, size: int) -> list[dict[str, Any]]:
    overrides = [f'data={{name = "{name}"}}', f"training.batch_size={size}", "training.epochs=1"]
    plan = make_plan(load_config("quickstart", overrides).config, Silent())
    files = image_files(plan.dataset, plan.split)
    server = MaliciousServer(plan, rows=2 * size, batch_size=size)
    shares: dict[str, list[float]] = {attack: [] for attack in BLOCK_ATTACKS}
    for batch in range(_BATCHES):
        generator = np.random.default_rng(batch)
        chosen = generator.permutation(plan.split.train)[:size]
        answers = server.answer(chosen, Silent())
        originals = np.stack([np.asarray(plan.dataset[int(one)].input, np.float32) for one in chosen])
        for attack in BLOCK_ATTACKS:
            sent = answers.send(attack, _NONE, generator)
            found = recover(sent.block, sent.rows, noise_std=sent.noise_std, batch_size=sent.batch_size)
            images = files.denormalise(found.images().reshape(-1, *originals.shape[1:]))
            scale = np.float32(plan.dataset.info.scale)
            shares[attack].append(float((pairwise_ssim(originals / scale, images / scale).min(axis=1) <= 0.05).mean()))
    case = f"recovered-{name}-{size}"
    results = []
    for attack in BLOCK_ATTACKS:
        predicted = predicted_share(attack, rows=2 * size, batch_size=size)
        results.append(measurement(case, attack, "share", shares[attack], more_is_better=True))
        results.append(measurement(case, f"{attack}, predicted", "share", [predicted], more_is_better=True))
    return results


def _full_size() -> list[dict[str, Any]]:
    text = subprocess.run([sys.executable, "-c", _FULL], check=True, capture_output=True, text=True).stdout
    prepared, sent, recovered, memory, single = json.loads(text)
    case = "peeling-2048-of-224x224x3"
    return [
        measurement(case, "firing and clipping, once", "s", [prepared], more_is_better=False),
        measurement(case, "noisy update, per level", "s", [sent], more_is_better=False),
        measurement(case, "recovery, per level", "s", [recovered], more_is_better=False),
        measurement(case, "peak memory of the process", "MB", [memory], more_is_better=False),
        measurement(case, "images told apart", "images", [single], more_is_better=True),
    ]
