;; Computes for ever in the module's start function, that is while it is instantiated; `_start` is never reached.
(module
  (memory (export "memory") 1)
  (func $initialise
    (loop $for_ever (br $for_ever)))
  (start $initialise)
  (func (export "_start")))
