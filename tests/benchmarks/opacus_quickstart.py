"""The quickstart in Opacus, for comparison; runs in an environment of its own with torch and opacus.

    python opacus_quickstart.py DATA.npz SEED NOISE_MULTIPLIER [STEPS]

DATA.npz holds dpmed's own split, normalised; without STEPS it trains as long as dpmed does. Prints one JSON object:
test accuracy, ε, seconds per step.
"""

import json
import sys
import time
import warnings

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn

warnings.filterwarnings("ignore")
EPOCHS, BATCH, CLIP, RATE, DELTA = 75, 512, 0.5, 0.01, 1e-5


def main() -> None:
    """Train and test."""
    path, seed, noise = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    data = np.load(path, allow_pickle=False)
    x, y = torch.tensor(data["train_x"]), torch.tensor(data["train_y"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    nn.init.zeros_(model[3].weight)
    optimizer = torch.optim.NAdam(model.parameters(), lr=RATE, momentum_decay=0)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH)
    engine = PrivacyEngine(accountant="prv")
    model, optimizer, loader = engine.make_private(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=noise,
        max_grad_norm=CLIP,
        poisson_sampling=True,
    )
    steps, seconds = (len(x) // BATCH) * EPOCHS if len(sys.argv) < 5 else int(sys.argv[4]), []
    while len(seconds) < steps:
        for inputs, targets in loader:
            begun = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - begun)
            if len(seconds) == steps:
                break
    model.eval()
    with torch.no_grad():
        chosen = model(torch.tensor(data["test_x"])).argmax(1).numpy()
    accuracy = float((chosen == data["test_y"]).mean())
    print(json.dumps({"accuracy": accuracy, "epsilon": engine.get_epsilon(DELTA), "step": float(np.median(seconds))}))


if __name__ == "__main__":
    main()
