//! ctrl.
