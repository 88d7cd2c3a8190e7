;; Prints the file that argv[2] names, relative to the preopened directory whose guest path is argv[1] (exactly as it is
;; mounted); ends with exit code 1 when there is no such directory, else with WASI's error number plus 10 on an error.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; Page 0: small results, argv at 256. Page 1: the arguments. Page 2: a directory's name. Page 3: the file's bytes.
  (memory (export "memory") 4)
  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (i32.add (i32.const 10) (local.get $errno))))))
  (func $length (param $text i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (loop $next
      (if (i32.load8_u (local.get $end))
        (then
          (local.set $end (i32.add (local.get $end) (i32.const 1)))
          (br $next))))
    (i32.sub (local.get $end) (local.get $text)))
  ;; Whether the two texts of `length` bytes are the same.
  (func $same (param $one i32) (param $other i32) (param $length i32) (result i32)
    (local $at i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $length)) (then (return (i32.const 1))))
      (if (i32.ne
            (i32.load8_u (i32.add (local.get $one) (local.get $at)))
            (i32.load8_u (i32.add (local.get $other) (local.get $at))))
        (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))
  ;; The descriptor of the directory preopened as `name`.
  (func $preopened (param $name i32) (result i32)
    (local $descriptor i32)
    (local $length i32)
    (local.set $descriptor (i32.const 3))
    (loop $next
      (if (call $fd_prestat_get (local.get $descriptor) (i32.const 0)) (then (call $proc_exit (i32.const 1))))
      (local.set $length (i32.load (i32.const 4)))
      (if (i32.eq (local.get $length) (call $length (local.get $name)))
        (then
          (call $check
            (call $fd_prestat_dir_name (local.get $descriptor) (i32.const 131072) (local.get $length)))
          (if (call $same (i32.const 131072) (local.get $name) (local.get $length))
            (then (return (local.get $descriptor))))))
      (local.set $descriptor (i32.add (local.get $descriptor) (i32.const 1)))
      (br $next))
    (unreachable))
  (func $open (param $directory i32) (param $path i32) (result i32)
    ;; Follows symbolic links (1); asks for the rights to read (2) and to seek (4).
    (call $check
      (call $path_open (local.get $directory) (i32.const 1) (local.get $path) (call $length (local.get $path))
        (i32.const 0) (i64.const 6) (i64.const 0) (i32.const 0) (i32.const 8)))
    (i32.load (i32.const 8)))
  (func $copy_to_stdout (param $file i32)
    (loop $more
      (i32.store (i32.const 16) (i32.const 196608))
      (i32.store (i32.const 20) (i32.const 65536))
      (call $check (call $fd_read (local.get $file) (i32.const 16) (i32.const 1) (i32.const 24)))
      (if (i32.load (i32.const 24))
        (then
          (i32.store (i32.const 20) (i32.load (i32.const 24)))
          (call $check (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 28)))
          (br $more)))))
  (func (export "_start")
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.lt_u (i32.load (i32.const 0)) (i32.const 3)) (then (unreachable)))
    (drop (call $args_get (i32.const 256) (i32.const 65536)))
    (call $copy_to_stdout
      (call $open (call $preopened (i32.load (i32.const 260))) (i32.load (i32.const 264))))))
