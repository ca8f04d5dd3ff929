// The kernels alone, without this package's JavaScript: any host that runs WebAssembly SIMD can do the same.
//
//   node examples/embed.mjs

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const bytes = await readFile(fileURLToPath(import.meta.resolve("oriflamme/kernels.wasm")));
const memory = new WebAssembly.Memory({ initial: 32 });
const { instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
const { softmax, scratch, SCRATCH_BYTES } = instance.exports;

// A region that matmul and attention may scratch in; everything behind it is the caller's.
scratch.value = 1024;
const heap = 1024 + SCRATCH_BYTES.value;

// Arguments are those of the declaration in src/ops: writes, reads, dims, scalars, and the range to compute.
const [rows, cols] = [2, 3];
const [out, x] = [heap, heap + 256];
new Float32Array(memory.buffer, x, rows * cols).set([1, 2, 3, 10, 10, 10]);
softmax(out, x, rows, cols, 0, rows);
console.log(Array.from(new Float32Array(memory.buffer, out, rows * cols), (p) => p.toFixed(4)).join(" "));
