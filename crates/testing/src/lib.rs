//! A real control plane, registry and node for tests.
