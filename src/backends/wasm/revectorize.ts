import type { KernelCall } from "./job.js";
import { isNode } from "./runtime.js";
import { setTile, TILES } from "./tiles.js";

/**
 * V8's flags for code in which two 128-bit operations are paired into one of 256 bits, where the processor has AVX2:
 * only its optimising compiler does that, so it compiles everything, and at once.
 */
const FLAGS = ["experimental-wasm-revectorize", "no-liftoff", "no-wasm-lazy-compilation"] as const;
/** The first Node whose V8 knows relaxed SIMD, without which nothing is gained. */
const FIRST_NODE = 22;

/** A custom section without content: V8 keeps compiled code by the bytes, and these must not match. */
const EMPTY_SECTION = [0x00, 0x01, 0x00];

function isSupported(): boolean {
  return isNode() && process.arch === "x64" && Number.parseInt(process.versions.node, 10) >= FIRST_NODE;
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
    for (const flag of FLAGS) setFlagsFromString(opposite(flag));
  }
}

function opposite(flag: string): string {
  return flag.startsWith("no-") ? `--${flag.slice(3)}` : `--no-${flag}`;
}

/** Bytes of each operand of a known call. */
const OPERAND = 8192;

/** A kernel with known arguments: how many operands it writes, then reads, and what follows them. */
interface KnownCall {
  readonly name: string;
  readonly writes: number;
  readonly reads: number;
  readonly rest: readonly number[];
  /** The operand, counted from the first, that is a stored weight: no half in it may be infinite. */
  readonly stored?: number;
}

/** The bits of finite halves, of either format, whatever word is masked. */
const FINITE_HALVES = 0x3f3f3f3f;

/** The kernels' numbers of f16, q4_0, q8_0 and bf16: `assembly/quant.ts`. */
const STORED_TYPES = [1, 2, 8, 30] as const;

/** Products of 3 rows and of 19 with a stored weight of 24 × 64, and the backward of the second. */
function storedCalls(type: number): readonly KnownCall[] {
  const forward = { name: "linear_quantised", writes: 1, reads: 3, stored: 2 };
  return [
    { ...forward, rest: [3, 64, 24, 24, type, 1, 0, 2] },
    { ...forward, rest: [19, 64, 24, 24, type, 1, 0, 2] },
    { name: "linear_quantised_backward", writes: 1, reads: 2, stored: 2, rest: [19, 64, 24, 24, type, 0, 2] },
  ];
}

/** Calls that between them go through every kind of arithmetic: products, exponentials, sums, roots, every format. */
export const KNOWN_CALLS: readonly KnownCall[] = [
  // A · B and A · Bᵀ of 41 × 47 × 43, whose tiles have edges; no bias, no accumulation.
  { name: "matmul", writes: 1, reads: 3, rest: [1, 41, 47, 43, 0, 47, 1, 0, 43, 1, 0, 43, 0, 0, 0, 1, 0, 1] },
  { name: "matmul", writes: 1, reads: 3, rest: [1, 41, 47, 43, 0, 47, 1, 0, 1, 47, 0, 43, 0, 0, 0, 1, 0, 1] },
  // 50 positions, 2 heads on 1, of 20.
  { name: "attention", writes: 2, reads: 4, rest: [1, 50, 50, 50, 2, 1, 20, 0, 0, 0, 0.2, 0, 1] },
  // The last of them over a cache of f16, which is what the operands' bits are taken for.
  { name: "attention", writes: 2, reads: 4, rest: [1, 1, 50, 50, 2, 1, 20, 0, 1, 0, 0.2, 0, 1] },
  { name: "attention_backward", writes: 3, reads: 5, rest: [1, 50, 50, 50, 2, 1, 20, 0, 0.2, 0, 1] },
  { name: "softmax", writes: 1, reads: 1, rest: [20, 77, 0, 20] },
  { name: "rmsnorm", writes: 2, reads: 2, rest: [20, 77, 1e-5, 0, 20] },
  { name: "swiglu_backward", writes: 2, reads: 1, rest: [2001, 0, 2001] },
  { name: "kl", writes: 2, reads: 2, rest: [20, 77, 0, 1, 0, 20] },
  {
    name: "adamw",
    writes: 3,
    reads: 1,
    rest: [2001, 0.01, 0.9, 0.1, 0.999, 0.001, 1e-8, 0, 0.1, 0.001, 1, 0, 2001],
  },
  ...STORED_TYPES.flatMap(storedCalls),
];

/** Bytes that `agree` works in. */
export const CHECK_BYTES = 8 * OPERAND;

/**
 * Whether two compilations of the kernels give the same bits on the known calls, with every tile.
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
  const start = new Float32Array(room.length);
  for (let i = 0; i < start.length; i++) start[i] = ((i * 7919) % 1009) / 1009;
  const result = (instance: WebAssembly.Instance, { name, writes, reads, rest, stored }: KnownCall) => {
    room.set(start);
    if (stored !== undefined) {
      const words = new Uint32Array(room.buffer, base + stored * OPERAND, OPERAND / 4);
      for (let i = 0; i < words.length; i++) words[i] = (words[i] as number) & FINITE_HALVES;
    }
    const operands = Array.from({ length: writes + reads }, (_, i) => base + i * OPERAND);
    (instance.exports[name] as KernelCall)(...operands, ...rest);
    return new Uint32Array(room.slice(0, writes * (OPERAND / 4)).buffer);
  };
  return TILES.every((tile) => {
    setTile(one, tile);
    setTile(other, tile);
    return KNOWN_CALLS.every((known) => {
      const expected = result(one, known);
      return result(other, known).every((bits, i) => bits === expected[i]);
    });
  });
}
