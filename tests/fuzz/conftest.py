"""Amount of fuzzing: a few fixed examples by default; `--hypothesis-profile=long` tries new ones for hours."""

import hypothesis

QUIET = dict(deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True, database=None)
hypothesis.settings.register_profile("short", max_examples=60, **QUIET)
hypothesis.settings.register_profile("long", max_examples=20_000, **QUIET | {"derandomize": False})
hypothesis.settings.load_profile("short")
