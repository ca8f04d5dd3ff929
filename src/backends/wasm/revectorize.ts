import type { KernelCall } from "./job.js";

/**
 * V8's flag that pairs two 128-bit operations into one of 256 bits, where the processor has AVX2, in what its
 * optimising compiler makes of modules that are compiled from then on.
 */
const FLAG = "experimental-wasm-revectorize";
/** The first Node whose V8 knows relaxed SIMD, without which nothing is gained. */
const FIRST_NODE = 22;

/** Sets the flag for the process; whether there is one to set. */
export async function setRevectorize(on: boolean): Promise<boolean> {
  if (typeof process === "undefined" || !process.versions?.v8) return false;
  if (Number.parseInt(process.versions.node, 10) < FIRST_NODE) return false;
  const { setFlagsFromString } = await import("node:v8");
  setFlagsFromString(on ? `--${FLAG}` : `--no-${FLAG}`);
  return true;
}

/** Milliseconds that a kernel runs before V8 has surely replaced its first code: 5 to 8 were seen. */
const TIER_UP = 12;
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
const KNOWN_CALLS: readonly KnownCall[] = [
  // A · B and A · Bᵀ of 61 × 67 × 45, whose tiles have edges; no bias, no accumulation.
  { name: "matmul", writes: 1, reads: 3, rest: [1, 61, 67, 45, 0, 67, 1, 0, 45, 1, 0, 45, 0, 0, 0, 1, 0, 3] },
  { name: "matmul", writes: 1, reads: 3, rest: [1, 61, 67, 45, 0, 67, 1, 0, 1, 67, 0, 45, 0, 0, 0, 1, 0, 2] },
  // 70 positions, 4 heads on 2, of 20.
  { name: "attention", writes: 2, reads: 3, rest: [1, 70, 70, 70, 4, 2, 20, 0, 0.2, 0, 2] },
  { name: "attention_backward", writes: 3, reads: 5, rest: [1, 70, 70, 70, 4, 2, 20, 0, 0.2, 0, 2] },
  { name: "softmax", writes: 1, reads: 1, rest: [50, 77, 0, 50] },
  { name: "rmsnorm", writes: 2, reads: 2, rest: [50, 77, 1e-5, 0, 50] },
  { name: "swiglu_backward", writes: 2, reads: 1, rest: [5001, 0, 5001] },
  { name: "kl", writes: 2, reads: 2, rest: [50, 77, 0, 1, 0, 50] },
  {
    name: "adamw",
    writes: 3,
    reads: 1,
    rest: [5001, 0.01, 0.9, 0.1, 0.999, 0.001, 1e-8, 0, 0.1, 0.001, 1, 0, 5001],
  },
];

/** Bytes that `isUnchangedByTierUp` works in. */
export const CHECK_BYTES = 8 * OPERAND;

/**
 * Whether every kernel gives the same bits before and after V8's optimising compiler has replaced its first code,
 * which revectorisation does not touch.
 * @param base where `CHECK_BYTES` bytes of the memory are free
 */
export function isUnchangedByTierUp(
  instance: WebAssembly.Instance,
  memory: WebAssembly.Memory,
  base: number,
): boolean {
  const room = new Float32Array(memory.buffer, base, CHECK_BYTES / 4);
  return KNOWN_CALLS.every((known) => {
    const call = instance.exports[known.name] as KernelCall;
    const operands = Array.from({ length: known.writes + known.reads }, (_, i) => base + i * OPERAND);
    const once = () => {
      // Always the same numbers, in every operand since gradients add to what is there, all positive for the roots.
      for (let i = 0; i < room.length; i++) room[i] = ((i * 7919) % 1009) / 1009;
      call(...operands, ...known.rest);
    };
    once();
    const before = new Uint32Array(room.slice().buffer);
    for (const end = performance.now() + TIER_UP; performance.now() < end; ) call(...operands, ...known.rest);
    once();
    const after = new Uint32Array(room.slice().buffer);
    return before.every((bits, i) => bits === after[i]);
  });
}
