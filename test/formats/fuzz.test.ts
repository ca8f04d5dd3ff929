import fc from "fast-check";
import { expect, test } from "vitest";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { ggufTokenizer } from "../../src/formats/gguf-tokenizer.js";
import { readGgufVocabulary } from "../../src/formats/gguf-vocabulary.js";
import { openGgufModel } from "../../src/formats/gguf-weights.js";
import { bitsOf, openSafetensors } from "../../src/formats/safetensors.js";
import { writeSafetensors } from "../../src/formats/safetensors-write.js";
import { type ByteSource, bytesSource } from "../../src/formats/source.js";
import { weightShapes } from "../../src/model/config.js";
import { pieces } from "../../src/model/stored-weight.js";
import { ggufFile, type Mark, tinyBpeGguf, tinyGguf } from "./gguf-file.js";
import { concatenate } from "./helpers.js";

/** Of each format; 100,000 take about a minute: `ORIFLAMME_FUZZ=100000 npx vitest run test/formats/fuzz.test.ts`. */
const RUNS = Number(process.env.ORIFLAMME_FUZZ ?? 2000);

/** Bytes in memory, and what was asked for of them: every range must lie inside. */
function watched(name: string, bytes: Uint8Array): ByteSource {
  const source = bytesSource(name, bytes);
  const expectInside = (offset: number, length: number) => {
    expect(Number.isInteger(offset) && offset >= 0 && length >= 0, `${offset}, ${length}`).toBe(true);
    expect(offset + length).toBeLessThanOrEqual(bytes.length);
  };
  return {
    ...source,
    read(offset, length) {
      expectInside(offset, length);
      return source.read(offset, length);
    },
    readInto(offset, into) {
      expectInside(offset, into.length);
      return source.readInto(offset, into);
    },
  };
}

/** Whether the file was taken; where not, it must have been refused in one of the two ways that name the file. */
async function isTaken(name: string, open: () => Promise<void>): Promise<boolean> {
  try {
    await open();
    return true;
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof UnsupportedError)) throw error;
    expect(error.message).toContain(name);
    return false;
  }
}

/** Counts what became of the files of a run, and says so where it was a long one. */
async function fuzz(mutants: fc.Arbitrary<Uint8Array>, open: (source: ByteSource) => Promise<void>) {
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(mutants, async (bytes) => {
      if (await isTaken("m.file", () => open(watched("m.file", bytes)))) taken++;
    }),
    { numRuns: RUNS, seed: 20261124 },
  );
  if (process.env.ORIFLAMME_FUZZ) console.log(`${RUNS} files: ${taken} taken, ${RUNS - taken} refused`);
  // Mutations are harmless at times, in names and values, and not often.
  expect(taken).toBeGreaterThan(0);
  expect(taken).toBeLessThan(RUNS);
}

/** Numbers at which sums overflow, signs turn, or counts are off by one. */
const NUMBERS = [
  0n,
  1n,
  2n,
  3n,
  7n,
  8n,
  9n,
  12n,
  255n,
  65536n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
].concat([2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 61n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]);
const number = fc.oneof(fc.constantFrom(...NUMBERS), fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(0n, 64n));

type Mutation = (bytes: Uint8Array) => Uint8Array;

/** Changes that know nothing of a format, but where its numbers are. */
function mutations(marks: readonly Mark[]): fc.Arbitrary<Mutation> {
  // Uniform over the file: by themselves arbitraries prefer small numbers, which are all in the first bytes.
  const place = fc.noBias(fc.nat({ max: 2 ** 20 - 1 })).map((share) => share / 2 ** 20);
  const at = (bytes: Uint8Array, share: number) => Math.floor(share * bytes.length);
  const flip = fc.tuple(place, fc.integer({ min: 1, max: 255 })).map(
    ([share, bits]): Mutation =>
      (bytes) => {
        const changed = bytes.slice();
        const i = at(bytes, share);
        if (bytes.length > 0) changed[i] = (bytes[i] as number) ^ bits;
        return changed;
      },
  );
  const set = fc.tuple(fc.constantFrom(...marks), number).map(
    ([mark, value]): Mutation =>
      (bytes) => {
        const changed = bytes.slice();
        if (mark.at + mark.bytes > bytes.length) return changed;
        const view = new DataView(changed.buffer);
        if (mark.bytes === 8) view.setBigUint64(mark.at, value, true);
        else view.setUint32(mark.at, Number(value & 0xffff_ffffn), true);
        return changed;
      },
  );
  const cut = place.map(
    (share): Mutation =>
      (bytes) =>
        bytes.slice(0, at(bytes, share)),
  );
  const remove = fc.tuple(place, fc.integer({ min: 1, max: 40 })).map(
    ([share, count]): Mutation =>
      (bytes) => {
        const from = at(bytes, share);
        return Uint8Array.from([...bytes.subarray(0, from), ...bytes.subarray(from + count)]);
      },
  );
  const copy = fc.tuple(place, place, fc.integer({ min: 1, max: 80 })).map(
    ([from, to, count]): Mutation =>
      (bytes) => {
        const part = bytes.subarray(at(bytes, from), at(bytes, from) + count);
        const target = at(bytes, to);
        return Uint8Array.from([...bytes.subarray(0, target), ...part, ...bytes.subarray(target)]);
      },
  );
  return fc.oneof({ weight: 4, arbitrary: set }, { weight: 3, arbitrary: flip }, cut, remove, copy);
}

