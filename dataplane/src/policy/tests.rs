//! Tests of policy: routes, verdicts, explanations, captures.
