"""How long models take on the machine that serves them, and what of it goes with each of their neurons."""

from .clock import Measured, Timing, measure
from .compared import Compared, SideBySide
from .profile import Profile
from .profiling import profile_of
from .script import write_script
from .serving import Serving

__all__ = [
    "Compared",
    "Measured",
    "Profile",
    "Serving",
    "SideBySide",
    "Timing",
    "measure",
    "profile_of",
    "write_script",
]
