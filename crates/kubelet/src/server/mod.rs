//! The HTTP API of the node.
