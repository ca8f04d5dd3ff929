import { bytesOf, type StorageType } from "../../src/dtype.js";
import { columns } from "../../src/ops/columns.js";
import { linear } from "../../src/ops/matmul.js";
import {
  type CaseOptions,
  frozen,
  ids,
  Nd,
  type OpCase,
  opCase,
  type Random,
  stored,
  trainable,
} from "./case.js";

const TYPES = ["f16", "bf16", "q8_0", "q4_0"] as const;
const BLOCK = 32;
/** Up to this many rows meet the blocks of integers as integers themselves, on wasm. */
const FEW = 8;

/** x · weightᵀ + bias. */
function product(x: Nd, weight: Nd, bias?: Nd): Nd {
  const [n = 0, k = 0] = weight.shape;
  const out = new Nd([x.rows, n]);
  for (let i = 0; i < x.rows; i++) {
    for (let j = 0; j < n; j++) {
      let sum = bias?.at(j) ?? 0;
      for (let p = 0; p < k; p++) sum += x.flat(i * k + p) * weight.at(j, p);
      out.set(sum, i, j);
    }
  }
  return out.as([...x.shape.slice(0, -1), n]);
}

/** Whether x is rounded to 8 bits. */
function roundsRows(dtype: StorageType, x: Nd): boolean {
  return x.rows <= FEW && (dtype === "q8_0" || dtype === "q4_0");
}

/**
 * What `linear_quantised` says of its error: Σ over blocks of Σ|w|·d_x / 2, where d_x = max|x| / 127; nothing where x
 * is taken as it is, or is exact in 8 bits.
 */
function bound(x: Nd, weight: Nd, isRounded: boolean): Nd {
  const [n = 0, k = 0] = weight.shape;
  const allowed = new Nd([x.rows, n]);
  for (let i = 0; isRounded && i < x.rows; i++) {
    for (let start = 0; start < k; start += BLOCK) {
      const block = [...x.data.subarray(i * k + start, i * k + start + BLOCK)];
      const half = Math.max(...block.map(Math.abs)) / 127 / 2;
      for (let j = 0; j < n; j++) {
        let sum = allowed.at(i, j);
        for (let p = start; p < start + BLOCK; p++) sum += Math.abs(weight.at(j, p)) * half;
        allowed.set(sum, i, j);
      }
    }
  }
  return allowed.as([...x.shape.slice(0, -1), n]);
}

interface Shape {
  readonly rows: readonly number[];
  readonly k: number;
  readonly n: number;
  readonly bias?: boolean;
}

type Extra = CaseOptions & {
  /** Of the weights. */
  readonly scale?: number;
  /** x of whole numbers up to 127, which 8 bits hold exactly: then only f32 rounds. */
  readonly exact?: boolean;
};

/** Whole numbers in -127..127, of which 127 begins every block. */
function wholeNumbers(random: Random, shape: readonly number[]): Nd {
  return new Nd(shape).map((_, i) => (i % BLOCK === 0 ? 127 : random.below(255) - 127));
}

function linearCase(
  dtype: StorageType,
  { rows, k, n, bias: hasBias = false }: Shape,
  extra: Extra = {},
): OpCase {
  const { scale = 1, exact = false, ...rest } = extra;
  const what = `${exact ? ", exact" : ""}${scale === 1 ? "" : `, weights of ${scale}`}`;
  return opCase({
    name: `${dtype} (${rows.join(", ")}, ${k}) to ${n}${hasBias ? " + bias" : ""}${what}`,
    inputs: (random) => ({
      x: trainable(exact ? wholeNumbers(random, [...rows, k]) : random.normal([...rows, k])),
      weight: stored(random.normal([n, k], scale), dtype),
      bias: trainable(random.normal([n])),
    }),
    run: (tape, { x, weight, bias }) => linear(tape, x, weight, hasBias ? { bias } : {}),
    reference: ({ x, weight, bias }) => product(x, weight, hasBias ? bias : undefined),
    bound: ({ x, weight }) => bound(x, weight, !exact && roundsRows(dtype, x)),
    ...rest,
  });
}

