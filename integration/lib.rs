//! Whole-system tests against real counterparts; see `tests/it`. `scripts/setup` installs the counterparts.
