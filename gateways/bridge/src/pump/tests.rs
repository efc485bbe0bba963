//! The conversation with a far side that is played by hand.