/** A result one column wider, filled from a second matrix: how a row is added to a model's vocabulary. */
function widened(dtype: StorageType, rows: number, k: number, n: number): OpCase {
  return opCase({
    name: `${dtype} (${rows}, ${k}) to ${n} with stride ${n + 1}, the last column from another weight`,
    inputs: (random) => ({
      x: trainable(wholeNumbers(random, [rows, k])),
      weight: stored(random.normal([n, k]), dtype),
      row: trainable(random.normal([1, k])),
      index: ids([n]),
    }),
    run: (tape, { x, weight, row, index }) => {
      const out = linear(tape, x, weight, { stride: n + 1 });
      return columns(tape, out, linear(tape, x, row), index);
    },
    reference: ({ x, weight, row }) => product(x, new Nd([n + 1, k], [...weight.data, ...row.data])),
  });
}

/** NaN in a row of x makes that row NaN and no other, as it does without rounding. */
function withNaN(dtype: StorageType, rows: number): OpCase {
  return opCase({
    name: `${dtype}: NaN in (${rows}, 64)`,
    inputs: (random) => ({
      x: frozen(wholeNumbers(random, [rows, 64]).map((x, i) => (i === 40 ? Number.NaN : x))),
      weight: stored(random.normal([19, 64]), dtype),
    }),
    run: (tape, { x, weight }) => linear(tape, x, weight),
    reference: ({ x, weight }) => product(x, weight),
    wasmOnly: true,
  });
}

/** Blocks of zeros, of values so small that they count as zero, and others. */
function withSmallBlocks(dtype: StorageType): OpCase {
  return opCase({
    name: `${dtype}: blocks of zeros and of 1e-38`,
    inputs: (random) => ({
      x: frozen(random.normal([2, 128]).map((x, i) => (i < 32 ? 0 : i < 64 ? 1e-38 * x : i < 128 ? x : 0))),
      weight: stored(random.normal([5, 128]), dtype),
    }),
    run: (tape, { x, weight }) => linear(tape, x, weight),
    reference: ({ x, weight }) => product(x, weight),
    bound: ({ x, weight }) => bound(x, weight, roundsRows(dtype, x)),
  });
}

/** Every number of rows on both sides of the bound for few, and more than a tile. */
const rowCounts = Array.from({ length: 20 }, (_, i) => i + 1);

/** One on each side of what is done at once: 4 blocks, 16 columns, panels of 128 by 256, tiles of 64. */
const edges = [
  [1, 32, 1],
  [1, 96, 15],
  [2, 128, 16],
  [3, 160, 17],
  [1, 288, 33],
  [9, 32, 1],
  [9, 288, 129],
  [65, 64, 66],
  [7, 64, 257],
  [12, 544, 7],
] as const;

/** Halves of floats fill no blocks: rows of any length. */
const oddEdges = [
  [1, 1, 1],
  [1, 7, 3],
  [2, 15, 5],
  [4, 17, 16],
  [1, 259, 18],
  [9, 1, 5],
  [10, 33, 17],
  [9, 257, 131],
] as const;

function casesOf(dtype: StorageType): OpCase[] {
  const isHalf = dtype === "f16" || dtype === "bf16";
  return [
    ...rowCounts.map((rows) => linearCase(dtype, { rows: [rows], k: 64, n: 19, bias: rows % 2 === 0 })),
    ...edges.map(([rows, k, n]) => linearCase(dtype, { rows: [rows], k, n }, { exact: true })),
    ...(isHalf ? oddEdges : []).map(([rows, k, n]) => linearCase(dtype, { rows: [rows], k, n, bias: true })),
    linearCase(dtype, { rows: [2, 3], k: 96, n: 10, bias: true }),
    // The scales, and the halves, are subnormal.
    linearCase(dtype, { rows: [3], k: 64, n: 9 }, { scale: 1e-6, exact: true }),
    linearCase(dtype, { rows: [11], k: 64, n: 9 }, { scale: 1e-6, exact: true }),
    // Too long for the rounded rows: goes the way of many. Its f32 sums are long too.
    linearCase(
      dtype,
      { rows: [1], k: 32800, n: 2 },
      {
        exact: true,
        samples: 0,
        tolerance: { forward: { relative: 2e-6, absolute: 2e-5 } },
      },
    ),
    widened(dtype, 1, 64, 5),
    widened(dtype, 9, 32, 11),
    withNaN(dtype, 2),
    withNaN(dtype, 9),
    withSmallBlocks(dtype),
    linearCase(
      dtype,
      { rows: [1], k: 1024, n: 4096 },
      {
        samples: 0,
        bench: { shape: [1, 1024, 4096], bytes: bytesOf(dtype, [4096, 1024]), dtype },
      },
    ),
  ];
}

export const linearQuantisedCases = TYPES.flatMap(casesOf);
