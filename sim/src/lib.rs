//! A village in one process: seeded clock, lossy radio, attacker. Not published.
