//! pktgen-tests.
