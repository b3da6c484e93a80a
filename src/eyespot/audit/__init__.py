"""The committee audit: which teachers complement each other, and which fight, before a long training is paid for.

Not all good teachers make a good committee: in EUPE's table 3 one third teacher costs 4 points of TextVQA, another adds
2 (arXiv 2603.22387v2). The paper tells this from full trainings; how it is foreseen here is ours throughout.
"""

from eyespot.audit.config import AuditConfig
from eyespot.audit.result import CommitteeAudit, Interference, MeasuredStudent, PairVerdict
from eyespot.audit.run import audit
from eyespot.audit.similarity import Similarity, similarity

__all__ = [
    "AuditConfig",
    "CommitteeAudit",
    "Interference",
    "MeasuredStudent",
    "PairVerdict",
    "Similarity",
    "audit",
    "similarity",
]
