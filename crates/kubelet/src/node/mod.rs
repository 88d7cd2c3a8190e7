//! The node itself: registration, status and lease.
