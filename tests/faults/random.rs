//! SIGKILL at random moments, a thousand times, over a repository that goes on changing.
