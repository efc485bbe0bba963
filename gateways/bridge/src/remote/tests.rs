//! Both dialects, by what the far side's own codec makes of them.
