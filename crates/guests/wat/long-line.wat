;; Prints one line of 20 KiB (20,480 times `x`, then a line feed) in one write.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; One iovec: address 1024, length 20,481.
  (data (i32.const 0) "\00\04\00\00\01\50\00\00")
  (func (export "_start")
    (memory.fill (i32.const 1024) (i32.const 120) (i32.const 20480))
    (i32.store8 (i32.const 21504) (i32.const 10))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
