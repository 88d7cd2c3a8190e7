//! What a pod should do next, and how to say what it is doing: values, pure functions and the two ports of a Kubernetes node.
