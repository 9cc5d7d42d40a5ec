//! Power cuts on real file systems, at each boundary between stages.
