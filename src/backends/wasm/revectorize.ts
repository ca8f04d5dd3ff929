import type { KernelCall } from "./job.js";

/**
 * V8's flags for code in which two 128-bit operations are paired into one of 256 bits, where the processor has AVX2:
 * only its optimising compiler does that, so it compiles everything, and at once.
 */
const FLAGS = ["experimental-wasm-revectorize", "no-liftoff", "no-wasm-lazy-compilation"] as const;
/** The first Node whose V8 knows relaxed SIMD, without which nothing is gained. */
const FIRST_NODE = 22;

/** A custom section without content: V8 keeps compiled code by the bytes, and these must not match. */
const EMPTY_SECTION = [0x00, 0x01, 0x00];

/** Whether this is a V8 that revectorises. Bun and Deno call themselves Node too. */
function isSupported(): boolean {
  if (typeof process === "undefined" || process.release?.name !== "node" || process.arch !== "x64") return false;
  if ("Bun" in globalThis || "Deno" in globalThis) return false;
  return Number.parseInt(process.versions.node, 10) >= FIRST_NODE;
}

/**
 * Compiles a module revectorised; undefined where this runtime cannot. The flags are V8's defaults again after: left
 * set, they would reach other modules, and slow down the start of every thread, whose code V8 caches by its flags.
 */
export async function compileRevectorized(bytes: Uint8Array): Promise<WebAssembly.Module | undefined> {
  if (!isSupported()) return undefined;
  const { setFlagsFromString } = await import("node:v8");
  for (const flag of FLAGS) setFlagsFromString(`--${flag}`);
  try {
    const marked = new Uint8Array(bytes.length + EMPTY_SECTION.length);
    marked.set(bytes);
    marked.set(EMPTY_SECTION, bytes.length);
    // Not the asynchronous one: the flags must hold until the last function is compiled.
    return new WebAssembly.Module(marked);
  } finally {
    for (const flag of FLAGS) setFlagsFromString(flag.startsWith("no-") ? `--${flag.slice(3)}` : `--no-${flag}`);
  }
}

/** Bytes of each operand of a known call. */
const OPERAND = 32768;

/** A kernel with known arguments: how many operands it writes, then reads, and what follows them. */
interface KnownCall {
  readonly name: string;
  readonly writes: number;
  readonly reads: number;
  readonly rest: readonly number[];
}

/** Calls that between them go through every kind of arithmetic: products, exponentials, sums, roots. */
export const KNOWN_CALLS: readonly KnownCall[] = [
  // A · B and A · Bᵀ of 61 × 67 × 45, whose tiles have edges; no bias, no accumulation.
  { name: "matmul", writes: 1, reads: 3, rest: [1, 61, 67, 45, 0, 67, 1, 0, 45, 1, 0, 45, 0, 0, 0, 1, 0, 3] },
  { name: "matmul", writes: 1, reads: 3, rest: [1, 61, 67, 45, 0, 67, 1, 0, 1, 67, 0, 45, 0, 0, 0, 1, 0, 2] },
  // 70 positions, 4 heads on 2, of 20.
  { name: "attention", writes: 2, reads: 3, rest: [1, 70, 70, 70, 4, 2, 20, 0, 0.2, 0, 2] },
  { name: "attention_backward", writes: 3, reads: 5, rest: [1, 70, 70, 70, 4, 2, 20, 0, 0.2, 0, 2] },
  { name: "softmax", writes: 1, reads: 1, rest: [50, 77, 0, 50] },
  { name: "rmsnorm", writes: 2, reads: 2, rest: [50, 77, 1e-5, 0, 50] },
  { name: "swiglu_backward", writes: 2, reads: 3, rest: [5001, 0, 5001] },
  { name: "kl", writes: 2, reads: 3, rest: [50, 77, 0, 0, 50] },
  {
    name: "adamw",
    writes: 3,
    reads: 1,
    rest: [5001, 0.01, 0.9, 0.1, 0.999, 0.001, 1e-8, 0, 0.1, 0.001, 1, 0, 5001],
  },
];

/** Bytes that `agree` works in. */
export const CHECK_BYTES = 8 * OPERAND;

/**
 * Whether two compilations of the kernels give the same bits on the known calls.
 * @param memory what both are instantiated on
 * @param base where `CHECK_BYTES` bytes of it are free
 */
export function agree(
  one: WebAssembly.Instance,
  other: WebAssembly.Instance,
  memory: WebAssembly.Memory,
  base: number,
): boolean {
  const room = new Float32Array(memory.buffer, base, CHECK_BYTES / 4);
  // In every operand, since gradients add to what is there; all positive for the roots.
  const start = Float32Array.from({ length: room.length }, (_, i) => ((i * 7919) % 1009) / 1009);
  const result = (instance: WebAssembly.Instance, { name, writes, reads, rest }: KnownCall) => {
    room.set(start);
    const operands = Array.from({ length: writes + reads }, (_, i) => base + i * OPERAND);
    (instance.exports[name] as KernelCall)(...operands, ...rest);
    return new Uint32Array(room.slice(0, writes * (OPERAND / 4)).buffer);
  };
  return KNOWN_CALLS.every((known) => {
    const expected = result(one, known);
    return result(other, known).every((bits, i) => bits === expected[i]);
  });
}