function mutated(bytes: Uint8Array, marks: readonly Mark[]): fc.Arbitrary<Uint8Array> {
  return fc
    .array(mutations(marks), { minLength: 1, maxLength: 3 })
    .map((changes) => changes.reduce((changed, change) => change(changed), bytes));
}

test("mutated GGUF files are taken or refused, and nothing outside them is read", async () => {
  const files = [tinyGguf, tinyBpeGguf].map(ggufFile).map(({ bytes, marks }) => mutated(bytes, marks));
  await fuzz(fc.oneof(...files), async (source) => {
    const model = await openGgufModel(source);
    const vocabulary = readGgufVocabulary(model.fields);
    if (vocabulary) (await ggufTokenizer(vocabulary, source.name)).encode("a ab é <x>");
    for (const name of weightShapes(model.config).keys()) {
      const weight = model.weight(name);
      for (const { first, rows, byteLength } of pieces(weight)) {
        expect(byteLength).toBeLessThanOrEqual(source.size);
        await weight.read(first, rows, new Uint8Array(byteLength));
      }
    }
  });
});

test("mutated safetensors files are taken or refused, and nothing outside them is read", async () => {
  const { bytes, entries } = await safetensorsFile();
  const changed = fc.oneof(mutated(bytes, [{ at: 0, bytes: 8 }]), mutatedHeader(entries));
  await fuzz(changed, async (source) => {
    const file = await openSafetensors(source);
    for (const [name, { dtype }] of file.tensors) {
      if (/^(F16|BF16|F32|F64)$/.test(dtype)) await file.read(name);
      else if (/^([IU]\d+|BOOL)$/.test(dtype)) await file.readIntegers(name);
      else if (bitsOf(dtype)) await file.readRaw(name);
    }
  });
});

type Entry = readonly [name: string, value: unknown];

async function safetensorsFile(): Promise<{ bytes: Uint8Array; entries: Entry[] }> {
  const tensors = new Map([
    ["a", { dtype: "F32" as const, shape: [2, 3], data: new Float32Array(6) }],
    ["b", { dtype: "F16" as const, shape: [4], data: new Float32Array(4) }],
    ["c", { dtype: "BF16" as const, shape: [2, 2], data: new Float32Array(4) }],
    ["d", { dtype: "I64" as const, shape: [1], data: [7] }],
  ]);
  const bytes = Uint8Array.from(await concatenate(writeSafetensors(tensors, { format: "pt" })));
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return { bytes, entries: Object.entries(header) };
}

/** Files whose headers are JSON, with the right length, and wrong in what they say. */
function mutatedHeader(entries: readonly Entry[]): fc.Arbitrary<Uint8Array> {
  const count = fc.oneof(
    number.map(Number),
    fc.constantFrom(-1, 0.5, 1e300, "1", null, [], {}),
    fc.integer({ min: 0, max: 80 }),
  );
  const counts = fc.oneof(fc.array(count, { maxLength: 6 }), count);
  const dtype = fc.constantFrom(
    "F32",
    "F16",
    "BF16",
    "F64",
    "I64",
    "I32",
    "U8",
    "BOOL",
    "F4",
    "F8_E4M3",
    "X",
    3,
  );
  const field = fc.oneof(
    counts.map((shape) => ({ shape })),
    counts.map((offsets) => ({ data_offsets: offsets })),
    dtype.map((type) => ({ dtype: type })),
    fc.constant({ shape: undefined }),
  );
  const which = fc.nat({ max: entries.length - 1 });
  const change = fc.oneof(
    fc.tuple(which, field).map(
      ([i, fields]) =>
        (list: readonly Entry[]) =>
          list.map(
            ([name, value], j): Entry => [name, i === j ? { ...(value as object), ...fields } : value],
          ),
    ),
    // A key twice, of another tensor or the same one.
    fc.tuple(which, which).map(([i, j]) => (list: readonly Entry[]) => [
      ...list,
      [list[i]?.[0] ?? "", list[j]?.[1]] as Entry,
    ]),
    fc.tuple(which, fc.jsonValue()).map(
      ([i, value]) =>
        (list: readonly Entry[]) =>
          list.map(([name, old], j): Entry => [name, i === j ? value : old]),
    ),
  );
  return fc
    .tuple(fc.array(change, { minLength: 1, maxLength: 2 }), fc.nat({ max: 100 }))
    .map(([changes, dataLength]) => {
      const list = changes.reduce((changed, apply) => apply(changed), entries);
      const fields = list.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
      const json = new TextEncoder().encode(`{${fields.join(",")}}`);
      const bytes = new Uint8Array(8 + json.length + dataLength);
      new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
      bytes.set(json, 8);
      return bytes;
    });
}
