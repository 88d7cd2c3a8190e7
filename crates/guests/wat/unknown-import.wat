;; Imports a function that no host has; it is valid but cannot be instantiated.
(module
  (import "wasi_snapshot_preview1" "brew_coffee" (func $brew_coffee (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $brew_coffee (i32.const 1)))))
