//! Networks that stall, drip, reset, cut and lose, and name servers that never answer: every run ends within its deadline.
