//! suggest.
