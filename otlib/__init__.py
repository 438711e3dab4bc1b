"""Optimal transport between patch clouds: torch in, torch out."""

import importlib.metadata

import torch

#: Of the installed project.
__version__ = importlib.metadata.version("ot-imaging-companion")

# Vector exp, log and sqrt can be of low accuracy in the first multi-threaded call of a process
# (pytorch issue 188792): make that call here, on one element.
for _warm_up in (torch.exp, torch.log, torch.sqrt):
    _warm_up(torch.ones(1, dtype=torch.float32, device="cpu"))
