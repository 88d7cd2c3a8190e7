;; Calls itself without end, until the stack overflows.
(module
  (memory (export "memory") 1)
  (func $deeper (param $depth i32) (result i32)
    ;; The addition after the call keeps it from being a tail call.
    (i32.add (i32.const 1) (call $deeper (i32.add (local.get $depth) (i32.const 1)))))
  (func (export "_start")
    (drop (call $deeper (i32.const 0)))))
