"""One adapter a package. A new one is a class in a file here and a line in `PEERS`."""

from __future__ import annotations

from peers.base import Peer
from peers.coordinate_descent import Celer, SkGlm
from peers.glum_glm import Glum
from peers.plain_pytorch import LBFGS, Adam
from peers.scikit_learn import Intel, LibLinear, ScikitLearn
from peers.snap_ml import SnapML
from peers.stats_models import Newton, Ridge
from peers.torchlogit_itself import TorchLogit
from peers.vowpal_wabbit import VowpalWabbit

PEERS: tuple[Peer, ...] = (
    TorchLogit(),
    ScikitLearn("lbfgs"),
    ScikitLearn("newton-cg"),
    ScikitLearn("newton-cholesky", hessian=True),
    ScikitLearn("saga", l1=True),
    LibLinear(dual=False),
    LibLinear(dual=True),
    Intel(),
    Glum("irls-ls"),
    Glum("lbfgs"),
    SnapML(dual=True),
    SnapML(dual=False),
    Newton(),
    Ridge("newton-cg"),
    VowpalWabbit(),
    Adam(),
    LBFGS(),
    # Last, since they compile for long: a worker that has to be stopped is most often stopped before them.
    SkGlm(),
    Celer(),
)
BY_NAME = {peer.name: peer for peer in PEERS}
PACKAGES = tuple(dict.fromkeys(peer.package for peer in PEERS))

__all__ = ["BY_NAME", "PACKAGES", "PEERS", "Peer"]
