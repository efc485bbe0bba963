//! Wire samples.
