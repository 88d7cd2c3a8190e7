;; A component that exports `wasi:cli/run` but imports an interface that no host has.
(component
  (import "example:nowhere/kettle@1.0.0" (instance $kettle
    (export "boil" (func))))
  (core module $program
    (import "kettle" "boil" (func $boil))
    (func (export "run") (result i32)
      (call $boil)
      (i32.const 0)))
  (core func $boil (canon lower (func $kettle "boil")))
  (core instance $running (instantiate $program
    (with "kettle" (instance (export "boil" (func $boil))))))
  (func $run (result (result)) (canon lift (core func $running "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
