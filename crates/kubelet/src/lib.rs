//! A Kubernetes node agent for any container runtime.
