//! Tests of TLS legs against each other.
