;; Ends with the exit code that argv[1] gives in decimal (0 to 255); traps when there is no argv[1].
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (func $decimal (param $text i32) (result i32)
    (local $number i32)
    (local $byte i32)
    (loop $next
      (local.set $byte (i32.load8_u (local.get $text)))
      (if (local.get $byte)
        (then
          (local.set $number
            (i32.add (i32.mul (local.get $number) (i32.const 10)) (i32.sub (local.get $byte) (i32.const 48))))
          (local.set $text (i32.add (local.get $text) (i32.const 1)))
          (br $next))))
    (local.get $number))
  (func (export "_start")
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.lt_u (i32.load (i32.const 0)) (i32.const 2)) (then (unreachable)))
    ;; argv lies at 16, its strings in the second page.
    (drop (call $args_get (i32.const 16) (i32.const 65536)))
    (call $proc_exit (call $decimal (i32.load (i32.const 20))))))
