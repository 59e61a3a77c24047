;; A foreign filter beside ours. The request header `x-hostile` tells it what to do: `t...` traps, `m...` takes 256 MiB
;; of memory, writes to it, and traps.
(module
  (import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "x-hostile")
  (func (export "proxy_abi_version_0_2_1"))
  ;; One value at a time is asked for, and none is kept.
  (func (export "malloc") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (local $first i32)
    (if (i32.eqz (call $header (i32.const 0) (i32.const 16) (i32.const 9) (i32.const 0) (i32.const 4)))
      (then
        (local.set $first (i32.load8_u (i32.load (i32.const 0))))
        (if (i32.eq (local.get $first) (i32.const 116)) (then unreachable))
        (if (i32.eq (local.get $first) (i32.const 109))
          (then
            (drop (memory.grow (i32.const 4096)))
            (memory.fill (i32.const 131072) (i32.const 1) (i32.const 268435456))
            unreachable))))
    (i32.const 0))
  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_delete") (param i32)))
