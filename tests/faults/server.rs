//! An SSH server of the tests' own that means harm.
