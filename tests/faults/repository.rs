//! Trees, names and messages that no git program would make.
