;; A component that prints nothing and ends by `exit-with-code` with code 42.
(component
  (import "wasi:cli/exit@0.2.0" (instance $exit
    (export "exit-with-code" (func (param "status-code" u8)))))
  (core module $program
    (import "exit" "exit-with-code" (func $exit_with_code (param i32)))
    (func (export "run") (result i32)
      (call $exit_with_code (i32.const 42))
      (unreachable)))
  (core func $exit_with_code (canon lower (func $exit "exit-with-code")))
  (core instance $running (instantiate $program
    (with "exit" (instance (export "exit-with-code" (func $exit_with_code))))))
  (func $run (result (result)) (canon lift (core func $running "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
