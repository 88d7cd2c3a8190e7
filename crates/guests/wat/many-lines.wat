;; Prints 1,000 lines, `line 0001` to `line 1000`, each in a write of its own.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; One iovec: address 16, length 10.
  (data (i32.const 0) "\10\00\00\00\0a\00\00\00")
  (data (i32.const 16) "line 0000\n")
  (func $put_number (param $number i32)
    (local $at i32)
    (local.set $at (i32.const 24))
    (loop $digit
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (br_if $digit (i32.gt_u (local.get $at) (i32.const 20)))))
  (func (export "_start")
    (local $number i32)
    (loop $line
      (local.set $number (i32.add (local.get $number) (i32.const 1)))
      (call $put_number (local.get $number))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $line (i32.lt_u (local.get $number) (i32.const 1000))))))
