;; A valid component that exports nothing: it is of no world that a node can run.
(component)
