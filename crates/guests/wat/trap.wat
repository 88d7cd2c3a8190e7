;; Traps at once with `unreachable`.
(module
  (memory (export "memory") 1)
  (func $give_up (unreachable))
  (func (export "_start")
    (call $give_up)))
