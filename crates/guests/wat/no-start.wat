;; A valid library: exports `add` and no `_start`, so it cannot be run as a program.
(module
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (local.get 0) (local.get 1))))
