;; Prints `to standard output` to standard output, then `to standard error` to standard error.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Two iovecs: address 16, length 19, and address 48, length 18.
  (data (i32.const 0) "\10\00\00\00\13\00\00\00\30\00\00\00\12\00\00\00")
  (data (i32.const 16) "to standard output\n")
  (data (i32.const 48) "to standard error\n")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 80)))
    (drop (call $fd_write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 80)))))
