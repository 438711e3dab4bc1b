"""The random generators of the pages."""

import numpy as np
import torch


def seeded(*keys: int) -> torch.Generator:
    """Make a generator that its keys determine.

    keys: whole numbers >= 0. A single one is the seed itself. Several are hashed, so that jobs
        told apart by them, such as (seed, draw), draw nothing in common.
    Returns a torch.Generator on the CPU.
    """
    seed = keys[0] if len(keys) == 1 else np.random.SeedSequence(keys).generate_state(1)[0]
    return torch.Generator().manual_seed(int(seed))
